//! The MinKMS front: what a MinIO server with `MINIO_KMS_SERVER` and the Go client speak.
//!
//! | method | path | command | body limit |
//! | --- | --- | --- | --- |
//! | POST | `/v1/kms`, `/v1/kms/`, `/v1/kms/E` | that of its frames, see [`commands`] | [`BODY_BYTES_MAX`] |
//! | GET | `/v1/health/metrics` | `METRICS:READ` (system) | 0 |
//! | POST | `/v1/debug/log` | `LOG:READ` (system) | 4 KiB |
//! | GET | `/v1/db` | `SYSTEM:BACKUP` (system): a backup, as `moat kms backup` takes it | 0 |
//!
//! `/version` and the health paths are answered by the native front, in a form that these clients
//! read. What the protocol has besides is answered 501 with the reason: profiles and restarts
//! belong to the tools of the operating system, and `/v1/rpc` is between nodes of the original.
//! `PUT /v1/db` would put another state under a server that serves, and under the other nodes of
//! its database: keys made since the backup would be gone with what they guard, while stores
//! still hold leases of them. A restore is `moat kms restore`, into a new place.
//!
//! Every answer has a `Content-Length` and is never compressed, because these clients fail on any
//! other. A body is read and checked whole before anything is done; what changes something is then
//! done to its end even if the caller goes away.

mod commands;
mod error;
mod frame;
mod logs;
mod proto;
mod reply;
mod request;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use moat_meta::MetaStore;
use moat_net::Body;
use moat_types::EnclaveName;
use percent_encoding::percent_decode_str;

use super::{Exchange, Front, REQUEST_ID};
use crate::core::Caller;
use crate::policy::Command;
use crate::rows::Scope;
use error::{NO_ENCLAVE, Refusal};
use proto::Writer;

/// The largest body: a batch of as many keys as one may ask for, each with a context of 1 KiB.
const BODY_BYTES_MAX: usize = 4 << 20;

/// The body of a request for a log stream: a level, a text, a time.
const LOG_REQUEST_BYTES_MAX: usize = 4 << 10;

/// Answers a request on a path of MinKMS.
pub(crate) async fn answer<M: MetaStore>(
    front: &Arc<Front<M>>,
    exchange: Exchange<'_>,
    body: Body,
) -> Response<Body> {
    let request_id = exchange.request_id;
    let mut response = match handle(front, exchange, body).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(request_id),
    };
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn handle<M: MetaStore>(
    front: &Arc<Front<M>>,
    exchange: Exchange<'_>,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let route = Route::parse(exchange.head.uri.path())?;
    route.check_method(&exchange.head.method)?;
    let caller = exchange.caller().ok_or_else(|| {
        let what = "show a client certificate or use an API key";
        Refusal::new(StatusCode::UNAUTHORIZED, what)
    })?;
    match route {
        Route::Commands(scope) => {
            let read = (front.bodies).read(&caller.identity, body, BODY_BYTES_MAX);
            let body = read.await?;
            *exchange.bytes_in = body.len() as u64;
            run_commands(front, caller, scope, body).await.map(respond)
        }
        Route::Logs => {
            let read = (front.bodies).read(&caller.identity, body, LOG_REQUEST_BYTES_MAX);
            let body = read.await?;
            *exchange.bytes_in = body.len() as u64;
            let wanted = logs::Wanted::parse(&body)?;
            let (scope, command) = (Scope::System, Command::LogRead);
            let permit = front.core.permit(&caller, &scope, command, "log");
            permit.await?;
            Ok(wanted.stream(&front.core))
        }
        Route::Metrics => {
            front.core.check_metrics(&caller).await?;
            Ok(moat_net::metrics::response())
        }
        Route::Database => {
            let (file, _) = front.core.backup(&caller).await?;
            Ok(respond_with(file))
        }
        Route::Absent(why) => Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, why)),
    }
}

async fn run_commands<M: MetaStore>(
    front: &Arc<Front<M>>,
    caller: Caller,
    scope: Scope,
    body: Bytes,
) -> Result<Writer, Refusal> {
    if !commands::command_of_body(&body).is_some_and(Command::changes) {
        return commands::run(front, &caller, &scope, &body).await;
    }
    // In a task of its own, so that a caller who goes away does not leave a change half recorded.
    let front = Arc::clone(front);
    let request_id = caller.request_id.clone();
    let run = async move { commands::run(&front, &caller, &scope, &body).await };
    tokio::spawn(run).await.unwrap_or_else(|e| {
        tracing::error!(%request_id, error = %e, "a request ended early");
        let what = "the request ended early";
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, what))
    })
}

/// An answer with a message. Nothing here may be kept by anyone: answers hold keys.
fn respond(message: Writer) -> Response<Body> {
    respond_with(message.into_bytes())
}

fn respond_with(message: impl Into<Bytes>) -> Response<Body> {
    let message = message.into();
    // Said explicitly, because over HTTP/2 an empty body would go without it.
    let length = HeaderValue::from(message.len());
    let mut response = Response::new(Body::full(message));
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, length);
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a path names.
#[derive(PartialEq, Eq, Debug)]
enum Route {
    /// Commands on an enclave, or on the system.
    Commands(Scope),
    Metrics,
    Logs,
    /// The state as a whole.
    Database,
    /// What the protocol knows and this server does not, and why.
    Absent(&'static str),
}

impl Route {
    fn parse(path: &str) -> Result<Self, Refusal> {
        Ok(match path {
            // Go's client joins an empty enclave to the path without the slash.
            "/v1/kms" | "/v1/kms/" => Self::Commands(Scope::System),
            "/v1/health/metrics" => Self::Metrics,
            "/v1/debug/log" => Self::Logs,
            "/v1/db" => Self::Database,
            "/v1/debug/pprof" => Self::Absent("this server has no profiler built in: use perf"),
            "/v1/debug/restart" => {
                Self::Absent("this server does not restart itself: use its service manager")
            }
            _ if path.starts_with("/v1/rpc/") => {
                Self::Absent("nodes of this server share a database and do not call each other")
            }
            _ => {
                let enclave = path.strip_prefix("/v1/kms/").ok_or_else(|| {
                    Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path")
                })?;
                // A name that no enclave can have is one that does not exist.
                let enclave = percent_decode_str(enclave).decode_utf8();
                let enclave = enclave.map_err(|_| NO_ENCLAVE)?;
                let enclave = EnclaveName::parse(&enclave).map_err(|_| NO_ENCLAVE)?;
                Self::Commands(Scope::Enclave(enclave))
            }
        })
    }

    fn check_method(&self, method: &Method) -> Result<(), Refusal> {
        if *self == Self::Database && *method == Method::PUT {
            let why = "a server that serves is not overwritten: use `moat kms restore`, into a new folder";
            return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, why));
        }
        let expected = match self {
            Self::Commands(_) | Self::Logs => Method::POST,
            Self::Metrics | Self::Database => Method::GET,
            Self::Absent(_) => return Ok(()),
        };
        if *method == expected {
            return Ok(());
        }
        Err(Refusal::method(if expected == Method::GET {
            "GET"
        } else {
            "POST"
        }))
    }
}

/// Reads a body as frames with messages of every kind, and as a path; see `crate::fuzzing`.
pub(crate) fn fuzz(input: &[u8]) {
    if let Ok(path) = std::str::from_utf8(input) {
        let _ = Route::parse(path);
    }
    let Ok(frames) = frame::parse(input) else {
        return;
    };
    let mut again = Writer::default();
    for one in &frames {
        request::fuzz(one.message);
        frame::push(&mut again, one.code, |out| out.raw(one.message));
    }
    assert_eq!(
        again.into_bytes(),
        input,
        "frames are all that a body holds"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_an_enclave_or_the_system() {
        let lake = Scope::Enclave(EnclaveName::parse("lake").unwrap());
        for (path, scope) in [
            ("/v1/kms", Scope::System),
            ("/v1/kms/", Scope::System),
            ("/v1/kms/lake", lake.clone()),
            ("/v1/kms/l%61ke", lake),
        ] {
            assert_eq!(
                Route::parse(path).unwrap(),
                Route::Commands(scope),
                "{path}"
            );
        }
        for path in ["/v1/kms/lake/", "/v1/kms/a%2Fb", "/v1/kms/%ff", "/v1/kms//"] {
            let refusal = Route::parse(path).unwrap_err();
            assert_eq!(refusal.message(), NO_ENCLAVE.1, "{path}");
        }
        let refusal = Route::parse("/v1/debug/x").unwrap_err();
        assert_eq!(refusal.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn answers_carry_their_length_and_are_kept_by_nobody() {
        let response = respond(Writer::default());
        assert_eq!(response.headers()[CONTENT_LENGTH], "0");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let mut out = Writer::default();
        out.bytes(1, "abc");
        assert_eq!(respond(out).headers()[CONTENT_LENGTH], "5");
    }
}
