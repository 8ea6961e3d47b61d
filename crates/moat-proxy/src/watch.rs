//! Waiting for an endpoint that may be frozen.
//!
//! How long an answer may take can't be said in seconds: CompleteMultipartUpload works for minutes, a
//! server that was stopped is gone at once. What tells the two apart is whether the endpoint still
//! answers probes. So whoever waits looks at that from time to time, and has a far limit besides.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::backend::Backend;

/// Looks after one wait at a time, however many follow one another.
pub(crate) struct Watch {
    backend: Arc<Backend>,
    check_every: Duration,
    limit: Duration,
    since: Option<Instant>,
    // Made by the first wait, since most answers are there at once, and pushed back by later ones.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    /// `limit`: how long nothing may move even if all is well with the endpoint.
    pub(crate) fn new(backend: &Arc<Backend>, check_every: Duration, limit: Duration) -> Self {
        Self {
            backend: Arc::clone(backend),
            check_every: check_every.min(limit),
            limit,
            since: None,
            sleep: None,
        }
    }

    /// Something came, so the wait is over.
    pub(crate) const fn moved(&mut self) {
        self.since = None;
    }

    /// Something moved at `at`, though not what is waited for: the wait counts from there.
    pub(crate) fn moved_at(&mut self, at: Instant) {
        if let Some(since) = &mut self.since {
            *since = (*since).max(at);
        }
    }

    /// Ready when waiting on is in vain, with how long it took.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let since = match self.since {
            Some(since) => since,
            None => {
                let now = Instant::now();
                if let Some(sleep) = &mut self.sleep {
                    sleep.as_mut().reset(now + self.check_every);
                }
                *self.since.insert(now)
            }
        };
        let check_every = self.check_every;
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(check_every)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            let waited = since.elapsed();
            // What moved since the last look is no sign of a frozen endpoint.
            let frozen = self.backend.is_silent() && waited >= check_every;
            if frozen || waited >= self.limit {
                return Poll::Ready(waited);
            }
            let next = check_every.min(self.limit - waited);
            sleep.as_mut().reset(Instant::now() + next);
        }
    }
}
