//! The client's calls that use KMS keys: data keys, small secrets, codes, epoch keys.

use moat_types::{BucketName, EnclaveName, EpochId, KeyName, LakeId, SecretBytes};

use super::{Client, key_path};
use crate::error::Error;
use crate::transport::Repeat;
use crate::wire::{self, Base64, SecretBase64};

impl Client {
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

    /// Tells what the keys of an enclave guard in a lake.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn report_lake(
        &self,
        enclave: &EnclaveName,
        lake: LakeId,
        report: &wire::LakeReport,
    ) -> Result<(), Error> {
        let path = format!("/v1/enclaves/{enclave}/lakes/{lake}");
        self.put::<wire::Nothing>(&path, report).await.map(drop)
    }
}
