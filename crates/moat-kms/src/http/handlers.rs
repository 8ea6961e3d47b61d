//! One arm per method and route: decode, call the core, encode.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use moat_kms_client::wire::{self, Base64, SecretBase64};
use moat_kms_client::{Code, Identity, Privilege};
use moat_meta::MetaStore;
use moat_net::Body;
use moat_types::{BucketName, EnclaveName, EpochId, KeyName};
use serde::de::DeserializeOwned;

use super::answer::{Refusal, created, json};
use super::convert::{self, listing};
use super::route::{KeyAction, Query, Route, bad_name};
use crate::audit::Filter;
use crate::core::{Caller, Core, DATA_KEY_BYTES, ListQuery};
use crate::rows::Scope;

/// A request whose caller, path, method and size are known to be good.
pub(super) struct Call {
    pub(super) caller: Caller,
    pub(super) method: Method,
    pub(super) route: Route,
    pub(super) query: String,
    pub(super) body: Bytes,
}

type Answer = Result<Response<Body>, Refusal>;

/// Answers a request.
pub(super) async fn handle<M: MetaStore>(core: &Arc<Core<M>>, call: Call) -> Answer {
    let Call {
        caller,
        method,
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
    let get = method == Method::GET;
    match route {
        Route::Metrics => context.metrics().await,
        Route::Audit => context.audit().await,
        Route::Enclaves if get => context.list_enclaves().await,
        Route::Enclaves => context.create_enclave().await,
        Route::Enclave(name) => {
            let info = core.enclave_info(&caller, &name).await?;
            json(&wire::EnclaveInfo::from(info))
        }
        Route::Keys(enclave) if get => context.list_keys(&enclave).await,
        Route::Keys(enclave) => context.create_key(&enclave).await,
        Route::Key(enclave, key) => {
            let info = core.key_info(&caller, &enclave, &key).await?;
            json(&wire::KeyInfo::from(info))
        }
        Route::KeyVersions(enclave, key) if get => context.key_versions(&enclave, &key).await,
        Route::KeyVersions(enclave, key) => {
            parse::<wire::Nothing>(&body)?;
            let info = core.rotate_key(&caller, &enclave, &key).await?;
            created(&wire::KeyInfo::from(info))
        }
        Route::KeyAction(enclave, key, action) => context.act(&enclave, &key, action).await,
        Route::Identities(scope) if get => {
            let page = core.list_identities(&caller, &scope, &context.list);
            json(&listing::<_, wire::IdentityInfo>(page.await?))
        }
        Route::Identities(scope) => context.create_identity(&scope).await,
        Route::Identity(scope, identity) => {
            let info = core.identity_info(&caller, &scope, &identity).await?;
            json(&wire::IdentityInfo::from(info))
        }
        Route::IdentityPolicy(scope, identity) => context.assign_policy(&scope, &identity).await,
        Route::Policies(scope) => {
            let page = core.list_policies(&caller, &scope, &context.list);
            json(&listing::<_, wire::PolicyInfo>(page.await?))
        }
        Route::Policy(scope, name) if get => {
            let info = core.policy_info(&caller, &scope, &name).await?;
            json(&convert::policy(info))
        }
        Route::Policy(scope, name) => {
            let document: wire::PolicyDocument = parse(&body)?;
            let info = core.set_policy(&caller, &scope, &name, &document).await?;
            json(&convert::policy(info))
        }
    }
}

struct Context<'a, M> {
    core: &'a Arc<Core<M>>,
    caller: &'a Caller,
    body: &'a [u8],
    query: Query,
    list: ListQuery,
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
        let query = &self.query;
        let count = query.limit.unwrap_or(LINES).clamp(1, LINES_MAX);
        let filter = Filter {
            key: query.key.clone(),
            identity: query.identity.clone(),
            operation: query.operation.clone(),
            enclave: query.enclave.clone(),
            ..Filter::default()
        };
        let lines = self.core.audit_tail(self.caller, filter, count).await?;
        let lines = lines.iter().map(serde_json::to_value);
        let anchor = self.core.audit_anchor();
        json(&wire::Audit {
            lines: lines
                .collect::<Result<_, _>>()
                .map_err(|_| Refusal::new(Code::Internal, "the answer can't be encoded"))?,
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

    async fn list_enclaves(&self) -> Answer {
        let page = self.core.list_enclaves(self.caller, &self.list);
        json(&listing::<_, wire::EnclaveInfo>(page.await?))
    }

    async fn create_key(&self, enclave: &EnclaveName) -> Answer {
        let request: wire::CreateKey = parse(self.body)?;
        let name = KeyName::parse(&request.name).map_err(bad_name)?;
        let info = self.core.create_key(self.caller, enclave, &name).await?;
        created(&wire::KeyInfo::from(info))
    }

    async fn list_keys(&self, enclave: &EnclaveName) -> Answer {
        let page = self.core.list_keys(self.caller, enclave, &self.list);
        json(&listing::<_, wire::KeyInfo>(page.await?))
    }

    async fn key_versions(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
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
            KeyAction::Generate => self.generate(enclave, key).await,
            KeyAction::Encrypt => self.encrypt(enclave, key).await,
            KeyAction::Decrypt => self.decrypt(enclave, key).await,
            KeyAction::GenerateEpoch => self.generate_epoch(enclave, key).await,
            KeyAction::OpenEpoch => self.open_epoch(enclave, key).await,
        }
    }

    async fn generate(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::GenerateDataKey = parse(self.body)?;
        // A length that no integer of this machine holds is out of bounds as well.
        let length = request.length.map_or(DATA_KEY_BYTES, |length| {
            usize::try_from(length).unwrap_or(usize::MAX)
        });
        let context = &request.context.0;
        let made = self
            .core
            .generate_data_key(self.caller, enclave, key, context, length)
            .await?;
        json(&wire::DataKey {
            version: made.version.number(),
            plaintext: SecretBase64(made.plaintext),
            ciphertext: Base64(made.ciphertext),
        })
    }

    async fn encrypt(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::Encrypt = parse(self.body)?;
        let (context, plaintext) = (&request.context.0, &request.plaintext.0);
        let made = self
            .core
            .encrypt(self.caller, enclave, key, context, plaintext)
            .await?;
        json(&wire::Ciphertext {
            version: made.version.number(),
            ciphertext: Base64(made.ciphertext),
        })
    }

    async fn decrypt(&self, enclave: &EnclaveName, key: &KeyName) -> Answer {
        let request: wire::Decrypt = parse(self.body)?;
        let (context, ciphertext) = (&request.context.0, &request.ciphertext.0);
        let opened = self
            .core
            .decrypt(self.caller, enclave, key, context, ciphertext)
            .await?;
        json(&wire::Plaintext {
            version: opened.version.number(),
            plaintext: SecretBase64(opened.plaintext),
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

    async fn create_identity(&self, scope: &Scope) -> Answer {
        let request: wire::CreateIdentity = parse(self.body)?;
        let policy = parse_policy_name(request.policy.as_deref())?;
        let privilege = request.privilege.unwrap_or(Privilege::User);
        let identity = &request.identity;
        let info = self
            .core
            .create_identity(self.caller, scope, identity, privilege, policy.as_ref())
            .await?;
        created(&wire::IdentityInfo::from(info))
    }

    async fn assign_policy(&self, scope: &Scope, identity: &Identity) -> Answer {
        let request: wire::AssignPolicy = parse(self.body)?;
        let policy = parse_policy_name(request.policy.as_deref())?;
        let info = self
            .core
            .assign_policy(self.caller, scope, identity, policy.as_ref())
            .await?;
        json(&wire::IdentityInfo::from(info))
    }
}

/// Decodes a body; none at all stands for an object without members.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| {
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

fn parse_policy_name(name: Option<&str>) -> Result<Option<KeyName>, Refusal> {
    name.map(|name| KeyName::parse(name).map_err(bad_name))
        .transpose()
}

fn millis(ttl: std::time::Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}
