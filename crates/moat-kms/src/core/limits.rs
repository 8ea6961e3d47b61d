//! How often one identity may ask: so that one that runs wild slows itself down and nobody else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use moat_kms_client::Identity;
use moat_meta::MetaStore;

use super::{Caller, Core};
use crate::error::Error;

/// A limit for each identity by itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RateLimit {
    /// Operations in a second, over time. Each item of a batch is one.
    pub per_second: u32,
    /// Operations at once, after a pause.
    pub burst: u32,
}

impl RateLimit {
    /// A limit whose burst is ten seconds' worth: a store that starts, or a listing of a MinIO
    /// server, asks much at once.
    pub const fn per_second(per_second: u32) -> Self {
        Self {
            per_second,
            burst: per_second.saturating_mul(10),
        }
    }
}

/// Identities whose recent use is remembered. Beyond that, those who have paused long enough to be
/// as good as new are forgotten.
const REMEMBERED_MAX: usize = 10_000;

/// What each identity may still ask for.
#[derive(Default)]
pub(super) struct Limiter {
    limit: RwLock<Option<RateLimit>>,
    buckets: Mutex<HashMap<Identity, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Operations that are left; below zero after a batch that was larger than what was left.
    left: f64,
    at: Instant,
}

impl Bucket {
    fn refilled(self, limit: RateLimit, now: Instant) -> Self {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let left = self.left + passed * f64::from(limit.per_second);
        Self {
            left: left.min(f64::from(limit.burst)),
            at: now,
        }
    }
}

impl Limiter {
    fn set(&self, limit: Option<RateLimit>) {
        *self.limit.write().unwrap_or_else(PoisonError::into_inner) = limit;
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Takes one operation; the time to wait if none is left.
    fn take(&self, identity: Identity, now: Instant) -> Result<(), Duration> {
        let limit = *self.limit.read().unwrap_or_else(PoisonError::into_inner);
        let Some(limit) = limit else {
            return Ok(());
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED_MAX && !buckets.contains_key(&identity) {
            buckets.retain(|_, bucket| bucket.refilled(limit, now).left < f64::from(limit.burst));
        }
        let full = Bucket {
            left: f64::from(limit.burst),
            at: now,
        };
        let bucket = buckets.entry(identity).or_insert(full);
        *bucket = bucket.refilled(limit, now);
        if bucket.left < 1.0 {
            let missing = (1.0 - bucket.left) / f64::from(limit.per_second.max(1));
            return Err(Duration::from_secs_f64(missing));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    /// Counts what was let through as part of a batch: a batch that is larger than what is left is
    /// paid for afterwards, so that no size is refused for ever.
    fn debit(&self, identity: Identity, count: usize) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&identity) {
            bucket.left -= count as f64;
        }
    }
}

impl<M: MetaStore> Core<M> {
    /// Limits how often each identity may ask, from now on; `None` for no limit.
    pub fn set_rate_limit(&self, limit: Option<RateLimit>) {
        self.limiter.set(limit);
    }

    /// Counts further items of a batch that was let through.
    pub(super) fn limiter_debit(&self, caller: &Caller, count: usize) {
        self.limiter.debit(caller.identity, count);
    }

    /// Lets one operation through, or not.
    pub(super) fn admit(&self, identity: Identity) -> Result<(), Error> {
        self.limiter
            .take(identity, Instant::now())
            .map_err(|retry_after| Error::RateLimited {
                identity,
                retry_after,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identity_is_held_back_until_time_has_passed_and_others_are_not() {
        let limiter = Limiter::default();
        let (one, other) = (
            Identity::from_spki_sha256([1; 32]),
            Identity::from_spki_sha256([2; 32]),
        );
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        for _ in 0..100 {
            limiter.take(one, now).unwrap();
        }
        limiter.set(Some(RateLimit {
            per_second: 10,
            burst: 3,
        }));
        for _ in 0..3 {
            limiter.take(one, now).unwrap();
        }
        assert_eq!(limiter.take(one, now), Err(Duration::from_millis(100)));
        limiter.take(other, now).unwrap();
        limiter.take(one, later(100)).unwrap();
        limiter.take(one, later(100)).unwrap_err();

        // A batch is let through, and paid for.
        limiter.take(one, later(1_100)).unwrap();
        limiter.debit(one, 12);
        let wait = limiter.take(one, later(1_100)).unwrap_err();
        assert_eq!(wait, Duration::from_millis(1_100));
        limiter.take(one, later(2_300)).unwrap();
        limiter.set(None);
        limiter.debit(one, 1000);
        limiter.take(one, later(2_300)).unwrap();
    }

    #[test]
    fn strangers_do_not_fill_the_memory() {
        let limiter = Limiter::default();
        limiter.set(Some(RateLimit::per_second(10)));
        let now = Instant::now();
        for number in 0..(3 * REMEMBERED_MAX as u64) {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            let at = now + Duration::from_millis(number);
            limiter.take(Identity::from_spki_sha256(hash), at).unwrap();
        }
        assert!(limiter.buckets.lock().unwrap().len() <= REMEMBERED_MAX + 1);
    }
}
