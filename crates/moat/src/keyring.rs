//! The store's way to its keys: always the network client with the store's own certificate, even
//! when the key manager runs in the same process.

use std::sync::Arc;

use anyhow::{Context, Result};
use moat_crypto::KeyRing;
use moat_kms_client::{ApiKey, Client, ClientConfig, Code, Credential, RemoteKeyRing};
use moat_net::tls::Roots;
use moat_types::{EnclaveName, SystemClock, SystemRandom};

use crate::config::{Config, StoreKmsConfig};
use crate::endpoint::Endpoint;
use crate::files;

/// Where an API key may stand, ours and MinKMS's.
const API_KEY_VARIABLES: [&str; 2] = ["MOAT_KMS_API_KEY", "MINIO_KMS_API_KEY"];

/// A ring over the configured key manager, or the one of this folder at `local`. Connects when a
/// key is first needed. Must be called inside a runtime.
pub(crate) fn open(config: &Config, local: &Endpoint) -> Result<Arc<dyn KeyRing>> {
    let kms = &config.store.kms;
    let endpoints = kms
        .endpoint
        .as_deref()
        .unwrap_or(std::slice::from_ref(local));
    let roots = Roots {
        system: false,
        files: vec![kms.ca.clone()],
        pem: Vec::new(),
    };
    let mut client_config = ClientConfig::new(String::new(), roots, credential(kms)?);
    client_config.endpoints = endpoints.iter().map(ToString::to_string).collect();
    let client = Client::new(client_config, &SystemClock, &SystemRandom)
        .context("the store's way to the key manager")?;
    let client = Arc::new(client);
    // That of this folder is started with the store, or says itself that it is not.
    if kms.endpoint.is_some() {
        tokio::spawn(try_out(Arc::clone(&client), kms.enclave.clone()));
    }
    let ring = RemoteKeyRing::new(
        client,
        kms.enclave.clone(),
        config.store.strict_buckets.iter().cloned().collect(),
        Arc::new(SystemRandom),
    );
    Ok(Arc::new(ring))
}

/// Says at the start what requests would run into. A store serves what needs no key as long as there
/// is no key manager, so this ends nothing.
async fn try_out(client: Arc<Client>, enclave: EnclaveName) {
    let known = match client.own_identity(Some(&enclave)).await {
        // Who is above all enclaves is known in none of them.
        Err(e) if e.code() == Some(Code::IdentityNotFound) => {
            let seen = client.enclave(&enclave).await;
            seen.map(drop).map_err(|_| e)
        }
        known => known.map(drop),
    };
    if let Err(error) = known {
        tracing::warn!(
            %error, %enclave,
            "the key manager does not serve this store; what needs a key fails until it does"
        );
    }
}

/// An API key if one is given, else the certificate. The variables that `moat kms` reads as well
/// count for another key manager only: beside our own there is a certificate, with fewer rights.
fn credential(kms: &StoreKmsConfig) -> Result<Credential> {
    if let Some(path) = &kms.api_key_file {
        let text = files::read_secret(path)?;
        let key =
            ApiKey::parse(text.expose().trim()).with_context(|| path.display().to_string())?;
        return Ok(Credential::ApiKey(key));
    }
    if kms.endpoint.is_some()
        && let Some(key) = api_key_of_environment()?
    {
        return Ok(Credential::ApiKey(key));
    }
    Ok(Credential::Files {
        certificate: kms.identity.certificate.clone(),
        key: kms.identity.private_key.clone(),
    })
}

/// The API key that a variable holds.
pub(crate) fn api_key_of_environment() -> Result<Option<ApiKey>> {
    for name in API_KEY_VARIABLES {
        if let Ok(text) = std::env::var(name) {
            return ApiKey::parse(&text).context(name).map(Some);
        }
    }
    Ok(None)
}
