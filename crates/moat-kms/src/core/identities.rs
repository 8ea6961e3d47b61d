//! Operations on identities and policies. Both belong to one enclave, or to the system.

use moat_kms_client::wire::PolicyDocument;
use moat_kms_client::{Identity, Privilege};
use moat_meta::MetaStore;
use moat_types::KeyName;

use super::{Caller, Core, ListQuery, Page};
use crate::error::{DenyReason, Error};
use crate::policy::{Command, Policy};
use crate::rows::{
    HomeRow, IdentityRow, Origin, PolicyRow, Scope, home_row, identity_row, policy_row,
};

/// What is known about an identity.
#[derive(Clone, Debug)]
pub struct IdentityInfo {
    /// The identity.
    pub identity: Identity,
    /// Its privilege.
    pub privilege: Privilege,
    /// Its policy, if it is a user that has one.
    pub policy: Option<KeyName>,
    /// Who made it known, and when.
    pub created: Origin,
}

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
    /// Makes an identity known. An identity is of one enclave, or of the system.
    ///
    /// # Errors
    /// `Error::IdentityExists` if it is known anywhere; `Error::IdentityForm` for a SysAdmin in
    /// an enclave, an Admin in the system, or a policy for either; `Error::PolicyNotFound`.
    pub async fn create_identity(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
        privilege: Privilege,
        policy: Option<&KeyName>,
    ) -> Result<IdentityInfo, Error> {
        let command = Command::IdentityCreate;
        let mut trail = self.trail(caller, scope, command).subject(identity);
        let result = async {
            let access = self
                .authorize(caller, scope, command, Some(&identity.to_string()))
                .await?;
            if privilege != Privilege::User && !access.is_admin() {
                return Err(Error::Denied {
                    identity: caller.identity,
                    command,
                    reason: DenyReason::NeedsAdmin,
                });
            }
            check_form(scope, privilege, policy)?;
            if let Some(policy) = policy {
                self.authorize(caller, scope, Command::PolicyAssign, Some(policy.as_str()))
                    .await?;
                self.policy_row(&access.enclave, scope, policy).await?;
            }
            trail.begin().await?;
            let row = IdentityRow {
                privilege,
                policy: policy.cloned(),
                created: self.state.origin(Some(caller.identity)),
            };
            self.write_identity(&access.enclave, scope, identity, &row)
                .await?;
            Ok(describe(*identity, &row))
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
            let meta_key = identity_row(scope, &identity.to_string());
            let change = |row: &IdentityRow| {
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

    /// Describes an identity.
    ///
    /// # Errors
    /// `Error::IdentityNotFound`.
    pub async fn identity_info(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
    ) -> Result<IdentityInfo, Error> {
        let command = Command::IdentityStatus;
        let mut trail = self.trail(caller, scope, command).subject(identity);
        let result = async {
            let text = identity.to_string();
            let access = self.authorize(caller, scope, command, Some(&text)).await?;
            let meta_key = identity_row(scope, &text);
            let row = self
                .state
                .get(&access.enclave, &self.identities, &meta_key)
                .await?;
            let row = row.ok_or(Error::IdentityNotFound {
                identity: *identity,
            })?;
            Ok(describe(*identity, &row))
        }
        .await;
        trail.noted(result).await
    }

    /// Lists the identities that the caller may list.
    ///
    /// # Errors
    /// `Error::Denied` unless it may list some.
    pub async fn list_identities(
        &self,
        caller: &Caller,
        scope: &Scope,
        query: &ListQuery,
    ) -> Result<Page<IdentityInfo>, Error> {
        let command = Command::IdentityList;
        let mut trail = self.trail(caller, scope, command);
        let result = async {
            let access = self.authorize(caller, scope, command, None).await?;
            let (rows, next) = self.list_rows(&identity_row(scope, ""), query).await?;
            let mut items = Vec::with_capacity(rows.len());
            for (text, sealed) in rows {
                let meta_key = identity_row(scope, &text);
                let row = self.state.open_row(&access.enclave, &meta_key, &sealed)?;
                if let Some(identity) = Identity::parse(&text)
                    && access.shows(command, &text)
                {
                    items.push(describe(identity, &row));
                }
            }
            Ok(Page { items, next })
        }
        .await;
        trail.noted(result).await
    }

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
            self.state.set(write).await?;
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

    async fn policy_row(
        &self,
        enclave: &crate::state::OpenEnclave,
        scope: &Scope,
        name: &KeyName,
    ) -> Result<std::sync::Arc<PolicyRow>, Error> {
        let meta_key = policy_row(scope, name.as_str());
        let row = self.state.get(enclave, &self.policies, &meta_key).await?;
        row.ok_or_else(|| Error::PolicyNotFound {
            policy: name.clone(),
        })
    }

    async fn write_identity(
        &self,
        enclave: &crate::state::OpenEnclave,
        scope: &Scope,
        identity: &Identity,
        row: &IdentityRow,
    ) -> Result<(), Error> {
        let system = self.state.enclave(&Scope::System).await?;
        let system = system.ok_or_else(|| Error::Damaged {
            row: "kms/e/".into(),
        })?;
        let home = HomeRow {
            scope: scope.clone(),
        };
        let meta_key = identity_row(scope, &identity.to_string());
        let writes = vec![
            self.state.put(&system, &home_row(identity), &home),
            self.state.put(enclave, &meta_key, row),
        ];
        if self.root == Some(*identity) || !self.state.create(writes).await? {
            return Err(Error::IdentityExists {
                identity: *identity,
            });
        }
        Ok(())
    }
}

fn check_form(scope: &Scope, privilege: Privilege, policy: Option<&KeyName>) -> Result<(), Error> {
    Err(Error::IdentityForm(match (scope, privilege, policy) {
        (Scope::Enclave(_), Privilege::SysAdmin, _) => {
            "a SysAdmin is of the system, not of an enclave"
        }
        (Scope::System, Privilege::Admin, _) => {
            "an Admin is of an enclave; the system has SysAdmins"
        }
        (_, Privilege::SysAdmin | Privilege::Admin, Some(_)) => "only a User has a policy",
        _ => return Ok(()),
    }))
}

fn describe(identity: Identity, row: &IdentityRow) -> IdentityInfo {
    IdentityInfo {
        identity,
        privilege: row.privilege,
        policy: row.policy.clone(),
        created: row.created,
    }
}

fn describe_policy(name: &KeyName, row: &PolicyRow) -> PolicyInfo {
    PolicyInfo {
        name: name.clone(),
        policy: row.policy.clone(),
        created: row.created,
    }
}
