//! Batches: many items of one kind in one request, decided one by one.

use moat_kms_client::wire::{self, Batch, BatchAnswer, ItemAnswer};
use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName};

use super::answer::{Refusal, json};
use super::handlers::{Answer, Context, data_key_length, parse, version};
use super::route::{BulkAction, bad_name};
use crate::core::{Decrypt, Encrypt, Generate, Mac};
use crate::error::Error;

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
        self.answers::<_, wire::DataKey>(results.await?)
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
        self.answers::<_, wire::Ciphertext>(results.await?)
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
        self.answers::<_, wire::Plaintext>(results.await?)
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
        self.answers::<_, wire::MacCode>(results.await?)
    }

    fn answers<T, W: From<T> + serde::Serialize>(&self, results: Vec<Result<T, Error>>) -> Answer {
        let answer = |result: Result<T, Error>| match result {
            Ok(done) => ItemAnswer {
                ok: Some(W::from(done)),
                error: None,
            },
            Err(error) => ItemAnswer {
                ok: None,
                error: Some(Refusal::from(error).problem(&self.caller.request_id)),
            },
        };
        json(&BatchAnswer {
            items: results.into_iter().map(answer).collect(),
        })
    }
}

/// The key of each item. One name that is none refuses the whole batch: it is malformed.
fn keys<T>(items: &[T], key: impl Fn(&T) -> &String) -> Result<Vec<KeyName>, Refusal> {
    items
        .iter()
        .map(|item| KeyName::parse(key(item)).map_err(bad_name))
        .collect()
}
