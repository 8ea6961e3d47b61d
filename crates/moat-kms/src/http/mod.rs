//! The native front: REST and JSON over TLS, callers known by their client certificate.
//!
//! Identities and policies live in an enclave, or (for SysAdmins and system-wide rights) above
//! all of them: then the paths lack `/enclaves/E`. Requests and answers are the types of
//! [`moat_kms_client::wire`]; what goes wrong is an RFC 9457 problem with a stable code. Commands
//! are those of policies; a listing shows what its caller's policy allows for each item.
//!
//! | method | path | command | body limit | handler |
//! | --- | --- | --- | --- | --- |
//! | GET | `/version` | none, no certificate | 0 | [`Core`]-free |
//! | GET | `/v1/health/live` | none, no certificate | 0 | [`Core`]-free |
//! | GET | `/v1/health/ready` | none, no certificate | 0 | [`Core::check_ready`] |
//! | GET | `/metrics` | `METRICS:READ` (system) | 0 | [`Core::check_metrics`] |
//! | GET | `/v1/audit?limit&key&identity&operation&enclave` | `AUDIT:READ` (system) | 0 | [`Core::audit_tail`] |
//! | POST | `/v1/enclaves` | `ENCLAVE:CREATE` (system) | 64 KiB | [`Core::create_enclave`] |
//! | GET | `/v1/enclaves?prefix&from&limit` | `ENCLAVE:LIST` (system) | 0 | [`Core::list_enclaves`] |
//! | GET | `/v1/enclaves/E` | `ENCLAVE:STATUS` (system) | 0 | [`Core::enclave_info`] |
//! | POST | `/v1/enclaves/E/keys` | `KEY:CREATE` | 64 KiB | [`Core::create_key`] |
//! | GET | `/v1/enclaves/E/keys?prefix&from&limit` | `KEY:LIST` | 0 | [`Core::list_keys`] |
//! | GET | `/v1/enclaves/E/keys/K` | `KEY:STATUS` | 0 | [`Core::key_info`] |
//! | GET | `/v1/enclaves/E/keys/K/versions` | `KEY:LISTVERSIONS` | 0 | [`Core::key_versions`] |
//! | POST | `/v1/enclaves/E/keys/K/versions` | `KEY:CREATE` | 64 KiB | [`Core::rotate_key`] |
//! | POST | `/v1/enclaves/E/keys/K/enable` | `KEY:ENABLE` | 64 KiB | [`Core::enable_key`] |
//! | POST | `/v1/enclaves/E/keys/K/disable` | `KEY:DISABLE` | 64 KiB | [`Core::disable_key`] |
//! | POST | `/v1/enclaves/E/keys/K/generate` | `KEY:GENERATE` | 64 KiB | [`Core::generate_data_key`] |
//! | POST | `/v1/enclaves/E/keys/K/encrypt` | `KEY:ENCRYPT` | 256 KiB | [`Core::encrypt`] |
//! | POST | `/v1/enclaves/E/keys/K/decrypt` | `KEY:DECRYPT` | 256 KiB | [`Core::decrypt`] |
//! | POST | `/v1/enclaves/E/keys/K/epochs/generate` | `EPOCH:GENERATE` | 64 KiB | [`Core::generate_epoch`] |
//! | POST | `/v1/enclaves/E/keys/K/epochs/open` | `EPOCH:OPEN` | 64 KiB | [`Core::open_epoch`] |
//! | POST | `/v1[/enclaves/E]/identities` | `IDENTITY:CREATE` | 64 KiB | [`Core::create_identity`] |
//! | GET | `/v1[/enclaves/E]/identities?prefix&from&limit` | `IDENTITY:LIST` | 0 | [`Core::list_identities`] |
//! | GET | `/v1[/enclaves/E]/identities/I` | `IDENTITY:STATUS` | 0 | [`Core::identity_info`] |
//! | PUT | `/v1[/enclaves/E]/identities/I/policy` | `POLICY:ASSIGN` | 64 KiB | [`Core::assign_policy`] |
//! | GET | `/v1[/enclaves/E]/policies?prefix&from&limit` | `POLICY:LIST` | 0 | [`Core::list_policies`] |
//! | GET | `/v1[/enclaves/E]/policies/P` | `POLICY:GET` | 0 | [`Core::policy_info`] |
//! | PUT | `/v1[/enclaves/E]/policies/P` | `POLICY:CREATE` | 1 MiB | [`Core::set_policy`] |
//!
//! A body has [`BODY_TIMEOUT`] to arrive. Everything else waits only for the metadata engine and
//! the audit's disk. What was begun is finished even if the caller goes away.

mod answer;
mod convert;
mod handlers;
mod route;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use moat_kms_client::{Code, Identity};
use moat_meta::MetaStore;
use moat_net::access_log::{self, Access};
use moat_net::{Body, Peer, Service};
use moat_types::Random;

use crate::core::{Caller, Core};
use answer::Refusal;
use route::Route;

/// A request fits into one packet or two; a client that takes longer is stuck.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// The release.
    pub version: String,
    /// The commit that it was built from; may be empty.
    pub commit: String,
    /// The address under which clients reach this node.
    pub host: String,
}

/// The native front as a service of a listener.
pub struct KmsServer<M> {
    inner: Arc<Inner<M>>,
}

struct Inner<M> {
    core: Arc<Core<M>>,
    info: ServerInfo,
    random: Arc<dyn Random>,
}

impl<M: MetaStore> KmsServer<M> {
    /// A front of `core`. Its listener must ask for client certificates
    /// ([`moat_net::tls::ClientAuth::Requested`]).
    pub fn new(core: Arc<Core<M>>, info: ServerInfo, random: Arc<dyn Random>) -> Self {
        Self {
            inner: Arc::new(Inner { core, info, random }),
        }
    }
}

impl<M: MetaStore> Service for KmsServer<M> {
    async fn call(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let request_id = moat_net::request_id(&*self.inner.random);
        let (head, body) = request.into_parts();
        let mut bytes_in = 0;
        let result = self
            .answer(peer, &head, body, &request_id, &mut bytes_in)
            .await;
        let response = answer::respond(result, &request_id);
        if access_log::enabled() {
            let access = Access {
                request_id: &request_id,
                method: &head.method,
                path: head.uri.path(),
                query: head.uri.query(),
                status: response.status(),
                bytes_in,
                bytes_out: http_body_size(&response),
                duration: started.elapsed(),
            };
            access.log(peer);
        }
        response
    }
}

impl<M: MetaStore> KmsServer<M> {
    async fn answer(
        &self,
        peer: &Peer,
        head: &http::request::Parts,
        body: Incoming,
        request_id: &str,
        bytes_in: &mut u64,
    ) -> Result<Response<Body>, Refusal> {
        if let Some(open) = open_route(head.uri.path()) {
            return self.answer_anyone(open, &head.method).await;
        }
        let key = peer.client_key.as_ref();
        let key = key.ok_or_else(|| {
            Refusal::new(
                Code::Unauthenticated,
                "show a client certificate or use an API key",
            )
        })?;
        let route = Route::parse(head.uri.path())?;
        route.check_method(&head.method)?;
        let body = read_body(body, route.body_bytes_max(&head.method)).await?;
        *bytes_in = body.len() as u64;
        let call = handlers::Call {
            caller: Caller {
                identity: Identity::from_spki_sha256(key.spki_sha256),
                source: peer.addr.to_string(),
                request_id: request_id.to_owned(),
            },
            method: head.method.clone(),
            route,
            query: head.uri.query().unwrap_or_default().to_owned(),
            body,
        };
        if head.method == Method::GET {
            return handlers::handle(&self.inner.core, call).await;
        }
        // In a task of its own, so that a caller who goes away does not leave a change half
        // recorded.
        let core = self.inner.core.clone();
        let handled = tokio::spawn(async move { handlers::handle(&core, call).await });
        handled.await.unwrap_or_else(|e| {
            tracing::error!(request_id, error = %e, "a request ended early");
            Err(Refusal::new(Code::Internal, "the request ended early"))
        })
    }

    async fn answer_anyone(
        &self,
        route: OpenRoute,
        method: &Method,
    ) -> Result<Response<Body>, Refusal> {
        if method != Method::GET {
            return Err(route::method_not_allowed("GET"));
        }
        match route {
            OpenRoute::Version => answer::json(&moat_kms_client::wire::Version {
                version: self.inner.info.version.clone(),
                commit: self.inner.info.commit.clone(),
                api_version: "v1".into(),
                host: self.inner.info.host.clone(),
            }),
            OpenRoute::Live => Ok(answer::empty(StatusCode::OK)),
            OpenRoute::Ready => {
                self.inner.core.check_ready().await?;
                Ok(answer::empty(StatusCode::OK))
            }
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

async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let detail = format!("the body may have at most {bytes_max} bytes here");
        Refusal::new(Code::TooLarge, detail)
    };
    if http_body::Body::size_hint(&body).lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let read = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(Code::BadRequest, "the body broke off")),
        Err(_) => Err(Refusal::new(Code::Timeout, "the body did not come in time")),
    }
}

fn http_body_size(response: &Response<Body>) -> u64 {
    http_body::Body::size_hint(response.body()).lower()
}

/// Parses path and query as a request's; see `crate::fuzzing`.
pub(crate) fn fuzz_target(text: &str) {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let _ = Route::parse(path);
    let _ = route::Query::parse(query);
}
