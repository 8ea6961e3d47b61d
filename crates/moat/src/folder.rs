//! Where everything lies in the data folder. Paths only; [`crate::first_start`] fills them.
//!
//! ```text
//! DIR/                       0755
//!   layout                   the layout's number; written last, so that its presence means complete
//!   root.env                 0600  root credentials of the store
//!   ca/      ca.crt ca.key   0700  the CA of this installation
//!   trust/   ca.pem truststore.p12 truststore.jks   0755, for clients: nothing secret
//!   tls/     {store,kms,proxy}.{crt,key}            0700
//!   identity/ store.{crt,key} root.key              0700  who the store and the operator are to the key manager
//!   kms/     hsm.key, state or node, audit, lock    0700
//!   store/   metadata, blobs, lock                  0700
//! ```

use std::path::{Path, PathBuf};

use crate::config::TlsFiles;

/// The data folder's paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    /// The folder at `root`, which need not exist.
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self(root)
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// The mark of a complete first start.
    pub(crate) fn layout(&self) -> PathBuf {
        self.0.join("layout")
    }

    /// The store's root credentials.
    pub(crate) fn root_credentials(&self) -> PathBuf {
        self.0.join("root.env")
    }

    /// The CA's certificate.
    pub(crate) fn ca_certificate(&self) -> PathBuf {
        self.0.join("ca/ca.crt")
    }

    /// The CA's private key.
    pub(crate) fn ca_key(&self) -> PathBuf {
        self.0.join("ca/ca.key")
    }

    /// The folder of what clients trust.
    pub(crate) fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }

    /// The certificate that a server (`store`, `kms`, `proxy`) presents.
    pub(crate) fn server_tls(&self, server: &str) -> TlsFiles {
        self.pair("tls", server)
    }

    /// The certificate that the store presents to the key manager.
    pub(crate) fn store_identity(&self) -> TlsFiles {
        self.pair("identity", "store")
    }

    /// The API key of the key manager's first operator.
    pub(crate) fn root_api_key(&self) -> PathBuf {
        self.0.join("identity/root.key")
    }

    /// The HSM key.
    pub(crate) fn hsm_key(&self) -> PathBuf {
        self.0.join("kms/hsm.key")
    }

    /// The key manager's folder.
    pub(crate) fn kms(&self) -> PathBuf {
        self.0.join("kms")
    }

    /// The key manager's sealed state.
    pub(crate) fn kms_state(&self) -> PathBuf {
        self.0.join("kms/state")
    }

    /// The name of this key manager among those that share a database.
    pub(crate) fn kms_node(&self) -> PathBuf {
        self.0.join("kms/node")
    }

    /// The key manager's audit log.
    pub(crate) fn kms_audit(&self) -> PathBuf {
        self.0.join("kms/audit")
    }

    /// The store's metadata.
    pub(crate) fn store_metadata(&self) -> PathBuf {
        self.0.join("store/metadata")
    }

    /// The store's blobs.
    pub(crate) fn store_blobs(&self) -> PathBuf {
        self.0.join("store/blobs")
    }

    /// The store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    fn pair(&self, folder: &str, name: &str) -> TlsFiles {
        TlsFiles {
            certificate: self.0.join(format!("{folder}/{name}.crt")),
            private_key: self.0.join(format!("{folder}/{name}.key")),
        }
    }
}
