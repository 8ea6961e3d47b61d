//! The server's end of a connection: one request after the other.
//!
//! All of it is one task. A request's body reads the socket when it is polled, whoever does that; the
//! answer is written by the connection, with the head and all of the body that is at hand in one
//! piece. While the service works, the connection looks out for a client that goes away.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{Method, Request, Response, StatusCode, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::{Fault, Piece};
use super::head::{Announce, Finder, Refusal, RequestHead, has_no_body, parse_request};
use super::{Decoder, Encoder, Framing, Inbound, Outbound, head};
use crate::activity::{Activity, Running};
use crate::connection::Shared;
use crate::tunnel::Tunnel;
use crate::{Body, BoxError, Offer, Peer, Service};

/// What may be left of a body that the service did not want, and be read and thrown away so that the
/// connection can be used again. Of more than that, a new connection costs less.
const REST_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of requests that a client sends before it has its answer.
const PIPELINE_BYTES_MAX: usize = 64 * 1024;
/// Frames of an answer that are at hand are gathered up to this size, and written together.
const GATHER_BYTES: usize = 64 * 1024;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A stream to a client.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// What connection and request body share.
struct Wire<T> {
    io: T,
    inbound: Inbound,
    /// Finds the body of the request that runs.
    decoder: Decoder,
    /// Which request that is; bodies of earlier ones have no part in it.
    request: u64,
    /// What is left to be sent before the client sends its body.
    interim: &'static [u8],
    activity: Arc<Activity>,
}

type SharedWire<T> = Arc<Mutex<Wire<T>>>;

fn lock<T>(wire: &Mutex<Wire<T>>) -> MutexGuard<'_, Wire<T>> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves requests until the connection ends, and closes it. `Some`: it carries another protocol
/// from here.
pub(crate) async fn serve<S: Service, T: Io>(
    shared: &Shared<S>,
    io: T,
    peer: Peer,
    activity: Arc<Activity>,
) -> Option<(Tunnel, T, Bytes)> {
    let peer = Arc::new(peer);
    let wire = Arc::new(Mutex::new(Wire {
        io,
        inbound: Inbound::default(),
        decoder: Decoder::new(Framing::Length(0)),
        request: 0,
        interim: b"",
        activity: Arc::clone(&activity),
    }));
    loop {
        let head = match read_head(&wire, shared, &activity).await {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(Ended::Refused(refusal)) => {
                let _ = refuse(&wire, refusal).await;
                break;
            }
            Err(Ended::Io(error)) => {
                tracing::debug!(%error, "connection ended");
                return None;
            }
        };
        // Boxed, since a connection that waits for its next request would hold it too.
        match Box::pin(exchange(shared, &wire, &peer, head, &activity)).await {
            Ok(After::Next) => {}
            Ok(After::Close) => break,
            Ok(After::Tunnel(tunnel)) => {
                let wire = Arc::into_inner(wire)?;
                let wire = wire.into_inner().unwrap_or_else(PoisonError::into_inner);
                return Some((*tunnel, wire.io, wire.inbound.buffer.freeze()));
            }
            Err(error) => {
                tracing::debug!(%error, "connection ended");
                return None;
            }
        }
    }
    let _ = poll_fn(|cx| Pin::new(&mut lock(&wire).io).poll_shutdown(cx)).await;
    None
}

/// Why there is no next head.
enum Ended {
    Refused(Refusal),
    Io(io::Error),
}

/// The next request's head; `None` when the client has closed, or is to be sent away.
async fn read_head<S, T: Io>(
    wire: &Mutex<Wire<T>>,
    shared: &Shared<S>,
    activity: &Activity,
) -> Result<Option<RequestHead>, Ended> {
    let limits = &shared.limits;
    let mut finder = Finder::default();
    let head = poll_fn(|cx| {
        let wire = &mut *lock(wire);
        loop {
            let buffer = &mut wire.inbound.buffer;
            match finder.take(buffer, limits.header_bytes_max) {
                Ok(Some(head)) => return Poll::Ready(Ok(Some(head))),
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(Ended::Refused(refusal))),
            }
            wire.inbound.rest();
            let waits = wire.inbound.buffer.is_empty();
            match wire.inbound.poll_fill(&mut wire.io, cx, 0) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) if waits => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(0)) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(Ended::Io(error)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Io(error))),
                Poll::Pending if waits && activity.is_closing() => return Poll::Ready(Ok(None)),
                Poll::Pending if head::is_hopeless_request(&wire.inbound.buffer) => {
                    return Poll::Ready(Err(Ended::Refused(Refusal::Malformed)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await?;
    let parsed = head.map(|head| parse_request(&head, limits.headers_max));
    parsed.transpose().map_err(Ended::Refused)
}

/// Answers a head that is none.
async fn refuse<T: Io>(wire: &Mutex<Wire<T>>, refusal: Refusal) -> io::Result<()> {
    // Whatever the client is sending is read for a moment, so that the answer arrives.
    lock(wire).activity.body_expected(true);
    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = refusal.status();
    write_head(wire, &parts, true).await
}

/// Writes an answer without a body.
async fn write_head<T: Io>(
    wire: &Mutex<Wire<T>>,
    parts: &response::Parts,
    close: bool,
) -> io::Result<()> {
    let of = Of {
        head: false,
        http10: false,
    };
    let (mut answer, _) = Answer::new(parts, Body::empty(), of, close);
    poll_fn(|cx| answer.poll_write(&mut lock(wire), cx)).await
}

/// What becomes of a connection after an answer.
enum After {
    Next,
    Close,
    Tunnel(Box<Tunnel>),
}

/// One request from its head to the end of its answer.
async fn exchange<S: Service, T: Io>(
    shared: &Shared<S>,
    wire: &SharedWire<T>,
    peer: &Arc<Peer>,
    head: RequestHead,
    activity: &Arc<Activity>,
) -> io::Result<After> {
    let RequestHead {
        parts,
        framing,
        keep_alive,
        expects_continue,
    } = head;
    let of = Of {
        head: parts.method == Method::HEAD,
        http10: parts.version == http::Version::HTTP_10,
    };
    let body = begin_body(wire, framing, expects_continue);
    let running = Running::begin(activity, !lock(wire).decoder.has_ended());
    let mut response = {
        let mut call = pin!(shared.service.call(peer, Request::from_parts(parts, body)));
        let answered = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(response) => Poll::Ready(Ok(response)),
            Poll::Pending => lock(wire).poll_left(cx).map(Err),
        });
        answered.await?
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let offer = response.extensions_mut().remove::<Offer>();
        if let Some(tunnel) = offer.and_then(|offer| offer.take()) {
            let (parts, _) = response.into_parts();
            write_head(wire, &parts, false).await?;
            drop(running);
            return Ok(After::Tunnel(Box::new(tunnel)));
        }
        tracing::error!("a service answers 101 where there is nothing to switch");
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let (parts, body) = response.into_parts();
    let reusable = keep_alive
        && !activity.is_closing()
        && !says_close(&parts)
        && lock(wire).can_be_read_to_its_end();
    let (mut answer, closes) = Answer::new(&parts, body, of, !reusable);
    poll_fn(|cx| answer.poll(wire, cx)).await?;
    drop(answer);
    drop(running);
    if closes || activity.is_closing() {
        return Ok(After::Close);
    }
    lock(wire).request += 1;
    poll_fn(|cx| lock(wire).poll_discard(cx)).await?;
    Ok(After::Next)
}

/// Begins a request's body. One that came with its head needs no stream.
fn begin_body<T: Io>(wire: &SharedWire<T>, framing: Framing, expects_continue: bool) -> Body {
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

fn says_close(parts: &response::Parts) -> bool {
    let fields = parts.headers.get_all(CONNECTION).into_iter();
    fields
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

impl<T: Io> Wire<T> {
    /// Ready when the client has gone away, which shows only after the request is read to its end.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
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
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
    fn can_be_read_to_its_end(&self) -> bool {
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
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

/// What a request says of its answer's form.
#[derive(Clone, Copy)]
struct Of {
    head: bool,
    http10: bool,
}

/// An answer on its way.
struct Answer {
    body: Body,
    encoder: Encoder,
    out: Outbound,
}

impl Answer {
    /// With its head ready to be written. Also says whether the connection has to end with it.
    fn new(parts: &response::Parts, body: Body, of: Of, close: bool) -> (Self, bool) {
        let declared = parts.headers.get(CONTENT_LENGTH);
        let declared = declared.and_then(|length| length.to_str().ok()?.parse().ok());
        let exact = declared.or_else(|| body.size_hint().exact());
        let framing = match exact {
            Some(length) => Framing::Length(length),
            None if of.http10 => Framing::UntilClose,
            None => Framing::Chunked,
        };
        let none = of.head || has_no_body(parts.status);
        let announce = Announce {
            // Of what HEAD would have got, only a length is told.
            framing: match framing {
                Framing::Length(0) | Framing::Chunked if of.head => Framing::UntilClose,
                framing => framing,
            },
            close: close || (framing == Framing::UntilClose && !none),
            http10: of.http10,
        };
        let sent = if none { Framing::Length(0) } else { framing };
        let mut answer = Self {
            encoder: Encoder::new(sent, &parts.headers),
            body: if none { Body::empty() } else { body },
            out: Outbound::default(),
        };
        head::write_response(answer.out.text(), parts, &announce);
        (answer, announce.close)
    }

    /// Takes frames and writes them, until the last is written.
    fn poll<T: Io>(&mut self, wire: &Mutex<Wire<T>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // Not under the lock: the body may be that of the request.
            let pending = self.gather(cx)?;
            let wire = &mut *lock(wire);
            if self.encoder.has_ended() || pending {
                ready!(self.poll_write(wire, cx))?;
            } else {
                ready!(self.poll_push(wire, cx))?;
            }
            if self.encoder.has_ended() {
                return Poll::Ready(Ok(()));
            }
            if pending {
                return wire.poll_left(cx).map(Err);
            }
        }
    }

    /// Takes what is at hand; `true` if more has to be waited for.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.encoder.has_ended() && self.out.bytes() < GATHER_BYTES {
            let outcome = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.encoder.frame(frame, &mut self.out),
                Poll::Ready(Some(Err(error))) => Err(error),
                Poll::Ready(None) => self.encoder.end(&mut self.out).map_err(Into::into),
                Poll::Pending => return Ok(true),
            };
            if let Err(error) = outcome {
                tracing::warn!(%error, "response cut");
                return Err(io::Error::other(error));
            }
        }
        Ok(false)
    }

    /// Writes what was gathered, and leaves some of it to a writer that encrypts.
    fn poll_push<T: Io>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        wire.activity.answer_waits(true);
        // What is left of a `100 Continue` that was begun comes before.
        if wire.interim.len() < CONTINUE.len() {
            ready!(wire.poll_interim(cx))?;
        }
        ready!(self.out.poll_write(&mut wire.io, cx))?;
        Poll::Ready(Ok(()))
    }

    /// Writes all of it.
    fn poll_write<T: Io>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_push(wire, cx))?;
        ready!(Pin::new(&mut wire.io).poll_flush(cx))?;
        wire.activity.answer_waits(false);
        Poll::Ready(Ok(()))
    }
}
