//! The KES front: what a MinIO server with `MINIO_KMS_KES_*`, and every other KES client, speaks.
//!
//! KES knows one namespace of keys, and its clients name none. A client works in the enclave that
//! its identity is of; one that is of no enclave (a SysAdmin) works in the default enclave of the
//! front ([`crate::KmsServer::with_kes_enclave`]). A client that sends `Kes-Enclave` works in the one
//! it names, if it may. Rights are those of the enclave's policies, which can be written as KES
//! writes them ([`crate::PathPolicy`]).
//!
//! What differs from KES itself, and why:
//!
//! - A ciphertext names its key version, so a key can be rotated under its name; ciphertexts that
//!   KES made open as well, where the key was imported.
//! - Every request goes to the audit, and the audit stream delivers each line as it is written.
//! - `GET /v1/key/list/p*` lists what begins with `p` instead of nothing, and `continue_at` goes
//!   on behind the last name of a page instead of with a longer prefix.
//! - `GET /v1/identity/self/describe` answers every known identity.
//! - A client certificate may be a CA's: openssl makes such by default, and only its key counts.
//! - Metrics and the error log tell of the whole server, so the right to them is the system's.
//!
//! Paths, methods and limits stand in [`api`], texts that clients compare in [`answer`].

mod admin;
mod answer;
mod api;
mod keys;
mod message;
mod server;
mod stream;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use metrics::{Counter, Gauge, Histogram};
use moat_meta::MetaStore;
use moat_net::Body;
use moat_types::EnclaveName;

use super::body::BodyError;
use super::{Exchange, Front, ServerInfo};
use crate::core::{Caller, Core};
use crate::rows::Scope;
use answer::{Answer, Refusal, text};
use api::{Action, Route};

/// What the front knows beside the core.
pub(crate) struct KesFront {
    /// Where identities work that are of no enclave.
    pub(crate) default_enclave: EnclaveName,
    started: Instant,
    meters: OnceLock<Meters>,
}

impl KesFront {
    pub(crate) fn new(default_enclave: EnclaveName) -> Self {
        Self {
            default_enclave,
            started: Instant::now(),
            meters: OnceLock::new(),
        }
    }
}

/// The header by which clients of KES's enterprise edition name an enclave.
const ENCLAVE_HEADER: &str = "kes-enclave";
/// Bodies of requests that should have none: `{}` and the like is let pass, as KES does.
const IGNORED_BODY: usize = 4 << 10;

/// Answers a request on a path of KES.
pub(crate) async fn answer<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Body,
) -> Response<Body> {
    let started = Instant::now();
    let request_id = exchange.request_id;
    let Some(route) = Route::parse(exchange.head.uri.path()) else {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, "404 page not found");
        return answer::respond(Err(refusal), request_id);
    };
    let counted = !route.api.action.is_probe();
    let active = counted.then(|| Active::begin(front.kes.meters.get_or_init(Meters::new)));
    let result = respond(front, exchange, route, body).await;
    let response = answer::respond(result, request_id);
    if let Some(active) = active {
        active.end(response.status(), started.elapsed());
    }
    response
}

async fn respond<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    route: Route,
    body: Body,
) -> Answer {
    let head = exchange.head;
    route.check_method(&head.method)?;
    let caller = exchange
        .caller()
        .ok_or_else(|| Refusal::bad_request(text::NO_CERTIFICATE))?;
    let bytes_max = route.api.body_bytes_max.max(IGNORED_BODY);
    let read = front.bodies.read(&caller.identity, body, bytes_max);
    let body = read.await.map_err(bad_body)?;
    *exchange.bytes_in = body.len() as u64;
    let (enclave, place) = place_of(front, &caller, &head.headers).await?;
    let action = route.api.action;
    let call = Call {
        core: Arc::clone(&front.core),
        caller,
        enclave,
        place,
        argument: route.argument,
        body,
    };
    if action.is_change() {
        // In a task of its own, so that a caller who goes away does not leave a change half
        // recorded.
        let handled = tokio::spawn(async move { call.change(action).await });
        return handled.await.unwrap_or_else(|e| {
            tracing::error!(request_id = exchange.request_id, error = %e, "a request ended early");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Refusal::new(status, "the request ended early"))
        });
    }
    call.answer(action, &front.kes, &front.info).await
}

/// One request whose caller and place are known.
struct Call<M> {
    core: Arc<Core<M>>,
    caller: Caller,
    enclave: EnclaveName,
    place: Place,
    argument: String,
    body: Bytes,
}

impl<M: MetaStore> Call<M> {
    async fn change(&self, action: Action) -> Answer {
        match action {
            Action::CreateKey => self.create_key().await,
            Action::ImportKey => self.import_key().await,
            Action::DeleteKey => self.delete_key().await,
            _ => unreachable!("Action::is_change names these and no others"),
        }
    }

    async fn answer(&self, action: Action, kes: &KesFront, info: &ServerInfo) -> Answer {
        match action {
            Action::Generate => self.generate().await,
            Action::Encrypt => self.encrypt().await,
            Action::Decrypt => self.decrypt().await,
            Action::Hmac => self.hmac().await,
            Action::DescribeKey => self.describe_key().await,
            Action::ListKeys => self.list_keys().await,
            Action::DescribePolicy => self.describe_policy().await,
            Action::ReadPolicy => self.read_policy().await,
            Action::ListPolicies => self.list_policies().await,
            Action::DescribeSelf => self.describe_self().await,
            Action::DescribeIdentity => self.describe_identity().await,
            Action::ListIdentities => self.list_identities().await,
            Action::Version | Action::Ready => self.ready().await,
            Action::Status => self.status(kes.started, info).await,
            Action::Metrics => self.metrics(kes.started).await,
            Action::Apis => self.apis().await,
            Action::ErrorLog => self.error_log().await,
            Action::AuditLog => self.audit_log().await,
            _ => unreachable!("Action::is_change names the others"),
        }
    }
}

/// How the enclave of a request was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// The client named it.
    Named,
    /// The identity is of it.
    Home,
    /// The identity is of none.
    Default,
}

/// The enclave that a request works in; whether it may is the core's decision.
async fn place_of<M: MetaStore>(
    front: &Front<M>,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<(EnclaveName, Place), Refusal> {
    if let Some(named) = headers.get(ENCLAVE_HEADER).filter(|h| !h.is_empty()) {
        let named = named.to_str().ok().and_then(|n| EnclaveName::parse(n).ok());
        let named =
            named.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, text::ENCLAVE_NOT_FOUND))?;
        return Ok((named, Place::Named));
    }
    Ok(match front.core.home(&caller.identity).await? {
        Some(Scope::Enclave(home)) => (home, Place::Home),
        Some(Scope::System) | None => (front.kes.default_enclave.clone(), Place::Default),
    })
}

fn bad_body(error: BodyError) -> Refusal {
    match error {
        BodyError::TooLarge => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request body too large")
        }
        BodyError::Busy => {
            let message = "too many bytes of requests of this identity are under way";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, message)
        }
        BodyError::Broken => Refusal::bad_request("the request body broke off"),
        BodyError::Timeout => {
            let message = "the request body did not come in time";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
        }
    }
}

/// KES's own request metrics. Looked up by their names once: four times a request took 2,000
/// instructions.
struct Meters {
    active: Gauge,
    success: Counter,
    error: Counter,
    failure: Counter,
    seconds: Histogram,
}

impl Meters {
    fn new() -> Self {
        Self {
            active: metrics::gauge!("kes_http_request_active"),
            success: metrics::counter!("kes_http_request_success"),
            error: metrics::counter!("kes_http_request_error"),
            failure: metrics::counter!("kes_http_request_failure"),
            seconds: metrics::histogram!("kes_http_response_time"),
        }
    }
}

/// A request in these metrics.
struct Active<'a>(&'a Meters);

impl<'a> Active<'a> {
    fn begin(meters: &'a Meters) -> Self {
        meters.active.increment(1);
        Self(meters)
    }

    fn end(self, status: StatusCode, took: Duration) {
        // Without the code: KES's own client reads one series of each name and no more.
        let ended = match status.as_u16() {
            ..400 => &self.0.success,
            400..500 => &self.0.error,
            500.. => &self.0.failure,
        };
        ended.increment(1);
        self.0.seconds.record(took.as_secs_f64());
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.decrement(1);
    }
}

/// Reads a path and a body of any kind; see `crate::fuzzing`.
pub(crate) fn fuzz(path: &str, body: &[u8]) {
    if let Some(route) = Route::parse(path) {
        assert!(path.len() >= route.argument.len());
        let _ = message::parse_name(&route.argument);
        let _ = message::parse_new_name(&route.argument);
        let _ = message::parse_identity(&route.argument);
        if let Ok(from) = message::ListFrom::parse(&route.argument)
            && !from.from.is_empty()
        {
            let again = message::ListFrom::parse(&from.continue_at(Some(from.from.clone())));
            assert_eq!(again.ok().as_ref(), Some(&from));
        }
    }
    let _ = message::parse::<message::Import>(body);
    let _ = message::parse::<message::Generate>(body);
    let _ = message::parse::<message::Encrypt>(body);
    let _ = message::parse::<message::Decrypt>(body);
    let _ = message::parse::<message::Hmac>(body);
}
