//! Bodies on their way through: counted, timed, and tied to what their end means.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use metrics::Counter;
use moat_net::access_log::{self, Access};
use moat_net::{Body, BoxError, IdleTimeoutBody, Peer};
use tokio::time::Instant;

use crate::expect::Gate;
use crate::proxy::Flight;

/// A client's body, which can be taken back as long as nothing of it was asked for.
///
/// A request may fail after its head was sent but before its body was: on a connection that the
/// upstream had closed meanwhile, or while it waits for `100 Continue`. No upstream can have acted
/// on such a request, so it may be sent again, if the body is still there.
#[derive(Clone)]
pub(crate) struct RequestBody(Arc<Mutex<Option<Incoming>>>);

impl RequestBody {
    pub(crate) fn new(body: Incoming) -> Self {
        Self(Arc::new(Mutex::new(Some(body))))
    }

    fn take(&self) -> Option<Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether nothing of the body was asked for yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// The body for one attempt.
    pub(crate) fn attempt(
        &self,
        hint: SizeHint,
        gate: Option<Gate>,
        idle: Duration,
        bytes: Counter,
    ) -> Body {
        Body::stream(Attempt {
            source: self.clone(),
            hint,
            gate,
            idle,
            bytes,
            running: None,
        })
    }
}

struct Attempt {
    source: RequestBody,
    /// Of the whole body; it must be known before the body is taken.
    hint: SizeHint,
    gate: Option<Gate>,
    idle: Duration,
    bytes: Counter,
    running: Option<IdleTimeoutBody<Incoming>>,
}

/// A second attempt reached for a body that the first had begun to send. That is prevented before,
/// by [`RequestBody::is_untouched`]; if it weren't, the request fails instead of being sent empty.
#[derive(Debug, thiserror::Error)]
#[error("the body was already sent to another endpoint")]
struct BodyTaken;

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Some(gate) = &mut this.gate {
            ready!(gate.poll_open(cx));
            this.gate = None;
        }
        let body = match &mut this.running {
            Some(body) => body,
            None => {
                let Some(body) = this.source.take() else {
                    return Poll::Ready(Some(Err(BodyTaken.into())));
                };
                this.running.insert(IdleTimeoutBody::new(body, this.idle))
            }
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.bytes.increment(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.running.as_ref().is_some_and(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.running {
            Some(body) => body.size_hint(),
            None => self.hint,
        }
    }
}

/// An upstream's answer on its way to the client. The request is over when this is dropped.
pub(crate) struct AnswerBody {
    body: IdleTimeoutBody<Body>,
    bytes: u64,
    bytes_metric: Counter,
    flight: Flight,
    line: Option<Box<Line>>,
}

/// What the access line says, kept until the answer has ended.
pub(crate) struct Line {
    pub(crate) peer: Arc<Peer>,
    pub(crate) request_id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) status: StatusCode,
    pub(crate) bytes_in: u64,
    pub(crate) began: Instant,
}

impl Line {
    pub(crate) fn log(&self, bytes_out: u64) {
        let access = Access {
            request_id: &self.request_id,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            status: self.status,
            bytes_in: self.bytes_in,
            bytes_out,
            duration: self.began.elapsed(),
        };
        access.log(&self.peer);
    }

    /// Nothing, if nobody reads access lines.
    pub(crate) fn if_enabled(make: impl FnOnce() -> Self) -> Option<Box<Self>> {
        access_log::enabled().then(|| Box::new(make()))
    }
}

impl AnswerBody {
    pub(crate) fn new(
        body: Body,
        idle: Duration,
        bytes_metric: Counter,
        flight: Flight,
        line: Option<Box<Line>>,
    ) -> Self {
        Self {
            body: IdleTimeoutBody::new(body, idle),
            bytes: 0,
            bytes_metric,
            flight,
            line,
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.bytes += bytes;
                this.bytes_metric.increment(bytes);
            }
            // The client can't be told any more: its connection is cut, so that it sees that the
            // body is not whole.
            Some(Err(_)) => this.flight.failed_in_body(),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.log(self.bytes);
        }
    }
}
