//! The key manager: its state and audit in the data folder, sealed under the HSM key.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use moat_kms::audit::{AuditConfig, ExportTarget};
use moat_kms::{Caller, Core, CoreConfig, Error, OpenError, Scope, ServerInfo};
use moat_kms_client::wire::{Patterns, PolicyDocument};
use moat_kms_client::{ApiKey, Identity, Privilege};
use moat_meta::Engine;
use moat_net::tls::{ClientAuth, Roots};
use moat_net::{Drain, Limits};
use moat_pki::CertificateInfo;
use moat_types::{KeyName, SecretString, SystemClock, SystemRandom};

use super::{Bound, bind, kms_state, load_tls, local};
use crate::config::{AuditExportConfig, Config, ExportPlace, KmsConfig};
use crate::files;
use crate::folder::DataFolder;
use crate::lock::FolderLock;

/// The flag that chooses another address.
pub(crate) const FLAG: &str = "--kms-listen";

/// The policy that lets a store lease keys and nothing else.
const STORE_POLICY: &str = "store";

/// What a store may do: ask whether a key can be used, lease epoch keys under it, and have them wrapped anew.
const STORE_COMMANDS: [&str; 4] = ["KEY:STATUS", "EPOCH:GENERATE", "EPOCH:OPEN", "EPOCH:REWRAP"];

/// Where the audit says that those requests came from that a server makes to itself when it starts.
const SOURCE: &str = "start";

type KmsCore = Core<Engine>;
type Service = moat_kms::KmsServer<Engine>;

/// A bound key manager.
pub(crate) struct KmsServer {
    bound: Bound<Service>,
    core: Arc<KmsCore>,
    root: Identity,
    _lock: FolderLock,
}

impl KmsServer {
    /// Binds the listener and opens the state; a new state gets the enclave, the store's identity
    /// and the default key. The folder's lock must be held.
    pub(crate) async fn open(config: &Config, mut lock: FolderLock) -> Result<Self> {
        let tls = load_tls(&config.kms.tls, ClientAuth::Requested)?;
        let listener = bind(config.kms.listen, Some(tls), limits(), FLAG)?;
        let root = root_identity(&config.data)?;
        let core = open_core(&config.data, &config.kms, root).await?;
        begin(&core, config, root)
            .await
            .context("the key manager's first enclave, identity and key")?;
        lock.note_endpoint(&local(listener.local_addr()).to_string())?;
        let info = ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: String::new(),
            host: local(listener.local_addr()).authority(),
        };
        let random = Arc::new(SystemRandom);
        let service = Service::with_kes_enclave(
            Arc::clone(&core),
            info,
            random,
            config.kms.kes_enclave.clone(),
        )
        .with_size_limit(config.kms.size_limit);
        Ok(Self {
            bound: Bound {
                listener,
                service: Arc::new(service),
            },
            core,
            root,
            _lock: lock,
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.bound.address()
    }

    /// Makes keys that do not exist yet.
    pub(crate) fn key_maker(&self) -> KeyMaker {
        KeyMaker {
            core: Arc::clone(&self.core),
            root: self.root,
        }
    }

    /// Serves until drained, then closes the audit with a checkpoint.
    pub(crate) async fn serve(self, drain: Drain) {
        let core = Arc::clone(&self.core);
        let draining = drain.clone();
        // Log streams have no end of their own that a drain could wait for.
        let feeds = tokio::spawn(async move {
            draining.started().await;
            core.end_streams();
        });
        self.bound.serve(drain).await;
        feeds.abort();
        if let Err(error) = self.core.close().await {
            tracing::error!(%error, "the audit could not be closed with a checkpoint");
        }
    }
}

/// Makes the keys of the buckets that `moat up` makes.
pub(crate) struct KeyMaker {
    core: Arc<KmsCore>,
    root: Identity,
}

impl KeyMaker {
    /// Makes a key unless it exists.
    pub(crate) async fn make(&self, config: &Config, key: &KeyName) -> Result<()> {
        let (caller, enclave) = (caller(self.root), &config.store.kms.enclave);
        let outcome = match self.core.key_info(&caller, enclave, key).await {
            Err(Error::KeyNotFound { .. }) => {
                ignore_existing(self.core.create_key(&caller, enclave, key).await)
            }
            Err(other) => Err(other.into()),
            Ok(_) => Ok(()),
        };
        outcome.with_context(|| format!("the KMS key {key}"))
    }
}

async fn open_core(data: &DataFolder, config: &KmsConfig, root: Identity) -> Result<Arc<KmsCore>> {
    // A token may take its time, and its driver may block.
    let keys = tokio::task::spawn_blocking({
        let (data, config) = (data.clone(), config.clone());
        move || anyhow::Ok((kms_state::hsm(&config)?, kms_state::node(&data, &config)?))
    });
    let (hsm, node) = keys.await.context("the HSM key could not be opened")??;
    let state = kms_state::open_engine(data, config).await?;
    let settings = CoreConfig {
        hsm,
        root: Some(root),
        lease_ttl: config.lease_ttl,
        audit: AuditConfig {
            file_bytes_max: config.audit_file_size,
            ..AuditConfig::new(data.kms_audit())
        },
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    };
    let targets = export_targets(&config.audit_export)?;
    match KmsCore::open_node(state, settings, node).await {
        Ok(core) => {
            core.set_rate_limit(config.rate_limit);
            core.export_audit(targets)?;
            Ok(core)
        }
        Err(OpenError::WrongHsmKey) => bail!(
            "the HSM key {} is not the one that sealed the key manager's state in {}; nothing was changed",
            kms_state::hsm_origin(config),
            data.kms().display()
        ),
        Err(other) => Err(other.into()),
    }
}

/// Ten thousand connections of clients that only keep them leave room for those that ask. An idle one
/// takes about 32 KiB.
fn limits() -> Limits {
    const CONNECTIONS_MAX: usize = 16_000;
    Limits {
        connections_max: CONNECTIONS_MAX,
        ..Limits::default()
    }
}

/// Where the audit is handed on to, with the secrets of the files that are named.
fn export_targets(config: &AuditExportConfig) -> Result<Vec<ExportTarget>> {
    let token = config
        .token
        .as_deref()
        .map(files::read_secret)
        .transpose()?;
    let token = token.map(|text| SecretString::new(text.expose().trim().to_owned()));
    let roots = Roots {
        system: config.ca.is_none(),
        files: config.ca.iter().cloned().collect(),
        pem: Vec::new(),
    };
    let target = |place: &ExportPlace| match place {
        ExportPlace::Stdout => ExportTarget::Stdout,
        ExportPlace::File(path) => ExportTarget::File(path.clone()),
        ExportPlace::Webhook(url) => ExportTarget::Webhook {
            url: url.clone(),
            roots: roots.clone(),
            token: token.clone(),
        },
    };
    Ok(config.targets.iter().map(target).collect())
}

/// The identity of the operator, whose API key lies in the data folder.
fn root_identity(data: &DataFolder) -> Result<Identity> {
    let path = data.root_api_key();
    let text = files::read_secret(&path)?;
    let key = ApiKey::parse(text.expose()).with_context(|| path.display().to_string())?;
    Ok(key.identity())
}

/// The identity of the store: the public key of its client certificate.
fn store_identity(config: &Config) -> Result<Identity> {
    let path = &config.store.kms.identity.certificate;
    let text = files::read_text(path)?;
    let chain =
        CertificateInfo::parse_pem(text.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(Identity::from_spki_sha256(chain[0].public_key_sha256))
}

/// Fills a new state. The store's identity comes last, and where it is known all is done.
async fn begin(core: &KmsCore, config: &Config, root: Identity) -> Result<()> {
    let caller = caller(root);
    let enclave = &config.store.kms.enclave;
    let scope = Scope::Enclave(enclave.clone());
    let store = store_identity(config)?;
    match core.identity_info(&caller, &scope, &store).await {
        Ok(_) => return Ok(()),
        Err(Error::IdentityNotFound { .. } | Error::EnclaveNotFound { .. }) => {}
        Err(other) => return Err(other.into()),
    }
    ignore_existing(core.create_enclave(&caller, enclave).await)?;
    ignore_existing(
        core.create_key(&caller, enclave, &config.store.kms.default_key)
            .await,
    )?;
    let policy = KeyName::parse(STORE_POLICY)?;
    core.set_policy(&caller, &scope, &policy, &store_policy())
        .await?;
    ignore_existing(
        core.create_identity(&caller, &scope, &store, Privilege::User, Some(&policy))
            .await,
    )
}

fn store_policy() -> PolicyDocument {
    let any = |command: &str| (command.to_owned(), Patterns::One("*".to_owned()));
    PolicyDocument {
        allow: STORE_COMMANDS.iter().map(|command| any(command)).collect(),
        ..PolicyDocument::default()
    }
}

fn caller(root: Identity) -> Caller {
    Caller {
        identity: root,
        source: SOURCE.into(),
        request_id: moat_net::request_id(&SystemRandom).into(),
    }
}

fn ignore_existing<T>(made: Result<T, Error>) -> Result<()> {
    match made {
        Ok(_)
        | Err(
            Error::EnclaveExists { .. } | Error::KeyExists { .. } | Error::IdentityExists { .. },
        ) => Ok(()),
        Err(other) => Err(other.into()),
    }
}
