//! The store's way to its keys: always the network client with the store's own certificate, even
//! when the key manager runs in the same process.

use std::sync::Arc;

use anyhow::{Context, Result};
use moat_crypto::KeyRing;
use moat_kms_client::{Client, ClientConfig, Credential, RemoteKeyRing};
use moat_net::tls::Roots;
use moat_types::{SystemClock, SystemRandom};

use crate::config::Config;
use crate::endpoint::Endpoint;

/// A ring over the configured key manager, or the one of this folder at `local`. Connects when a
/// key is first needed. Must be called inside a runtime.
pub(crate) fn open(config: &Config, local: &Endpoint) -> Result<Arc<dyn KeyRing>> {
    let kms = &config.store.kms;
    let endpoint = kms.endpoint.as_ref().unwrap_or(local).to_string();
    let roots = Roots {
        system: false,
        files: vec![kms.ca.clone()],
        pem: Vec::new(),
    };
    let credential = Credential::Files {
        certificate: kms.identity.certificate.clone(),
        key: kms.identity.private_key.clone(),
    };
    let client = Client::new(
        ClientConfig::new(endpoint, roots, credential),
        &SystemClock,
        &SystemRandom,
    )
    .context("the store's way to the key manager")?;
    Ok(Arc::new(RemoteKeyRing::new(
        Arc::new(client),
        kms.enclave.clone(),
        Arc::new(SystemRandom),
    )))
}
