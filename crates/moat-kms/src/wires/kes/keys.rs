//! Keys, and what is done with them.

use http::StatusCode;
use moat_meta::MetaStore;

use super::Call;
use super::answer::{Answer, Refusal, empty, json, object};
use super::message::{self, ListFrom};
use crate::core::{DATA_KEY_BYTES, Import, KeyInfo, ListQuery, Mac};
use crate::rows::Algorithm;

/// How many pages of the core one listing goes through to fill its own: names that the caller may
/// not list count as well, and a listing must not walk over all of a large enclave.
const PAGES_MAX: usize = 10;
/// As much of an unknown algorithm as is shown.
const CIPHER_CHARS_MAX: usize = 40;

impl<M: MetaStore> Call<M> {
    pub(super) async fn create_key(&self) -> Answer {
        let name = message::parse_new_name(&self.argument)?;
        self.core
            .create_key(&self.caller, &self.enclave, &name)
            .await?;
        Ok(empty())
    }

    pub(super) async fn import_key(&self) -> Answer {
        let name = message::parse_new_name(&self.argument)?;
        let request: message::Import = message::parse(&self.body)?;
        let algorithm = match &*request.cipher {
            "" => Some(Algorithm::Aes256),
            named => Algorithm::parse(named).filter(|found| found.encrypts()),
        };
        let algorithm = algorithm.ok_or_else(|| {
            let shown: String = request.cipher.chars().take(CIPHER_CHARS_MAX).collect();
            let message = format!("algorithm '{shown}' is not supported");
            Refusal::new(StatusCode::NOT_ACCEPTABLE, message)
        })?;
        let import = Import {
            algorithm,
            material: request.key.0,
            mac_material: None,
            exportable: false,
            add_version: false,
        };
        self.core
            .import_key(&self.caller, &self.enclave, &name, &import)
            .await?;
        Ok(empty())
    }

    /// Deletes at once: KES knows no grace period, and its clients rely on the name being free.
    pub(super) async fn delete_key(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        self.core
            .delete_key(&self.caller, &self.enclave, &name)
            .await?;
        Ok(empty())
    }

    pub(super) async fn describe_key(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let info = self
            .core
            .key_info(&self.caller, &self.enclave, &name)
            .await?;
        json(&describe(&info))
    }

    pub(super) async fn list_keys(&self) -> Answer {
        let at = ListFrom::parse(&self.argument)?;
        let mut names = Vec::new();
        let mut next = Some(at.from.clone());
        for _ in 0..PAGES_MAX {
            let Some(from) = next.take() else { break };
            let query = ListQuery {
                prefix: at.prefix.clone(),
                from,
                limit: ListQuery::LIMIT_MAX - names.len(),
            };
            let page = self
                .core
                .list_keys(&self.caller, &self.enclave, &query)
                .await?;
            names.extend(page.items.iter().map(|key| key.name.to_string()));
            next = page.next;
            if names.len() >= ListQuery::LIMIT_MAX {
                break;
            }
        }
        json(&message::Names {
            names,
            continue_at: at.continue_at(next),
        })
    }

    pub(super) async fn generate(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let request: message::Generate = if self.body.is_empty() {
            message::Generate::default()
        } else {
            message::parse(&self.body)?
        };
        let context = request.context.unwrap_or_default().0;
        let made = self
            .core
            .generate_data_key(&self.caller, &self.enclave, &name, &context, DATA_KEY_BYTES)
            .await?;
        let plaintext = made.plaintext.expose();
        Ok(object(&[
            ("plaintext", plaintext),
            ("ciphertext", &made.ciphertext),
        ]))
    }

    pub(super) async fn encrypt(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let request: message::Encrypt = message::parse(&self.body)?;
        let context = request.context.unwrap_or_default().0;
        let plaintext = &request.plaintext.0;
        let made = self
            .core
            .encrypt(&self.caller, &self.enclave, &name, &context, plaintext)
            .await?;
        Ok(object(&[("ciphertext", &made.ciphertext)]))
    }

    pub(super) async fn decrypt(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let request: message::Decrypt = message::parse(&self.body)?;
        let context = request.context.unwrap_or_default().0;
        let ciphertext = &request.ciphertext.0;
        let opened = self
            .core
            .decrypt(&self.caller, &self.enclave, &name, &context, ciphertext)
            .await?;
        Ok(object(&[("plaintext", opened.plaintext.expose())]))
    }

    pub(super) async fn hmac(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let request: message::Hmac = message::parse(&self.body)?;
        let item = Mac {
            key: &name,
            version: None,
            message: &request.message.0,
        };
        let made = self.core.mac(&self.caller, &self.enclave, item).await?;
        Ok(object(&[("hmac", &made.code)]))
    }
}

fn describe(info: &KeyInfo) -> message::Key<'_> {
    message::Key {
        name: info.name.as_str(),
        algorithm: info.algorithm.as_str(),
        created_at: message::created_at(&info.created),
        created_by: message::created_by(&info.created),
    }
}
