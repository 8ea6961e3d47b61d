//! Large reads under rustls, which by itself asks the kernel for 4 KiB at a time.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes per read from the kernel: eight full TLS records, the point from where larger reads
/// brought nothing more (measured with `examples/throughput.rs`).
const READ_BYTES: usize = 128 * 1024;
/// Reads smaller than this say that the peer sends little; the large buffer is then given back
/// when it is empty, so that an idle connection holds none.
const SMALL: usize = 16 * 1024;

/// A buffered reader that passes writes through.
pub(crate) struct TlsReader<T> {
    inner: T,
    buffer: Vec<u8>,
    /// What of `buffer` is filled and not handed out yet.
    begin: usize,
    end: usize,
}

impl<T> TlsReader<T> {
    pub(crate) const fn new(inner: T) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            begin: 0,
            end: 0,
        }
    }
}

impl<T: AsyncRead + Unpin> TlsReader<T> {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A buffer grows with what the last read brought: handshakes and small requests make do
        // with a little one.
        let wanted = if self.end >= self.buffer.len() {
            (self.buffer.len() * 4).clamp(SMALL, READ_BYTES)
        } else {
            self.buffer.len()
        };
        self.buffer.resize(wanted, 0);
        let mut buf = ReadBuf::new(&mut self.buffer);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut buf);
        let filled = buf.filled().len();
        self.begin = 0;
        self.end = filled;
        if polled.is_pending() {
            // Nothing to come for now: an idle connection keeps no buffer.
            self.buffer = Vec::new();
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TlsReader<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.begin == this.end {
            ready!(this.poll_fill(cx))?;
        }
        let piece = (this.end - this.begin).min(out.remaining());
        out.put_slice(&this.buffer[this.begin..this.begin + piece]);
        this.begin += piece;
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
