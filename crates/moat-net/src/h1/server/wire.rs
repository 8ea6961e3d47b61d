//! A connection between its two users: the task that serves it, and the body of the request that runs.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::body::{Fault, Piece};
use super::super::{Decoder, Framing, Inbound};
use crate::activity::Activity;
use crate::{Body, BoxError};

/// What may be left of a body that the service did not want, and be read and thrown away so that the
/// connection can be used again. Of more than that, a new connection costs less.
const REST_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of requests that a client sends before it has its answer.
const PIPELINE_BYTES_MAX: usize = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream to a client.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// What connection and request body share.
pub(super) struct Wire<T> {
    pub(super) io: T,
    pub(super) inbound: Inbound,
    /// Finds the body of the request that runs.
    pub(super) decoder: Decoder,
    /// Which request that is; bodies of earlier ones have no part in it.
    pub(super) request: u64,
    /// What is left to be sent before the client sends its body.
    interim: &'static [u8],
    pub(super) activity: Arc<Activity>,
}

pub(super) type SharedWire<T> = Arc<Mutex<Wire<T>>>;

pub(super) fn lock<T>(wire: &Mutex<Wire<T>>) -> MutexGuard<'_, Wire<T>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins a request's body. One that came with its head needs no stream.
pub(super) fn begin_body<T: Io>(
    wire: &SharedWire<T>,
    framing: Framing,
    expects_continue: bool,
) -> Body {
    let mut inner = lock(wire);
    inner.interim = b"";
    if let Framing::Length(length) = framing
        && let Ok(length) = usize::try_from(length)
        && length <= inner.inbound.buffer.len()
    {
        inner.decoder = Decoder::new(Framing::Length(0));
        return Body::full(inner.inbound.buffer.split_to(length).freeze());
    }
    inner.decoder = Decoder::new(framing);
    if expects_continue && inner.inbound.buffer.is_empty() {
        inner.interim = CONTINUE;
    }
    Body::stream(RequestBody {
        wire: Arc::clone(wire),
        request: inner.request,
        ended: false,
    })
}

impl<T: Io> Wire<T> {
    pub(super) fn shared(io: T, activity: Arc<Activity>) -> SharedWire<T> {
        Arc::new(Mutex::new(Self {
            io,
            inbound: Inbound::default(),
            decoder: Decoder::new(Framing::Length(0)),
            request: 0,
            interim: b"",
            activity,
        }))
    }

    /// Whether a `100 Continue` is on its way, and not all of it.
    pub(super) const fn is_interrupted(&self) -> bool {
        !self.interim.is_empty() && self.interim.len() < CONTINUE.len()
    }

    /// Ready when the client has gone away, which shows only after the request is read to its end.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while self.decoder.has_ended() && self.inbound.buffer.len() < PIPELINE_BYTES_MAX {
            match ready!(self.inbound.poll_fill(&mut self.io, cx, 0)) {
                Ok(1..) => {}
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// The next frame of the request that runs.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, BoxError>> {
        loop {
            let piece = self.decoder.take(&mut self.inbound.buffer);
            if self.decoder.has_ended() {
                self.activity.body_expected(false);
            }
            match piece? {
                Piece::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Piece::Trailers(fields) => return Poll::Ready(Ok(Some(Frame::trailers(fields)))),
                Piece::End => return Poll::Ready(Ok(None)),
                Piece::More => {}
            }
            ready!(self.poll_interim(cx))?;
            let wanted = self.decoder.wanted();
            if ready!(self.inbound.poll_fill(&mut self.io, cx, wanted))? == 0 {
                self.decoder.connection_ended()?;
            }
        }
    }

    /// Asks for the body, if the client waits for that.
    pub(super) fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.interim.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, self.interim))?;
            self.interim = &self.interim[written..];
        }
        // Whoever encrypts has it in a buffer at the latest now, and sends it with the next flush too.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Whether another request can follow: the body was read, or what is left of it is little.
    pub(super) fn can_be_read_to_its_end(&self) -> bool {
        if self.decoder.has_ended() {
            return true;
        }
        let asked = self.interim.is_empty();
        let little = |left| left <= REST_BYTES_MAX;
        asked
            && self
                .decoder
                .remaining()
                .map_or_else(|| self.is_here(), little)
    }

    /// Whether all of the body has come. It is not taken: the answer may still want it.
    fn is_here(&self) -> bool {
        let (mut decoder, mut read) = (self.decoder.clone(), self.inbound.buffer.clone());
        while let Ok(Piece::Data(_) | Piece::Trailers(_)) = decoder.take(&mut read) {}
        decoder.has_ended()
    }

    /// Reads what is left of a body.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.decoder.has_ended() {
            if let Err(fault) = ready!(self.poll_body(cx)) {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The body of a request that did not come whole with its head.
struct RequestBody<T> {
    wire: SharedWire<T>,
    request: u64,
    ended: bool,
}

impl<T: Io> RequestBody<T> {
    /// The connection, as long as this request is its.
    fn own(&self) -> Option<MutexGuard<'_, Wire<T>>> {
        let wire = lock(&self.wire);
        (wire.request == self.request).then_some(wire)
    }
}

impl<T: Io> HttpBody for RequestBody<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = match this.own() {
            Some(mut wire) => ready!(wire.poll_body(cx)),
            None => Err(Fault::Truncated.into()),
        };
        this.ended = !matches!(polled, Ok(Some(_)));
        Poll::Ready(polled.transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.own().is_none_or(|wire| wire.decoder.has_ended())
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = self.own().map(|wire| wire.decoder.remaining());
        match remaining {
            Some(Some(bytes)) => SizeHint::with_exact(bytes),
            Some(None) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}
