//! Operations on KMS keys: administration, and data keys.

use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName, KeyVersion, SecretBytes};

use super::access::Access;
use super::{Caller, Core, ListQuery, Page};
use crate::envelope::{self, Binding, Purpose};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{Algorithm, KeyRow, Origin, Scope, VersionRow, key_row};

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
}

/// A new data key.
#[derive(Clone, Debug)]
pub struct DataKey {
    /// The version that wraps it.
    pub version: KeyVersion,
    /// The key.
    pub plaintext: SecretBytes,
    /// The key, wrapped.
    pub ciphertext: Vec<u8>,
}

/// What was encrypted.
#[derive(Clone, Debug)]
pub struct Encrypted {
    /// The version that was used.
    pub version: KeyVersion,
    /// The ciphertext; it names the version.
    pub ciphertext: Vec<u8>,
}

/// What was decrypted.
#[derive(Clone, Debug)]
pub struct Decrypted {
    /// The version it was encrypted under.
    pub version: KeyVersion,
    /// The secret.
    pub plaintext: SecretBytes,
}

/// Versions of one key: a row of this many is 700 KiB, and a year of hourly rotations fits.
pub const KEY_VERSIONS_MAX: u32 = 10_000;
/// The longest data key, as MinKMS has it.
pub const DATA_KEY_BYTES_MAX: usize = 1024;
/// A data key's length where none is asked for.
pub const DATA_KEY_BYTES: usize = 32;
/// The longest plaintext of `encrypt`: it is for keys and small secrets, not for data.
pub const PLAINTEXT_BYTES_MAX: usize = 64 << 10;
/// The longest context: S3 limits an encryption context to the size of a header.
pub const CONTEXT_BYTES_MAX: usize = 16 << 10;

impl<M: MetaStore> Core<M> {
    /// Makes a key with its first version.
    ///
    /// # Errors
    /// `Error::KeyExists` if there is one of that name.
    pub async fn create_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyCreate);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            trail.begin().await?;
            let created = self.state.origin(Some(caller.identity));
            let row = KeyRow {
                created,
                disabled: None,
                versions: vec![self.new_version(KeyVersion::FIRST, created)],
            };
            let meta_key = key_row(enclave.as_str(), name.as_str());
            let write = self.state.put(&access.enclave, &meta_key, &row);
            if !self.state.create(vec![write]).await? {
                return Err(Error::KeyExists { key: name.clone() });
            }
            trail.version(KeyVersion::FIRST);
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
            if row.disabled.is_some() {
                return Err(Error::KeyDisabled { key: name.clone() });
            }
            if row.versions.len() >= KEY_VERSIONS_MAX as usize {
                return Err(Error::KeyVersionLimit {
                    key: name.clone(),
                    limit: KEY_VERSIONS_MAX,
                });
            }
            let mut changed = row.clone();
            let number = row.latest().number.next();
            changed.versions.push(self.new_version(number, origin));
            Ok(Some(changed))
        })
        .await
    }

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
            Ok(row.disabled.is_none().then(|| KeyRow {
                disabled: Some(origin),
                ..row.clone()
            }))
        })
        .await
    }

    /// Lets a disabled key be used again. Enabling an enabled key changes nothing.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn enable_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<KeyInfo, Error> {
        self.change_key(caller, enclave, name, Command::KeyEnable, |row| {
            Ok(row.disabled.is_some().then(|| KeyRow {
                disabled: None,
                ..row.clone()
            }))
        })
        .await
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
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            let row = self.key(&access, enclave, name).await?;
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
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            let row = self.key(&access, enclave, name).await?;
            let versions = row.versions.iter().map(|version| KeyVersionInfo {
                version: version.number,
                algorithm: version.algorithm,
                created: version.created,
            });
            Ok(versions.collect())
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
                {
                    items.push(describe(&name, &row));
                }
            }
            Ok(Page { items, next })
        }
        .await;
        trail.noted(result).await
    }

    /// Makes a data key of `length` bytes and wraps it under the latest version.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyDisabled`, `Error::Length`.
    pub async fn generate_data_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        length: usize,
    ) -> Result<DataKey, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyGenerate);
        let mut trail = self
            .trail(caller, &scope, command)
            .key(name)
            .context(context);
        let result = async {
            check_length("data key", length, 1, DATA_KEY_BYTES_MAX)?;
            check_context(context)?;
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let version = row.latest();
            trail.version(version.number);
            let mut plaintext = vec![0; length];
            self.state.random.fill(&mut plaintext);
            let plaintext = SecretBytes::new(plaintext);
            let purpose = Purpose::Data { context };
            Ok(DataKey {
                version: version.number,
                ciphertext: self.wrap(version, enclave, name, purpose, &plaintext),
                plaintext,
            })
        }
        .await;
        trail.committed(result).await
    }

    /// Encrypts a small secret under the latest version.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyDisabled`, `Error::Length`.
    pub async fn encrypt(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        plaintext: &SecretBytes,
    ) -> Result<Encrypted, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyEncrypt);
        let mut trail = self
            .trail(caller, &scope, command)
            .key(name)
            .context(context);
        let result = async {
            check_length(
                "plaintext",
                plaintext.expose().len(),
                0,
                PLAINTEXT_BYTES_MAX,
            )?;
            check_context(context)?;
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let version = row.latest();
            trail.version(version.number);
            let purpose = Purpose::Data { context };
            Ok(Encrypted {
                version: version.number,
                ciphertext: self.wrap(version, enclave, name, purpose, plaintext),
            })
        }
        .await;
        trail.committed(result).await
    }

    /// Decrypts what `generate_data_key` or `encrypt` gave for the same context.
    ///
    /// # Errors
    /// `Error::InvalidCiphertext` if it is anything else; `Error::KeyNotFound`,
    /// `Error::KeyDisabled`, `Error::Length`.
    pub async fn decrypt(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        context: &[u8],
        ciphertext: &[u8],
    ) -> Result<Decrypted, Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyDecrypt);
        let mut trail = self
            .trail(caller, &scope, command)
            .key(name)
            .context(context);
        let result = async {
            check_context(context)?;
            let row = self
                .usable_key(caller, &scope, enclave, name, command)
                .await?;
            let purpose = Purpose::Data { context };
            let (version, plaintext) = unwrap(&row, enclave, name, purpose, ciphertext)?;
            trail.version(version);
            Ok(Decrypted { version, plaintext })
        }
        .await;
        trail.committed(result).await
    }

    /// The key, if the caller may use it and it is enabled.
    pub(super) async fn usable_key(
        &self,
        caller: &Caller,
        scope: &Scope,
        enclave: &EnclaveName,
        name: &KeyName,
        command: Command,
    ) -> Result<std::sync::Arc<KeyRow>, Error> {
        let access = self
            .authorize(caller, scope, command, Some(name.as_str()))
            .await?;
        let row = self.key(&access, enclave, name).await?;
        if row.disabled.is_some() {
            return Err(Error::KeyDisabled { key: name.clone() });
        }
        Ok(row)
    }

    pub(super) fn wrap(
        &self,
        version: &VersionRow,
        enclave: &EnclaveName,
        key: &KeyName,
        purpose: Purpose<'_>,
        plaintext: &SecretBytes,
    ) -> Vec<u8> {
        let binding = Binding {
            enclave,
            key,
            purpose,
        };
        let (material, random) = (&version.material, &*self.state.random);
        envelope::encrypt(
            material,
            version.number,
            &binding,
            plaintext.expose(),
            random,
        )
    }

    async fn key(
        &self,
        access: &Access,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<std::sync::Arc<KeyRow>, Error> {
        let meta_key = key_row(enclave.as_str(), name.as_str());
        let row = self
            .state
            .get(&access.enclave, &self.keys, &meta_key)
            .await?;
        row.ok_or_else(|| Error::KeyNotFound { key: name.clone() })
    }

    async fn change_key(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
        command: Command,
        change: impl FnMut(&KeyRow) -> Result<Option<KeyRow>, Error>,
    ) -> Result<KeyInfo, Error> {
        let scope = Scope::Enclave(enclave.clone());
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let access = self
                .authorize(caller, &scope, command, Some(name.as_str()))
                .await?;
            trail.begin().await?;
            let meta_key = key_row(enclave.as_str(), name.as_str());
            let row = self
                .state
                .update(&access.enclave, &meta_key, change)
                .await?;
            let row = row.ok_or_else(|| Error::KeyNotFound { key: name.clone() })?;
            trail.version(row.latest().number);
            Ok(describe(name, &row))
        }
        .await;
        trail.committed(result).await
    }

    fn new_version(&self, number: KeyVersion, created: Origin) -> VersionRow {
        let mut material = vec![0; 32];
        self.state.random.fill(&mut material);
        VersionRow {
            number,
            algorithm: Algorithm::Aes256,
            created,
            material: SecretBytes::new(material),
        }
    }
}

/// Opens a ciphertext under the version that it names.
pub(super) fn unwrap(
    row: &KeyRow,
    enclave: &EnclaveName,
    key: &KeyName,
    purpose: Purpose<'_>,
    ciphertext: &[u8],
) -> Result<(KeyVersion, SecretBytes), Error> {
    let named = envelope::ciphertext_version(ciphertext);
    let binding = Binding {
        enclave,
        key,
        purpose,
    };
    named
        .and_then(|number| row.version(number))
        .and_then(|version| {
            let plaintext =
                envelope::decrypt(&version.material, version.number, &binding, ciphertext)?;
            Some((version.number, plaintext))
        })
        .ok_or_else(|| Error::InvalidCiphertext {
            key: key.clone(),
            version: named,
        })
}

fn describe(name: &KeyName, row: &KeyRow) -> KeyInfo {
    KeyInfo {
        name: name.clone(),
        version: row.latest().number,
        algorithm: row.latest().algorithm,
        created: row.created,
        disabled: row.disabled,
    }
}

fn check_context(context: &[u8]) -> Result<(), Error> {
    check_length("context", context.len(), 0, CONTEXT_BYTES_MAX)
}

fn check_length(what: &'static str, length: usize, min: usize, max: usize) -> Result<(), Error> {
    if (min..=max).contains(&length) {
        Ok(())
    } else {
        Err(Error::Length { what, min, max })
    }
}
