//! The server's end of a connection: one request after the other.
//!
//! All of it is one task. A request's body reads the socket when it is polled, whoever does that; the
//! answer is written by the connection, with the head and all of the body that is at hand in one
//! piece. While the service works, the connection looks out for a client that goes away.

mod answer;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{Method, Request, Response, StatusCode, response};

use self::answer::{Answer, Of};
pub(crate) use self::wire::Io;
use self::wire::{SharedWire, Wire, begin_body, lock};
use super::head::{self, Finder, Refusal, RequestHead, parse_request};
use crate::activity::{Activity, Running};
use crate::connection::Shared;
use crate::tunnel::Tunnel;
use crate::{Body, Offer, Peer, Service};

/// Serves requests until the connection ends, and closes it. `Some`: it carries another protocol
/// from here.
pub(crate) async fn serve<S: Service, T: Io>(
    shared: &Shared<S>,
    io: T,
    peer: Peer,
    activity: Arc<Activity>,
) -> Option<(Tunnel, T, Bytes)> {
    let peer = Arc::new(peer);
    let wire = Wire::shared(io, Arc::clone(&activity));
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

fn says_close(parts: &response::Parts) -> bool {
    let fields = parts.headers.get_all(CONNECTION).into_iter();
    fields
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}
