//! The client's calls about the whole key manager: enclaves, audit, HSM keys, backups.

use bytes::Bytes;
use http::Method;
use moat_types::EnclaveName;

use super::{AuditOptions, Client, ListOptions, with_query};
use crate::error::Error;
use crate::transport::Repeat;
use crate::wire::{self, Listing};

impl Client {
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
}
