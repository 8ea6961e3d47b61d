//! The native front: REST and JSON over TLS, callers known by their client certificate.
//!
//! Identities and policies live in an enclave, or (for SysAdmins and system-wide rights) above
//! all of them: then the paths lack `/enclaves/E`. Requests and answers are the types of
//! [`moat_kms_client::wire`]; what goes wrong is an RFC 9457 problem with a stable code. Commands
//! are those of policies; a listing shows what its caller's policy allows for each item.
//!
//! What there is stands in the table of [`operations`], from which the OpenAPI document at
//! `/v1/openapi.json` is made. A batch is decided item by item; one that names a key that does not
//! exist is a success with a problem in that place.
//!
//! A body has [`BODY_TIMEOUT`](crate::BODY_TIMEOUT) to arrive. Everything else waits only for the metadata engine and
//! the audit's disk. What was begun is finished even if the caller goes away.

mod access;
mod answer;
mod bulk;
mod convert;
mod handlers;
mod openapi;
mod operations;
mod route;
mod system;

use http::{Response, StatusCode};
use moat_kms_client::Code;
use moat_meta::MetaStore;
use moat_net::Body;

use crate::wires::body::BodyError;
use crate::wires::{Exchange, Front};
use answer::Refusal;
use operations::Verb;
use route::Route;

/// Answers a request on a path of this front, or on one that no front knows.
pub(crate) async fn answer<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Body,
) -> Response<Body> {
    let request_id = exchange.request_id;
    answer::respond(respond(front, exchange, body).await, request_id)
}

async fn respond<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Body,
) -> Result<Response<Body>, Refusal> {
    let head = exchange.head;
    let route = Route::parse(head.uri.path());
    if let Ok(open @ (Route::Version | Route::OpenApi | Route::Live | Route::Ready)) = &route {
        open.operation(&head.method)?;
        let query = head.uri.query().unwrap_or_default();
        return answer_anyone(front, open, query).await;
    }
    // Before anything is said about the path: strangers learn nothing of what there is.
    let caller = exchange.caller().ok_or_else(|| {
        Refusal::new(
            Code::Unauthenticated,
            "show a client certificate or use an API key",
        )
    })?;
    let route = route?;
    let operation = route.operation(&head.method)?;
    let read = (front.bodies).read(&caller.identity, body, operation.body_bytes_max);
    let body = (read.await).map_err(|e| bad_body(e, operation.body_bytes_max))?;
    *exchange.bytes_in = body.len() as u64;
    let call = handlers::Call {
        caller,
        verb: operation.method,
        route,
        query: head.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    if operation.method == Verb::Get || call.route.is_release() {
        return handlers::handle(&front.core, call).await;
    }
    // In a task of its own, so that a caller who goes away does not leave a change half
    // recorded.
    let core = front.core.clone();
    let handled = tokio::spawn(async move { handlers::handle(&core, call).await });
    handled.await.unwrap_or_else(|e| {
        tracing::error!(request_id = exchange.request_id, error = %e, "a request ended early");
        Err(Refusal::new(Code::Internal, "the request ended early"))
    })
}

/// What anyone may ask for, without a client certificate.
async fn answer_anyone<M: MetaStore>(
    front: &Front<M>,
    route: &Route,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    match route {
        Route::Version => answer::json(&moat_kms_client::wire::Version {
            version: front.info.version.clone(),
            commit: front.info.commit.clone(),
            api_version: "v1".into(),
            host: front.info.host.clone(),
        }),
        Route::OpenApi => Ok(answer::json_text(openapi::document())),
        Route::Ready => {
            let write = query
                .split('&')
                .any(|part| part == "write" || part == "write=true");
            match write {
                true => front.core.check_ready_to_write().await?,
                false => front.core.check_ready().await?,
            }
            Ok(answer::empty(StatusCode::OK))
        }
        _ => Ok(answer::empty(StatusCode::OK)),
    }
}

fn bad_body(error: BodyError, bytes_max: usize) -> Refusal {
    match error {
        BodyError::TooLarge => {
            let detail = format!("the body may have at most {bytes_max} bytes here");
            Refusal::new(Code::TooLarge, detail)
        }
        BodyError::Busy => {
            let detail = "too many bytes of requests of this identity are under way";
            Refusal::new(Code::RateLimited, detail)
        }
        BodyError::Broken => Refusal::new(Code::BadRequest, "the body broke off"),
        BodyError::Timeout => Refusal::new(Code::Timeout, "the body did not come in time"),
    }
}

/// Parses path and query as a request's; see `crate::fuzzing`.
pub(crate) fn fuzz_target(text: &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let _ = Route::parse(path);
    let _ = route::Query::parse(query);
}
