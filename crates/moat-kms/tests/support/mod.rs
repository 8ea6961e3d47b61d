//! What tests of the core share: a key manager in a folder, whose clock they set.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "not every test file uses all of it, and a failed unwrap fails the test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use moat_kms::audit::{AuditConfig, AuditLine, Filter};
use moat_kms::{Caller, Core, CoreConfig, HsmKey, Scope};
use moat_kms_client::Identity;
use moat_meta::{Embedded, Options};
use moat_types::{Clock, EnclaveName, KeyName, SystemRandom, UnixMillis};

pub const ROOT: Identity = Identity::from_spki_sha256([0; 32]);

/// A clock that stands still until it is moved.
pub struct SetClock(AtomicI64);

impl SetClock {
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub clock: Arc<SetClock>,
    hsm: String,
}

impl World {
    pub fn new() -> Self {
        let hsm = HsmKey::generate(&SystemRandom).to_text();
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Arc::new(SetClock(AtomicI64::new(1_790_000_000_000))),
            hsm: hsm.expose().to_owned(),
        }
    }

    pub async fn open(&self) -> Arc<Core<Embedded>> {
        let store = Embedded::open(self.folder.path().join("state"), Options::default()).unwrap();
        let config = CoreConfig {
            hsm: Box::new(HsmKey::parse(&self.hsm).unwrap()),
            root: Some(ROOT),
            lease_ttl: Duration::from_secs(300),
            audit: AuditConfig::new(self.folder.path().join("audit")),
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
        };
        Core::open(store, config).await.unwrap()
    }

    /// With the enclave `lake` and the key `k` in it.
    pub async fn open_with_key(&self) -> Arc<Core<Embedded>> {
        let core = self.open().await;
        core.create_enclave(&root(), &lake()).await.unwrap();
        core.create_key(&root(), &lake(), &key("k")).await.unwrap();
        core
    }
}

/// The newest `count` lines of the audit.
pub async fn audit(core: &Core<Embedded>, count: usize) -> Vec<AuditLine> {
    core.audit_tail(&root(), Filter::default(), count)
        .await
        .unwrap()
}

pub fn caller(identity: Identity) -> Caller {
    Caller {
        identity,
        source: "127.0.0.1:4711".into(),
        request_id: "R".into(),
    }
}

pub fn root() -> Caller {
    caller(ROOT)
}

pub fn identity(number: u8) -> Identity {
    Identity::from_spki_sha256([number; 32])
}

pub fn lake() -> EnclaveName {
    EnclaveName::parse("lake").unwrap()
}

pub fn scope() -> Scope {
    Scope::Enclave(lake())
}

pub fn key(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}
