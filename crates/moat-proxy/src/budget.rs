//! How many requests may be sent a second time.
//!
//! Without a limit, upstreams that fail under load get twice the load. Each request earns a fifth of a
//! replay, and a few each second are free, so that a quiet proxy can replay at all. Attempts that
//! reached nobody are no load and need no budget.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

/// What one replay costs.
const REPLAY: u64 = 1000;
/// What one request earns: at most every fifth request is sent twice.
const EARNED: u64 = 200;
/// What a second earns: ten replays.
const PER_SECOND: u64 = 10 * REPLAY;
/// The most that is saved: a rolling restart of one server in a cluster of several, at some thousand
/// requests a second, breaks a few hundred of them at once.
const SAVED_MAX: u64 = 500 * REPLAY;

/// A budget for replays. Begins full.
pub(crate) struct Budget(Mutex<Account>);

struct Account {
    saved: u64,
    since: Instant,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Account {
            saved: SAVED_MAX,
            since: Instant::now(),
        }))
    }

    /// Counts a request.
    pub(crate) fn earn(&self) {
        self.with(|account| account.add(EARNED));
    }

    /// Takes one replay out, if there is one.
    pub(crate) fn spend(&self) -> bool {
        self.with(|account| {
            account.add_time();
            let left = account.saved.checked_sub(REPLAY);
            account.saved = left.unwrap_or(account.saved);
            left.is_some()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Account) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Account {
    fn add(&mut self, earned: u64) {
        self.saved = (self.saved + earned).min(SAVED_MAX);
    }

    fn add_time(&mut self) {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.add(passed.min(SAVED_MAX) * PER_SECOND / 1000);
        self.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spent(budget: &Budget) -> u64 {
        (0..).take_while(|_| budget.spend()).count() as u64
    }

    #[tokio::test(start_paused = true)]
    async fn replays_are_earned_by_requests_and_by_time() {
        let budget = Budget::new();
        assert_eq!(spent(&budget), SAVED_MAX / REPLAY);
        for _ in 0..10 {
            budget.earn();
        }
        assert_eq!(spent(&budget), 2);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(spent(&budget), 30);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(spent(&budget), SAVED_MAX / REPLAY);
    }
}
