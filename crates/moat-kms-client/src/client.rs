//! The client of the native API: one method per route.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use moat_net::tls::{ClientIdentity, ClientTls, ClientTlsConfig, Roots};
use moat_net::{Endpoint, HttpClient};
use moat_types::{BucketName, Clock, EnclaveName, EpochId, KeyName, Random, SecretBytes};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::error::{Error, SetupError};
use crate::transport::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, Repeat, Transport};
use crate::wire::{self, Base64, Listing, SecretBase64};
use crate::{ApiKey, Identity, Privilege};

/// What a client shows to the key manager.
#[derive(Clone, Debug)]
pub enum Credential {
    /// An API key.
    ApiKey(ApiKey),
    /// A certificate and its key in PEM files, read again when they change.
    Files {
        /// The certificate, and its chain.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Nothing: only version and health can be asked for.
    None,
}

/// How to reach the key manager.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `https://host:port`; without a scheme https is meant, without a port 7373. Any of them can
    /// answer any call.
    pub endpoints: Vec<String>,
    /// Who vouches for the server's certificate.
    pub roots: Roots,
    /// Who we are.
    pub credential: Credential,
    /// Accept any server certificate. For labs only.
    pub insecure: bool,
    /// How long one endpoint may take to answer.
    pub response_timeout: Duration,
}

impl ClientConfig {
    /// One endpoint, the defaults otherwise.
    pub fn new(endpoint: impl Into<String>, roots: Roots, credential: Credential) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            roots,
            credential,
            insecure: false,
            response_timeout: RESPONSE_TIMEOUT,
        }
    }
}

/// The port of a key manager, as MinKMS has it.
pub const DEFAULT_PORT: u16 = 7373;

/// Which part of a listing to fetch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Names that begin with this.
    pub prefix: String,
    /// Names from this one on: the `next` of the page before.
    pub from: String,
    /// At most so many; the server's limit if it is 0.
    pub limit: u32,
}

/// Which lines of the audit to fetch.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// At most so many, the newest; 100 if it is 0.
    pub limit: u32,
    /// Of this KMS key.
    pub key: Option<String>,
    /// Of this identity.
    pub identity: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
    /// In this enclave.
    pub enclave: Option<String>,
    /// Instead of the newest: the first ones after the line of this number.
    pub after: Option<u64>,
    /// How long to wait for a line if there is none after that number.
    pub wait_seconds: Option<u32>,
}

/// Where identities and policies live on the wire: an enclave, or above all of them.
fn scope_path(enclave: Option<&EnclaveName>) -> String {
    enclave.map_or_else(|| "/v1".into(), |enclave| format!("/v1/enclaves/{enclave}"))
}

fn key_path(enclave: &EnclaveName, key: &KeyName) -> String {
    format!("/v1/enclaves/{enclave}/keys/{key}")
}

/// A client of one key manager, or of several that share a state. Clone the `Arc` around it.
pub struct Client {
    transport: Transport,
}

impl Client {
    /// Makes a client; connects to nothing yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `SetupError` names the endpoint, file or credential that is no good.
    pub fn new(
        config: ClientConfig,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, SetupError> {
        let endpoints = config.endpoints.iter().map(|url| parse_endpoint(url));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(SetupError::NoEndpoint);
        }
        let identity = match config.credential {
            Credential::None => None,
            Credential::Files { certificate, key } => {
                Some(ClientIdentity::Files { certificate, key })
            }
            Credential::ApiKey(key) => {
                let (certificate, key) = key.to_certificate(clock, random)?;
                Some(ClientIdentity::Der {
                    chain: vec![Bytes::copy_from_slice(&certificate)],
                    key_pkcs8: Zeroizing::new(key.secret_der().to_vec()),
                })
            }
        };
        let tls = ClientTls::load(ClientTlsConfig {
            roots: config.roots,
            identity,
            insecure: config.insecure,
            ..ClientTlsConfig::default()
        })?;
        let http = HttpClient::new(moat_net::ClientConfig {
            tls: Some(tls),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: Some(config.response_timeout),
            ..moat_net::ClientConfig::default()
        });
        Ok(Self {
            transport: Transport::new(http, endpoints),
        })
    }

    /// What the server is.
    ///
    /// # Errors
    /// As every call: [`Error`].
    pub async fn version(&self) -> Result<wire::Version, Error> {
        self.read("/version").await
    }

    /// Whether the server is ready to serve.
    ///
    /// # Errors
    /// [`Error`]; `is_unavailable` if it answers that it is not.
    pub async fn ready(&self) -> Result<(), Error> {
        let path = "/v1/health/ready";
        self.transport
            .call(&Method::GET, path, None, Repeat::Safe)
            .await?;
        Ok(())
    }

    /// Makes an enclave.
    ///
    /// # Errors
    /// [`Error`]; `Code::EnclaveExists` if there is one of that name.
    pub async fn create_enclave(&self, name: &EnclaveName) -> Result<wire::EnclaveInfo, Error> {
        let name = name.to_string();
        self.change("/v1/enclaves", &wire::CreateEnclave { name }, Repeat::Never)
            .await
    }

    /// Deletes an enclave with all that is in it, now and for good.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_enclave(&self, name: &EnclaveName) -> Result<(), Error> {
        self.delete::<wire::Nothing>(&format!("/v1/enclaves/{name}"))
            .await
            .map(drop)
    }

    /// Describes an enclave.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enclave(&self, name: &EnclaveName) -> Result<wire::EnclaveInfo, Error> {
        self.read(&format!("/v1/enclaves/{name}")).await
    }

    /// Lists enclaves.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enclaves(
        &self,
        options: &ListOptions,
    ) -> Result<Listing<wire::EnclaveInfo>, Error> {
        self.list("/v1/enclaves", options).await
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`Error`]; `Code::KeyExists` if there is one of that name.
    pub async fn create_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::KeyInfo, Error> {
        let new = wire::CreateKey {
            name: name.to_string(),
            algorithm: None,
            exportable: false,
            rotation_seconds: None,
        };
        self.create_key_with(enclave, &new).await
    }

    /// Makes a key as it is described.
    ///
    /// # Errors
    /// [`Error`]; `Code::KeyExists` if there is one of that name.
    pub async fn create_key_with(
        &self,
        enclave: &EnclaveName,
        new: &wire::CreateKey,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("/v1/enclaves/{enclave}/keys");
        self.change(&path, new, Repeat::Never).await
    }

    /// Takes in a key whose material comes from elsewhere.
    ///
    /// # Errors
    /// [`Error`]; `Code::KeyExists` if there is one of that name.
    pub async fn import_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        import: &wire::ImportKey,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/import", key_path(enclave, name));
        self.change(&path, import, Repeat::Never).await
    }

    /// Begins the deletion of a key, which is gone after `grace_seconds` (7 days by default), or
    /// deletes it now if they are 0.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        grace_seconds: Option<u64>,
    ) -> Result<wire::KeyInfo, Error> {
        let grace = grace_seconds.map(|seconds| seconds.to_string());
        let path = key_path(enclave, name);
        self.delete(&with_query(&path, &[("grace_seconds", grace.as_deref())]))
            .await
    }

    /// Takes back the deletion of a key, within its grace period.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restore_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/restore", key_path(enclave, name));
        self.change(&path, &wire::Nothing {}, Repeat::Safe).await
    }

    /// Destroys one version of a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_key_version(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        version: u32,
    ) -> Result<wire::KeyInfo, Error> {
        self.delete(&format!("{}/versions/{version}", key_path(enclave, name)))
            .await
    }

    /// Decides how often a key gets a new version by itself.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_key_rotation(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        rotation_seconds: Option<u64>,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/rotation", key_path(enclave, name));
        self.put(&path, &wire::SetRotation { rotation_seconds })
            .await
    }

    /// Reads the material of a key that was made exportable.
    ///
    /// # Errors
    /// [`Error`]; `Code::KeyNotExportable` if it was not.
    pub async fn export_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::ExportedKey, Error> {
        let path = format!("{}/export", key_path(enclave, name));
        self.change(&path, &wire::Nothing {}, Repeat::Safe).await
    }

    /// Describes a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn key(&self, enclave: &EnclaveName, name: &KeyName) -> Result<wire::KeyInfo, Error> {
        self.read(&key_path(enclave, name)).await
    }

    /// Lists keys.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn keys(
        &self,
        enclave: &EnclaveName,
        options: &ListOptions,
    ) -> Result<Listing<wire::KeyInfo>, Error> {
        self.list(&format!("/v1/enclaves/{enclave}/keys"), options)
            .await
    }

    /// The versions of a key, oldest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn key_versions(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<Listing<wire::KeyVersionInfo>, Error> {
        self.read(&format!("{}/versions", key_path(enclave, name)))
            .await
    }

    /// Gives a key a new version, which wraps from then on.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rotate_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/versions", key_path(enclave, name));
        self.change(&path, &wire::Nothing {}, Repeat::Never).await
    }

    /// Stops a key from being used.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn disable_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/disable", key_path(enclave, name));
        self.change(&path, &wire::Nothing {}, Repeat::Safe).await
    }

    /// Lets a disabled key be used again.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn enable_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<wire::KeyInfo, Error> {
        let path = format!("{}/enable", key_path(enclave, name));
        self.change(&path, &wire::Nothing {}, Repeat::Safe).await
    }

    /// Makes a data key; 32 bytes long unless a length is given.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn generate_data_key(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        length: Option<u32>,
    ) -> Result<wire::DataKey, Error> {
        let path = format!("{}/generate", key_path(enclave, name));
        let context = Base64(context.to_vec());
        let body = wire::GenerateDataKey {
            context,
            length,
            version: None,
        };
        self.change(&path, &body, Repeat::Safe).await
    }

    /// Encrypts a small secret.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn encrypt(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        plaintext: SecretBytes,
    ) -> Result<wire::Ciphertext, Error> {
        let path = format!("{}/encrypt", key_path(enclave, name));
        let body = wire::Encrypt {
            plaintext: SecretBase64(plaintext),
            context: Base64(context.to_vec()),
            version: None,
        };
        self.change(&path, &body, Repeat::Safe).await
    }

    /// Decrypts what `generate_data_key` or `encrypt` gave.
    ///
    /// # Errors
    /// [`Error`]; `Code::InvalidCiphertext` if it is anything else.
    pub async fn decrypt(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        ciphertext: &[u8],
    ) -> Result<wire::Plaintext, Error> {
        let path = format!("{}/decrypt", key_path(enclave, name));
        let body = wire::Decrypt {
            ciphertext: Base64(ciphertext.to_vec()),
            context: Base64(context.to_vec()),
        };
        self.change(&path, &body, Repeat::Safe).await
    }

    /// Makes a message authentication code.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn mac(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        body: &wire::Mac,
    ) -> Result<wire::MacCode, Error> {
        let path = format!("{}/mac", key_path(enclave, name));
        self.change(&path, body, Repeat::Safe).await
    }

    /// Asks whether a message authentication code is right.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn verify_mac(
        &self,
        enclave: &EnclaveName,
        name: &KeyName,
        body: &wire::VerifyMac,
    ) -> Result<wire::MacVerified, Error> {
        let path = format!("{}/mac/verify", key_path(enclave, name));
        self.change(&path, body, Repeat::Safe).await
    }

    /// Makes several data keys.
    ///
    /// # Errors
    /// [`Error`]; what is wrong with one item is in its place.
    pub async fn generate_data_keys(
        &self,
        enclave: &EnclaveName,
        batch: &wire::Batch<wire::GenerateItem>,
    ) -> Result<wire::BatchAnswer<wire::DataKey>, Error> {
        let path = format!("/v1/enclaves/{enclave}/bulk/generate");
        self.change(&path, batch, Repeat::Safe).await
    }

    /// Encrypts several small secrets.
    ///
    /// # Errors
    /// As [`Client::generate_data_keys`].
    pub async fn encrypt_all(
        &self,
        enclave: &EnclaveName,
        batch: &wire::Batch<wire::EncryptItem>,
    ) -> Result<wire::BatchAnswer<wire::Ciphertext>, Error> {
        let path = format!("/v1/enclaves/{enclave}/bulk/encrypt");
        self.change(&path, batch, Repeat::Safe).await
    }

    /// Decrypts several ciphertexts.
    ///
    /// # Errors
    /// As [`Client::generate_data_keys`].
    pub async fn decrypt_all(
        &self,
        enclave: &EnclaveName,
        batch: &wire::Batch<wire::DecryptItem>,
    ) -> Result<wire::BatchAnswer<wire::Plaintext>, Error> {
        let path = format!("/v1/enclaves/{enclave}/bulk/decrypt");
        self.change(&path, batch, Repeat::Safe).await
    }

    /// Makes several message authentication codes.
    ///
    /// # Errors
    /// As [`Client::generate_data_keys`].
    pub async fn mac_all(
        &self,
        enclave: &EnclaveName,
        batch: &wire::Batch<wire::MacItem>,
    ) -> Result<wire::BatchAnswer<wire::MacCode>, Error> {
        let path = format!("/v1/enclaves/{enclave}/bulk/mac");
        self.change(&path, batch, Repeat::Safe).await
    }

    /// Makes an epoch key and leases it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn generate_epoch(
        &self,
        enclave: &EnclaveName,
        key: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
    ) -> Result<wire::EpochLease, Error> {
        let path = format!("{}/epochs/generate", key_path(enclave, key));
        let body = wire::GenerateEpoch {
            bucket: bucket.to_string(),
            epoch: epoch.to_string(),
        };
        // A second time gives another key, and the first one is in nobody's hands.
        self.change(&path, &body, Repeat::Safe).await
    }

    /// Leases the epoch key of a wrapped form.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open_epoch(
        &self,
        enclave: &EnclaveName,
        key: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
        wrapped: &[u8],
    ) -> Result<wire::EpochLease, Error> {
        let path = format!("{}/epochs/open", key_path(enclave, key));
        let body = wire::OpenEpoch {
            bucket: bucket.to_string(),
            epoch: epoch.to_string(),
            wrapped: Base64(wrapped.to_vec()),
        };
        self.change(&path, &body, Repeat::Safe).await
    }

    /// Makes an identity known in an enclave, or above all enclaves.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityExists` if it is known anywhere.
    pub async fn create_identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        privilege: Privilege,
        policy: Option<&KeyName>,
    ) -> Result<wire::IdentityInfo, Error> {
        let body = wire::CreateIdentity {
            identity,
            privilege: Some(privilege),
            policy: policy.map(ToString::to_string),
            service_account: false,
            tags: std::collections::BTreeMap::new(),
        };
        self.create_identity_with(enclave, &body).await
    }

    /// Makes an identity known as it is described.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityExists` if it is known anywhere.
    pub async fn create_identity_with(
        &self,
        enclave: Option<&EnclaveName>,
        new: &wire::CreateIdentity,
    ) -> Result<wire::IdentityInfo, Error> {
        let path = format!("{}/identities", scope_path(enclave));
        self.change(&path, new, Repeat::Never).await
    }

    /// What we are in an enclave, or above all enclaves.
    ///
    /// # Errors
    /// [`Error`]; `Code::IdentityNotFound` if we are not known there.
    pub async fn own_identity(
        &self,
        enclave: Option<&EnclaveName>,
    ) -> Result<wire::IdentityInfo, Error> {
        self.read(&format!("{}/identities/self", scope_path(enclave)))
            .await
    }

    /// Forgets an identity with its service accounts.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
    ) -> Result<(), Error> {
        let path = format!("{}/identities/{identity}", scope_path(enclave));
        self.delete::<wire::Nothing>(&path).await.map(drop)
    }

    /// Asks what decides whether an identity may do something.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_policy(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        body: &wire::CheckPolicy,
    ) -> Result<wire::Decision, Error> {
        let path = format!("{}/identities/{identity}/check", scope_path(enclave));
        self.change(&path, body, Repeat::Safe).await
    }

    /// Deletes a policy.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
    ) -> Result<(), Error> {
        let path = format!("{}/policies/{name}", scope_path(enclave));
        self.delete::<wire::Nothing>(&path).await.map(drop)
    }

    /// Describes an identity.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identity(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
    ) -> Result<wire::IdentityInfo, Error> {
        self.read(&format!("{}/identities/{identity}", scope_path(enclave)))
            .await
    }

    /// Lists identities.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn identities(
        &self,
        enclave: Option<&EnclaveName>,
        options: &ListOptions,
    ) -> Result<Listing<wire::IdentityInfo>, Error> {
        self.list(&format!("{}/identities", scope_path(enclave)), options)
            .await
    }

    /// Gives a user a policy in place of the one it has; none takes it away.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn assign_policy(
        &self,
        enclave: Option<&EnclaveName>,
        identity: Identity,
        policy: Option<&KeyName>,
    ) -> Result<wire::IdentityInfo, Error> {
        let path = format!("{}/identities/{identity}/policy", scope_path(enclave));
        let policy = policy.map(ToString::to_string);
        self.put(&path, &wire::AssignPolicy { policy }).await
    }

    /// Writes a policy, in place of one of the same name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn set_policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
        policy: &wire::PolicyDocument,
    ) -> Result<wire::PolicyInfo, Error> {
        let path = format!("{}/policies/{name}", scope_path(enclave));
        self.put(&path, policy).await
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn policy(
        &self,
        enclave: Option<&EnclaveName>,
        name: &KeyName,
    ) -> Result<wire::PolicyInfo, Error> {
        self.read(&format!("{}/policies/{name}", scope_path(enclave)))
            .await
    }

    /// Lists policies, without their rules.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn policies(
        &self,
        enclave: Option<&EnclaveName>,
        options: &ListOptions,
    ) -> Result<Listing<wire::PolicyInfo>, Error> {
        self.list(&format!("{}/policies", scope_path(enclave)), options)
            .await
    }

    /// The newest lines of the audit, oldest first, as they stand in its files.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn audit(&self, options: &AuditOptions) -> Result<wire::Audit, Error> {
        let limit = (options.limit > 0).then(|| options.limit.to_string());
        let after = options.after.map(|seq| seq.to_string());
        let wait = options.wait_seconds.map(|seconds| seconds.to_string());
        let path = with_query(
            "/v1/audit",
            &[
                ("limit", limit.as_deref()),
                ("key", options.key.as_deref()),
                ("identity", options.identity.as_deref()),
                ("operation", options.operation.as_deref()),
                ("enclave", options.enclave.as_deref()),
                ("after", after.as_deref()),
                ("wait_seconds", wait.as_deref()),
            ],
        );
        self.read(&path).await
    }

    /// Wraps an epoch key under the latest version of its KMS key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rewrap_epoch(
        &self,
        enclave: &EnclaveName,
        key: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
        wrapped: &[u8],
    ) -> Result<wire::RewrappedEpoch, Error> {
        let path = format!("/v1/enclaves/{enclave}/keys/{key}/epochs/rewrap");
        let body = wire::OpenEpoch {
            bucket: bucket.to_string(),
            epoch: epoch.to_string(),
            wrapped: Base64(wrapped.to_vec()),
        };
        self.change(&path, &body, Repeat::Safe).await
    }

    /// The keys that seal the key manager's state.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn hsm_status(&self) -> Result<wire::HsmStatus, Error> {
        self.read("/v1/hsm").await
    }

    /// Seals the state under another key: a file or a `pkcs11:` URI on the server's machine, or the
    /// key that its configuration names.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn rotate_hsm(&self, to: Option<&str>) -> Result<wire::HsmRotation, Error> {
        let to = to.map(str::to_owned);
        self.change("/v1/hsm/rotate", &wire::RotateHsm { to }, Repeat::Safe)
            .await
    }

    /// A backup of the state, encrypted.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn backup(&self) -> Result<Bytes, Error> {
        self.transport
            .call(&Method::GET, "/v1/backup", None, Repeat::Safe)
            .await
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        options: &ListOptions,
    ) -> Result<Listing<T>, Error> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (prefix, from) = (given(&options.prefix), given(&options.from));
        let limit = (options.limit > 0).then(|| options.limit.to_string());
        let path = with_query(
            path,
            &[
                ("prefix", prefix.as_deref()),
                ("from", from.as_deref()),
                ("limit", limit.as_deref()),
            ],
        );
        self.read(&path).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self
            .transport
            .call(&Method::GET, path, None, Repeat::Safe)
            .await?;
        parse(&answer)
    }

    async fn change<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let body = encode(body)?;
        let answer = self
            .transport
            .call(&Method::POST, path, Some(&body), repeat)
            .await?;
        parse(&answer)
    }

    async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self
            .transport
            .call(&Method::DELETE, path, None, Repeat::Never)
            .await?;
        parse(&answer)
    }

    async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = encode(body)?;
        let answer = self
            .transport
            .call(&Method::PUT, path, Some(&body), Repeat::Safe)
            .await?;
        parse(&answer)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, SetupError> {
    let text = text.trim().trim_end_matches('/');
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let authority = url.rsplit('/').next().unwrap_or_default();
    // The port is behind the brackets of an IPv6 address, if there are any.
    let behind_host = authority.rsplit(']').next().unwrap_or_default();
    let url = if behind_host.contains(':') {
        url
    } else {
        format!("{url}:{DEFAULT_PORT}")
    };
    let endpoint = Endpoint::parse(&url)?;
    if !endpoint.is_tls() {
        return Err(SetupError::NotTls(url));
    }
    Ok(endpoint)
}

/// What may stand in a query value as it is: the unreserved characters of RFC 3986, and the colon
/// of identities and commands.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            out.push(separator);
            out.push_str(name);
            out.push('=');
            out.extend(utf8_percent_encode(value, QUERY));
            separator = '&';
        }
    }
    out
}

fn encode(body: &impl Serialize) -> Result<Bytes, Error> {
    let text = serde_json::to_vec(body).map_err(|e| Error::Answer {
        reason: e.to_string(),
    })?;
    Ok(text.into())
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|e| Error::Answer {
        // Where, but not what: the answer may hold a secret.
        reason: format!(
            "unexpected JSON at line {}, column {}",
            e.line(),
            e.column()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_default_to_https_and_7373() {
        for (text, expected) in [
            ("kms", "https://kms:7373"),
            ("kms:1", "https://kms:1"),
            ("https://kms/", "https://kms:7373"),
            ("[::1]", "https://[::1]:7373"),
            ("[::1]:5", "https://[::1]:5"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap().to_string(), expected);
        }
        assert!(matches!(
            parse_endpoint("http://kms"),
            Err(SetupError::NotTls(_))
        ));
    }

    #[test]
    fn query_values_are_encoded() {
        let path = with_query(
            "/v1",
            &[("a", Some("x&y z")), ("b", None), ("c", Some("h1:-_"))],
        );
        assert_eq!(path, "/v1?a=x%26y%20z&c=h1:-_");
    }
}
