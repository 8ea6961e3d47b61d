//! One arm per method and route: decode, call the core, encode.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use moat_kms_client::Code;
use moat_kms_client::wire::{self, Base64, SecretBase64};
use moat_meta::MetaStore;
use moat_net::Body;
use moat_types::{BucketName, EnclaveName, EpochId, KeyName, KeyVersion, LakeId};
use serde::de::DeserializeOwned;

use super::answer::{Refusal, created, empty, json, written};
use super::convert::{self, listing};
use super::operations::Verb;
use super::route::{KeyAction, Query, Route, bad_name};
use super::system;
use crate::audit::Filter;
use crate::core::{
    Caller, Core, DATA_KEY_BYTES, DELETION_GRACE, Encrypt, Force, Generate, Import, ListQuery, Mac,
    NewKey,
};
use crate::json::from_json;
use crate::rows::Algorithm;

/// A request whose caller, path, method and size are known to be good.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) verb: Verb,
    pub(super) route: Route,
    pub(super) query: String,
    pub(super) body: Bytes,
}

pub(super) type Answer = Result<Response<Body>, Refusal>;

/// Answers a request.
pub(super) async fn handle<M: MetaStore>(core: &Arc<Core<M>>, call: Call) -> Answer {
    let Call {
        caller,
        verb,
        route,
        query,
        body,
    } = call;
    let query = Query::parse(&query)?;
    let context = Context {
        core,
        caller: &caller,
        body: &body,
        list: ListQuery {
            prefix: query.prefix.clone().unwrap_or_default(),
            from: query.from.clone().unwrap_or_default(),
            limit: query.limit.unwrap_or_default(),
        },
        query,
    };

    match route {
        // Anyone may ask for these, so they are answered before it comes to this.
        Route::Version | Route::OpenApi | Route::Live | Route::Ready => Ok(empty(StatusCode::OK)),
        Route::Metrics => context.metrics().await,
        Route::Audit => context.audit().await,
        Route::Hsm => system::hsm_status(core, &caller).await,
        Route::HsmRotation => system::rotate_hsm(core, &caller, parse(&body)?).await,
        Route::Backup => system::backup(core, &caller).await,
        Route::Enclaves if verb == Verb::Get => context.list_enclaves().await,
        Route::Enclaves => context.create_enclave().await,
        Route::Enclave(name) => context.enclave(&name, verb).await,
        Route::Bulk(enclave, action) => context.bulk(&enclave, action).await,
        Route::Lake(enclave, lake) => context.report_lake(&enclave, lake).await,
        Route::Keys(enclave) if verb == Verb::Get => context.list_keys(&enclave).await,
        Route::Keys(enclave) => context.create_key(&enclave).await,
        Route::Key(enclave, key) if verb == Verb::Get => context.key(&enclave, &key).await,
        Route::Key(enclave, key) => context.delete_key(&enclave, &key).await,
        Route::KeyVersions(enclave, key) => context.key_versions(&enclave, &key, verb).await,
        Route::KeyVersion(enclave, key, version) => {
            let gone = core.delete_key_version(&caller, &enclave, &key, Some(version), Force::No);
            json(&wire::KeyInfo::from(gone.await?))
        }
        Route::KeyAction(enclave, key, action) => context.act(&enclave, &key, action).await,
        Route::Identities(scope) => context.identities(&scope, verb).await,
        Route::OwnIdentity(scope) => context.own_identity(&scope).await,
        Route::Identity(scope, identity) => context.identity(&scope, &identity, verb).await,
        Route::IdentityPolicy(scope, identity) => context.assign_policy(&scope, &identity).await,
        Route::IdentityCheck(scope, identity) => context.check_policy(&scope, &identity).await,
        Route::Policies(scope) => {
            let page = core.list_policies(&caller, &scope, &context.list);
            json(&listing::<_, wire::PolicyInfo>(page.await?))
        }
        Route::Policy(scope, name) => context.policy(&scope, &name, verb).await,
    }
}

pub(super) struct Context<'a, M> {
    pub(super) core: &'a Arc<Core<M>>,
    pub(super) caller: &'a Caller,
    pub(super) body: &'a [u8],
    pub(super) query: Query,
    pub(super) list: ListQuery,
}

impl<M: MetaStore> Context<'_, M> {
    async fn metrics(&self) -> Answer {
        self.core.check_metrics(self.caller).await?;
        Ok(moat_net::metrics::response())
    }

    async fn audit(&self) -> Answer {
        /// Lines of an answer: about half a megabyte.
        const LINES_MAX: usize = 1000;
        const LINES: usize = 100;
        /// A connection that waits for longer looks dead to whatever is between.
        const WAIT_MAX: Duration = Duration::from_secs(30);
        let query = &self.query;
        let count = query.limit.unwrap_or(LINES).clamp(1, LINES_MAX);
        let filter = Filter {
            key: query.key.clone(),
            identity: query.identity.clone(),
            operation: query.operation.clone(),
            enclave: query.enclave.clone(),
            ..Filter::default()
        };
        let (lines, last_seq) = match query.after {
            None => {
                let lines = self.core.audit_tail(self.caller, filter, count);
                (lines.await?, None)
            }
            Some(after) => {
                let wait = Duration::from_secs(query.wait_seconds.unwrap_or(0)).min(WAIT_MAX);
                let found = self
                    .core
                    .audit_after(self.caller, filter, after, count, wait)
                    .await?;
                (found.lines, Some(found.last_seq))
            }
        };
        let lines = lines.iter().map(serde_json::to_value);
        let anchor = self.core.audit_anchor();
        json(&wire::Audit {
            lines: lines
                .collect::<Result<_, _>>()
                .map_err(|_| Refusal::new(Code::Internal, "the answer can't be encoded"))?,
            last_seq,
            public_key: Base64(self.core.audit_public_key().to_vec()),
            checkpoint_seq: anchor.map(|anchor| anchor.seq),
            checkpoint_hash: anchor.map(|anchor| Base64(anchor.hash.to_vec())),
        })
    }

    async fn create_enclave(&self) -> Answer {
        let request: wire::CreateEnclave = parse(self.body)?;
        let name = EnclaveName::parse(&request.name).map_err(bad_name)?;
        let info = self.core.create_enclave(self.caller, &name).await?;
        created(&wire::EnclaveInfo::from(info))
    }

    async fn enclave(&self, name: &EnclaveName, verb: Verb) -> Answer {
        if verb == Verb::Get {
            let info = self.core.enclave_info(self.caller, name).await?;
            return json(&wire::EnclaveInfo::from(info));
        }
        self.core.delete_enclave(self.caller, name).await?;
        json(&wire::Nothing {})
    }

    async fn report_lake(&self, enclave: &EnclaveName, lake: LakeId) -> Answer {
        let report: wire::LakeReport = parse(self.body)?;
        self.core
            .report_lake(self.caller, enclave, lake, &report)
            .await?;
        json(&wire::Nothing {})
    }

    async fn key(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let described = self.core.key_info_guarded(self.caller, enclave, key);
        let (info, guards) = described.await?;
        json(&wire::KeyInfo {
            guards: guards.into_iter().map(Into::into).collect(),
            ..info.into()
        })
    }

    async fn list_enclaves(&self) -> Answer {
        let page = self.core.list_enclaves(self.caller, &self.list);
        json(&listing::<_, wire::EnclaveInfo>(page.await?))
    }

    async fn create_key(&self, enclave: &EnclaveName) -> Answer {
        let request: wire::CreateKey = parse(self.body)?;
        let name = KeyName::parse(&request.name).map_err(bad_name)?;
        let new = NewKey {
            algorithm: parse_algorithm(request.algorithm.as_deref())?,
            exportable: request.exportable,
            rotation: request.rotation_seconds.map(Duration::from_secs),
        };
        let info = self
            .core
            .create_key_with(self.caller, enclave, &name, new)
            .await?;
        created(&wire::KeyInfo::from(info))
    }

    async fn import_key(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::ImportKey = parse(self.body)?;
        let import = Import {
            algorithm: parse_algorithm(request.algorithm.as_deref())?,
            material: request.material.0,
            mac_material: request.mac_material.map(|material| material.0),
            exportable: request.exportable,
            add_version: request.add_version,
        };
        let info = self
            .core
            .import_key(self.caller, enclave, key, &import)
            .await?;
        created(&wire::KeyInfo::from(info))
    }

    async fn delete_key(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let grace = self.query.grace_seconds.map(Duration::from_secs);
        let grace = grace.unwrap_or(DELETION_GRACE);
        let (core, caller) = (self.core, self.caller);
        let info = if grace.is_zero() {
            core.delete_key(caller, enclave, key).await?
        } else {
            core.schedule_key_deletion(caller, enclave, key, grace)
                .await?
        };
        json(&wire::KeyInfo::from(info))
    }

    async fn export_key(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        parse::<wire::Nothing>(self.body)?;
        let versions = self.core.export_key(self.caller, enclave, key).await?;
        json(&wire::ExportedKey {
            name: key.to_string(),
            versions: versions.into_iter().map(Into::into).collect(),
        })
    }

    async fn list_keys(&self, enclave: &EnclaveName) -> Answer {
        let page = self.core.list_keys(self.caller, enclave, &self.list);
        json(&listing::<_, wire::KeyInfo>(page.await?))
    }

    async fn key_versions(&self, enclave: &EnclaveName, key: &KeyName, verb: Verb) -> Answer {
        if verb != Verb::Get {
            parse::<wire::Nothing>(self.body)?;
            let info = self.core.rotate_key(self.caller, enclave, key).await?;
            return created(&wire::KeyInfo::from(info));
        }
        let versions = self.core.key_versions(self.caller, enclave, key).await?;
        json(&wire::Listing::<wire::KeyVersionInfo> {
            items: versions.into_iter().map(Into::into).collect(),
            next: None,
        })
    }

    async fn act(&self, enclave: &EnclaveName, key: &KeyName, action: KeyAction) -> Answer {
        let (core, caller) = (self.core, self.caller);
        match action {
            KeyAction::Enable => {
                parse::<wire::Nothing>(self.body)?;
                let info = core.enable_key(caller, enclave, key).await?;
                json(&wire::KeyInfo::from(info))
            }
            KeyAction::Disable => {
                parse::<wire::Nothing>(self.body)?;
                let info = core.disable_key(caller, enclave, key).await?;
                json(&wire::KeyInfo::from(info))
            }
            KeyAction::Restore => {
                parse::<wire::Nothing>(self.body)?;
                let info = core.restore_key(caller, enclave, key).await?;
                json(&wire::KeyInfo::from(info))
            }
            KeyAction::Rotation => {
                let request: wire::SetRotation = parse(self.body)?;
                let every = request.rotation_seconds.map(Duration::from_secs);
                let info = core.set_key_rotation(caller, enclave, key, every).await?;
                json(&wire::KeyInfo::from(info))
            }
            KeyAction::Import => self.import_key(enclave, key).await,
            KeyAction::Export => self.export_key(enclave, key).await,
            KeyAction::Mac => self.mac(enclave, key).await,
            KeyAction::VerifyMac => self.verify_mac(enclave, key).await,
            KeyAction::Generate => self.generate(enclave, key).await,
            KeyAction::Encrypt => self.encrypt(enclave, key).await,
            KeyAction::Decrypt => self.decrypt(enclave, key).await,
            KeyAction::GenerateEpoch => self.generate_epoch(enclave, key).await,
            KeyAction::OpenEpoch => self.open_epoch(enclave, key).await,
            KeyAction::RewrapEpoch => self.rewrap_epoch(enclave, key).await,
        }
    }

    async fn generate(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::GenerateDataKey = parse(self.body)?;
        let item = Generate {
            key,
            version: version(request.version)?,
            context: &request.context.0,
            length: data_key_length(request.length),
        };
        let made = self.core.generate(self.caller, enclave, &item).await?;
        Ok(written(|out| convert::data_key(out, &made)))
    }

    async fn encrypt(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::Encrypt = parse(self.body)?;
        let item = Encrypt {
            key,
            version: version(request.version)?,
            context: &request.context.0,
            plaintext: &request.plaintext.0,
        };
        let made = self.core.encrypt_item(self.caller, enclave, &item).await?;
        Ok(written(|out| convert::encrypted(out, &made)))
    }

    async fn decrypt(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::Decrypt = parse(self.body)?;
        let (context, ciphertext) = (&request.context.0, &request.ciphertext.0);
        let opened = self
            .core
            .decrypt(self.caller, enclave, key, context, ciphertext)
            .await?;
        Ok(written(|out| convert::decrypted(out, &opened)))
    }

    async fn mac(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::Mac = parse(self.body)?;
        let item = Mac {
            key,
            version: version(request.version)?,
            message: &request.message.0,
        };
        let made = self.core.mac(self.caller, enclave, item).await?;
        Ok(written(|out| convert::mac_code(out, &made)))
    }

    async fn verify_mac(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::VerifyMac = parse(self.body)?;
        let item = Mac {
            key,
            version: version(request.version)?,
            message: &request.message.0,
        };
        let found = self
            .core
            .verify_mac(self.caller, enclave, item, &request.code.0)
            .await?;
        json(&wire::MacVerified {
            valid: found.is_some(),
            version: found.map(KeyVersion::number),
        })
    }

    async fn generate_epoch(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::GenerateEpoch = parse(self.body)?;
        let (bucket, epoch) = parse_place(&request.bucket, &request.epoch)?;
        let made = self
            .core
            .generate_epoch(self.caller, enclave, key, &bucket, epoch)
            .await?;
        json(&wire::EpochLease {
            version: made.version.number(),
            wrapped: Some(Base64(made.wrapped)),
            key: SecretBase64(made.key),
            lease_ttl_ms: millis(made.lease_ttl),
        })
    }

    async fn rewrap_epoch(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::OpenEpoch = parse(self.body)?;
        let (bucket, epoch) = parse_place(&request.bucket, &request.epoch)?;
        let wrapped = &request.wrapped.0;
        let made = self
            .core
            .rewrap_epoch(self.caller, enclave, key, &bucket, epoch, wrapped)
            .await?;
        json(&wire::RewrappedEpoch {
            version: made.version.number(),
            wrapped: Base64(made.wrapped),
        })
    }

    async fn open_epoch(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::OpenEpoch = parse(self.body)?;
        let (bucket, epoch) = parse_place(&request.bucket, &request.epoch)?;
        let wrapped = &request.wrapped.0;
        let opened = self
            .core
            .open_epoch(self.caller, enclave, key, &bucket, epoch, wrapped)
            .await?;
        json(&wire::EpochLease {
            version: opened.version.number(),
            wrapped: None,
            key: SecretBase64(opened.key),
            lease_ttl_ms: millis(opened.lease_ttl),
        })
    }
}

/// A length that no integer of this machine holds is out of bounds as well.
pub(super) fn data_key_length(length: Option<u32>) -> usize {
    length.map_or(DATA_KEY_BYTES, |length| {
        usize::try_from(length).unwrap_or(usize::MAX)
    })
}

pub(super) fn version(number: Option<u32>) -> Result<Option<KeyVersion>, Refusal> {
    match number.map(KeyVersion::new) {
        None => Ok(None),
        Some(Some(version)) => Ok(Some(version)),
        Some(None) => {
            let detail = "key versions count from 1; leave the version out for the latest";
            Err(Refusal::new(Code::BadRequest, detail))
        }
    }
}

fn parse_algorithm(text: Option<&str>) -> Result<Algorithm, Refusal> {
    let Some(text) = text else {
        return Ok(Algorithm::Aes256);
    };
    Algorithm::parse(text).ok_or_else(|| {
        let known: Vec<_> = Algorithm::ALL.iter().map(|one| one.as_str()).collect();
        let detail = format!("an algorithm is one of {}", known.join(", "));
        Refusal::new(Code::BadRequest, detail)
    })
}

/// Decodes a body; none at all stands for an object without members.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    from_json(body).map_err(|e| {
        // serde's message can quote the input, which can be a secret in the wrong place; what it
        // says about members that are unknown or missing names members only.
        let text = e.to_string();
        let what = if text.starts_with("missing field") || text.starts_with("unknown field") {
            text
        } else {
            format!(
                "the body is not as expected at line {}, column {}",
                e.line(),
                e.column()
            )
        };
        Refusal::new(Code::BadRequest, what)
    })
}

fn parse_place(bucket: &str, epoch: &str) -> Result<(BucketName, EpochId), Refusal> {
    let bucket = BucketName::parse(bucket).map_err(bad_name)?;
    let epoch = EpochId::parse(epoch)
        .ok_or_else(|| Refusal::new(Code::BadRequest, "an epoch is 32 hex digits"))?;
    Ok((bucket, epoch))
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}
