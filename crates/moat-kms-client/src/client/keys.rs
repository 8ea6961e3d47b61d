//! The client's calls about KMS keys.

use moat_types::{EnclaveName, KeyName};

use super::{Client, ListOptions, key_path, with_query};
use crate::error::Error;
use crate::transport::Repeat;
use crate::wire::{self, Listing};

impl Client {
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
}
