//! Bodies on their way through: counted, timed, and tied to what their end means.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use moat_net::{Body, BoxError, IdleTimeoutBody};
use tokio::time::Instant;

use crate::backend::Backend;
use crate::config::REPLAY_BYTES_MAX;
use crate::expect::Gate;
use crate::proxy::{Flight, State};
use crate::record::Record;
use crate::watch::Watch;

/// A client's body, which can be sent from its beginning again as long as nobody got all of it.
///
/// An upstream can't have acted on a request whose body it did not get whole. So after a failure the
/// request may be sent to another one, if what was sent is still there: always before anything was
/// asked for, and while all that was is in the bounded buffer.
#[derive(Clone)]
pub(crate) struct RequestBody(Arc<Mutex<Shared>>);

struct Shared {
    /// `None`: all of it was kept from the beginning.
    source: Option<IdleTimeoutBody<Body>>,
    hint: SizeHint,
    /// What was taken from the source; `None` if that became too much.
    kept: Option<Vec<Bytes>>,
    /// Bytes that were taken from the source.
    taken: u64,
    /// Whether the end, or what may be the end, was handed out.
    ended: bool,
    moved: Instant,
}

impl RequestBody {
    pub(crate) fn new(body: Body, idle: Duration) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            hint: body.size_hint(),
            source: Some(IdleTimeoutBody::new(body, idle)),
            kept: Some(Vec::new()),
            taken: 0,
            ended: false,
            moved: Instant::now(),
        })))
    }

    /// The body of a request that has one.
    pub(crate) fn if_any(body: Body, state: &State) -> Option<Self> {
        let has_body = !body.is_end_stream();
        has_body.then(|| Self::new(body, state.config.body_idle_timeout))
    }

    /// A body that is at hand.
    pub(crate) fn of_bytes(bytes: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            hint: SizeHint::with_exact(bytes.len() as u64),
            source: None,
            taken: bytes.len() as u64,
            kept: Some(vec![bytes]),
            ended: false,
            moved: Instant::now(),
        })))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody can have got all of it, and all of it can be sent once more.
    pub(crate) fn can_begin_anew(&self) -> bool {
        let shared = self.shared();
        shared.kept.is_some() && !shared.ended
    }

    /// When a byte of it last moved on.
    pub(crate) fn moved(&self) -> Instant {
        self.shared().moved
    }

    /// The body for one attempt, from its beginning.
    pub(crate) fn attempt(&self, gate: Option<Gate>, backend: &Arc<Backend>) -> Body {
        Body::stream(Attempt {
            source: self.clone(),
            gate,
            backend: Arc::clone(backend),
            frames: 0,
            bytes: 0,
        })
    }
}

struct Attempt {
    source: RequestBody,
    gate: Option<Gate>,
    backend: Arc<Backend>,
    /// Frames handed out by this attempt.
    frames: usize,
    bytes: u64,
}

/// A second attempt reached for a body whose beginning is gone. That is prevented before, by
/// [`RequestBody::can_begin_anew`]; if it weren't, the request fails instead of being sent in part.
#[derive(Debug, thiserror::Error)]
#[error("the body was already sent to another endpoint")]
struct BodyTaken;

impl Shared {
    fn poll_next(
        &mut self,
        given: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &self.kept {
            Some(kept) => {
                if let Some(bytes) = kept.get(given) {
                    self.ended |= self.source.is_none();
                    self.moved = Instant::now();
                    return Poll::Ready(Some(Ok(Frame::data(bytes.clone()))));
                }
            }
            // More than the buffer holds was taken, so whoever begins has missed it.
            None if given == 0 => return Poll::Ready(Some(Err(BodyTaken.into()))),
            None => {}
        }
        let Some(source) = &mut self.source else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *source).poll_frame(cx));
        let source_ended = source.is_end_stream();
        self.moved = Instant::now();
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => self.keep(data),
                // Trailers are the end.
                None => self.ended = true,
            },
            Some(Err(_)) => {}
            None => self.ended = true,
        }
        // HTTP/2 may announce the end apart from the last byte, but whoever was told the length has
        // the whole body with that byte.
        let all_taken = self.hint.exact().is_some_and(|length| self.taken >= length);
        self.ended |= all_taken || source_ended;
        Poll::Ready(frame)
    }

    fn keep(&mut self, data: &Bytes) {
        self.taken += data.len() as u64;
        if self.taken > REPLAY_BYTES_MAX {
            self.kept = None;
        } else if let Some(kept) = &mut self.kept {
            kept.push(data.clone());
        }
    }
}

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
        let frame = ready!(this.source.shared().poll_next(this.frames, cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.frames += 1;
            this.bytes += data.len() as u64;
            this.backend.meters.sent(data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.source.shared();
        let all_given = shared
            .kept
            .as_ref()
            .is_none_or(|kept| kept.len() == self.frames);
        shared.ended && all_given
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.source.shared().hint;
        match hint.exact() {
            Some(bytes) => SizeHint::with_exact(bytes.saturating_sub(self.bytes)),
            None => SizeHint::default(),
        }
    }
}

/// An upstream's answer on its way to the client. The request is over when this is dropped.
pub(crate) struct AnswerBody {
    body: Body,
    watch: Watch,
    bytes: u64,
    ended: bool,
    flight: Flight,
    record: Option<Box<Record>>,
}

/// The answer's body stood still for too long, or its endpoint is gone.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint sent nothing of its answer for {} s", .0.as_secs())]
struct AnswerStalled(Duration);

impl AnswerBody {
    pub(crate) fn new(
        body: Body,
        watch: Watch,
        flight: Flight,
        record: Option<Box<Record>>,
    ) -> Self {
        Self {
            ended: body.is_end_stream(),
            body,
            watch,
            bytes: 0,
            flight,
            record,
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
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.watch.moved();
                frame
            }
            Poll::Pending => {
                let waited = ready!(this.watch.poll(cx));
                Some(Err(AnswerStalled(waited).into()))
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.bytes += data.len() as u64;
                    this.flight.backend.meters.received(data.len() as u64);
                    if let Some(record) = &mut this.record {
                        record.body_of_answer(data);
                    }
                }
                this.ended = this.body.is_end_stream();
            }
            // The client can't be told any more: its connection is cut, so that it sees that the
            // body is not whole. Says nothing about the next request, so it ejects nobody.
            Some(Err(_)) => this.flight.backend.meters.failed(),
            None => this.ended = true,
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
        if let Some(record) = self.record.take() {
            record.write(self.bytes, self.ended);
        }
    }
}
