//! Large reads under rustls, which by itself asks the kernel for 4 KiB at a time.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Bytes per read from the kernel: eight full TLS records, the point from where larger reads
/// brought nothing more (measured with `moat-proxy's throughput example`).
const READ_BYTES: usize = 128 * 1024;
/// The first read: a request with its head, or one TLS record.
const SMALL: usize = 16 * 1024;

/// A buffered reader that passes writes through.
pub(crate) struct TlsReader<T> {
    inner: T,
    /// What was read and not handed out yet. Without capacity when the peer sends nothing.
    buffer: BytesMut,
    /// How much the next read asks for.
    wanted: usize,
}

impl<T> TlsReader<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
            wanted: SMALL,
        }
    }
}

impl<T: AsyncRead + Unpin> TlsReader<T> {
    /// Reads once into the empty buffer.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(self.wanted);
        // Polled once and dropped: a read that is pending has taken nothing.
        let polled = pin!(self.inner.read_buf(&mut self.buffer)).poll(cx);
        match polled {
            // The size follows what comes: handshakes and small requests make do with little, and a
            // stream soon gets large reads.
            Poll::Ready(Ok(n)) if n == self.wanted => {
                self.wanted = (self.wanted * 2).min(READ_BYTES);
            }
            Poll::Ready(Ok(n)) if n < self.wanted / 4 => {
                self.wanted = (self.wanted / 2).max(SMALL);
            }
            Poll::Ready(_) => {}
            // Nothing to come for now: a connection that waits keeps no buffer.
            Poll::Pending => self.buffer = BytesMut::new(),
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> TlsReader<T> {
    /// The first byte that the peer sends, which stays to be read; `None` if it sends nothing.
    pub(crate) async fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.buffer.is_empty() {
            std::future::poll_fn(|cx| self.poll_fill(cx)).await?;
        }
        Ok(self.buffer.first().copied())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TlsReader<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            this.buffer.clear();
            ready!(this.poll_fill(cx))?;
        }
        let piece = this.buffer.len().min(out.remaining());
        out.put_slice(&this.buffer[..piece]);
        this.buffer.advance(piece);
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
