//! What leases promise, with a driven clock and a key manager that does as it is told.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use moat_types::{BucketName, SecretBytes, SystemRandom};
use tokio::sync::Semaphore;

use super::*;

const TTL: Duration = Duration::from_secs(300);
/// More than there are requests at once.
const PERMITS: u32 = 1000;

/// Answers with what was put in line, and with a lease otherwise.
struct Fake {
    answers: Mutex<VecDeque<KeyRingError>>,
    down: Mutex<Option<KeyRingError>>,
    calls: AtomicUsize,
    /// Requests wait for a permit, so that a test can hold them back.
    gate: Semaphore,
}

impl Fake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::default(),
            down: Mutex::default(),
            calls: AtomicUsize::new(0),
            gate: Semaphore::new(PERMITS as usize),
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn fail_with(&self, error: Option<KeyRingError>) {
        *self.down.lock().unwrap() = error;
    }

    async fn answer(&self) -> Result<Leased, KeyRingError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await.unwrap();
        if let Some(error) = self.answers.lock().unwrap().pop_front() {
            return Err(error);
        }
        if let Some(error) = self.down.lock().unwrap().clone() {
            return Err(error);
        }
        Ok(Leased {
            key: Arc::new(EpochKey::new(SecretBytes::new(vec![1; 32])).unwrap()),
            version: KeyVersion::FIRST,
            wrapped: vec![7],
            ttl: TTL,
        })
    }
}

impl LeaseSource for Fake {
    fn generate<'a>(&'a self, _: &'a EpochScope) -> BoxFuture<'a, Result<Leased, KeyRingError>> {
        self.answer().boxed()
    }

    fn open<'a>(
        &'a self,
        _: &'a EpochScope,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<Leased, KeyRingError>> {
        self.answer().boxed()
    }

    fn rewrap<'a>(
        &'a self,
        _: &'a EpochScope,
        _: &'a [u8],
    ) -> BoxFuture<'a, Result<RewrappedEpoch, KeyRingError>> {
        let answer = self.answer().map(|answer| {
            answer.map(|leased| RewrappedEpoch {
                version: leased.version.next(),
                wrapped: vec![8],
            })
        });
        answer.boxed()
    }

    fn check<'a>(&'a self, _: &'a KeyName) -> BoxFuture<'a, Result<(), KeyRingError>> {
        self.answer().map(|answer| answer.map(drop)).boxed()
    }

    fn report(&self, _: Census) -> BoxFuture<'_, Result<(), KeyRingError>> {
        self.answer().map(|answer| answer.map(drop)).boxed()
    }
}

fn ring(fake: &Arc<Fake>) -> RemoteKeyRing {
    let enclave = EnclaveName::parse("lake").unwrap();
    let strict = [BucketName::parse("payroll").unwrap()].into();
    RemoteKeyRing::over(fake.clone(), enclave, strict, Arc::new(SystemRandom))
}

fn scope(epoch: u8) -> EpochScope {
    EpochScope {
        bucket: BucketName::parse("sales").unwrap(),
        key: key(),
        epoch: EpochId::from_bytes([epoch; 16]),
    }
}

fn key() -> KeyName {
    KeyName::parse("k").unwrap()
}

fn unavailable() -> KeyRingError {
    KeyRingError::Unavailable {
        reason: "down".into(),
    }
}

/// Lets the clock run, using the lease every ten seconds.
async fn use_for(ring: &RemoteKeyRing, epoch: u8, duration: Duration) -> usize {
    let end = Instant::now() + duration;
    let mut stalls = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_secs(10)).await;
        stalls += usize::from(ring.held(&scope(epoch).epoch).is_none());
    }
    stalls
}

#[tokio::test(start_paused = true)]
async fn a_lease_in_use_is_renewed_before_it_ends_and_asked_for_rarely() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    assert_eq!(use_for(&ring, 1, TTL * 10).await, 0);
    // Ten lease times at 65 to 75 % each.
    assert!((13..=17).contains(&fake.calls()), "{} calls", fake.calls());
}

#[tokio::test(start_paused = true)]
async fn a_strict_bucket_is_asked_for_with_each_object_even_at_once() {
    let fake = Fake::new();
    let ring = ring(&fake);
    let strict = EpochScope {
        bucket: BucketName::parse("payroll").unwrap(),
        ..scope(1)
    };
    ring.generate(strict.clone()).await.unwrap();
    assert!(ring.held(&strict.epoch).is_none());
    let open = || ring.open(strict.clone(), vec![7]);
    let (first, second) = tokio::join!(open(), open());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!((fake.calls(), ring.lease_count()), (3, 0));
    // A disabled key is refused from the next object on.
    fake.fail_with(Some(KeyRingError::Disabled { key: key() }));
    assert!(open().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_uses_is_dropped() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    tokio::time::sleep(TTL * 3).await;
    assert_eq!(ring.lease_count(), 0);
    assert!(fake.calls() <= 2, "{} calls", fake.calls());
}

#[tokio::test(start_paused = true)]
async fn a_lease_lasts_to_its_end_while_the_key_manager_is_down_and_not_longer() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    fake.fail_with(Some(unavailable()));
    tokio::time::sleep(TTL - Duration::from_millis(2)).await;
    assert!(ring.held(&scope(1).epoch).is_some());
    assert!(ring.open(scope(1), vec![7]).await.is_ok());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(ring.held(&scope(1).epoch).is_none());
    let cold = ring.open(scope(1), vec![7]).await;
    assert!(matches!(cold, Err(KeyRingError::Unavailable { .. })));
    fake.fail_with(None);
    assert!(ring.open(scope(1), vec![7]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_at_renewal_is_not_noticed() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    fake.fail_with(Some(unavailable()));
    assert_eq!(use_for(&ring, 1, TTL * 9 / 10).await, 0);
    fake.fail_with(None);
    assert_eq!(use_for(&ring, 1, TTL * 3).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_renewal_ends_the_lease_at_once() {
    for refusal in [
        KeyRingError::Disabled { key: key() },
        KeyRingError::NotFound { key: key() },
        KeyRingError::Denied { key: key() },
    ] {
        let fake = Fake::new();
        let ring = ring(&fake);
        ring.generate(scope(1)).await.unwrap();
        fake.fail_with(Some(refusal));
        use_for(&ring, 1, TTL * 3 / 4 + Duration::from_secs(10)).await;
        assert!(ring.held(&scope(1).epoch).is_none());
        assert_eq!(ring.lease_count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_found_disabled_ends_all_its_leases_but_a_denial_only_its_own() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    ring.generate(scope(2)).await.unwrap();
    let denied = KeyRingError::Denied { key: key() };
    fake.answers.lock().unwrap().push_back(denied);
    assert!(ring.generate(scope(3)).await.is_err());
    assert_eq!(ring.lease_count(), 2);
    let disabled = KeyRingError::Disabled { key: key() };
    fake.answers.lock().unwrap().push_back(disabled);
    assert!(ring.check(key()).await.is_err());
    assert_eq!(ring.lease_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn callers_of_one_epoch_share_one_request() {
    let fake = Fake::new();
    let ring = Arc::new(ring(&fake));
    let held_back = fake.gate.acquire_many(PERMITS).await.unwrap();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let ring = ring.clone();
            tokio::spawn(async move { ring.open(scope(1), vec![7]).await })
        })
        .collect();
    while fake.calls() < 1 {
        tokio::task::yield_now().await;
    }
    // One of the callers goes away; the others are not bothered.
    callers[0].abort();
    drop(held_back);
    for caller in callers.into_iter().skip(1) {
        assert!(caller.await.unwrap().is_ok());
    }
    assert_eq!(fake.calls(), 1);
    assert!(ring.inner.flights().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_request_is_not_remembered() {
    let fake = Fake::new();
    let ring = ring(&fake);
    fake.answers.lock().unwrap().push_back(unavailable());
    assert!(ring.open(scope(1), vec![7]).await.is_err());
    assert!(ring.open(scope(1), vec![7]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lease_answers_only_for_its_own_bucket_and_key() {
    let fake = Fake::new();
    let ring = ring(&fake);
    ring.generate(scope(1)).await.unwrap();
    let tampered = KeyRingError::Tampered { key: key() };
    fake.answers.lock().unwrap().push_back(tampered);
    let elsewhere = EpochScope {
        bucket: BucketName::parse("other").unwrap(),
        ..scope(1)
    };
    let refused = ring.open(elsewhere, vec![7]).await;
    assert!(matches!(refused, Err(KeyRingError::Tampered { .. })));
    assert!(ring.held(&scope(1).epoch).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_remains_is_that_of_the_lease_that_ends_first() {
    let fake = Fake::new();
    let ring = ring(&fake);
    assert_eq!(ring.lease_remaining(), None);
    ring.generate(scope(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    ring.generate(scope(2)).await.unwrap();
    assert_eq!(ring.lease_remaining(), Some(Duration::from_secs(200)));
}
