//! Requests about identities and policies, of an enclave or of the system.

use moat_kms_client::{Code, Identity, Privilege, wire};
use moat_meta::MetaStore;
use moat_types::KeyName;

use super::answer::{Refusal, created, json};
use super::convert::{self, listing};
use super::handlers::{Answer, Context, parse};
use super::operations::Verb;
use super::route::bad_name;
use crate::error::Error;
use crate::policy::Command;
use crate::rows::Scope;

impl<M: MetaStore> Context<'_, M> {
    pub(super) async fn identities(&self, scope: &Scope, verb: Verb) -> Answer {
        if verb != Verb::Get {
            return self.create_identity(scope).await;
        }
        let page = self.core.list_identities(self.caller, scope, &self.list);
        json(&listing::<_, wire::IdentityInfo>(page.await?))
    }

    pub(super) async fn identity(&self, scope: &Scope, identity: &Identity, verb: Verb) -> Answer {
        if verb == Verb::Get {
            let info = self.core.identity_info(self.caller, scope, identity);
            return json(&wire::IdentityInfo::from(info.await?));
        }
        self.core
            .delete_identity(self.caller, scope, identity)
            .await?;
        json(&wire::Nothing {})
    }

    async fn create_identity(&self, scope: &Scope) -> Answer {
        let request: wire::CreateIdentity = parse(self.body)?;
        let (core, caller, identity) = (self.core, self.caller, &request.identity);
        let info = if request.service_account {
            if request.privilege.is_some() || request.policy.is_some() {
                let detail = "a service account has neither privilege nor policy of its own";
                return Err(Refusal::new(Code::BadRequest, detail));
            }
            core.create_service_account(caller, scope, identity, &request.tags)
                .await?
        } else {
            let policy = parse_policy_name(request.policy.as_deref())?;
            let privilege = request.privilege.unwrap_or(Privilege::User);
            let (policy, tags) = (policy.as_ref(), &request.tags);
            core.create_tagged_identity(caller, scope, identity, privilege, policy, tags)
                .await?
        };
        created(&wire::IdentityInfo::from(info))
    }

    pub(super) async fn own_identity(&self, scope: &Scope) -> Answer {
        match self.core.own_identity(self.caller, scope).await? {
            Some(info) => json(&wire::IdentityInfo::from(info)),
            None => {
                let identity = self.caller.identity;
                Err(Error::IdentityNotFound { identity }.into())
            }
        }
    }

    pub(super) async fn check_policy(&self, scope: &Scope, identity: &Identity) -> Answer {
        let request: wire::CheckPolicy = parse(self.body)?;
        let command = Command::parse(&request.command).ok_or_else(|| {
            let detail = format!("there is no command {:?}", request.command);
            Refusal::new(Code::BadRequest, detail)
        })?;
        let name = &request.name;
        let decision = self
            .core
            .check_policy(self.caller, scope, identity, command, name)
            .await?;
        json(&convert::decision(&decision, command, name))
    }

    pub(super) async fn policy(&self, scope: &Scope, name: &KeyName, verb: Verb) -> Answer {
        let (core, caller) = (self.core, self.caller);
        match verb {
            Verb::Delete => {
                let force = self.query.force;
                core.delete_policy(caller, scope, name, force).await?;
                json(&wire::Nothing {})
            }
            Verb::Put => {
                let document: wire::PolicyDocument = parse(self.body)?;
                let info = core.set_policy(caller, scope, name, &document).await?;
                json(&convert::policy(info))
            }
            Verb::Get | Verb::Post => {
                let info = core.policy_info(caller, scope, name).await?;
                json(&convert::policy(info))
            }
        }
    }

    pub(super) async fn assign_policy(&self, scope: &Scope, identity: &Identity) -> Answer {
        let request: wire::AssignPolicy = parse(self.body)?;
        let policy = parse_policy_name(request.policy.as_deref())?;
        let info = self
            .core
            .assign_policy(self.caller, scope, identity, policy.as_ref())
            .await?;
        json(&wire::IdentityInfo::from(info))
    }
}

fn parse_policy_name(name: Option<&str>) -> Result<Option<KeyName>, Refusal> {
    name.map(|name| KeyName::parse(name).map_err(bad_name))
        .transpose()
}
