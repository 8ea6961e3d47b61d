//! Commands on policies and identities, of an enclave or of the system.

use std::collections::BTreeMap;

use moat_kms_client::wire::{Patterns, PolicyDocument};
use moat_kms_client::{Identity, Privilege};
use moat_meta::MetaStore;
use moat_types::KeyName;

use super::super::error::{NO_IDENTITY, NO_POLICY, Refusal};
use super::super::proto::Writer;
use super::super::request::RuleSet;
use super::super::{reply, request};
use super::{Answer, Batch, bad_name};
use crate::core::{Force, Tags};

impl<M: MetaStore> Batch<'_, M> {
    pub(super) async fn create_policy(&self) -> Answer {
        let request: request::CreatePolicy<'_> = self.only()?;
        let name = KeyName::parse(request.name).map_err(bad_name)?;
        let document = PolicyDocument {
            allow: rules(&request.allow),
            deny: rules(&request.deny),
        };
        self.core
            .set_policy(self.caller, self.scope, &name, &document)
            .await?;
        self.done()
    }

    /// Deletes a policy whoever has it: the protocol has no word for refusing that.
    pub(super) async fn delete_policy(&self) -> Answer {
        let request: request::Named<'_> = self.only()?;
        let name = policy_name(request.name)?;
        self.core
            .delete_policy(self.caller, self.scope, &name, Force::Yes)
            .await?;
        self.done()
    }

    /// Gives an identity a policy; an empty name takes away the one it has.
    pub(super) async fn assign_policy(&self) -> Answer {
        let request: request::AssignPolicy<'_> = self.only()?;
        let identity = identity(request.identity)?;
        let policy = match request.policy {
            "" => None,
            name => Some(policy_name(name)?),
        };
        self.core
            .assign_policy(self.caller, self.scope, &identity, policy.as_ref())
            .await?;
        self.done()
    }

    pub(super) async fn policy(&self) -> Answer {
        let mut out = Writer::default();
        for request in self.all::<request::Named<'_>>()? {
            let name = policy_name(request.name)?;
            let info = self.core.policy_info(self.caller, self.scope, &name);
            let info = info.await?;
            self.push(&mut out, |out| reply::policy(out, &info));
        }
        Ok(out)
    }

    pub(super) async fn policy_status(&self) -> Answer {
        let mut out = Writer::default();
        for request in self.all::<request::Named<'_>>()? {
            let name = policy_name(request.name)?;
            let created = self.core.policy_status(self.caller, self.scope, &name);
            let created = created.await?;
            self.push(&mut out, |out| reply::policy_status(out, &name, &created));
        }
        Ok(out)
    }

    pub(super) async fn list_policies(&self) -> Answer {
        let query = self.list_query()?;
        let page = self.core.list_policies(self.caller, self.scope, &query);
        let page = page.await?;
        self.answer(|out| {
            reply::page(out, &page.items, page.next.as_deref(), |out, info| {
                reply::policy_status(out, &info.name, &info.created);
            });
        })
    }

    /// Makes an identity known. A service account is one of the caller, with its rights.
    pub(super) async fn create_identity(&self) -> Answer {
        let request: request::CreateIdentity<'_> = self.only()?;
        let identity = Identity::parse(request.identity).ok_or_else(|| {
            Refusal::bad_request("an identity is h1: and 43 characters of base64url")
        })?;
        let tag = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let tags: Tags = request.tags.iter().map(tag).collect();
        let (core, caller, scope) = (self.core, self.caller, self.scope);
        if request.service_account {
            core.create_service_account(caller, scope, &identity, &tags)
                .await?;
        } else {
            let privilege = privilege(request.privilege)?;
            core.create_tagged_identity(caller, scope, &identity, privilege, None, &tags)
                .await?;
        }
        self.done()
    }

    pub(super) async fn delete_identity(&self) -> Answer {
        let request: request::Identified<'_> = self.only()?;
        let identity = identity(request.identity)?;
        self.core
            .delete_identity(self.caller, self.scope, &identity)
            .await?;
        self.done()
    }

    pub(super) async fn identity_status(&self) -> Answer {
        let mut out = Writer::default();
        for request in self.all::<request::Identified<'_>>()? {
            let identity = identity(request.identity)?;
            let info = self.core.identity_info(self.caller, self.scope, &identity);
            let info = info.await?;
            self.push(&mut out, |out| reply::identity(out, &info));
        }
        Ok(out)
    }

    pub(super) async fn list_identities(&self) -> Answer {
        let query = self.list_query()?;
        let page = self.core.list_identities(self.caller, self.scope, &query);
        let page = page.await?;
        self.answer(|out| {
            reply::page(out, &page.items, page.next.as_deref(), reply::identity);
        })
    }
}

/// The rules of a policy document. A command that stands there twice has the patterns of both.
fn rules(rules: &[(&str, RuleSet<'_>)]) -> BTreeMap<String, Patterns> {
    let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (command, set) in rules {
        let patterns = set
            .patterns
            .iter()
            .map(|(pattern, _)| (*pattern).to_owned());
        found.entry(command).or_default().extend(patterns);
    }
    let many = |(command, patterns): (&str, _)| (command.to_owned(), Patterns::Many(patterns));
    found.into_iter().map(many).collect()
}

/// A name that no policy can have is one of a policy that does not exist.
fn policy_name(text: &str) -> Result<KeyName, Refusal> {
    KeyName::parse(text).map_err(|_| NO_POLICY.into())
}

/// A text that is no identity is one that does not exist.
fn identity(text: &str) -> Result<Identity, Refusal> {
    Identity::parse(text).ok_or_else(|| NO_IDENTITY.into())
}

/// The privilege of a request; the empty one is a user's.
fn privilege(text: &str) -> Result<Privilege, Refusal> {
    if text.is_empty() {
        return Ok(Privilege::User);
    }
    Privilege::parse(text)
        .ok_or_else(|| Refusal::bad_request("a privilege is SysAdmin, Admin or User"))
}
