//! Operations on policies, and on who has which. A policy belongs to one enclave, or to the system.

use std::sync::Arc;

use moat_kms_client::Identity;
use moat_kms_client::wire::PolicyDocument;
use moat_meta::{Check, MetaStore, Write};
use moat_types::KeyName;

use super::access::Decision;
use super::identities::{check_form, describe};
use super::{Caller, Core, Force, IdentityInfo, ListQuery, Page};
use crate::error::{Error, HOLDERS_NAMED_MAX};
use crate::policy::{Command, Policy};
use crate::rows::{IdentityRow, Origin, PolicyRow, Scope, identity_row, identity_rows, policy_row};
use crate::state::OpenEnclave;

/// A policy.
#[derive(Clone, Debug)]
pub struct PolicyInfo {
    /// Its name, of the same form as key names.
    pub name: KeyName,
    /// Its rules.
    pub policy: Policy,
    /// Who wrote it, and when.
    pub created: Origin,
}

impl<M: MetaStore> Core<M> {
    /// Writes a policy, in place of one of the same name.
    ///
    /// # Errors
    /// `Error::PolicyForm` if the document is no good.
    pub async fn set_policy(
        &self,
        caller: &Caller,
        scope: &Scope,
        name: &KeyName,
        document: &PolicyDocument,
    ) -> Result<PolicyInfo, Error> {
        let command = Command::PolicyCreate;
        let mut trail = self.trail(caller, scope, command).subject(name);
        let result = async {
            let access = self
                .authorize(caller, scope, command, Some(name.as_str()))
                .await?;
            let row = PolicyRow {
                created: self.state.origin(Some(caller.identity)),
                policy: Policy::compile(document)?,
            };
            trail.begin().await?;
            let meta_key = policy_row(scope, name.as_str());
            let write = self.state.put(&access.enclave, &meta_key, &row);
            self.state
                .commit_in(&access.enclave, Vec::new(), vec![write])
                .await?;
            Ok(describe_policy(name, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// `Error::PolicyNotFound`.
    pub async fn policy_info(
        &self,
        caller: &Caller,
        scope: &Scope,
        name: &KeyName,
    ) -> Result<PolicyInfo, Error> {
        let command = Command::PolicyGet;
        let mut trail = self.trail(caller, scope, command).subject(name);
        let result = async {
            let access = self
                .authorize(caller, scope, command, Some(name.as_str()))
                .await?;
            let row = self.policy_row(&access.enclave, scope, name).await?;
            Ok(describe_policy(name, &row))
        }
        .await;
        trail.noted(result).await
    }

    /// The policy that decides for the caller in a scope, if one does: anyone may read its own.
    ///
    /// # Errors
    /// `Error::Store` if the metadata engine does not answer.
    pub async fn own_policy(
        &self,
        caller: &Caller,
        scope: &Scope,
    ) -> Result<Option<PolicyInfo>, Error> {
        let command = Command::PolicyGet;
        let mut trail = self.trail(caller, scope, command).subject(caller.identity);
        let result = async {
            let rights = self.rights(caller, scope, command).await?;
            let policy = rights.policy();
            Ok(policy.map(|(name, row)| describe_policy(name, row)))
        }
        .await;
        trail.noted(result).await
    }

    /// Lists the policies that the caller may list.
    ///
    /// # Errors
    /// `Error::Denied` unless it may list some.
    pub async fn list_policies(
        &self,
        caller: &Caller,
        scope: &Scope,
        query: &ListQuery,
    ) -> Result<Page<PolicyInfo>, Error> {
        let command = Command::PolicyList;
        let mut trail = self.trail(caller, scope, command);
        let result = async {
            let access = self.authorize(caller, scope, command, None).await?;
            let (rows, next) = self.list_rows(&policy_row(scope, ""), query).await?;
            let mut items = Vec::with_capacity(rows.len());
            for (text, sealed) in rows {
                let meta_key = policy_row(scope, &text);
                let row = self.state.open_row(&access.enclave, &meta_key, &sealed)?;
                if let Ok(name) = KeyName::parse(&text)
                    && access.shows(command, &text)
                {
                    items.push(describe_policy(&name, &row));
                }
            }
            Ok(Page { items, next })
        }
        .await;
        trail.noted(result).await
    }

    /// Describes a policy without reading its rules out.
    ///
    /// # Errors
    /// `Error::PolicyNotFound`.
    pub async fn policy_status(
        &self,
        caller: &Caller,
        scope: &Scope,
        name: &KeyName,
    ) -> Result<Origin, Error> {
        let command = Command::PolicyStatus;
        let mut trail = self.trail(caller, scope, command).subject(name);
        let result = async {
            let access = self
                .authorize(caller, scope, command, Some(name.as_str()))
                .await?;
            let row = self.policy_row(&access.enclave, scope, name).await?;
            Ok(row.created)
        }
        .await;
        trail.noted(result).await
    }

    /// Deletes a policy. Where that is forced, identities that have it may do nothing until they
    /// get another, or until one of its name is written again. One that is given the policy in this
    /// very moment is as one of a forced deletion.
    ///
    /// # Errors
    /// `Error::PolicyNotFound`; `Error::PolicyInUse` if identities have it and nothing is forced.
    pub async fn delete_policy(
        &self,
        caller: &Caller,
        scope: &Scope,
        name: &KeyName,
        force: Force,
    ) -> Result<(), Error> {
        let command = Command::PolicyDelete;
        let mut trail = self.trail(caller, scope, command).subject(name);
        let result = async {
            let access = self
                .authorize(caller, scope, command, Some(name.as_str()))
                .await?;
            let missing = || Error::PolicyNotFound {
                policy: name.clone(),
            };
            let key = policy_row(scope, name.as_str());
            let sealed = self.state.sealed(&key).await?.ok_or_else(missing)?;
            if force == Force::No {
                self.check_unused(&access.enclave, scope, name).await?;
            }
            trail.begin().await?;
            let check = Check {
                key: key.clone(),
                expected: Some(sealed),
            };
            let removed = self
                .state
                .commit_in(&access.enclave, vec![check], vec![Write::Delete(key)])
                .await?;
            if removed {
                Ok(())
            } else {
                Err(Error::Contended)
            }
        }
        .await;
        trail.committed(result).await
    }

    /// Gives a user a policy in place of the one it has, or takes it away.
    ///
    /// # Errors
    /// `Error::IdentityNotFound`, `Error::PolicyNotFound`; `Error::IdentityForm` unless it is a
    /// user.
    pub async fn assign_policy(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
        policy: Option<&KeyName>,
    ) -> Result<IdentityInfo, Error> {
        let command = Command::PolicyAssign;
        let mut trail = self.trail(caller, scope, command).subject(identity);
        let result = async {
            let name = policy.map_or("", KeyName::as_str);
            let access = self.authorize(caller, scope, command, Some(name)).await?;
            if let Some(policy) = policy {
                self.policy_row(&access.enclave, scope, policy).await?;
            }
            trail.begin().await?;
            let meta_key = identity_row(scope, identity);
            let change = |row: &IdentityRow| {
                if row.parent.is_some() && policy.is_some() {
                    return Err(Error::IdentityForm(
                        "a service account has the rights of its parent, and no policy",
                    ));
                }
                check_form(scope, row.privilege, policy)?;
                Ok(Some(IdentityRow {
                    policy: policy.cloned(),
                    ..row.clone()
                }))
            };
            let row = self
                .state
                .update(&access.enclave, &meta_key, change)
                .await?;
            let row = row.ok_or(Error::IdentityNotFound {
                identity: *identity,
            })?;
            Ok(describe(*identity, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Says what decides whether `identity` may use `command` on `name`. An identity that is not
    /// known is no error: nothing speaks for it.
    ///
    /// # Errors
    /// `Error::Denied` unless the caller may check policies for that identity. Anyone may ask about
    /// itself.
    pub async fn check_policy(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
        command: Command,
        name: &str,
    ) -> Result<Decision, Error> {
        let own = Command::PolicyCheck;
        let mut trail = self.trail(caller, scope, own).subject(identity);
        let result = async {
            let rights = self.rights_of(*identity, scope, own).await?;
            if caller.identity != *identity || rights.own().is_none() {
                self.authorize(caller, scope, own, Some(&identity.to_string()))
                    .await?;
            }
            Ok(rights.explain(command, name))
        }
        .await;
        trail.noted(result).await
    }

    /// That no identity of the scope has a policy.
    async fn check_unused(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        policy: &KeyName,
    ) -> Result<(), Error> {
        let (mut count, mut some) = (0, Vec::new());
        let mut query = ListQuery::default();
        loop {
            let (rows, next) = self.list_rows(&identity_rows(scope, b""), &query).await?;
            for (text, sealed) in rows {
                let row: IdentityRow = self.state.open_row(
                    enclave,
                    &identity_rows(scope, text.as_bytes()),
                    &sealed,
                )?;
                if row.policy.as_ref() != Some(policy) {
                    continue;
                }
                count += 1;
                if some.len() < HOLDERS_NAMED_MAX {
                    some.extend(Identity::parse(&text));
                }
            }
            match next {
                Some(next) => query.from = next,
                None if count == 0 => return Ok(()),
                None => break,
            }
        }
        Err(Error::PolicyInUse {
            policy: policy.clone(),
            count,
            some,
        })
    }

    pub(super) async fn policy_row(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        name: &KeyName,
    ) -> Result<Arc<PolicyRow>, Error> {
        let meta_key = policy_row(scope, name.as_str());
        let row = self.state.get(enclave, &self.policies, &meta_key).await?;
        row.ok_or_else(|| Error::PolicyNotFound {
            policy: name.clone(),
        })
    }
}

fn describe_policy(name: &KeyName, row: &PolicyRow) -> PolicyInfo {
    PolicyInfo {
        name: name.clone(),
        policy: row.policy.clone(),
        created: row.created,
    }
}
