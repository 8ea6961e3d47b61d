//! The end of a key and what leads to it: disabling, deleting, destroying a version; and what else
//! can be decided about a key after it was made.

use std::time::Duration;

use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName, KeyVersion, SecretBytes, UnixMillis};

use super::keys::{Change, check_rotation};
use super::{Caller, Core, Force, KeyInfo};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{Algorithm, Deletion, KeyRow, Scope};

/// How long a deleted key can be restored, unless told otherwise: a week, in which someone
/// notices. As with AWS, which takes 7 to 30 days.
pub const DELETION_GRACE: Duration = Duration::from_secs(7 * 86_400);
/// The longest grace period: a year.
pub const DELETION_GRACE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// The material of one version, read out.
#[derive(Clone, Debug)]
pub struct ExportedVersion {
    /// Its number.
    pub version: KeyVersion,
    /// What it is for.
    pub algorithm: Algorithm,
    /// The key itself.
    pub material: SecretBytes,
    /// The key for message authentication codes that was imported beside it.
    pub mac_material: Option<SecretBytes>,
}

impl<M: MetaStore> Core<M> {
    /// Stops a key from being used; what it guards becomes unreadable as leases end. Disabling a
    /// disabled key changes nothing.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn disable_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        let origin = self.state.origin(Some(caller.identity));
        self.change_key(caller, enclave, name, Command::KeyDisable, |row| {
            Ok(match row.disabled {
                Some(_) => Change::Keep,
                None => Change::Put(KeyRow {
                    disabled: Some(Box::new(origin)),
                    ..row.clone()
                }),
            })
        })
        .await
    }

    /// Lets a disabled key be used again. Enabling an enabled key changes nothing.
    ///
    /// # Errors
    /// `Error::KeyNotFound`; `Error::KeyDeleting`, because that is not what takes a deletion back.
    pub async fn enable_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyEnable, |row| {
            if row.deletion.is_some() {
                return Err(Error::KeyDeleting { key: name.clone() });
            }
            Ok(match row.disabled {
                None => Change::Keep,
                Some(_) => Change::Put(KeyRow {
                    disabled: None,
                    ..row.clone()
                }),
            })
        })
        .await
    }

    /// Begins the deletion of a key: it can't be used any more from now on, and is gone for good
    /// after `grace`. A deletion that was begun before gets the new end.
    ///
    /// # Errors
    /// `Error::KeyNotFound`; `Error::Grace` for a grace period that is too long.
    pub async fn schedule_key_deletion(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        grace: Duration,
    ) -> Result<KeyInfo, Error> {
        let requested = self.state.origin(Some(caller.identity));
        // Checked in the change, so that a refusal stands in the audit.
        let millis = i64::try_from(grace.as_millis()).unwrap_or(i64::MAX);
        let due = UnixMillis(requested.at.0.saturating_add(millis));
        self.change_key(caller, enclave, name, Command::KeyDelete, |row| {
            if grace > DELETION_GRACE_MAX {
                return Err(Error::Grace);
            }
            Ok(Change::Put(KeyRow {
                deletion: Some(Box::new(Deletion { requested, due })),
                ..row.clone()
            }))
        })
        .await
    }

    /// Takes back the deletion of a key, within its grace period.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, also when the grace period is over.
    pub async fn restore_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyRestore, |row| {
            Ok(match row.deletion {
                None => Change::Keep,
                Some(_) => Change::Put(KeyRow {
                    deletion: None,
                    ..row.clone()
                }),
            })
        })
        .await
    }

    /// Deletes a key with all its versions, now and for good: for wires that know no grace period.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn delete_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyDelete, |_| {
            Ok(Change::Remove)
        })
        .await
    }

    /// Destroys one version of a key, now and for good; the latest if none is named. What it
    /// encrypted stays unreadable, and its number is not given again. With its only version the
    /// key would be gone without a grace period; that has to be forced.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyVersionNotFound`, `Error::KeyLastVersion`.
    pub async fn delete_key_version(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        version: Option<KeyVersion>,
        force: Force,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyDelete, |row| {
            let number = version.unwrap_or(row.latest().number);
            let mut changed = row.clone();
            changed.versions.retain(|version| version.number != number);
            if changed.versions.len() == row.versions.len() {
                return Err(Error::KeyVersionNotFound {
                    key: name.clone(),
                    version: number,
                });
            }
            match (changed.versions.is_empty(), force) {
                (false, _) => Ok(Change::Put(changed)),
                (true, Force::Yes) => Ok(Change::Remove),
                (true, Force::No) => Err(Error::KeyLastVersion {
                    key: name.clone(),
                    version: number,
                }),
            }
        })
        .await
    }

    /// Decides how often a key gets a new version by itself; never, for `None`.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::Rotation`.
    pub async fn set_key_rotation(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        rotation: Option<Duration>,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyUpdate, |row| {
            check_rotation(rotation)?;
            Ok(Change::Put(KeyRow {
                rotation,
                ..row.clone()
            }))
        })
        .await
    }

    /// Reads the material of a key that was made exportable, oldest version first.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyNotExportable`.
    pub async fn export_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<Vec<ExportedVersion>, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyExport);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            if !row.exportable {
                return Err(Error::KeyNotExportable { key: name.clone() });
            }
            trail.version(row.latest().number);
            let versions = row.versions.iter().map(|version| ExportedVersion {
                version: version.number,
                algorithm: version.algorithm,
                material: version.material.secret().clone(),
                mac_material: version.mac_material.clone(),
            });
            Ok(versions.collect())
        }
        .await;
        trail.committed(result).await
    }
}
