//! The core: every operation, checked against the caller's rights and written to the audit.
//!
//! The wire fronts are translations onto these calls; none of them decides anything. Each call
//! follows the same path: authorize, note a change before it is made, do it, make the audit line
//! durable, answer. So no released key and no change is missing from the audit; a change whose
//! caller went away in the middle shows as `begun` without an end.

mod access;
mod backup;
mod batch;
mod data;
mod due;
mod enclaves;
mod epochs;
mod hsm;
mod identities;
mod items;
mod keys;
mod lakes;
mod lifecycle;
mod limits;
mod permit;
mod policies;
mod refusals;
mod trail;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use moat_kms_client::Identity;
use moat_meta::MetaStore;
use moat_types::{Clock, Random, SecretBytes};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use access::{Decider, Decision};
pub use due::DUE_INTERVAL;
pub use enclaves::EnclaveInfo;
pub use epochs::{EpochGrant, OpenedEpoch, RewrappedEpoch};
pub use hsm::{HsmInfo, HsmRotation, HsmStatus};
pub use identities::{IdentityInfo, SERVICE_ACCOUNTS_MAX, TAG_BYTES_MAX, TAGS_MAX, Tags};
pub use items::{
    BATCH_ITEMS_MAX, CONTEXT_BYTES_MAX, DATA_KEY_BYTES, DATA_KEY_BYTES_MAX, DataKey, Decrypt,
    Decrypted, Encrypt, Encrypted, Generate, Mac, MacCode, PLAINTEXT_BYTES_MAX,
};
pub use keys::{
    IMPORTED_VERSIONS_MAX, Import, KEY_VERSIONS_MAX, KeyInfo, KeyVersionInfo, NewKey,
    PendingDeletion, ROTATION_MAX, ROTATION_MIN,
};
pub use lakes::Guarded;
pub use lifecycle::{DELETION_GRACE, DELETION_GRACE_MAX, ExportedVersion};
pub use limits::RateLimit;
pub use policies::PolicyInfo;

use crate::audit::{
    Anchor, AuditConfig, AuditError, AuditLine, AuditLog, CheckpointSigner, ExportTarget, Exporter,
    Facts, Filter, LinesAfter,
};
use crate::error::{Error, OpenError};
use crate::feed::Follower;
use crate::hsm::{Hsm, HsmError, Hsms};
use crate::policy::Command;
use crate::reserve::Reserve;
use crate::rows::{
    AnchorRow, AuditKeyRow, HomeRow, IdentityRow, KeyRow, LakeRow, PolicyRow, Scope, singleton_row,
};
use crate::state::{Opened, State};

/// What a core is made of.
pub struct CoreConfig {
    /// The key that seals the state.
    pub hsm: Box<dyn Hsm>,
    /// An identity that is SysAdmin without being in the state: how everything begins.
    pub root: Option<Identity>,
    /// How long a store may use an epoch key before it asks again; the time within which
    /// disabling a key takes effect.
    pub lease_ttl: Duration,
    /// How the audit is kept.
    pub audit: AuditConfig,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where keys come from.
    pub random: Arc<dyn Random>,
}

impl CoreConfig {
    /// Long enough that a store asks rarely and outlives a restart of the key manager, short
    /// enough that disabling a key means something.
    pub const LEASE_TTL: Duration = Duration::from_secs(300);
}

/// What a core needs beyond one process and one HSM key.
#[derive(Default)]
pub struct NodeConfig {
    /// The node's name, if several share the state: each has an audit of its own, and the state
    /// knows the newest checkpoint of each.
    pub name: Option<String>,
    /// HSM keys that may have sealed rows that are still there, or that other nodes seal under.
    pub hsms_old: Vec<Box<dyn Hsm>>,
    /// Finds the HSM key that a rotation goes to.
    pub hsm_source: Option<HsmSource>,
}

/// Turns what an operator calls an HSM key (a file, a URI) into the key.
pub type HsmSource = Box<dyn Fn(&str) -> Result<Box<dyn Hsm>, HsmError> + Send + Sync>;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The identity that the connection proved.
    pub identity: Identity,
    /// The address it came from.
    pub source: Arc<str>,
    /// The id of the request, for the audit.
    pub request_id: Arc<str>,
}

impl Caller {
    /// The process itself, acting as `identity`: how a first start sets things up.
    pub fn local(identity: Identity) -> Self {
        Self {
            identity,
            source: "local".into(),
            request_id: "local".into(),
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items, in order of names. May be fewer than asked for, even none, with more to come.
    pub items: Vec<T>,
    /// The first name of the next page.
    pub next: Option<String>,
}

/// Whether something goes although others depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Force {
    /// Not then; the error says what does.
    #[default]
    No,
    /// It does.
    Yes,
}

/// What a listing asks for.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Names that begin with this.
    pub prefix: String,
    /// Names from this one on, itself included.
    pub from: String,
    /// At most so many; 0 means as many as one page may hold.
    pub limit: usize,
}

impl ListQuery {
    /// Items on one page: MinIO shows only the first page of a listing, so it is a large one.
    pub const LIMIT_MAX: usize = 1000;

    fn limit(&self) -> usize {
        match self.limit {
            0 => Self::LIMIT_MAX,
            limit => limit.min(Self::LIMIT_MAX),
        }
    }
}

/// The key manager's core over a metadata engine.
pub struct Core<M> {
    state: State<M>,
    /// Where data keys, salts and nonces come from.
    reserve: Reserve,
    audit: AuditLog,
    root: Option<Identity>,
    lease_ttl: Duration,
    /// Where the state keeps this node's newest checkpoint.
    anchor_row: Bytes,
    hsm_source: Option<Arc<HsmSource>>,
    keys: Opened<KeyRow>,
    identities: Opened<IdentityRow>,
    homes: Opened<HomeRow>,
    policies: Opened<PolicyRow>,
    lakes: Opened<LakeRow>,
    /// Keeps the newest checkpoint in the state.
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// Hand the audit on. They end with it.
    exporters: Mutex<Vec<JoinHandle<()>>>,
    limiter: limits::Limiter,
    refusals: refusals::Refusals,
    /// Whether the streams of this core are to end.
    ending: watch::Sender<bool>,
    meters: trail::Meters,
}

/// How long the end waits for those who hand the audit on.
const EXPORT_PATIENCE: Duration = Duration::from_secs(3);
const AUDIT_KEY: &str = "audit-key";
const AUDIT_ANCHOR: &str = "audit-anchor";

impl<M: MetaStore> Core<M> {
    /// Opens the state and the audit, or begins both.
    ///
    /// # Errors
    /// `OpenError::WrongHsmKey` if the state was sealed under another key; nothing is changed
    /// then. Other variants name what is damaged or can't be reached.
    pub async fn open(store: M, config: CoreConfig) -> Result<Arc<Self>, OpenError> {
        Self::open_node(store, config, NodeConfig::default()).await
    }

    /// As [`Core::open`], as one of several nodes.
    ///
    /// # Errors
    /// As there.
    pub async fn open_node(
        store: M,
        config: CoreConfig,
        node: NodeConfig,
    ) -> Result<Arc<Self>, OpenError> {
        let reserve = Reserve::new(Arc::clone(&config.random));
        let hsms = Hsms::new(config.hsm, node.hsms_old, Arc::clone(&config.random));
        let state = State::open(store, hsms, config.clock.clone(), config.random).await?;
        let signer = load_signer(&state).await?;
        let anchor_row = singleton_row(&match &node.name {
            Some(name) => format!("{AUDIT_ANCHOR}.{name}"),
            None => AUDIT_ANCHOR.to_owned(),
        });
        let anchor = load_anchor(&state, &anchor_row).await?;
        let (audit_config, clock) = (config.audit, config.clock);
        let opened = tokio::task::spawn_blocking(move || {
            AuditLog::open(audit_config, signer, clock, anchor)
        });
        let audit = opened.await.map_err(|_| AuditError::Closed)??;
        let core = Arc::new(Self {
            state,
            reserve,
            audit,
            root: config.root,
            lease_ttl: config.lease_ttl,
            anchor_row,
            hsm_source: node.hsm_source.map(Arc::new),
            keys: Opened::default(),
            identities: Opened::default(),
            homes: Opened::default(),
            policies: Opened::default(),
            lakes: Opened::default(),
            keeper: Mutex::default(),
            exporters: Mutex::default(),
            limiter: limits::Limiter::default(),
            refusals: refusals::Refusals::default(),
            ending: watch::Sender::new(false),
            meters: trail::Meters::new(),
        });
        core.keep_anchor().await?;
        let keeper = tokio::spawn(keep_anchors(Arc::downgrade(&core), core.audit.anchors()));
        *core.keeper() = Some(keeper);
        tokio::spawn(due::watch(Arc::downgrade(&core)));
        tokio::spawn(refusals::watch(Arc::downgrade(&core)));
        Ok(core)
    }

    /// Writes what the audit still holds and its last checkpoint. Operations fail from then on.
    ///
    /// # Errors
    /// `OpenError` if the checkpoint could not be written.
    pub async fn close(&self) -> Result<(), OpenError> {
        self.tell_refusals(true).await;
        let closed = self.audit.close().await;
        let exporters: Vec<_> = {
            let mut exporters = self
                .exporters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            exporters.drain(..).collect()
        };
        for mut exporter in exporters {
            // What a slow receiver does not take now, it gets after the next start.
            if tokio::time::timeout(EXPORT_PATIENCE, &mut exporter)
                .await
                .is_err()
            {
                exporter.abort();
            }
        }
        // It ends with the audit; waiting for it leaves nobody behind who holds the state open.
        let keeper = self.keeper().take();
        if let Some(keeper) = keeper {
            let _ = keeper.await;
        }
        closed?;
        self.keep_anchor().await?;
        Ok(())
    }

    fn keeper(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether operations can succeed, for readiness.
    ///
    /// # Errors
    /// `Error::Store` if the metadata engine does not answer, `Error::Audit` if the audit stopped.
    pub async fn check_ready(&self) -> Result<(), Error> {
        if self.audit.is_stopped() {
            return Err(AuditError::Poisoned.into());
        }
        self.state.probe().await
    }

    /// Whether changes can succeed as well, which an engine that only reads does not let.
    ///
    /// # Errors
    /// As [`Core::check_ready`].
    pub async fn check_ready_to_write(&self) -> Result<(), Error> {
        self.check_ready().await?;
        self.state.probe_write().await
    }

    /// The last lines of the audit that pass `filter`.
    ///
    /// # Errors
    /// `Error::Denied` without `AUDIT:READ` in the system; `Error::Audit` if it can't be read.
    pub async fn audit_tail(
        &self,
        caller: &Caller,
        filter: Filter,
        count: usize,
    ) -> Result<Vec<AuditLine>, Error> {
        let mut trail = self.trail(caller, &Scope::System, Command::AuditRead);
        let result = async {
            self.authorize(caller, &Scope::System, Command::AuditRead, Some("audit"))
                .await?;
            self.audit.settle().await;
            let folder = self.audit.folder().to_owned();
            let read = move || crate::audit::tail(&folder, &filter, count);
            let lines = tokio::task::spawn_blocking(read).await;
            Ok(lines.map_err(|_| AuditError::Closed)??)
        }
        .await;
        trail.noted(result).await
    }

    /// Hands the audit on to these targets, from where each was the last time.
    ///
    /// # Errors
    /// `moat_net::Error` if the trusted roots of a web hook can't be loaded.
    pub fn export_audit(&self, targets: Vec<ExportTarget>) -> Result<(), moat_net::Error> {
        for target in targets {
            let exporter = Exporter::new(self.audit.folder(), target)?;
            let running = tokio::spawn(exporter.run(self.audit.heads()));
            let mut exporters = self
                .exporters
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            exporters.push(running);
        }
        Ok(())
    }

    /// Follows the operations that end from now on, of every enclave.
    pub(crate) fn follow_audit(&self) -> Follower<Facts> {
        self.audit.follow()
    }

    /// Ends the streams that clients follow: the server goes down, and they would go on for ever.
    pub fn end_streams(&self) {
        self.ending.send_replace(true);
    }

    /// Tells those who serve a stream when it is to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// The lines of the audit behind number `after` that pass `filter`, oldest first. If there are
    /// none, waits up to `wait` for one; the caller's own readings of the audit don't count, or
    /// following it would never rest.
    ///
    /// # Errors
    /// As [`Core::audit_tail`].
    pub async fn audit_after(
        &self,
        caller: &Caller,
        filter: Filter,
        after: u64,
        count: usize,
        wait: Duration,
    ) -> Result<LinesAfter, Error> {
        let mut trail = self.trail(caller, &Scope::System, Command::AuditRead);
        let result = async {
            self.authorize(caller, &Scope::System, Command::AuditRead, Some("audit"))
                .await?;
            self.audit.settle().await;
            let deadline = tokio::time::Instant::now() + wait;
            let (mut heads, mut ending) = (self.audit.heads(), self.ending());
            let mut found = LinesAfter {
                lines: Vec::new(),
                last_seq: after,
            };
            loop {
                heads.borrow_and_update();
                let (folder, filter) = (self.audit.folder().to_owned(), filter.clone());
                let (from, room) = (found.last_seq, count - found.lines.len());
                let read = move || crate::audit::after(&folder, &filter, from, room);
                let more = tokio::task::spawn_blocking(read).await;
                let more = more.map_err(|_| AuditError::Closed)??;
                found.last_seq = more.last_seq;
                found.lines.extend(more.lines);
                let own = caller.identity.to_string();
                let is_news = |line: &AuditLine| {
                    line.operation.as_deref() != Some(Command::AuditRead.as_str())
                        || line.identity.as_deref() != Some(&own)
                };
                let full = found.lines.len() >= count;
                if full || found.lines.iter().any(is_news) {
                    return Ok(found);
                }
                let ended = async { ending.wait_for(|ending| *ending).await.is_ok() };
                let news = tokio::select! {
                    news = tokio::time::timeout_at(deadline, heads.changed()) => news,
                    _ = ended => return Ok(found),
                };
                if !matches!(news, Ok(Ok(()))) {
                    return Ok(found);
                }
            }
        }
        .await;
        trail.noted(result).await
    }

    /// The key that signs the checkpoints of the audit.
    pub const fn audit_public_key(&self) -> &[u8; 32] {
        self.audit.public_key()
    }

    /// The newest checkpoint of the audit.
    pub fn audit_anchor(&self) -> Option<Anchor> {
        *self.audit.anchors().borrow()
    }

    /// How long leases last.
    pub const fn lease_ttl(&self) -> Duration {
        self.lease_ttl
    }

    async fn keep_anchor(&self) -> Result<(), OpenError> {
        let Some(anchor) = self.audit_anchor() else {
            return Ok(());
        };
        let row = AnchorRow {
            seq: anchor.seq,
            hash: anchor.hash,
        };
        let system = system(&self.state).await?;
        let write = self.state.put(&system, &self.anchor_row, &row);
        self.state.set(write).await?;
        Ok(())
    }
}

/// Keeps the newest checkpoint in the state until the core is gone.
async fn keep_anchors<M: MetaStore>(
    core: std::sync::Weak<Core<M>>,
    mut anchors: watch::Receiver<Option<Anchor>>,
) {
    anchors.mark_unchanged();
    while anchors.changed().await.is_ok() {
        let Some(core) = core.upgrade() else { return };
        if let Err(e) = core.keep_anchor().await {
            // The next checkpoint tries again; until then an older anchor stands, which is true
            // as well.
            tracing::warn!(error = %e, "the audit's checkpoint could not be kept in the state");
        }
    }
}

async fn system<M: MetaStore>(
    state: &State<M>,
) -> Result<Arc<crate::state::OpenEnclave>, OpenError> {
    match state.enclave(&Scope::System).await {
        Ok(Some(system)) => Ok(system),
        Ok(None) => Err(OpenError::Incomplete),
        Err(e) => Err(e.into()),
    }
}

async fn load_signer<M: MetaStore>(state: &State<M>) -> Result<CheckpointSigner, OpenError> {
    let system = system(state).await?;
    let meta_key = singleton_row(AUDIT_KEY);
    let cache = Opened::default();
    let row = match state.get::<AuditKeyRow>(&system, &cache, &meta_key).await? {
        Some(row) => row,
        None => {
            let mut seed = vec![0; 32];
            state.random.fill(&mut seed);
            let row = AuditKeyRow {
                seed: SecretBytes::new(seed),
            };
            // Another node may be first; what stands there then is what counts.
            let _ = state
                .create(&system, vec![state.put(&system, &meta_key, &row)])
                .await?;
            let row = state.get::<AuditKeyRow>(&system, &cache, &meta_key).await?;
            row.ok_or(OpenError::Incomplete)?
        }
    };
    CheckpointSigner::from_seed(row.seed.expose()).ok_or(OpenError::Damaged {
        row: crate::state::text(&meta_key),
    })
}

async fn load_anchor<M: MetaStore>(
    state: &State<M>,
    meta_key: &Bytes,
) -> Result<Option<Anchor>, OpenError> {
    let system = system(state).await?;
    let row = state
        .get::<AnchorRow>(&system, &Opened::default(), meta_key)
        .await?;
    Ok(row.map(|row| Anchor {
        seq: row.seq,
        hash: row.hash,
    }))
}
