//! Leases of epoch keys: what a store asks for once per bucket, KMS key and epoch.

use std::time::Duration;

use moat_meta::MetaStore;
use moat_types::{BucketName, EnclaveName, EpochId, KeyName, KeyVersion, Random, SecretBytes};

use super::data::{encrypting_version, unwrap};
use super::trail::Trail;
use super::{Caller, Core};
use crate::envelope::{Binding, OperationKeys, Purpose};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::Scope;

/// A new epoch key, leased.
#[derive(Clone, Debug)]
pub struct EpochGrant {
    /// The version that wraps it.
    pub version: KeyVersion,
    /// The wrapped form, which the store keeps.
    pub wrapped: Vec<u8>,
    /// The epoch key.
    pub key: SecretBytes,
    /// For how long it may be used without asking again.
    pub lease_ttl: Duration,
}

/// An epoch key, leased again.
#[derive(Clone, Debug)]
pub struct OpenedEpoch {
    /// The version that wraps it.
    pub version: KeyVersion,
    /// The epoch key.
    pub key: SecretBytes,
    /// For how long it may be used without asking again.
    pub lease_ttl: Duration,
}

/// An epoch key, wrapped anew.
#[derive(Clone, Debug)]
pub struct RewrappedEpoch {
    /// The version that wraps it now.
    pub version: KeyVersion,
    /// The wrapped form, which takes the place of the old one.
    pub wrapped: Vec<u8>,
}

const EPOCH_KEY_BYTES: usize = 32;

impl<M: MetaStore> Core<M> {
    /// Makes an epoch key for a bucket, wraps it under the latest version of the KMS key and
    /// leases it.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyDisabled`, `Error::Denied`.
    pub async fn generate_epoch(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
    ) -> Result<EpochGrant, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::EpochGenerate);
        let binding = epoch_binding(enclave, name, bucket, epoch);
        let mut trail = self.epoch_trail(caller, &scope, command, name, (bucket, epoch));
        let result = async {
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let version = encrypting_version(name, &row, None)?;
            trail.version(version.number);
            let mut key = vec![0; EPOCH_KEY_BYTES];
            self.reserve.fill(&mut key);
            let key = SecretBytes::new(key);
            Ok(EpochGrant {
                version: version.number,
                wrapped: self.wrap(version, binding, &key, &mut OperationKeys::default()),
                key,
                lease_ttl: self.lease_ttl,
            })
        }
        .await;
        trail.committed(result).await
    }

    /// Wraps an epoch key under the latest version of its KMS key. Releases nothing: whoever has
    /// the old wrapped form gets a new one.
    ///
    /// # Errors
    /// As [`Core::open_epoch`].
    pub async fn rewrap_epoch(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
        wrapped: &[u8],
    ) -> Result<RewrappedEpoch, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::EpochRewrap);
        let binding = epoch_binding(enclave, name, bucket, epoch);
        let mut trail = self.epoch_trail(caller, &scope, command, name, (bucket, epoch));
        let result = async {
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let mut keys = OperationKeys::default();
            let (version, key) = unwrap(&row, binding, wrapped, &mut keys)?;
            let latest = encrypting_version(name, &row, None)?;
            trail.version(latest.number);
            let wrapped = match latest.number == version {
                true => wrapped.to_vec(),
                false => self.wrap(latest, binding, &key, &mut keys),
            };
            Ok(RewrappedEpoch {
                version: latest.number,
                wrapped,
            })
        }
        .await;
        trail.noted(result).await
    }

    /// Opens a wrapped epoch key and leases it.
    ///
    /// # Errors
    /// `Error::InvalidCiphertext` unless it is of this enclave, KMS key, bucket and epoch, and
    /// whole; `Error::KeyNotFound`, `Error::KeyDisabled`, `Error::Denied`.
    pub async fn open_epoch(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        bucket: &BucketName,
        epoch: EpochId,
        wrapped: &[u8],
    ) -> Result<OpenedEpoch, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::EpochOpen);
        let binding = epoch_binding(enclave, name, bucket, epoch);
        let mut trail = self.epoch_trail(caller, &scope, command, name, (bucket, epoch));
        let result = async {
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let (version, key) = unwrap(&row, binding, wrapped, &mut OperationKeys::default())?;
            trail.version(version);
            Ok(OpenedEpoch {
                version,
                key,
                lease_ttl: self.lease_ttl,
            })
        }
        .await;
        trail.committed(result).await
    }

    /// The trail of an operation on an epoch key.
    fn epoch_trail<'a>(
        &'a self,
        caller: &Caller,
        scope: &Scope,
        command: Command,
        name: &KeyName,
        (bucket, epoch): (&BucketName, EpochId),
    ) -> Trail<'a> {
        self.trail(caller, scope, command)
            .key(name)
            .context(&Purpose::Epoch { bucket, epoch }.context())
            .lease(bucket, epoch)
    }
}

const fn epoch_binding<'a>(
    enclave: &'a EnclaveName,
    key: &'a KeyName,
    bucket: &'a BucketName,
    epoch: EpochId,
) -> Binding<'a> {
    Binding {
        enclave,
        key,
        purpose: Purpose::Epoch { bucket, epoch },
    }
}
