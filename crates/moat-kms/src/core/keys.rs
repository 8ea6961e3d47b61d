//! Operations on KMS keys: making, importing, rotating, describing and listing them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Write};
use moat_types::{EnclaveName, KeyName, KeyVersion, SecretBytes, UnixMillis};

use super::{Caller, Core, ListQuery, Page};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{Algorithm, KeyRow, Material, Origin, Scope, VersionRow, due_row, key_row};
use crate::state::{CONTENTION_RETRIES, OpenEnclave};

/// What can be known about a key.
#[derive(Clone, Debug)]
pub struct KeyInfo {
    /// Its name.
    pub name: KeyName,
    /// Its latest version.
    pub version: KeyVersion,
    /// The algorithm of the latest version.
    pub algorithm: Algorithm,
    /// Who made it, and when.
    pub created: Origin,
    /// Who disabled it, and when, if it is disabled.
    pub disabled: Option<Origin>,
    /// Its deletion, if it waits out the grace period.
    pub deletion: Option<PendingDeletion>,
    /// How often it gets a new version by itself.
    pub rotation: Option<Duration>,
    /// When it does so next.
    pub next_rotation: Option<UnixMillis>,
    /// Whether its material may be read by those who may export.
    pub exportable: bool,
    /// How many versions it has.
    pub versions: usize,
}

/// A deletion that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PendingDeletion {
    /// Who asked for it, and when.
    pub requested: Origin,
    /// When the key is gone for good.
    pub due: UnixMillis,
}

/// What can be known about one version of a key.
#[derive(Clone, Debug)]
pub struct KeyVersionInfo {
    /// Its number.
    pub version: KeyVersion,
    /// Its algorithm.
    pub algorithm: Algorithm,
    /// Who made it, and when.
    pub created: Origin,
    /// Whether its material came from elsewhere.
    pub imported: bool,
}

/// Versions of one key: a row of this many is 700 KiB, and a year of hourly rotations fits.
pub const KEY_VERSIONS_MAX: u32 = 10_000;
/// Imported versions of one key: a ciphertext that names no version is tried under each.
pub const IMPORTED_VERSIONS_MAX: usize = 64;
/// The shortest time between two rotations that a key makes by itself: a key has a limited number
/// of versions.
pub const ROTATION_MIN: Duration = Duration::from_secs(3600);
/// The longest: a hundred years, so that times stay within range.
pub const ROTATION_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Every algorithm's keys have this length.
const MATERIAL_BYTES: usize = 32;

/// How a key is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewKey {
    /// What it is for.
    pub algorithm: Algorithm,
    /// Whether its material may be read by those who may export.
    pub exportable: bool,
    /// How often it gets a new version by itself.
    pub rotation: Option<Duration>,
}

impl Default for NewKey {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Aes256,
            exportable: false,
            rotation: None,
        }
    }
}

/// Material that comes from elsewhere.
#[derive(Clone, Debug)]
pub struct Import {
    /// What it is for.
    pub algorithm: Algorithm,
    /// 32 bytes.
    pub material: SecretBytes,
    /// A key for message authentication codes that belongs to it, as KES keeps one: 32 bytes.
    pub mac_material: Option<SecretBytes>,
    /// Whether the material may be read by those who may export. Looked at for a new key only.
    pub exportable: bool,
    /// Whether it becomes a new version of a key that is there already; else that is an error.
    pub add_version: bool,
}

impl<M: MetaStore> Core<M> {
    /// Makes an AES-256-GCM key with its first version.
    ///
    /// # Errors
    /// `Error::KeyExists` if there is one of that name.
    pub async fn create_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        self.create_key_with(caller, enclave, name, NewKey::default())
            .await
    }

    /// Makes a key with its first version.
    ///
    /// # Errors
    /// `Error::KeyExists` if there is one of that name; `Error::Rotation` if it would rotate too
    /// often.
    pub async fn create_key_with(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        new: NewKey,
    ) -> Result<KeyInfo, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyCreate);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            check_rotation(new.rotation)?;
            trail.begin().await?;
            let created = self.state.origin(Some(caller.identity));
            let first = self.new_version(KeyVersion::FIRST, new.algorithm, created);
            let row = KeyRow {
                exportable: new.exportable,
                rotation: new.rotation,
                ..KeyRow::new(first)
            };
            self.insert_key(&access.enclave, enclave, name, &row)
                .await?;
            trail.version(KeyVersion::FIRST);
            Ok(describe(name, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Takes in a key whose material comes from elsewhere. Ciphertexts that were made there and
    /// name no version open under it.
    ///
    /// # Errors
    /// `Error::KeyExists` if there is one of that name and no version is to be added;
    /// `Error::KeyMaterial` for material of a wrong length; `Error::KeyVersionLimit`.
    pub async fn import_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        import: &Import,
    ) -> Result<KeyInfo, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyImport);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            check_material(import)?;
            trail.begin().await?;
            let created = self.state.origin(Some(caller.identity));
            let version = |number| VersionRow {
                number,
                algorithm: import.algorithm,
                created,
                imported: true,
                material: Material::new(import.material.clone()),
                mac_material: import.mac_material.clone(),
            };
            let row = KeyRow {
                exportable: import.exportable,
                ..KeyRow::new(version(KeyVersion::FIRST))
            };
            let row = match self.insert_key(&access.enclave, enclave, name, &row).await {
                Err(Error::KeyExists { .. }) if import.add_version => {
                    let add = |row: &KeyRow| {
                        let imported = row.versions.iter().filter(|v| v.imported).count();
                        if imported >= IMPORTED_VERSIONS_MAX {
                            let (key, limit) = (name.clone(), IMPORTED_VERSIONS_MAX as u32);
                            return Err(Error::KeyVersionLimit { key, limit });
                        }
                        add_version(name, row, &version).map(Change::Put)
                    };
                    self.update_key(&access.enclave, enclave, name, add).await?
                }
                inserted => inserted.map(|()| row)?,
            };
            trail.version(row.latest().number);
            Ok(describe(name, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Gives a key a new version, which wraps from then on; older versions still open.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyDisabled`, `Error::KeyVersionLimit`.
    pub async fn rotate_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        let origin = self.state.origin(Some(caller.identity));
        self.change_key(caller, enclave, name, Command::KeyCreate, |row| {
            self.rotated(name, row, origin).map(Change::Put)
        })
        .await
    }

    /// The key with one more version of its own.
    pub(super) fn rotated(
        &self,
        name: &KeyName,
        row: &KeyRow,
        created: Origin,
    ) -> Result<KeyRow, Error> {
        check_usable(name, row)?;
        let algorithm = row.latest().algorithm;
        add_version(name, row, &|number| {
            self.new_version(number, algorithm, created)
        })
    }

    /// Describes a key.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn key_info(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyStatus);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let (_, row) = self
                .readable_key(caller, &scope, enclave, name, command)
                .await?;
            Ok(describe(name, &row))
        }
        .await;
        trail.noted(result).await
    }

    /// The versions of a key, oldest first.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn key_versions(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<Vec<KeyVersionInfo>, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyListVersions);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let (_, row) = self
                .readable_key(caller, &scope, enclave, name, command)
                .await?;
            let versions = row.versions.iter().map(describe_version);
            Ok(versions.collect())
        }
        .await;
        trail.noted(result).await
    }

    /// Describes one version of a key; the latest if none is named.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyVersionNotFound`.
    pub async fn key_version_info(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        version: Option<KeyVersion>,
    ) -> Result<KeyVersionInfo, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyStatus);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let (_, row) = self
                .readable_key(caller, &scope, enclave, name, command)
                .await?;
            let version = super::data::version_of(name, &row, version)?;
            trail.version(version.number);
            Ok(describe_version(version))
        }
        .await;
        trail.noted(result).await
    }

    /// Lists the keys of an enclave that the caller may list.
    ///
    /// # Errors
    /// `Error::Denied` unless it may list some.
    pub async fn list_keys(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        query: &ListQuery,
    ) -> Result<Page<KeyInfo>, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyList);
        let mut trail = self.trail(caller, &scope, command);
        let result = async {
            let access = self.authorize(caller, &scope, command, None).await?;
            let base = key_row(enclave.as_str(), "");
            let (rows, next) = self.list_rows(&base, query).await?;
            let mut items = Vec::with_capacity(rows.len());
            for (text, sealed) in rows {
                let meta_key = key_row(enclave.as_str(), &text);
                let row: KeyRow = self.state.open_row(&access.enclave, &meta_key, &sealed)?;
                if let Ok(name) = KeyName::parse(&text)
                    && access.shows(command, &text)
                    && !self.is_deleted(&row)
                {
                    items.push(describe(&name, &row));
                }
            }
            Ok(Page { items, next })
        }
        .await;
        trail.noted(result).await
    }

    /// The key, if the caller may use it and it is enabled.
    pub(super) async fn usable_key(
        &self,
        caller: &Caller,
        scope: &Scope,
        enclave: &EnclaveName,
        name: &KeyName,
        command: Command,
    ) -> Result<Arc<KeyRow>, Error> {
        let (_, row) = self
            .readable_key(caller, scope, enclave, name, command)
            .await?;
        check_usable(name, &row)?;
        Ok(row)
    }

    /// The key, whether it may be used or not, if the caller may know of it; and where it stands.
    pub(super) async fn readable_key(
        &self,
        caller: &Caller,
        scope: &Scope,
        enclave: &EnclaveName,
        name: &KeyName,
        command: Command,
    ) -> Result<(Arc<OpenEnclave>, Arc<KeyRow>), Error> {
        let access = self
            .authorize(caller, scope, command, Some(name.as_str()))
            .await?;
        let row = self.key(&access.enclave, enclave, name).await?;
        Ok((access.enclave, row))
    }

    pub(super) async fn key(
        &self,
        opened: &OpenEnclave,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<Arc<KeyRow>, Error> {
        let meta_key = key_row(enclave.as_str(), name.as_str());
        let row = self.state.get(opened, &self.keys, &meta_key).await?;
        row.filter(|row| !self.is_deleted(row))
            .ok_or_else(|| Error::KeyNotFound { key: name.clone() })
    }

    /// Whether the grace period is over: then the key counts as gone, though its row may still
    /// stand for a while.
    pub(super) fn is_deleted(&self, row: &KeyRow) -> bool {
        row.deletion
            .as_ref()
            .is_some_and(|deletion| deletion.due <= self.state.clock.now())
    }

    pub(super) async fn change_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        command: Command,
        change: impl FnMut(&KeyRow) -> Result<Change, Error>,
    ) -> Result<KeyInfo, Error> {
        let scope = Scope::Enclave(enclave.clone());
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            trail.begin().await?;
            let row = self
                .update_key(&access.enclave, enclave, name, change)
                .await?;
            trail.version(row.latest().number);
            Ok(describe(name, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Changes a key's row, and what it is due for with it. Returns the row as it then stands, or
    /// stood before it was removed.
    pub(super) async fn update_key(
        &self,
        opened: &OpenEnclave,
        enclave: &EnclaveName,
        name: &KeyName,
        mut change: impl FnMut(&KeyRow) -> Result<Change, Error>,
    ) -> Result<KeyRow, Error> {
        let meta_key = key_row(enclave.as_str(), name.as_str());
        let missing = || Error::KeyNotFound { key: name.clone() };
        for _ in 0..CONTENTION_RETRIES {
            let sealed = self.state.sealed(&meta_key).await?.ok_or_else(missing)?;
            let row: KeyRow = self.state.open_row(opened, &meta_key, &sealed)?;
            if self.is_deleted(&row) {
                return Err(missing());
            }
            let (writes, result) = match change(&row)? {
                Change::Keep => return Ok(row),
                Change::Put(changed) => {
                    let mut writes = due_changes(enclave, name, Some(&row), Some(&changed));
                    writes.push(self.state.put(opened, &meta_key, &changed));
                    (writes, changed)
                }
                Change::Remove => {
                    let mut writes = due_changes(enclave, name, Some(&row), None);
                    writes.push(Write::Delete(meta_key.clone()));
                    (writes, row)
                }
            };
            let check = Check {
                key: meta_key.clone(),
                expected: Some(sealed),
            };
            if self.state.commit_in(opened, vec![check], writes).await? {
                return Ok(result);
            }
        }
        Err(Error::Contended)
    }

    /// Writes a new key, also in the place of one whose grace period is over.
    async fn insert_key(
        &self,
        opened: &OpenEnclave,
        enclave: &EnclaveName,
        name: &KeyName,
        row: &KeyRow,
    ) -> Result<(), Error> {
        let exists = || Error::KeyExists { key: name.clone() };
        let meta_key = key_row(enclave.as_str(), name.as_str());
        let expected = self.state.sealed(&meta_key).await?;
        let mut writes = Vec::new();
        if let Some(sealed) = &expected {
            let old: KeyRow = self.state.open_row(opened, &meta_key, sealed)?;
            if !self.is_deleted(&old) {
                return Err(exists());
            }
            writes = due_changes(enclave, name, Some(&old), None);
        }
        writes.extend(due_changes(enclave, name, None, Some(row)));
        writes.push(self.state.put(opened, &meta_key, row));
        let check = Check {
            key: meta_key,
            expected,
        };
        if self.state.commit_in(opened, vec![check], writes).await? {
            Ok(())
        } else {
            Err(exists())
        }
    }

    fn new_version(&self, number: KeyVersion, algorithm: Algorithm, created: Origin) -> VersionRow {
        let mut material = vec![0; MATERIAL_BYTES];
        self.state.random.fill(&mut material);
        VersionRow {
            number,
            algorithm,
            created,
            imported: false,
            material: Material::new(SecretBytes::new(material)),
            mac_material: None,
        }
    }
}

/// What becomes of a key's row.
pub(super) enum Change {
    Keep,
    Put(KeyRow),
    Remove,
}

/// The writes that keep what is due for a key in step with its row.
fn due_changes(
    enclave: &EnclaveName,
    name: &KeyName,
    old: Option<&KeyRow>,
    new: Option<&KeyRow>,
) -> Vec<Write> {
    let due = |row: Option<&KeyRow>| -> Vec<Bytes> {
        let times = row.map(|row| [row.deletion.as_ref().map(|d| d.due), row.rotation_due()]);
        let times = times.into_iter().flatten().flatten();
        times
            .map(|at| due_row(at, enclave.as_str(), name.as_str()))
            .collect()
    };
    let (old, new) = (due(old), due(new));
    let gone = old.iter().filter(|key| !new.contains(key));
    // Also what stands there already: the watch may have taken it away while it was not the time.
    let come = new.iter();
    gone.map(|key| Write::Delete(key.clone()))
        .chain(come.map(|key| Write::Put(key.clone(), Bytes::from_static(b"\x01"))))
        .collect()
}

fn add_version(
    name: &KeyName,
    row: &KeyRow,
    version: &impl Fn(KeyVersion) -> VersionRow,
) -> Result<KeyRow, Error> {
    if row.versions.len() >= KEY_VERSIONS_MAX as usize || row.next.number() == u32::MAX {
        return Err(Error::KeyVersionLimit {
            key: name.clone(),
            limit: KEY_VERSIONS_MAX,
        });
    }
    let mut changed = row.clone();
    changed.versions.push(version(row.next));
    changed.next = row.next.next();
    Ok(changed)
}

pub(super) fn check_usable(name: &KeyName, row: &KeyRow) -> Result<(), Error> {
    if row.deletion.is_some() {
        return Err(Error::KeyDeleting { key: name.clone() });
    }
    if row.disabled.is_some() {
        return Err(Error::KeyDisabled { key: name.clone() });
    }
    Ok(())
}

pub(super) fn check_rotation(rotation: Option<Duration>) -> Result<(), Error> {
    match rotation {
        Some(every) if !(ROTATION_MIN..=ROTATION_MAX).contains(&every) => Err(Error::Rotation),
        _ => Ok(()),
    }
}

fn check_material(import: &Import) -> Result<(), Error> {
    let materials = [Some(&import.material), import.mac_material.as_ref()];
    for material in materials.into_iter().flatten() {
        let length = material.expose().len();
        if length != MATERIAL_BYTES {
            return Err(Error::KeyMaterial {
                algorithm: import.algorithm,
                length,
            });
        }
    }
    Ok(())
}

fn describe_version(version: &VersionRow) -> KeyVersionInfo {
    KeyVersionInfo {
        version: version.number,
        algorithm: version.algorithm,
        created: version.created,
        imported: version.imported,
    }
}

pub(super) fn describe(name: &KeyName, row: &KeyRow) -> KeyInfo {
    KeyInfo {
        name: name.clone(),
        version: row.latest().number,
        algorithm: row.latest().algorithm,
        created: row.created,
        disabled: row.disabled.as_deref().copied(),
        deletion: row.deletion.as_ref().map(|deletion| PendingDeletion {
            requested: deletion.requested,
            due: deletion.due,
        }),
        rotation: row.rotation,
        next_rotation: row.rotation_due(),
        exportable: row.exportable,
        versions: row.versions.len(),
    }
}
