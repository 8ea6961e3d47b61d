//! The native front: REST and JSON over TLS, callers known by their client certificate.
//!
//! Identities and policies live in an enclave, or (for SysAdmins and system-wide rights) above
//! all of them: then the paths lack `/enclaves/E`. Requests and answers are the types of
//! [`moat_kms_client::wire`]; what goes wrong is an RFC 9457 problem with a stable code. Commands
//! are those of policies; a listing shows what its caller's policy allows for each item.
//!
//! | method | path | command | body limit | handler |
//! | --- | --- | --- | --- | --- |
//! | GET | `/version` | none, no certificate | 0 | [`Front`] |
//! | GET | `/v1/health/live` | none, no certificate | 0 | [`Front`] |
//! | GET | `/v1/health/ready` | none, no certificate | 0 | [`crate::Core::check_ready`] |
//! | GET | `/metrics` | `METRICS:READ` (system) | 0 | [`crate::Core::check_metrics`] |
//! | GET | `/v1/audit?limit&key&identity&operation&enclave` | `AUDIT:READ` (system) | 0 | [`crate::Core::audit_tail`] |
//! | POST | `/v1/enclaves` | `ENCLAVE:CREATE` (system) | 64 KiB | [`crate::Core::create_enclave`] |
//! | GET | `/v1/enclaves?prefix&from&limit` | `ENCLAVE:LIST` (system) | 0 | [`crate::Core::list_enclaves`] |
//! | GET | `/v1/enclaves/E` | `ENCLAVE:STATUS` (system) | 0 | [`crate::Core::enclave_info`] |
//! | POST | `/v1/enclaves/E/keys` | `KEY:CREATE` | 64 KiB | [`crate::Core::create_key`] |
//! | GET | `/v1/enclaves/E/keys?prefix&from&limit` | `KEY:LIST` | 0 | [`crate::Core::list_keys`] |
//! | GET | `/v1/enclaves/E/keys/K` | `KEY:STATUS` | 0 | [`crate::Core::key_info`] |
//! | GET | `/v1/enclaves/E/keys/K/versions` | `KEY:LISTVERSIONS` | 0 | [`crate::Core::key_versions`] |
//! | POST | `/v1/enclaves/E/keys/K/versions` | `KEY:CREATE` | 64 KiB | [`crate::Core::rotate_key`] |
//! | POST | `/v1/enclaves/E/keys/K/enable` | `KEY:ENABLE` | 64 KiB | [`crate::Core::enable_key`] |
//! | POST | `/v1/enclaves/E/keys/K/disable` | `KEY:DISABLE` | 64 KiB | [`crate::Core::disable_key`] |
//! | POST | `/v1/enclaves/E/keys/K/generate` | `KEY:GENERATE` | 64 KiB | [`crate::Core::generate_data_key`] |
//! | POST | `/v1/enclaves/E/keys/K/encrypt` | `KEY:ENCRYPT` | 256 KiB | [`crate::Core::encrypt`] |
//! | POST | `/v1/enclaves/E/keys/K/decrypt` | `KEY:DECRYPT` | 256 KiB | [`crate::Core::decrypt`] |
//! | POST | `/v1/enclaves/E/keys/K/epochs/generate` | `EPOCH:GENERATE` | 64 KiB | [`crate::Core::generate_epoch`] |
//! | POST | `/v1/enclaves/E/keys/K/epochs/open` | `EPOCH:OPEN` | 64 KiB | [`crate::Core::open_epoch`] |
//! | POST | `/v1[/enclaves/E]/identities` | `IDENTITY:CREATE` | 64 KiB | [`crate::Core::create_identity`] |
//! | GET | `/v1[/enclaves/E]/identities?prefix&from&limit` | `IDENTITY:LIST` | 0 | [`crate::Core::list_identities`] |
//! | GET | `/v1[/enclaves/E]/identities/I` | `IDENTITY:STATUS` | 0 | [`crate::Core::identity_info`] |
//! | PUT | `/v1[/enclaves/E]/identities/I/policy` | `POLICY:ASSIGN` | 64 KiB | [`crate::Core::assign_policy`] |
//! | GET | `/v1[/enclaves/E]/policies?prefix&from&limit` | `POLICY:LIST` | 0 | [`crate::Core::list_policies`] |
//! | GET | `/v1[/enclaves/E]/policies/P` | `POLICY:GET` | 0 | [`crate::Core::policy_info`] |
//! | PUT | `/v1[/enclaves/E]/policies/P` | `POLICY:CREATE` | 1 MiB | [`crate::Core::set_policy`] |
//!
//! A body has [`body::BODY_TIMEOUT`] to arrive. Everything else waits only for the metadata engine and
//! the audit's disk. What was begun is finished even if the caller goes away.

mod answer;
mod convert;
mod handlers;
mod route;

use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use moat_kms_client::Code;
use moat_meta::MetaStore;
use moat_net::Body;

use crate::wires::body::{self, BodyError};
use crate::wires::{Exchange, Front};
use answer::Refusal;
use route::Route;

/// Answers a request on a path of this front, or on one that no front knows.
pub(crate) async fn answer<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Incoming,
) -> Response<Body> {
    let request_id = exchange.request_id;
    answer::respond(respond(front, exchange, body).await, request_id)
}

async fn respond<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let head = exchange.head;
    if let Some(open) = open_route(head.uri.path()) {
        return answer_anyone(front, open, &head.method).await;
    }
    let caller = exchange.caller().ok_or_else(|| {
        Refusal::new(
            Code::Unauthenticated,
            "show a client certificate or use an API key",
        )
    })?;
    let route = Route::parse(head.uri.path())?;
    route.check_method(&head.method)?;
    let body = read_body(body, route.body_bytes_max(&head.method)).await?;
    *exchange.bytes_in = body.len() as u64;
    let call = handlers::Call {
        caller,
        method: head.method.clone(),
        route,
        query: head.uri.query().unwrap_or_default().to_owned(),
        body,
    };
    if head.method == Method::GET {
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

async fn answer_anyone<M: MetaStore>(
    front: &Front<M>,
    route: OpenRoute,
    method: &Method,
) -> Result<Response<Body>, Refusal> {
    if method != Method::GET {
        return Err(route::method_not_allowed("GET"));
    }
    match route {
        OpenRoute::Version => answer::json(&moat_kms_client::wire::Version {
            version: front.info.version.clone(),
            commit: front.info.commit.clone(),
            api_version: "v1".into(),
            host: front.info.host.clone(),
        }),
        OpenRoute::Live => Ok(answer::empty(StatusCode::OK)),
        OpenRoute::Ready => {
            front.core.check_ready().await?;
            Ok(answer::empty(StatusCode::OK))
        }
    }
}

/// What anyone may ask for.
#[derive(Clone, Copy)]
enum OpenRoute {
    Version,
    Live,
    Ready,
}

fn open_route(path: &str) -> Option<OpenRoute> {
    match path {
        "/version" => Some(OpenRoute::Version),
        "/v1/health/live" => Some(OpenRoute::Live),
        "/v1/health/ready" => Some(OpenRoute::Ready),
        _ => None,
    }
}

async fn read_body(body: Incoming, bytes_max: usize) -> Result<bytes::Bytes, Refusal> {
    body::read(body, bytes_max).await.map_err(|e| match e {
        BodyError::TooLarge => {
            let detail = format!("the body may have at most {bytes_max} bytes here");
            Refusal::new(Code::TooLarge, detail)
        }
        BodyError::Broken => Refusal::new(Code::BadRequest, "the body broke off"),
        BodyError::Timeout => Refusal::new(Code::Timeout, "the body did not come in time"),
    })
}

/// Parses path and query as a request's; see `crate::fuzzing`.
pub(crate) fn fuzz_target(text: &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let _ = Route::parse(path);
    let _ = route::Query::parse(query);
}
