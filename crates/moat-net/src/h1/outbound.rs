//! Bytes on their way to a peer.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::AsyncWrite;

/// Frames up to this size are copied behind the head or the chunk before them: a copy of so few bytes
/// costs less than another entry in a list, and under TLS than another record.
const COPIED_BYTES_MAX: usize = 8 * 1024;
/// How many pieces the kernel is given at once.
const SLICES_MAX: usize = 16;

/// A queue of heads, chunk sizes and body bytes.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    pieces: VecDeque<Bytes>,
    /// What comes behind them all.
    text: Vec<u8>,
    /// How much the writer has taken.
    written: u64,
}

impl Outbound {
    /// The end of the queue, for what is made up of small parts.
    pub(crate) const fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Puts bytes at the end.
    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED_BYTES_MAX {
            return self.text.extend_from_slice(&data);
        }
        self.end_text();
        self.pieces.push_back(data);
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.text).into());
        }
    }

    /// How much was written, since the beginning.
    pub(crate) const fn written(&self) -> u64 {
        self.written
    }

    /// How much is waiting.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.text.len()
    }

    /// Writes all of it; what a writer that encrypts may still hold is left to a flush.
    pub(crate) fn poll_write<W: AsyncWrite + Unpin + ?Sized>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.pieces.is_empty() {
            // The usual case: a small answer, in one piece that nobody else holds.
            let mut written = 0;
            while written < self.text.len() {
                match Pin::new(&mut *io).poll_write(cx, &self.text[written..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(bytes)) => {
                        written += bytes;
                        self.written += bytes as u64;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.text.drain(..written);
                        return Poll::Pending;
                    }
                }
            }
            self.text.clear();
            return Poll::Ready(Ok(()));
        }
        self.end_text();
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        self.written += written as u64;
        while let Some(first) = self.pieces.front_mut() {
            if first.len() > written {
                return first.advance(written);
            }
            written -= first.len();
            self.pieces.pop_front();
        }
    }

    /// All that is queued.
    #[cfg(test)]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut all: Vec<u8> = self.pieces.iter().flatten().copied().collect();
        all.extend_from_slice(&self.text);
        all
    }
}
