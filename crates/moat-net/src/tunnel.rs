//! Connections that stop being HTTP: `Upgrade` and 101 (RFC 9110 section 7.8).
//!
//! [`HttpClient`](crate::HttpClient) puts the upstream's side of such a connection into its answer's
//! extensions as an [`Offer`]. A [`Service`](crate::Service) that answers 101 with the offer in its own
//! extensions has the listener join both sides. What flows then is nobody's business any more; the
//! connection still counts for the listener, and ends with either side, at the drain's deadline, or
//! when for long enough nothing has flowed in either direction.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy_bidirectional_with_sizes,
};
use tokio::time::{Instant, sleep_until};

use crate::client::Stream;

/// What is read at a time in either direction. Messages of such protocols are small.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long a tunnel may be silent in both directions. Those who speak WebSocket ping each other every
/// minute or so, but need not; of a console's log in a quiet night an hour without a line is no fault.
/// Without a limit, peers that went away without a word would hold two connections for ever.
pub const TUNNEL_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// One side of a tunnel, to be taken once.
#[derive(Clone)]
pub struct Offer(Arc<Mutex<Option<Tunnel>>>);

/// A connection after its 101.
pub(crate) struct Tunnel {
    stream: Box<dyn Stream>,
    /// What came behind the head of the answer.
    read_already: Bytes,
    idle_timeout: Duration,
    held: Option<Box<dyn Any + Send>>,
}

impl Offer {
    pub(crate) fn new(stream: Box<dyn Stream>, read_already: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Some(Tunnel {
            stream,
            read_already,
            idle_timeout: TUNNEL_IDLE_TIMEOUT,
            held: None,
        }))))
    }

    /// Another limit than [`TUNNEL_IDLE_TIMEOUT`] for how long the tunnel may be silent.
    #[must_use]
    pub fn idle_after(self, idle_timeout: Duration) -> Self {
        if let Some(tunnel) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            tunnel.idle_timeout = idle_timeout;
        }
        self
    }

    /// Keeps a value until the tunnel has ended: whatever counts it.
    #[must_use]
    pub fn holding(self, value: impl Any + Send) -> Self {
        if let Some(tunnel) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            tunnel.held = Some(Box::new(value));
        }
        self
    }

    pub(crate) fn take(&self) -> Option<Tunnel> {
        let mut offer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        offer.take()
    }
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offer")
    }
}

impl Tunnel {
    /// Hands bytes over until both sides have ended, one has failed, or both are silent for too long.
    /// `sent` is what the client has sent already.
    pub(crate) async fn join(
        mut self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        sent: Bytes,
    ) {
        let moved = Moved::now();
        let mut client = Watched::new(&mut client, &moved);
        let mut upstream = Watched::new(&mut self.stream, &moved);
        let both = async {
            client.write_all(&self.read_already).await?;
            upstream.write_all(&sent).await?;
            copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES)
                .await
        };
        match until_idle(both, &moved, self.idle_timeout).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::debug!(%error, "tunnel ended"),
            None => tracing::info!(after = ?self.idle_timeout, "a silent tunnel is closed"),
        }
        drop(self.held);
    }
}

/// When bytes last moved: milliseconds since the beginning, as one atomic that both directions share.
struct Moved {
    began: Instant,
    last: AtomicU64,
}

impl Moved {
    fn now() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn note(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(since, Relaxed);
    }

    fn at(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Relaxed))
    }
}

/// Waits for `work`, but not once nothing has moved for `limit`; then there is nothing to give back.
async fn until_idle<T>(work: impl Future<Output = T>, moved: &Moved, limit: Duration) -> Option<T> {
    let mut work = pin!(work);
    let mut alarm = pin!(sleep_until(moved.at() + limit));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let until = moved.at() + limit;
            if until <= alarm.deadline() {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(until);
        }
        Poll::Pending
    })
    .await
}

/// One side of a tunnel, with a note of when bytes last came from it or were taken by it.
struct Watched<'a, S> {
    stream: &'a mut S,
    moved: &'a Moved,
}

impl<'a, S> Watched<'a, S> {
    const fn new(stream: &'a mut S, moved: &'a Moved) -> Self {
        Self { stream, moved }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut *this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.moved.note();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut *this.stream).poll_write(cx, buffer);
        if matches!(polled, Poll::Ready(Ok(taken)) if taken > 0) {
            this.moved.note();
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::advance;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(100);

    struct Ends {
        client: DuplexStream,
        upstream: DuplexStream,
        running: JoinHandle<()>,
        held: Arc<()>,
    }

    /// A tunnel whose buffers hold 64 bytes a side.
    fn tunnel() -> Ends {
        let (client, near) = duplex(64);
        let (upstream, far) = duplex(64);
        let held = Arc::new(());
        let offer = Offer::new(Box::new(far), Bytes::from_static(b"hi"));
        let offer = offer.idle_after(LIMIT).holding(Arc::clone(&held));
        let tunnel = offer.take().unwrap();
        Ends {
            client,
            upstream,
            running: tokio::spawn(async move { tunnel.join(near, Bytes::new()).await }),
            held,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_when_both_sides_are_silent_for_long() {
        let mut ends = tunnel();
        let mut said = [0; 2];
        ends.client.read_exact(&mut said).await.unwrap();
        let began = Instant::now();
        // Nothing else runs, so the clock goes to the next alarm.
        ends.client.read_exact(&mut said).await.unwrap_err();
        assert_eq!(began.elapsed(), LIMIT);
        ends.running.await.unwrap();
        assert_eq!(Arc::strong_count(&ends.held), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_word_of_either_side_keeps_it() {
        let mut ends = tunnel();
        let mut said = [0; 2];
        ends.client.read_exact(&mut said).await.unwrap();
        for _ in 0..3 {
            advance(LIMIT * 3 / 4).await;
            ends.client.write_all(b"up").await.unwrap();
            ends.upstream.read_exact(&mut said).await.unwrap();
            advance(LIMIT * 3 / 4).await;
            ends.upstream.write_all(b"dn").await.unwrap();
            ends.client.read_exact(&mut said).await.unwrap();
        }
        let last = Instant::now();
        ends.running.await.unwrap();
        assert_eq!(last.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_takes_nothing_is_as_good_as_silent() {
        let mut ends = tunnel();
        let began = Instant::now();
        // More than all buffers between hold, towards an upstream that does not read.
        let flood = vec![0; 4 * BUFFER_BYTES];
        ends.client.write_all(&flood).await.unwrap_err();
        ends.running.await.unwrap();
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_of_which_one_side_has_ended_waits_no_longer_for_the_other() {
        let mut ends = tunnel();
        ends.client.shutdown().await.unwrap();
        let began = Instant::now();
        ends.running.await.unwrap();
        assert_eq!(began.elapsed(), LIMIT);
    }
}
