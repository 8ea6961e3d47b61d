//! Commands on keys.

use moat_meta::MetaStore;
use moat_types::{KeyName, KeyVersion, SecretBytes};

use super::super::error::{NO_KEY, Refusal};
use super::super::proto::Writer;
use super::super::{reply, request};
use super::{Answer, Batch, bad_name};
use crate::core::{
    DATA_KEY_BYTES, Decrypt, Encrypt, Force, Generate, Import, KeyInfo, ListQuery, Mac, NewKey,
    Page,
};
use crate::error::Error;
use crate::rows::Algorithm;

impl<M: MetaStore> Batch<'_, M> {
    /// A new key, or with `add_version` a new version of one, which keeps its type.
    pub(super) async fn create_key(&self) -> Answer {
        let request: request::CreateKey<'_> = self.only()?;
        let name = KeyName::parse(request.name).map_err(bad_name)?;
        let enclave = self.enclave()?;
        let algorithm = algorithm(request.kind)?;
        if request.add_version {
            self.core.rotate_key(self.caller, enclave, &name).await?;
        } else {
            let new = NewKey {
                algorithm,
                ..NewKey::default()
            };
            self.core
                .create_key_with(self.caller, enclave, &name, new)
                .await?;
        }
        self.done()
    }

    /// Deletes at once: this protocol knows no grace period.
    pub(super) async fn delete_key(&self) -> Answer {
        let request: request::DeleteKey<'_> = self.only()?;
        let (name, enclave) = (key_name(request.name)?, self.enclave()?);
        let version = KeyVersion::new(request.version);
        if request.all_versions {
            if version.is_some() {
                let what = "delete either one version of a key or all of them";
                return Err(Refusal::bad_request(what));
            }
            self.core.delete_key(self.caller, enclave, &name).await?;
        } else {
            self.core
                .delete_key_version(self.caller, enclave, &name, version, Force::Yes)
                .await?;
        }
        self.done()
    }

    pub(super) async fn import_key(&self) -> Answer {
        let request: request::ImportKey<'_> = self.only()?;
        let name = KeyName::parse(request.name).map_err(bad_name)?;
        let import = Import {
            algorithm: algorithm(request.kind)?,
            material: SecretBytes::new(request.material.to_vec()),
            mac_material: None,
            exportable: false,
            add_version: false,
        };
        self.core
            .import_key(self.caller, self.enclave()?, &name, &import)
            .await?;
        self.done()
    }

    pub(super) async fn key_status(&self) -> Answer {
        let enclave = self.enclave()?;
        let mut out = Writer::default();
        for request in self.all::<request::KeyStatus<'_>>()? {
            let name = key_name(request.name)?;
            let version = KeyVersion::new(request.version);
            let info = self
                .core
                .key_version_info(self.caller, enclave, &name, version)
                .await?;
            self.push(&mut out, |out| {
                let number = info.version.number();
                reply::key(out, name.as_str(), number, info.algorithm, &info.created);
            });
        }
        Ok(out)
    }

    /// A page of keys. Clients know two types and refuse a page with any other, so keys that are
    /// for message authentication codes alone are left out.
    pub(super) async fn list_keys(&self) -> Answer {
        let page = self.first_page(self.list_query()?).await?;
        let known = page.items.iter().filter(|key| key.algorithm.encrypts());
        self.answer(|out| {
            reply::page(out, known, page.next.as_deref(), |out, key| {
                let number = key.version.number();
                reply::key(out, key.name.as_str(), number, key.algorithm, &key.created);
            });
        })
    }

    /// The first page with something on it: clients take an empty one for the end.
    async fn first_page(&self, mut query: ListQuery) -> Result<Page<KeyInfo>, Refusal> {
        loop {
            let page = self
                .core
                .list_keys(self.caller, self.enclave()?, &query)
                .await?;
            let empty = !page.items.iter().any(|key| key.algorithm.encrypts());
            match &page.next {
                Some(next) if empty => query.from.clone_from(next),
                _ => return Ok(page),
            }
        }
    }

    pub(super) async fn generate(&self) -> Answer {
        let requests: Vec<request::Generate<'_>> = self.all()?;
        let names = key_names(requests.iter().map(|request| request.name))?;
        let items: Vec<_> = requests
            .iter()
            .zip(&names)
            .map(|(request, key)| Generate {
                key,
                version: KeyVersion::new(request.version),
                context: request.context,
                length: match request.length {
                    0 => DATA_KEY_BYTES,
                    length => length as usize,
                },
            })
            .collect();
        let made = self
            .core
            .generate_many(self.caller, self.enclave()?, &items);
        self.write_all(made.await?, |out, made| {
            out.number(1, made.version.number());
            out.bytes(2, made.plaintext.expose());
            out.bytes(3, &made.ciphertext);
        })
    }

    pub(super) async fn encrypt(&self) -> Answer {
        let requests: Vec<request::Encrypt<'_>> = self.all()?;
        let names = key_names(requests.iter().map(|request| request.name))?;
        let secrets: Vec<_> = requests
            .iter()
            .map(|request| SecretBytes::new(request.plaintext.to_vec()))
            .collect();
        let items: Vec<_> = requests
            .iter()
            .zip(&names)
            .zip(&secrets)
            .map(|((request, key), plaintext)| Encrypt {
                key,
                version: KeyVersion::new(request.version),
                context: request.context,
                plaintext,
            })
            .collect();
        let made = self.core.encrypt_many(self.caller, self.enclave()?, &items);
        self.write_all(made.await?, |out, made| {
            out.number(1, made.version.number());
            out.bytes(2, &made.ciphertext);
        })
    }

    pub(super) async fn decrypt(&self) -> Answer {
        let requests: Vec<request::Decrypt<'_>> = self.all()?;
        let names = key_names(requests.iter().map(|request| request.name))?;
        let items: Vec<_> = requests
            .iter()
            .zip(&names)
            .map(|(request, key)| Decrypt {
                key,
                version: KeyVersion::new(request.version),
                context: request.context,
                ciphertext: request.ciphertext,
            })
            .collect();
        let opened = self.core.decrypt_many(self.caller, self.enclave()?, &items);
        self.write_all(opened.await?, |out, opened| {
            out.bytes(1, opened.plaintext.expose());
        })
    }

    pub(super) async fn mac(&self) -> Answer {
        let requests: Vec<request::Mac<'_>> = self.all()?;
        let names = key_names(requests.iter().map(|request| request.name))?;
        let items: Vec<_> = requests
            .iter()
            .zip(&names)
            .map(|(request, key)| Mac {
                key,
                version: KeyVersion::new(request.version),
                message: request.message,
            })
            .collect();
        let made = self.core.mac_many(self.caller, self.enclave()?, &items);
        self.write_all(made.await?, |out, made| {
            out.number(1, made.version.number());
            out.bytes(2, &made.code);
        })
    }

    /// An answer for each result, or the first error.
    fn write_all<T>(
        &self,
        results: Vec<Result<T, Error>>,
        write: impl Fn(&mut Writer, &T),
    ) -> Answer {
        /// An answer to GENERATE with a key of the usual length has about 130 bytes.
        const ANSWER_BYTES: usize = 160;
        let mut out = Writer::with_capacity(results.len() * ANSWER_BYTES);
        for result in results {
            let value = result?;
            self.push(&mut out, |out| write(out, &value));
        }
        Ok(out)
    }
}

/// The algorithm of a key type; the empty one is the server's choice.
fn algorithm(kind: &str) -> Result<Algorithm, Refusal> {
    match kind {
        "" | "AES256" => Ok(Algorithm::Aes256),
        "ChaCha20" => Ok(Algorithm::ChaCha20),
        _ => Err(Refusal::bad_request(
            "a key's type is AES256, ChaCha20 or left out",
        )),
    }
}

/// A key to be used. A name that no key can have is one of a key that does not exist: a MinIO
/// server passes that on as 404, and anything else as 500.
fn key_name(text: &str) -> Result<KeyName, Refusal> {
    KeyName::parse(text).map_err(|_| NO_KEY.into())
}

/// The keys of a batch. Most are about one key, whose name is then checked and kept once.
fn key_names<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Result<Vec<KeyName>, Refusal> {
    let mut names: Vec<KeyName> = Vec::with_capacity(texts.len());
    for text in texts {
        let name = match names.last() {
            Some(last) if last.as_str() == text => last.clone(),
            _ => key_name(text)?,
        };
        names.push(name);
    }
    Ok(names)
}
