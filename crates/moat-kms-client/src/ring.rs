//! Leases: a [`KeyRing`] that asks the key manager once per epoch and lease, not once per object.
//!
//! A lease counts from the moment in which its request was sent, so it never outlives what the
//! key manager meant. Leases in use are renewed in the background at about 70 % of their time,
//! each at a moment of its own, so that reads never wait; those not in use run out and are
//! dropped. If the key manager refuses a renewal, the lease ends at once; if it can't be reached,
//! the lease goes on to its end, and renewal is tried again until then. A key that is found to be
//! disabled or gone ends all its leases.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use moat_crypto::{Census, EpochKey, EpochScope, KeyRing, KeyRingError, NewEpoch, RewrappedEpoch};
use moat_types::{BucketName, EnclaveName, EpochId, KeyName, KeyVersion, Random};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::client::Client;
use crate::source::RemoteSource;

/// What part of a lease has passed when it is renewed: late enough to ask rarely, early enough
/// that a restart of the key manager fits between here and the end.
const RENEW_AT_PERCENT: u32 = 70;
/// By how much, in percent of the lease, renewals are spread around that point, so that stores
/// that started together do not ask together.
const RENEW_SPREAD_PERCENT: u32 = 10;
/// A renewal that could not be done is tried again after this part of the lease.
const RETRY_DIVISOR: u32 = 20;
/// The shortest and the longest wait before it.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(15);
/// Renewals at once: a store of very many buckets does not flood the key manager.
const RENEWALS_MAX: usize = 16;
/// How often the remaining time of leases is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// A longer lease than this is not believed.
const LEASE_TTL_MAX: Duration = Duration::from_secs(24 * 3600);

/// A leased epoch key, as a key manager answers it.
pub(crate) struct Leased {
    pub(crate) key: Arc<EpochKey>,
    pub(crate) version: KeyVersion,
    /// The wrapped form, if a new one was made.
    pub(crate) wrapped: Vec<u8>,
    pub(crate) ttl: Duration,
}

/// Where leases come from: a [`Client`], or a test.
pub(crate) trait LeaseSource: Send + Sync + 'static {
    fn generate<'a>(&'a self, scope: &'a EpochScope)
    -> BoxFuture<'a, Result<Leased, KeyRingError>>;
    fn open<'a>(
        &'a self,
        scope: &'a EpochScope,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Leased, KeyRingError>>;
    fn rewrap<'a>(
        &'a self,
        scope: &'a EpochScope,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<RewrappedEpoch, KeyRingError>>;
    fn check<'a>(&'a self, key: &'a KeyName) -> BoxFuture<'a, Result<(), KeyRingError>>;
    fn report(&self, census: Census) -> BoxFuture<'_, Result<(), KeyRingError>>;
}

/// A [`KeyRing`] over a key manager. Dropping it drops all leases.
pub struct RemoteKeyRing {
    inner: Arc<Inner>,
    renewal: JoinHandle<()>,
}

impl RemoteKeyRing {
    /// A ring without leases. Must be called inside a tokio runtime, in which it renews them.
    ///
    /// Of the buckets in `strict` no lease is held: the key manager is asked with each object, so
    /// that its audit has each, and refuses from the next object on.
    pub fn new(
        client: Arc<Client>,
        enclave: EnclaveName,
        strict: HashSet<BucketName>,
        random: Arc<dyn Random>,
    ) -> Self {
        let source = RemoteSource::new(client, enclave.clone());
        Self::over(Arc::new(source), enclave, strict, random)
    }

    pub(crate) fn over(
        source: Arc<dyn LeaseSource>,
        enclave: EnclaveName,
        strict: HashSet<BucketName>,
        random: Arc<dyn Random>,
    ) -> Self {
        let inner = Arc::new(Inner {
            source,
            enclave,
            strict,
            random,
            started: Instant::now(),
            leases: RwLock::default(),
            flights: Mutex::default(),
            changed: Notify::new(),
            hits: metrics::counter!("moat_kms_lease_hits_total"),
        });
        let renewal = tokio::spawn(renew_for_ever(Arc::downgrade(&inner)));
        Self { inner, renewal }
    }

    /// How many leases are held.
    pub fn lease_count(&self) -> usize {
        self.inner.leases().len()
    }

    /// The least time that a lease in use has left; `None` without one.
    pub fn lease_remaining(&self) -> Option<Duration> {
        self.inner.remaining()
    }
}

impl Drop for RemoteKeyRing {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl std::fmt::Debug for RemoteKeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteKeyRing({})", self.inner.enclave)
    }
}

impl KeyRing for RemoteKeyRing {
    fn enclave(&self) -> &EnclaveName {
        &self.inner.enclave
    }

    fn held(&self, epoch: &EpochId) -> Option<Arc<EpochKey>> {
        self.inner.held(epoch, None)
    }

    fn generate(&self, scope: EpochScope) -> BoxFuture<'_, Result<NewEpoch, KeyRingError>> {
        Box::pin(async move {
            let sent = Instant::now();
            let result = self.inner.source.generate(&scope).await;
            let leased = self.inner.learn(&scope, "generate", result)?;
            let new = NewEpoch {
                version: leased.version,
                wrapped: leased.wrapped.clone(),
                key: leased.key.clone(),
            };
            self.inner.keep(scope, sent, leased);
            Ok(new)
        })
    }

    fn open(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, Result<Arc<EpochKey>, KeyRingError>> {
        if let Some(key) = self.inner.held(&scope.epoch, Some(&scope)) {
            return std::future::ready(Ok(key)).boxed();
        }
        let inner = self.inner.clone();
        if inner.strict.contains(&scope.bucket) {
            return async move { inner.open(&scope, &wrapped).await }.boxed();
        }
        inner.fly(scope, wrapped).boxed()
    }

    fn rewrap(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, Result<RewrappedEpoch, KeyRingError>> {
        Box::pin(async move {
            let result = self.inner.source.rewrap(&scope, &wrapped).await;
            let new = self.inner.learn(&scope, "rewrap", result)?;
            // A lease that is held is renewed with the form that will be in the row.
            if let Some(lease) = self.inner.leases_mut().get_mut(&scope.epoch) {
                lease.wrapped.clone_from(&new.wrapped);
            }
            Ok(new)
        })
    }

    fn check(&self, key: KeyName) -> BoxFuture<'_, Result<(), KeyRingError>> {
        Box::pin(async move {
            let result = self.inner.source.check(&key).await;
            count_call("check", result.as_ref().err());
            if let Err(e) = &result {
                self.inner.forget_key(&key, e);
            }
            result
        })
    }

    fn report(&self, census: Census) -> BoxFuture<'_, Result<(), KeyRingError>> {
        Box::pin(async move {
            let result = self.inner.source.report(census).await;
            count_call("report", result.as_ref().err());
            result
        })
    }
}

type FlightResult = Result<Arc<EpochKey>, KeyRingError>;
type Flight = Shared<BoxFuture<'static, FlightResult>>;

struct Inner {
    source: Arc<dyn LeaseSource>,
    enclave: EnclaveName,
    /// Buckets whose keys are not leased.
    strict: HashSet<BucketName>,
    random: Arc<dyn Random>,
    started: Instant,
    leases: RwLock<HashMap<EpochId, Lease>>,
    /// Requests to open that are under way; later callers wait for the first one's answer.
    flights: Mutex<HashMap<(EpochScope, Vec<u8>), Flight>>,
    /// Tells the renewal that a lease was added.
    changed: Notify,
    hits: metrics::Counter,
}

struct Lease {
    scope: EpochScope,
    wrapped: Vec<u8>,
    key: Arc<EpochKey>,
    ttl: Duration,
    expires: Instant,
    renew_at: Instant,
    renewing: bool,
    /// Milliseconds since `Inner::started`.
    last_used: AtomicU64,
}

impl Inner {
    /// The key of a good lease, which then counts as in use.
    fn held(&self, epoch: &EpochId, scope: Option<&EpochScope>) -> Option<Arc<EpochKey>> {
        let now = Instant::now();
        let leases = self.leases();
        let lease = leases.get(epoch)?;
        if lease.expires <= now || scope.is_some_and(|scope| *scope != lease.scope) {
            return None;
        }
        lease.last_used.store(self.millis(now), Ordering::Relaxed);
        self.hits.increment(1);
        Some(lease.key.clone())
    }

    /// Opens an epoch, or waits for whoever is opening it. The request goes on even if all who
    /// wait for it go away: its lease is then there for the next one.
    async fn fly(self: Arc<Self>, scope: EpochScope, wrapped: Vec<u8>) -> FlightResult {
        let id = (scope.clone(), wrapped.clone());
        let flight = {
            let mut flights = self.flights();
            // The answer may have come between the first look and this one.
            if let Some(key) = self.held(&scope.epoch, Some(&scope)) {
                return Ok(key);
            }
            match flights.get(&id) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = self.clone().take_off(scope, wrapped);
                    flights.insert(id, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    fn take_off(self: Arc<Self>, scope: EpochScope, wrapped: Vec<u8>) -> Flight {
        let task = tokio::spawn(async move {
            let id = (scope.clone(), wrapped.clone());
            let result = self.open(&scope, &wrapped).await;
            self.flights().remove(&id);
            result
        });
        let landed = async move {
            task.await.unwrap_or_else(|e| {
                Err(KeyRingError::Unavailable {
                    reason: format!("the request ended early: {e}"),
                })
            })
        };
        landed.boxed().shared()
    }

    async fn open(&self, scope: &EpochScope, wrapped: &[u8]) -> FlightResult {
        let sent = Instant::now();
        let result = self.source.open(scope, wrapped).await;
        let mut leased = self.learn(scope, "open", result)?;
        leased.wrapped = wrapped.to_vec();
        let key = leased.key.clone();
        self.keep(scope.clone(), sent, leased);
        Ok(key)
    }

    fn keep(&self, scope: EpochScope, sent: Instant, leased: Leased) {
        if self.strict.contains(&scope.bucket) {
            return;
        }
        let ttl = leased.ttl.min(LEASE_TTL_MAX);
        let lease = Lease {
            wrapped: leased.wrapped,
            key: leased.key,
            ttl,
            expires: sent + ttl,
            renew_at: sent + self.renewal_delay(ttl),
            renewing: false,
            last_used: AtomicU64::new(self.millis(Instant::now())),
            scope,
        };
        self.leases_mut().insert(lease.scope.epoch, lease);
        self.changed.notify_one();
    }

    /// Takes note of an answer: what it says about the key holds for all its leases.
    fn learn<T>(
        &self,
        scope: &EpochScope,
        operation: &'static str,
        result: Result<T, KeyRingError>,
    ) -> Result<T, KeyRingError> {
        count_call(operation, result.as_ref().err());
        if let Err(e) = &result {
            self.forget_key(&scope.key, e);
        }
        result
    }

    fn forget_key(&self, key: &KeyName, error: &KeyRingError) {
        if matches!(
            error,
            KeyRingError::Disabled { .. } | KeyRingError::NotFound { .. }
        ) {
            self.leases_mut().retain(|_, lease| lease.scope.key != *key);
        }
    }

    fn renewal_delay(&self, ttl: Duration) -> Duration {
        let mut byte = [0; 1];
        self.random.fill(&mut byte);
        let spread = ttl * RENEW_SPREAD_PERCENT / 100;
        let earliest = ttl * RENEW_AT_PERCENT / 100 - spread / 2;
        earliest + spread * u32::from(byte[0]) / 255
    }

    /// Leases that are due for renewal, marked as such. Drops those that ended, and puts off
    /// those that are not in use.
    fn due(&self, now: Instant, room: usize) -> Vec<(EpochScope, Vec<u8>)> {
        let now_millis = self.millis(now);
        let mut leases = self.leases_mut();
        leases.retain(|_, lease| lease.expires > now);
        let mut due = Vec::new();
        for lease in leases.values_mut() {
            if lease.renewing || lease.renew_at > now || due.len() >= room {
                continue;
            }
            let idle = now_millis.saturating_sub(lease.last_used.load(Ordering::Relaxed));
            if Duration::from_millis(idle) > lease.ttl {
                // Asked again a little later: it may be used until it ends.
                lease.renew_at = now + retry_delay(lease.ttl);
                continue;
            }
            lease.renewing = true;
            due.push((lease.scope.clone(), lease.wrapped.clone()));
        }
        due
    }

    async fn renew(&self, scope: &EpochScope, wrapped: &[u8]) {
        let sent = Instant::now();
        let result = self.source.open(scope, wrapped).await;
        let result = self.learn(scope, "renew", result);
        let mut leases = self.leases_mut();
        // It may have ended, or been ended, in the meantime; then it stays so.
        let Some(lease) = leases.get_mut(&scope.epoch) else {
            return;
        };
        lease.renewing = false;
        match result {
            Ok(leased) => {
                lease.ttl = leased.ttl.min(LEASE_TTL_MAX);
                lease.key = leased.key;
                lease.expires = sent + lease.ttl;
                lease.renew_at = sent + self.renewal_delay(lease.ttl);
            }
            Err(KeyRingError::Unavailable { reason }) => {
                tracing::warn!(key_name = %scope.key, bucket = %scope.bucket, reason, "a lease could not be renewed");
                lease.renew_at = Instant::now() + retry_delay(lease.ttl);
            }
            Err(e) => {
                tracing::warn!(key_name = %scope.key, bucket = %scope.bucket, error = %e, "a lease was ended");
                leases.remove(&scope.epoch);
            }
        }
    }

    /// When something is next to be done.
    fn next_turn(&self) -> Option<Instant> {
        let leases = self.leases();
        let turns = leases.values().map(|lease| {
            if lease.renewing {
                lease.expires
            } else {
                lease.renew_at.min(lease.expires)
            }
        });
        turns.min()
    }

    fn remaining(&self) -> Option<Duration> {
        let now = Instant::now();
        let now_millis = self.millis(now);
        let leases = self.leases();
        let in_use = leases.values().filter(|lease| {
            let idle = now_millis.saturating_sub(lease.last_used.load(Ordering::Relaxed));
            Duration::from_millis(idle) <= lease.ttl
        });
        in_use
            .map(|lease| lease.expires.saturating_duration_since(now))
            .min()
    }

    fn report(&self) {
        metrics::gauge!("moat_kms_leases").set(self.leases().len() as f64);
        let remaining = self.remaining().unwrap_or_default();
        metrics::gauge!("moat_kms_lease_remaining_seconds").set(remaining.as_secs_f64());
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn leases(&self) -> std::sync::RwLockReadGuard<'_, HashMap<EpochId, Lease>> {
        self.leases.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<EpochId, Lease>> {
        self.leases.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<(EpochScope, Vec<u8>), Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry_delay(ttl: Duration) -> Duration {
    (ttl / RETRY_DIVISOR).clamp(RETRY_MIN, RETRY_MAX)
}

fn count_call(operation: &'static str, error: Option<&KeyRingError>) {
    let outcome = match error {
        None => "ok",
        Some(KeyRingError::Unavailable { .. }) => "unavailable",
        Some(_) => "refused",
    };
    metrics::counter!("moat_kms_calls_total", "operation" => operation, "outcome" => outcome)
        .increment(1);
}

/// Renews, drops and reports until the ring is gone.
async fn renew_for_ever(ring: Weak<Inner>) {
    let mut renewals = tokio::task::JoinSet::new();
    loop {
        let Some(inner) = ring.upgrade() else { return };
        let room = RENEWALS_MAX - renewals.len();
        for (scope, wrapped) in inner.due(Instant::now(), room) {
            let inner = inner.clone();
            renewals.spawn(async move { inner.renew(&scope, &wrapped).await });
        }
        inner.report();
        let report = Instant::now() + REPORT_INTERVAL;
        // A full set of renewals makes room only when one of them ends.
        let turn = match inner.next_turn() {
            Some(turn) if renewals.len() < RENEWALS_MAX => turn.min(report),
            _ => report,
        };
        tokio::select! {
            () = tokio::time::sleep_until(turn) => {}
            () = inner.changed.notified() => {}
            Some(_) = renewals.join_next() => {}
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
