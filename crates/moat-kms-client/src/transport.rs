//! Getting a request answered by one of several key managers.
//!
//! The endpoint that answered last is asked first. One that could not be reached rests for
//! [`REST`] and is asked only when no other is left. A request goes to the next endpoint if
//! nothing of it was sent, or if it may be repeated; never otherwise.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use moat_net::{Body, ClientErrorKind, Endpoint, HttpClient};
use tokio::time::Instant;

use crate::error::Error;
use crate::problem::{Code, Problem};

/// Covers name lookup, TCP and TLS of one endpoint: beyond it the next one is asked.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// For one endpoint to answer: an operation takes a millisecond, a slow sync some seconds.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an endpoint that could not be reached is asked last.
pub const REST: Duration = Duration::from_secs(10);
/// The largest answer: a page of a listing is some hundred KiB, a backup of half a million keys
/// 256 MiB.
const ANSWER_BYTES_MAX: usize = (256 << 20) + (1 << 20);

/// Whether a request may be sent again after it may have been carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    /// A second time changes nothing.
    Safe,
    /// A second time could fail where the first one succeeded.
    Never,
}

pub(crate) struct Transport {
    http: HttpClient,
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    /// Until when each endpoint rests.
    resting: Mutex<Vec<Option<Instant>>>,
}

impl Transport {
    pub(crate) fn new(http: HttpClient, endpoints: Vec<Endpoint>) -> Self {
        Self {
            http,
            preferred: AtomicUsize::new(0),
            resting: Mutex::new(vec![None; endpoints.len()]),
            endpoints,
        }
    }

    /// The body of a good answer.
    pub(crate) async fn call(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
        repeat: Repeat,
    ) -> Result<Bytes, Error> {
        let mut last = None;
        for index in self.order() {
            match self.ask(index, method, path, body, repeat).await {
                Ok(answer) => {
                    self.mark(index, true);
                    return answer;
                }
                Err((error, go_on)) => {
                    self.mark(index, false);
                    if !go_on {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or(Error::Unreachable {
            reason: "no endpoint is configured".into(),
        }))
    }

    /// Asks one endpoint. Fails, and says whether another may be asked, if it gave no answer or
    /// said that it can't answer now.
    async fn ask(
        &self,
        index: usize,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
        repeat: Repeat,
    ) -> Result<Result<Bytes, Error>, (Error, bool)> {
        let endpoint = &self.endpoints[index];
        let mut fresh_try = true;
        loop {
            let request = match build(method, path, body) {
                Ok(request) => request,
                Err(e) => return Ok(Err(e)),
            };
            let error = match self.http.send(endpoint, request).await {
                Ok(answer) => {
                    let answer = read_answer(endpoint, answer).await;
                    return match answer {
                        Err(e) if e.is_unavailable() => Err((e, repeat == Repeat::Safe)),
                        answer => Ok(answer),
                    };
                }
                Err(error) => error,
            };
            let closed_for_idleness = error.kind() == ClientErrorKind::Closed && error.reused();
            if closed_for_idleness && repeat == Repeat::Safe && fresh_try {
                // The server closed the kept connection in the moment in which we used it.
                fresh_try = false;
                continue;
            }
            let go_on = error.nothing_sent() || repeat == Repeat::Safe;
            let reason = format!("{endpoint}: {error}");
            return Err((Error::Unreachable { reason }, go_on));
        }
    }

    /// The endpoints in the order in which they are to be asked.
    fn order(&self) -> Vec<usize> {
        let count = self.endpoints.len();
        let preferred = self.preferred.load(Ordering::Relaxed);
        let now = Instant::now();
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut order: Vec<usize> = (0..count).map(|step| (preferred + step) % count).collect();
        order.sort_by_key(|index| resting[*index].is_some_and(|until| until > now));
        order
    }

    fn mark(&self, index: usize, good: bool) {
        if good {
            self.preferred.store(index, Ordering::Relaxed);
        }
        let until = (!good).then(|| Instant::now() + REST);
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)[index] = until;
    }
}

fn build(method: &Method, path: &str, body: Option<&Bytes>) -> Result<Request<Body>, Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json");
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map_or_else(Body::empty, |body| Body::full(body.clone()));
    request.body(body).map_err(|e| Error::Answer {
        reason: e.to_string(),
    })
}

async fn read_answer(endpoint: &Endpoint, answer: http::Response<Body>) -> Result<Bytes, Error> {
    let (head, body) = answer.into_parts();
    let read = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let body = match tokio::time::timeout(RESPONSE_TIMEOUT, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) => {
            let reason = format!("{endpoint}: the answer broke off: {e}");
            return Err(Error::Unreachable { reason });
        }
        Err(_) => {
            let reason = format!("{endpoint}: the answer did not end in time");
            return Err(Error::Unreachable { reason });
        }
    };
    if head.status.is_success() {
        return Ok(body);
    }
    Err(refusal(endpoint, head.status, &body))
}

fn refusal(endpoint: &Endpoint, status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Error::Refused {
            status: status.as_u16(),
            code: Code::parse(&problem.code),
            detail: problem.detail,
            request_id: problem.request_id,
        },
        // Something between us and the key manager answered.
        Err(_) if status.is_server_error() => Error::Unreachable {
            reason: format!("{endpoint}: status {status}"),
        },
        Err(_) => Error::Answer {
            reason: format!("{endpoint}: status {status} without a problem document"),
        },
    }
}
