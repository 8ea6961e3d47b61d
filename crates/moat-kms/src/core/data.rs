//! What keys are used for: data keys, small secrets, message authentication codes. Each operation
//! exists for one item and for many ([`super::batch`]).

use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName, KeyVersion, Random, SecretBytes};

use super::items::{
    CONTEXT_BYTES_MAX, DATA_KEY_BYTES_MAX, DataKey, Decrypt, Decrypted, Encrypt, Encrypted,
    Generate, Item, Mac, MacCode, PLAINTEXT_BYTES_MAX,
};
use super::{Caller, Core};
use crate::envelope::{self, Binding, OperationKeys, Purpose};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{KeyRow, Scope, VersionRow};

impl<M: MetaStore> Core<M> {
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
        let item = Generate {
            key: name,
            version: None,
            context,
            length,
        };
        self.generate(caller, enclave, &item).await
    }

    /// As [`Core::generate_many`], for one.
    ///
    /// # Errors
    /// As there.
    pub async fn generate(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        item: &Generate<'_>,
    ) -> Result<DataKey, Error> {
        let call = (caller, enclave, Command::KeyGenerate);
        self.one(call, item, |item, row, keys| {
            self.make_data_key(enclave, item, row, keys)
        })
        .await
    }

    /// Makes data keys and wraps each.
    ///
    /// # Errors
    /// `Error::Count` for too many; `Error::Store` and `Error::Audit` when nothing can be
    /// answered. What is wrong with one item is in its place: `Error::KeyNotFound`,
    /// `Error::KeyVersionNotFound`, `Error::KeyDisabled`, `Error::KeyDeleting`,
    /// `Error::KeyUsage`, `Error::Length`, `Error::Denied`.
    pub async fn generate_many(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        items: &[Generate<'_>],
    ) -> Result<Vec<Result<DataKey, Error>>, Error> {
        let call = (caller, enclave, Command::KeyGenerate);
        self.batch(call, items, |item, row, keys| {
            self.make_data_key(enclave, item, row, keys)
        })
        .await
    }

    fn make_data_key(
        &self,
        enclave: &EnclaveName,
        item: &Generate<'_>,
        row: &KeyRow,
        keys: &mut OperationKeys,
    ) -> Result<(KeyVersion, DataKey), Error> {
        check_length("data key", item.length, 1, DATA_KEY_BYTES_MAX)?;
        check_context(item.context)?;
        let version = encrypting_version(item.key, row, item.version)?;
        let mut plaintext = vec![0; item.length];
        self.reserve.fill(&mut plaintext);
        let plaintext = SecretBytes::new(plaintext);
        let binding = data_binding(enclave, item.key, item.context);
        let made = DataKey {
            version: version.number,
            ciphertext: self.wrap(version, binding, &plaintext, keys),
            plaintext,
        };
        Ok((version.number, made))
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
        let item = Encrypt {
            key: name,
            version: None,
            context,
            plaintext,
        };
        self.encrypt_item(caller, enclave, &item).await
    }

    /// As [`Core::encrypt_many`], for one.
    ///
    /// # Errors
    /// As there.
    pub async fn encrypt_item(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        item: &Encrypt<'_>,
    ) -> Result<Encrypted, Error> {
        let call = (caller, enclave, Command::KeyEncrypt);
        self.one(call, item, |item, row, keys| {
            self.make_ciphertext(enclave, item, row, keys)
        })
        .await
    }

    /// Encrypts small secrets.
    ///
    /// # Errors
    /// As [`Core::generate_many`].
    pub async fn encrypt_many(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        items: &[Encrypt<'_>],
    ) -> Result<Vec<Result<Encrypted, Error>>, Error> {
        let call = (caller, enclave, Command::KeyEncrypt);
        self.batch(call, items, |item, row, keys| {
            self.make_ciphertext(enclave, item, row, keys)
        })
        .await
    }

    fn make_ciphertext(
        &self,
        enclave: &EnclaveName,
        item: &Encrypt<'_>,
        row: &KeyRow,
        keys: &mut OperationKeys,
    ) -> Result<(KeyVersion, Encrypted), Error> {
        let length = item.plaintext.expose().len();
        check_length("plaintext", length, 0, PLAINTEXT_BYTES_MAX)?;
        check_context(item.context)?;
        let version = encrypting_version(item.key, row, item.version)?;
        let binding = data_binding(enclave, item.key, item.context);
        let made = Encrypted {
            version: version.number,
            ciphertext: self.wrap(version, binding, item.plaintext, keys),
        };
        Ok((version.number, made))
    }

    /// Decrypts what `generate_data_key` or `encrypt` gave for the same context, or what another
    /// key manager made under material that was imported.
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
        let item = Decrypt {
            key: name,
            version: None,
            context,
            ciphertext,
        };
        let call = (caller, enclave, Command::KeyDecrypt);
        self.one(call, &item, |item, row, keys| {
            open_item(row, enclave, item, keys)
        })
        .await
    }

    /// Decrypts several ciphertexts.
    ///
    /// # Errors
    /// As [`Core::generate_many`], and `Error::InvalidCiphertext` in the place of an item.
    pub async fn decrypt_many(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        items: &[Decrypt<'_>],
    ) -> Result<Vec<Result<Decrypted, Error>>, Error> {
        let call = (caller, enclave, Command::KeyDecrypt);
        self.batch(call, items, |item, row, keys| {
            open_item(row, enclave, item, keys)
        })
        .await
    }

    /// Makes message authentication codes.
    ///
    /// # Errors
    /// As [`Core::generate_many`].
    pub async fn mac_many(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        items: &[Mac<'_>],
    ) -> Result<Vec<Result<MacCode, Error>>, Error> {
        let call = (caller, enclave, Command::KeyMac);
        self.batch(call, items, make_code).await
    }

    /// Makes a message authentication code.
    ///
    /// # Errors
    /// `Error::KeyNotFound`, `Error::KeyVersionNotFound`, `Error::KeyDisabled`, `Error::Length`.
    pub async fn mac(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        item: Mac<'_>,
    ) -> Result<MacCode, Error> {
        let call = (caller, enclave, Command::KeyMac);
        self.one(call, &item, make_code).await
    }

    /// Whether `code` is the code of a message, under the version that is named or else under any.
    /// Returns the version; `None` if it is not.
    ///
    /// # Errors
    /// As [`Core::mac`].
    pub async fn verify_mac(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        item: Mac<'_>,
        code: &[u8],
    ) -> Result<Option<KeyVersion>, Error> {
        let call = (caller, enclave, Command::KeyVerifyMac);
        self.one(call, &item, |item, row, _| {
            check_length("message", item.message.len(), 0, PLAINTEXT_BYTES_MAX)?;
            let named = item
                .version
                .map(|version| version_of(item.key, row, Some(version)))
                .transpose()?;
            let versions = match named {
                Some(version) => std::slice::from_ref(version),
                None => row.versions.as_slice(),
            };
            // The newest first: it is the likeliest.
            let found = versions
                .iter()
                .rev()
                .find(|version| envelope::verify_mac(version, item.message, code));
            let found = found.map(|version| version.number);
            Ok((found.unwrap_or(row.latest().number), found))
        })
        .await
    }

    /// Decides and does one operation. `work` gives the version that was used and the result.
    async fn one<I: Item, T>(
        &self,
        (caller, enclave, command): (&Caller, &EnclaveName, Command),
        item: &I,
        work: impl FnOnce(&I, &KeyRow, &mut OperationKeys) -> Result<(KeyVersion, T), Error>,
    ) -> Result<T, Error> {
        let scope = Scope::Enclave(enclave.clone());
        let mut trail = self.trail(caller, &scope, command).key(item.key());
        if let Some(context) = item.context() {
            trail = trail.context(context);
        }
        let result = async {
            let row = self
                .usable_key(caller, &scope, enclave, item.key(), command)
                .await?;
            let (version, value) = work(item, &row, &mut OperationKeys::default())?;
            trail.version(version);
            Ok(value)
        }
        .await;
        trail.committed(result).await
    }

    pub(super) fn wrap(
        &self,
        version: &VersionRow,
        binding: Binding<'_>,
        plaintext: &SecretBytes,
        keys: &mut OperationKeys,
    ) -> Vec<u8> {
        keys.encrypt(version, &binding, plaintext.expose(), &self.reserve)
    }
}

pub(super) fn version_of<'a>(
    name: &KeyName,
    row: &'a KeyRow,
    version: Option<KeyVersion>,
) -> Result<&'a VersionRow, Error> {
    match version {
        None => Ok(row.latest()),
        Some(version) => row
            .version(version)
            .ok_or_else(|| Error::KeyVersionNotFound {
                key: name.clone(),
                version,
            }),
    }
}

pub(super) fn encrypting_version<'a>(
    name: &KeyName,
    row: &'a KeyRow,
    version: Option<KeyVersion>,
) -> Result<&'a VersionRow, Error> {
    let version = version_of(name, row, version)?;
    if version.algorithm.encrypts() {
        return Ok(version);
    }
    Err(Error::KeyUsage {
        key: name.clone(),
        algorithm: version.algorithm,
    })
}

fn open_item(
    row: &KeyRow,
    enclave: &EnclaveName,
    item: &Decrypt<'_>,
    keys: &mut OperationKeys,
) -> Result<(KeyVersion, Decrypted), Error> {
    check_context(item.context)?;
    let (version, plaintext) = open_data(row, enclave, item, keys)?;
    Ok((version, Decrypted { version, plaintext }))
}

fn make_code(
    item: &Mac<'_>,
    row: &KeyRow,
    _: &mut OperationKeys,
) -> Result<(KeyVersion, MacCode), Error> {
    check_length("message", item.message.len(), 0, PLAINTEXT_BYTES_MAX)?;
    let version = version_of(item.key, row, item.version)?;
    let made = MacCode {
        version: version.number,
        code: envelope::mac(version, item.message),
    };
    Ok((version.number, made))
}

/// Opens a ciphertext of ours, or one that names no version and was made elsewhere.
fn open_data(
    row: &KeyRow,
    enclave: &EnclaveName,
    item: &Decrypt<'_>,
    keys: &mut OperationKeys,
) -> Result<(KeyVersion, SecretBytes), Error> {
    let fits = |number: KeyVersion| item.version.is_none_or(|wanted| wanted == number);
    let binding = data_binding(enclave, item.key, item.context);
    let refused = match unwrap(row, binding, item.ciphertext, keys) {
        Ok((number, plaintext)) if fits(number) => return Ok((number, plaintext)),
        Ok((number, _)) => Error::InvalidCiphertext {
            key: item.key.clone(),
            version: Some(number),
        },
        Err(refused) => refused,
    };
    // What was made elsewhere may begin like one of ours, so this is tried whatever it looks like.
    let imported = row.versions.iter().filter(|version| version.imported);
    imported
        .filter(|version| fits(version.number))
        .find_map(|version| {
            let plaintext = envelope::decrypt_unversioned(version, item.context, item.ciphertext)?;
            Some((version.number, plaintext))
        })
        .ok_or(refused)
}

/// Opens a ciphertext under the version that it names.
pub(super) fn unwrap(
    row: &KeyRow,
    binding: Binding<'_>,
    ciphertext: &[u8],
    keys: &mut OperationKeys,
) -> Result<(KeyVersion, SecretBytes), Error> {
    let named = envelope::ciphertext_version(ciphertext);
    named
        .and_then(|number| row.version(number))
        .and_then(|version| {
            let plaintext = keys.decrypt(version, &binding, ciphertext)?;
            Some((version.number, plaintext))
        })
        .ok_or_else(|| Error::InvalidCiphertext {
            key: binding.key.clone(),
            version: named,
        })
}

const fn data_binding<'a>(
    enclave: &'a EnclaveName,
    key: &'a KeyName,
    context: &'a [u8],
) -> Binding<'a> {
    Binding {
        enclave,
        key,
        purpose: Purpose::Data { context },
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
