//! Bytes that came from a peer.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// What is read while no more is known to come: heads of requests and answers, with small bodies.
/// The thread's own buffer takes it, so a connection holds no more than came.
const SCRATCH_BYTES: usize = 16 * 1024;
/// What is read of a body at once, at most. From here on larger reads brought nothing more.
const BODY_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// What was read of a connection and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    /// Without capacity when there is nothing.
    pub(crate) buffer: BytesMut,
}

impl Inbound {
    /// Reads more. `wanted` is how many bytes of a body are known to come, if any; what is there of
    /// them is read in one go. Ready with 0 when the peer has ended its side.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        if wanted <= SCRATCH_BYTES {
            return self.poll_fill_little(io, cx);
        }
        let wanted = wanted.min(BODY_BYTES_MAX);
        let before = self.buffer.len();
        self.buffer.reserve(wanted.saturating_sub(before));
        loop {
            // Polled once and dropped: a read that is pending has taken nothing.
            match pin!(io.read_buf(&mut self.buffer)).poll(cx) {
                // Readers that decrypt give a record at a time.
                Poll::Ready(Ok(1..)) if self.buffer.len() < self.buffer.capacity() => {}
                Poll::Ready(Err(error)) if self.buffer.len() == before => {
                    return Poll::Ready(Err(error));
                }
                Poll::Pending if self.buffer.len() == before => return Poll::Pending,
                // What stopped it after some bytes is met again by the next read.
                _ => return Poll::Ready(Ok(self.buffer.len() - before)),
            }
        }
    }

    fn poll_fill_little<R: AsyncRead + Unpin + ?Sized>(
        &mut self,
        io: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            Pin::new(io).poll_read(cx, &mut read).map_ok(|()| {
                self.buffer.extend_from_slice(read.filled());
                read.filled().len()
            })
        })
    }

    /// Gives the memory back, if nothing is left in it.
    pub(crate) fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}
