//! The store: metadata and blobs in the data folder, keys from the key manager.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};
use moat_blob::Disk;
use moat_crypto::KeyRing;
use moat_meta::{Embedded, Options};
use moat_net::Limits;
use moat_net::tls::ClientAuth;
use moat_store::{Parts, RootCredentials, S3Service, ServiceConfig, Settings, Store};
use moat_types::{SystemClock, SystemRandom};

use super::{Bound, bind, load_tls};
use crate::config::{BucketRequest, Config, StoreConfig};
use crate::credentials::Credentials;
use crate::lock::FolderLock;

/// The flag that chooses another address.
pub(crate) const FLAG: &str = "--store-listen";

type Service = S3Service<Embedded, Disk>;

/// A bound store.
pub(crate) struct StoreServer {
    bound: Bound<Service>,
    store: Arc<Store<Embedded, Disk>>,
    _lock: FolderLock,
}

impl StoreServer {
    /// Opens metadata and blobs and binds the listener. The folder's lock must be held.
    pub(crate) async fn open(
        config: &Config,
        ring: Arc<dyn KeyRing>,
        lock: FolderLock,
    ) -> Result<Self> {
        let store = &config.store;
        let root = root_credentials(store)?;
        let tls = load_tls(&store.tls, ClientAuth::None)?;
        let listener = bind(store.listen, Some(tls), Limits::default(), FLAG)?;
        let (metadata, blobs) = (config.data.store_metadata(), config.data.store_blobs());
        let opened = tokio::task::spawn_blocking(move || {
            let meta = Embedded::open(metadata, Options::default())?;
            anyhow::Ok((meta, Disk::open(blobs)?))
        });
        let (meta, blobs) = opened
            .await
            .context("the store's folder could not be opened")??;
        let parts = Parts {
            meta: Arc::new(meta),
            blobs: Arc::new(blobs),
            ring,
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let opened = Store::open(parts, settings(store)).await?;
        let service = Service::new(Arc::clone(&opened), service_config(store, root));
        Ok(Self {
            bound: Bound {
                listener,
                service: Arc::new(service),
            },
            store: opened,
            _lock: lock,
        })
    }

    /// Makes a bucket with its rule; one that exists is left as it is. Says whether it was made.
    pub(crate) async fn ensure_bucket(&self, bucket: &BucketRequest) -> Result<bool> {
        Ok(self
            .store
            .ensure_bucket(&bucket.name, bucket.key.as_ref())
            .await?)
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> std::net::SocketAddr {
        self.bound.address()
    }

    /// Serves until drained. The folder stays locked until then.
    pub(crate) async fn serve(self, drain: moat_net::Drain) {
        self.bound.serve(drain).await;
    }
}

/// The credentials in force: the environment's, else the file's.
pub(crate) fn root_credentials(config: &StoreConfig) -> Result<Credentials> {
    if let Some(given) = Credentials::from_env(&|name| std::env::var(name).ok())? {
        return Ok(given);
    }
    Credentials::from_file(&config.root_credentials).context(
        "no root credentials: set MOAT_ROOT_USER and MOAT_ROOT_PASSWORD as at the first start, or give a file with --root-credentials",
    )
}

fn settings(config: &StoreConfig) -> Settings {
    Settings {
        default_key: config.kms.default_key.clone(),
        auto_encryption: config.auto_encryption,
        region: config.region.clone(),
        domains: config.domains.clone(),
    }
}

fn service_config(config: &StoreConfig, root: Credentials) -> ServiceConfig {
    // A proxy on this machine connects from loopback, or from the address that it connects to.
    let mut trusted_proxies = config.trusted_proxies.clone();
    trusted_proxies.extend([
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ]);
    if !config.listen.ip().is_unspecified() {
        trusted_proxies.push(config.listen.ip());
    }
    ServiceConfig {
        root: RootCredentials {
            access_key_id: root.user,
            secret_access_key: root.password,
        },
        trusted_proxies,
        host_id: rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
    }
}
