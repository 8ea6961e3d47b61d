//! Batches: many items of one kind in one request, decided one by one.

use bytes::Bytes;
use moat_kms_client::Code;
use moat_kms_client::wire::{self, Batch};
use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName, SecretBuffer};

use super::answer::{Refusal, json_text};
use super::convert;
use super::handlers::{Answer, Context, data_key_length, parse, version};
use super::route::{BulkAction, bad_name};
use crate::core::{Decrypt, Encrypt, Generate, Mac};
use crate::error::Error;
use crate::json::{OBJECT_BYTES, push_value};

impl<M: MetaStore> Context<'_, M> {
    pub(super) async fn bulk(&self, enclave: &EnclaveName, action: BulkAction) -> Answer {
        match action {
            BulkAction::Generate => self.generate_all(enclave).await,
            BulkAction::Encrypt => self.encrypt_all(enclave).await,
            BulkAction::Decrypt => self.decrypt_all(enclave).await,
            BulkAction::Mac => self.mac_all(enclave).await,
        }
    }

    async fn generate_all(&self, enclave: &EnclaveName) -> Answer {
        let batch: Batch<wire::GenerateItem> = parse(self.body)?;
        let keys = keys(&batch.items, |item| &item.key)?;
        let items = batch.items.iter().zip(&keys).map(|(item, key)| {
            Ok(Generate {
                key,
                version: version(item.version)?,
                context: &item.context.0,
                length: data_key_length(item.length),
            })
        });
        let items = items.collect::<Result<Vec<_>, Refusal>>()?;
        let results = self.core.generate_many(self.caller, enclave, &items);
        self.answers(results.await?, convert::data_key)
    }

    async fn encrypt_all(&self, enclave: &EnclaveName) -> Answer {
        let batch: Batch<wire::EncryptItem> = parse(self.body)?;
        let keys = keys(&batch.items, |item| &item.key)?;
        let items = batch.items.iter().zip(&keys).map(|(item, key)| {
            Ok(Encrypt {
                key,
                version: version(item.version)?,
                context: &item.context.0,
                plaintext: &item.plaintext.0,
            })
        });
        let items = items.collect::<Result<Vec<_>, Refusal>>()?;
        let results = self.core.encrypt_many(self.caller, enclave, &items);
        self.answers(results.await?, convert::encrypted)
    }

    async fn decrypt_all(&self, enclave: &EnclaveName) -> Answer {
        let batch: Batch<wire::DecryptItem> = parse(self.body)?;
        let keys = keys(&batch.items, |item| &item.key)?;
        let items = batch.items.iter().zip(&keys).map(|(item, key)| Decrypt {
            key,
            version: None,
            context: &item.context.0,
            ciphertext: &item.ciphertext.0,
        });
        let items: Vec<_> = items.collect();
        let results = self.core.decrypt_many(self.caller, enclave, &items);
        self.answers(results.await?, convert::decrypted)
    }

    async fn mac_all(&self, enclave: &EnclaveName) -> Answer {
        let batch: Batch<wire::MacItem> = parse(self.body)?;
        let keys = keys(&batch.items, |item| &item.key)?;
        let items = batch.items.iter().zip(&keys).map(|(item, key)| {
            Ok(Mac {
                key,
                version: version(item.version)?,
                message: &item.message.0,
            })
        });
        let items = items.collect::<Result<Vec<_>, Refusal>>()?;
        let results = self.core.mac_many(self.caller, enclave, &items);
        self.answers(results.await?, convert::mac_code)
    }

    /// The answers to a batch, as `wire::BatchAnswer` has them. `write` writes one that succeeded.
    fn answers<T>(
        &self,
        results: Vec<Result<T, Error>>,
        write: impl Fn(&mut SecretBuffer, &T),
    ) -> Answer {
        let mut out = SecretBuffer::with_capacity((results.len() + 1) * OBJECT_BYTES);
        let mut before: &[u8] = b"{\"items\":[";
        if results.is_empty() {
            out.push(before);
        }
        for result in results {
            out.push(before);
            before = b",";
            match result {
                Ok(done) => {
                    out.push(b"{\"ok\":");
                    write(&mut out, &done);
                }
                Err(error) => {
                    out.push(b"{\"error\":");
                    let problem = Refusal::from(error).problem(&self.caller.request_id);
                    push_value(&mut out, &problem)
                        .map_err(|_| Refusal::new(Code::Internal, "the answer can't be encoded"))?;
                }
            }
            out.push(b"}");
        }
        out.push(b"]}");
        Ok(json_text(Bytes::from_owner(out)))
    }
}

/// The key of each item. One name that is none refuses the whole batch: it is malformed. Most
/// batches are about one key, whose name is then checked and kept once.
fn keys<T>(items: &[T], key: impl Fn(&T) -> &String) -> Result<Vec<KeyName>, Refusal> {
    let mut names: Vec<KeyName> = Vec::with_capacity(items.len());
    for item in items {
        let name = match names.last() {
            Some(last) if last.as_str() == key(item) => last.clone(),
            _ => KeyName::parse(key(item)).map_err(bad_name)?,
        };
        names.push(name);
    }
    Ok(names)
}
