//! What happens on one connection, in a few atomics, so that one timer per connection can tell a
//! slow peer from a slow service.
//!
//! The socket stamps bytes read and written, the request path counts requests and the response
//! frames that wait for the peer. [`Activity::verdict`] compares these with the limits. A timer
//! per request or per read would do the same at several times the cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::Limits;

/// Stamps are milliseconds since `start`; 0 means "not".
pub(crate) struct Activity {
    start: Instant,
    requests: AtomicUsize,
    /// Response frames handed to hyper whose successor it has not asked for: the peer's turn.
    frames_waiting: AtomicUsize,
    head_begun: AtomicU64,
    last_write: AtomicU64,
    last_request_end: AtomicU64,
    /// Whether the last request had a body; see `Socket`'s lingering close.
    body_expected: AtomicBool,
    closing: AtomicBool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is well; look again then.
    LookAgainIn(Duration),
    /// Nothing was asked for long enough: close it politely.
    Idle,
    /// The request head takes too long.
    SlowHead,
    /// The peer takes nothing of its response.
    Stalled,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            requests: AtomicUsize::new(0),
            frames_waiting: AtomicUsize::new(0),
            head_begun: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            last_request_end: AtomicU64::new(0),
            body_expected: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    /// Never 0, so that a stamp is told from "not".
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    pub(crate) fn bytes_read(&self) {
        if self.requests.load(Relaxed) == 0 && self.head_begun.load(Relaxed) == 0 {
            self.head_begun.store(self.now(), Relaxed);
        }
    }

    /// Forgets the bytes of a TLS handshake, which are no request head.
    pub(crate) fn request_head_may_begin(&self) {
        self.head_begun.store(0, Relaxed);
        self.last_request_end.store(self.now(), Relaxed);
    }

    pub(crate) fn bytes_written(&self) {
        self.last_write.store(self.now(), Relaxed);
    }

    pub(crate) fn request_begins(&self, has_body: bool) {
        self.head_begun.store(0, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        self.body_expected(has_body);
    }

    pub(crate) fn request_ends(&self) {
        self.last_request_end.store(self.now(), Relaxed);
        self.requests.fetch_sub(1, Relaxed);
    }

    pub(crate) fn frame_given(&self) {
        self.frames_waiting.fetch_add(1, Relaxed);
    }

    pub(crate) fn frame_taken(&self) {
        self.frames_waiting.fetch_sub(1, Relaxed);
    }

    /// Whether an answer is being written, or whether the service has to give more of it first.
    pub(crate) fn answer_waits(&self, waits: bool) {
        self.frames_waiting.store(usize::from(waits), Relaxed);
    }

    /// Whether the client may be sending a body that nobody reads.
    pub(crate) fn body_expected(&self, expected: bool) {
        self.body_expected.store(expected, Relaxed);
    }

    /// We are about to close. Without a request running there is no body left to wait for.
    pub(crate) fn will_close(&self) {
        self.closing.store(true, Relaxed);
        if self.requests.load(Relaxed) == 0 {
            self.body_expected(false);
        }
    }

    /// Whether no further request is to be served.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Whether the peer may still be sending a body that nobody read.
    pub(crate) fn expects_body(&self) -> bool {
        self.body_expected.load(Relaxed)
    }

    /// `multiplexed`: HTTP/2, where bytes without a request may be pings and window updates.
    pub(crate) fn verdict(&self, limits: &Limits, multiplexed: bool) -> Verdict {
        let now = self.now();
        let last_write = self.last_write.load(Relaxed);
        let (since, limit, verdict) = if self.requests.load(Relaxed) > 0 {
            if self.frames_waiting.load(Relaxed) == 0 {
                // The service works. Nothing to hold against the peer before its next frame.
                return Verdict::LookAgainIn(limits.write_stall_timeout / 2);
            }
            (last_write, limits.write_stall_timeout, Verdict::Stalled)
        } else {
            let head_begun = self.head_begun.load(Relaxed);
            if head_begun != 0 && !multiplexed {
                (head_begun, limits.header_timeout, Verdict::SlowHead)
            } else {
                // Written bytes count too: the end of a long response may still be on its way.
                let since = last_write.max(self.last_request_end.load(Relaxed));
                (since, limits.idle_timeout, Verdict::Idle)
            }
        };
        let passed = Duration::from_millis(now.saturating_sub(since));
        if passed >= limit {
            verdict
        } else {
            // A head may begin meanwhile and its limit is the shortest, so never sleep past that.
            Verdict::LookAgainIn((limit - passed).min(limits.header_timeout))
        }
    }
}

/// Counts one request until its response is written or dropped.
pub(crate) struct Running(Arc<Activity>);

impl Running {
    pub(crate) fn begin(activity: &Arc<Activity>, has_body: bool) -> Self {
        activity.request_begins(has_body);
        Self(Arc::clone(activity))
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(100),
            write_stall_timeout: Duration::from_secs(300),
            ..Limits::default()
        }
    }

    async fn after(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_from_a_slow_head() {
        let activity = Activity::new();
        after(50).await;
        assert_eq!(
            activity.verdict(&limits(), false),
            Verdict::LookAgainIn(Duration::from_secs(10))
        );
        activity.bytes_read();
        after(9).await;
        activity.bytes_read();
        assert!(matches!(
            activity.verdict(&limits(), false),
            Verdict::LookAgainIn(_)
        ));
        after(1).await;
        assert_eq!(activity.verdict(&limits(), false), Verdict::SlowHead);
        assert!(matches!(
            activity.verdict(&limits(), true),
            Verdict::LookAgainIn(_)
        ));
        after(100).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_service_is_not_a_slow_peer() {
        let activity = Activity::new();
        activity.bytes_read();
        activity.request_begins(false);
        after(1000).await;
        assert!(matches!(
            activity.verdict(&limits(), false),
            Verdict::LookAgainIn(_)
        ));
        activity.frame_given();
        activity.bytes_written();
        after(299).await;
        assert!(matches!(
            activity.verdict(&limits(), false),
            Verdict::LookAgainIn(_)
        ));
        after(1).await;
        assert_eq!(activity.verdict(&limits(), false), Verdict::Stalled);
        activity.frame_taken();
        activity.request_ends();
        assert!(matches!(
            activity.verdict(&limits(), false),
            Verdict::LookAgainIn(_)
        ));
        after(100).await;
        assert_eq!(activity.verdict(&limits(), false), Verdict::Idle);
    }
}
