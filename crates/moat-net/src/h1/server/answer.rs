//! An answer on its way to the client.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_LENGTH;
use http::response;
use http_body::Body as _;

use super::super::head::has_no_body;
use super::super::write::{Announce, write_response};
use super::super::{Encoder, Framing, Outbound};
use super::wire::{Io, Wire, lock};
use crate::Body;

/// Frames of an answer that are at hand are gathered up to this size, and written together.
const GATHER_BYTES: usize = 64 * 1024;

/// What a request says of its answer's form.
#[derive(Clone, Copy)]
pub(super) struct Of {
    pub(super) head: bool,
    pub(super) http10: bool,
}

/// An answer on its way.
pub(super) struct Answer {
    body: Body,
    encoder: Encoder,
    out: Outbound,
}

impl Answer {
    /// With its head ready to be written. Also says whether the connection has to end with it.
    pub(super) fn new(parts: &response::Parts, body: Body, of: Of, close: bool) -> (Self, bool) {
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
        write_response(answer.out.text(), parts, &announce);
        (answer, announce.close)
    }

    /// Takes frames and writes them, until the last is written.
    pub(super) fn poll<T: Io>(
        &mut self,
        wire: &Mutex<Wire<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
        if wire.is_interrupted() {
            ready!(wire.poll_interim(cx))?;
        }
        ready!(self.out.poll_write(&mut wire.io, cx))?;
        Poll::Ready(Ok(()))
    }

    /// Writes all of it.
    pub(super) fn poll_write<T: Io>(
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
