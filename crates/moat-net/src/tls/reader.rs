//! Large reads under rustls, which by itself asks the kernel for 4 KiB at a time.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Bytes per read from the kernel: eight full TLS records, the point from where larger reads
/// brought nothing more (measured with `moat-proxy's throughput example`).
const READ_BYTES: usize = 128 * 1024;
/// Buffers that a thread keeps for its next reads. A buffer goes back as soon as it is read to its
/// end, which is nearly always before another connection's turn.
const SPARE_MAX: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer of [`READ_BYTES`].
fn take_buffer() -> Vec<u8> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(READ_BYTES))
}

fn give_back(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 {
        return;
    }
    buffer.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// A buffered reader that passes writes through.
pub(crate) struct TlsReader<T> {
    inner: T,
    /// What was read; without capacity when all of it was handed out, so that a connection that
    /// waits has no buffer.
    buffer: Vec<u8>,
    /// How much of it was handed out.
    taken: usize,
}

impl<T> TlsReader<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            taken: 0,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }
}

impl<T: AsyncRead + Unpin> TlsReader<T> {
    /// Reads once, when all that was read before was handed out.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = take_buffer();
        // Polled once and dropped: a read that is pending has taken nothing.
        let polled = pin!(self.inner.read_buf(&mut buffer)).poll(cx);
        if matches!(polled, Poll::Ready(Ok(1..))) {
            (self.buffer, self.taken) = (buffer, 0);
        } else {
            give_back(buffer);
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> TlsReader<T> {
    /// The first byte that the peer sends, which stays to be read; `None` if it sends nothing.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.unread().is_empty() {
            std::future::poll_fn(|cx| self.poll_fill(cx)).await?;
        }
        Ok(self.unread().first().copied())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TlsReader<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread().is_empty() {
            ready!(this.poll_fill(cx))?;
        }
        let piece = this.unread().len().min(out.remaining());
        out.put_slice(&this.unread()[..piece]);
        this.taken += piece;
        if this.unread().is_empty() {
            give_back(std::mem::take(&mut this.buffer));
            this.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TlsReader<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_order_whatever_the_sizes_and_a_reader_that_waits_has_no_buffer() {
        let (mut peer, ours) = tokio::io::duplex(64 * 1024);
        let mut reader = TlsReader::new(ours);
        let sent: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        peer.write_all(&sent).await.unwrap();
        assert_eq!(reader.peek().await.unwrap(), Some(sent[0]));
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        while got.len() < sent.len() {
            let n = reader.read(&mut piece).await.unwrap();
            got.extend_from_slice(&piece[..n]);
        }
        assert_eq!((got, reader.buffer.capacity()), (sent, 0));
        drop(peer);
        assert_eq!(reader.peek().await.unwrap(), None);
        assert_eq!(reader.read(&mut piece).await.unwrap(), 0);
    }
}
