//! Policies and identities, as far as KES shows them.

use http::StatusCode;
use moat_kms_client::Privilege;
use moat_meta::MetaStore;
use moat_types::KeyName;

use super::Call;
use super::answer::{Answer, Refusal, json, text};
use super::message::{self, ListFrom, Nothing, PolicyOfIdentity};
use crate::core::{IdentityInfo, ListQuery, PolicyInfo};
use crate::policy::{Command, PathPolicy};
use crate::rows::{Origin, Scope};

/// What stands before the text of every identity in the rows; KES's clients do not know it.
const IDENTITY_FORM: &str = "h1:";

impl<M: MetaStore> Call<M> {
    fn scope(&self) -> Scope {
        Scope::Enclave(self.enclave.clone())
    }

    pub(super) async fn describe_policy(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let created = self
            .core
            .policy_status(&self.caller, &self.scope(), &name)
            .await?;
        json(&without_rules(&name, &created))
    }

    pub(super) async fn read_policy(&self) -> Answer {
        let name = message::parse_name(&self.argument)?;
        let info = self
            .core
            .policy_info(&self.caller, &self.scope(), &name)
            .await?;
        json(&with_rules(&info))
    }

    pub(super) async fn list_policies(&self) -> Answer {
        let at = ListFrom::parse(&self.argument)?;
        let query = ListQuery {
            prefix: at.prefix.clone(),
            from: at.from.clone(),
            limit: 0,
        };
        let page = self
            .core
            .list_policies(&self.caller, &self.scope(), &query)
            .await?;
        json(&message::Names {
            names: page.items.iter().map(|p| p.name.to_string()).collect(),
            continue_at: at.continue_at(page.next),
        })
    }

    /// What the caller itself is. Needs no right: it tells a client nothing but its own.
    pub(super) async fn describe_self(&self) -> Answer {
        let own = Some(self.caller.identity.to_kes_text());
        for scope in [self.scope(), Scope::System] {
            if let Some(info) = self.core.own_identity(&self.caller, &scope).await? {
                let policy = self.core.own_policy(&self.caller, &scope).await?;
                return json(&message::IdentityInfo {
                    identity: own,
                    policy: policy.as_ref().map(with_rules).map(PolicyOfIdentity::Whole),
                    ..describe(&info)
                });
            }
        }
        if !self.core.is_root(&self.caller.identity) {
            let status = StatusCode::NOT_FOUND;
            return Err(Refusal::new(status, text::IDENTITY_NOT_FOUND));
        }
        self.describe_root(own).await
    }

    /// The root identity stands in the configuration; it is as old as what it works in.
    async fn describe_root(&self, identity: Option<String>) -> Answer {
        let enclave = self.core.enclave_info(&self.caller, &self.enclave).await?;
        json(&message::IdentityInfo {
            identity,
            admin: true,
            policy: None,
            created_at: message::created_at(&enclave.created),
            created_by: String::new(),
        })
    }

    pub(super) async fn describe_identity(&self) -> Answer {
        let identity = message::parse_identity(&self.argument)?;
        if self.core.is_root(&identity) {
            let (scope, command) = (self.scope(), Command::IdentityStatus);
            self.core
                .permit(&self.caller, &scope, command, &identity.to_string())
                .await?;
            return self.describe_root(None).await;
        }
        let info = self
            .core
            .identity_info(&self.caller, &self.scope(), &identity)
            .await?;
        json(&describe(&info))
    }

    /// Lists identities. The rows are in the order of another text form, so a prefix in
    /// hexadecimal is looked for among the items of a page, and a page may be short of items.
    pub(super) async fn list_identities(&self) -> Answer {
        let at = ListFrom::parse(&self.argument)?;
        let query = ListQuery {
            prefix: IDENTITY_FORM.to_owned(),
            from: at.from.clone(),
            limit: 0,
        };
        let page = self
            .core
            .list_identities(&self.caller, &self.scope(), &query)
            .await?;
        let texts = page.items.iter().map(|i| i.identity.to_kes_text());
        json(&message::Identities {
            identities: texts.filter(|text| text.starts_with(&at.prefix)).collect(),
            continue_at: at.continue_at(page.next),
        })
    }
}

fn describe(info: &IdentityInfo) -> message::IdentityInfo {
    message::IdentityInfo {
        identity: None,
        admin: info.privilege != Privilege::User,
        policy: info
            .policy
            .as_ref()
            .map(|policy| PolicyOfIdentity::Name(policy.to_string())),
        created_at: message::created_at(&info.created),
        created_by: message::created_by(&info.created),
    }
}

fn without_rules(name: &KeyName, created: &Origin) -> message::Policy {
    message::Policy {
        name: name.to_string(),
        allow: None,
        deny: None,
        created_at: message::created_at(created),
        created_by: message::created_by(created),
    }
}

/// A policy with its rules as paths. Rules that no path stands for are not shown.
fn with_rules(info: &PolicyInfo) -> message::Policy {
    let paths = PathPolicy::from_policy(&info.policy);
    let set = |paths: Vec<String>| Some(paths.into_iter().map(|path| (path, Nothing {})).collect());
    message::Policy {
        allow: set(paths.allow),
        deny: set(paths.deny),
        ..without_rules(&info.name, &info.created)
    }
}
