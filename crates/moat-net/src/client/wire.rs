//! One client connection of HTTP/1.1, driven by whoever uses it.
//!
//! It has no task of its own: waiting for an answer sends the request and reads the answer's head, and
//! reading the answer's body goes on with both. Between requests nobody polls it; that the upstream
//! closed an unused connection is found out by one look when it is taken from the pool.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::connect::Stream;
use super::pool::Pools;
use super::{ClientError, ClientErrorKind, Endpoint, OnContinue};
use crate::h1::body::Piece;
use crate::h1::head::{self, Finder, ResponseHead};
use crate::h1::write::write_request;
use crate::h1::{Decoder, Encoder, Framing, Inbound, Outbound};
use crate::{Body, BoxError, Offer};

/// All of an answer's head. Stores tell metadata of some KiB at most.
const HEAD_BYTES_MAX: usize = 128 * 1024;
/// Frames of a request that are at hand are gathered up to this size, and written together.
const GATHER_BYTES: usize = 64 * 1024;

/// A connection.
pub(super) struct Wire {
    io: Box<dyn Stream>,
    inbound: Inbound,
    reused: bool,
    once: bool,
}

impl Wire {
    pub(super) fn new(io: Box<dyn Stream>) -> Self {
        Self {
            io,
            inbound: Inbound::default(),
            reused: false,
            once: false,
        }
    }

    /// Keeps the connection from being used for a second request.
    pub(super) const fn use_once(&mut self) {
        self.once = true;
    }

    /// Whether the next request can be sent, as far as one look at the socket tells: it is neither
    /// closed, nor has anything come that nobody asked for.
    pub(super) fn is_usable(&mut self) -> bool {
        // The task that takes the connection polls it again with its own waker.
        let cx = &mut Context::from_waker(Waker::noop());
        self.inbound.poll_fill(&mut *self.io, cx, 0).is_pending()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        request: Request<Body>,
        pools: &Arc<Pools>,
        endpoint: &Endpoint,
    ) -> Result<Response<Body>, ClientError> {
        let mut asking = Asking::begin(request);
        let answered = poll_fn(|cx| asking.poll(&mut self, cx)).await;
        let head = match answered {
            Ok(head) => head,
            Err(failure) => return Err(asking.error(failure, self.reused)),
        };
        let sending = asking.sending;
        if head.parts.status == StatusCode::SWITCHING_PROTOCOLS {
            let mut response = Response::from_parts(head.parts, Body::empty());
            let offer = Offer::new(self.io, self.inbound.buffer.freeze());
            response.extensions_mut().insert(offer);
            return Ok(response);
        }
        let lease = Lease {
            wire: self,
            keep: head.keep_alive,
            pools: Arc::clone(pools),
            endpoint: endpoint.clone(),
        };
        let body = lease.answer(head.framing, sending);
        Ok(Response::from_parts(head.parts, body))
    }
}

/// A request on its way, until the head of its answer has come.
struct Asking {
    /// What it was, to be given back if nothing of it could be sent.
    parts: request::Parts,
    whole: Option<Body>,
    /// Until it was sent to its end.
    sending: Option<Sending>,
    finder: Finder,
}

/// Why there is no answer.
enum Failure {
    /// The request's body failed.
    Body(BoxError),
    /// What came is no answer.
    BadAnswer(BoxError),
    /// The connection has ended.
    Closed(io::Error),
}

impl Asking {
    fn begin(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let framing = framing(&parts.headers, &body);
        let mut out = Outbound::default();
        write_request(out.text(), &parts, framing);
        Self {
            whole: body.try_clone(),
            sending: Some(Sending {
                encoder: Encoder::new(framing.unwrap_or(Framing::Length(0)), &parts.headers),
                out,
                body,
            }),
            parts,
            finder: Finder::default(),
        }
    }

    /// Sends what can be sent, and reads what has come, up to the answer's head.
    fn poll(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Failure>> {
        let mut broken = None;
        if let Some(sending) = &mut self.sending {
            match sending.poll(&mut *wire.io, cx) {
                Poll::Ready(Ok(())) => self.sending = None,
                Poll::Ready(Err(Failure::Closed(error))) => broken = Some(error),
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => {}
            }
        }
        // An upstream may answer and close before it has read all of the request.
        match self.poll_head(wire, cx) {
            Poll::Ready(Ok(head)) => Poll::Ready(Ok(head)),
            Poll::Ready(Err(Failure::Closed(error))) => {
                Poll::Ready(Err(Failure::Closed(broken.unwrap_or(error))))
            }
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
            Poll::Pending => match broken {
                Some(error) => Poll::Ready(Err(Failure::Closed(error))),
                None => Poll::Pending,
            },
        }
    }

    fn poll_head(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, Failure>> {
        let bad = |error: BoxError| Poll::Ready(Err(Failure::BadAnswer(error)));
        loop {
            match self.finder.take(&mut wire.inbound.buffer, HEAD_BYTES_MAX) {
                Ok(Some(bytes)) => match head::parse_response(&bytes, &self.parts.method) {
                    Ok(head) if self.is_interim(&head) => continue,
                    Ok(head) if head.parts.status.is_informational() && !self.may_switch() => {
                        return bad("101 for a request that did not ask for it".into());
                    }
                    Ok(head) => return Poll::Ready(Ok(head)),
                    Err(refusal) => return bad(refusal.into()),
                },
                Ok(None) => {}
                Err(refusal) => return bad(refusal.into()),
            }
            let filled = wire.inbound.poll_fill(&mut *wire.io, cx, 0);
            let begun = &wire.inbound.buffer;
            match filled {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) | Poll::Pending if head::is_hopeless_answer(begun) => {
                    return bad("its first line is not that of an answer".into());
                }
                Poll::Ready(Ok(0)) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(Failure::Closed(error)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Closed(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Whether another head follows; 101 is the last.
    fn is_interim(&self, head: &ResponseHead) -> bool {
        let status = head.parts.status;
        if status == StatusCode::CONTINUE
            && let Some(listener) = self.parts.extensions.get::<OnContinue>()
        {
            listener.call();
        }
        status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
    }

    fn may_switch(&self) -> bool {
        self.sending.is_none() && self.parts.headers.contains_key(UPGRADE)
    }

    fn error(mut self, failure: Failure, reused: bool) -> ClientError {
        let (kind, source) = match failure {
            Failure::Body(error) => (ClientErrorKind::RequestBody, error),
            Failure::BadAnswer(error) => (ClientErrorKind::BadAnswer, error),
            Failure::Closed(error) => {
                let unsent = self
                    .sending
                    .is_some_and(|sending| sending.out.written() == 0);
                let whole = self.whole.take().filter(|_| unsent);
                if let Some(body) = whole {
                    let error = ClientError::new(ClientErrorKind::NotSent, error);
                    let request = Request::from_parts(self.parts, body);
                    return error.on_reused(reused).returning(request);
                }
                (ClientErrorKind::Closed, error.into())
            }
        };
        ClientError::new(kind, source).on_reused(reused)
    }
}

/// How a request's body is framed; `None`: it has none.
fn framing(headers: &HeaderMap, body: &Body) -> Option<Framing> {
    let declared = headers.get(CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
    match declared.or_else(|| body.size_hint().exact()) {
        Some(0) => None,
        Some(length) => Some(Framing::Length(length)),
        None => Some(Framing::Chunked),
    }
}

/// What of a request is still to be sent.
struct Sending {
    out: Outbound,
    body: Body,
    encoder: Encoder,
}

impl Sending {
    /// Ready when all of it is sent.
    fn poll(&mut self, io: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let pending = self.gather(cx).map_err(Failure::Body)?;
            ready!(self.out.poll_write(io, cx)).map_err(Failure::Closed)?;
            if pending || self.encoder.has_ended() {
                ready!(Pin::new(&mut *io).poll_flush(cx)).map_err(Failure::Closed)?;
            }
            if self.encoder.has_ended() {
                return Poll::Ready(Ok(()));
            }
            if pending {
                return Poll::Pending;
            }
        }
    }

    /// Takes what is at hand of the body; `true` if more has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<bool, BoxError> {
        while !self.encoder.has_ended() && self.out.bytes() < GATHER_BYTES {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(frame)) => self.encoder.frame(frame?, &mut self.out)?,
                Poll::Ready(None) => self.encoder.end(&mut self.out)?,
                Poll::Pending => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// A connection on loan to an answer.
struct Lease {
    wire: Box<Wire>,
    /// Whether the upstream lets it be used again.
    keep: bool,
    pools: Arc<Pools>,
    endpoint: Endpoint,
}

impl Lease {
    /// The body of an answer. One that came with its head needs no connection.
    fn answer(mut self, framing: Framing, sending: Option<Sending>) -> Body {
        let buffer = &mut self.wire.inbound.buffer;
        if sending.is_none()
            && let Framing::Length(length) = framing
            && let Ok(length) = usize::try_from(length)
            && length <= buffer.len()
        {
            let body = buffer.split_to(length).freeze();
            self.give_back();
            return Body::full(body);
        }
        let decoder = Decoder::new(framing);
        if decoder.has_ended() {
            // Nobody may ever poll such a body, and the upstream wants no more of the request.
            return Body::empty();
        }
        Body::stream(AnswerBody {
            decoder,
            sending,
            lease: Some(self),
        })
    }

    /// The answer was read to its end, and the request sent.
    fn give_back(mut self) {
        if self.keep && !self.wire.once && self.wire.inbound.buffer.is_empty() {
            self.wire.inbound.rest();
            self.wire.reused = true;
            self.pools.put(&self.endpoint, self.wire);
        }
    }
}

/// The body of an answer. Holds the connection and gives it back at the end; dropped before, it
/// closes the connection, since its rest would stand in the way of the next answer.
struct AnswerBody {
    decoder: Decoder,
    /// Until the request was sent to its end.
    sending: Option<Sending>,
    lease: Option<Lease>,
}

impl AnswerBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BoxError>> {
        let Some(lease) = &mut self.lease else {
            return Poll::Ready(Ok(None));
        };
        let wire = &mut *lease.wire;
        if let Some(sending) = &mut self.sending {
            match sending.poll(&mut *wire.io, cx) {
                Poll::Ready(Ok(())) => self.sending = None,
                Poll::Ready(Err(Failure::Body(error))) => return Poll::Ready(Err(error)),
                // An upstream that has answered need not take the rest.
                Poll::Ready(Err(_)) => {
                    lease.keep = false;
                    self.sending = None;
                }
                Poll::Pending => {}
            }
        }
        loop {
            match self.decoder.take(&mut wire.inbound.buffer)? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Piece::Trailers(fields) => return Poll::Ready(Ok(Some(Frame::trailers(fields)))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::More => {}
            }
            let wanted = self.decoder.wanted();
            if ready!(wire.inbound.poll_fill(&mut *wire.io, cx, wanted))? == 0 {
                self.decoder.connection_ended()?;
            }
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
        let polled = ready!(this.poll_piece(cx));
        // Given back with the last frame, since many readers know that it is the last.
        if (polled.is_err() || this.decoder.has_ended())
            && let Some(lease) = this.lease.take()
            && polled.is_ok()
            && this.sending.is_none()
        {
            lease.give_back();
        }
        Poll::Ready(polled.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder.remaining() {
            Some(bytes) => SizeHint::with_exact(bytes),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    fn wire() -> (Wire, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4096);
        (Wire::new(Box::new(ours)), theirs)
    }

    fn request() -> Request<Body> {
        Request::get("/").body(Body::empty()).unwrap()
    }

    /// The upstream closes a kept connection between the look at it and the request.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_under_a_request_is_an_error_and_no_hang() {
        let pools = Arc::new(Pools::new(1, Duration::from_secs(60)));
        let endpoint = Endpoint::parse("http://127.0.0.1:1").unwrap();
        let (wire, mut upstream) = wire();
        let first = tokio::spawn({
            let (pools, endpoint) = (Arc::clone(&pools), endpoint.clone());
            async move {
                let answer = Box::new(wire).exchange(request(), &pools, &endpoint).await;
                drop(answer.unwrap());
            }
        });
        let mut head = [0; 1024];
        assert_ne!(upstream.read(&mut head).await.unwrap(), 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        upstream.write_all(answer).await.unwrap();
        first.await.unwrap();
        let kept = pools.take(&endpoint).expect("it can be used again");
        drop(upstream);
        let second = kept.exchange(request(), &pools, &endpoint);
        let error = tokio::time::timeout(Duration::from_secs(3600), second)
            .await
            .expect("the request is told")
            .unwrap_err();
        assert!(error.reused() && error.nothing_sent(), "{error}");
    }
}
