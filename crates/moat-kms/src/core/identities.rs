//! Operations on identities. An identity belongs to one enclave, or to the system.

use std::collections::BTreeMap;
use std::sync::Arc;

use moat_kms_client::{Identity, Privilege};
use moat_meta::{Check, MetaStore, Write};
use moat_types::KeyName;

use super::access::Rights;
use super::{Caller, Core, ListQuery, Page};
use crate::error::{DenyReason, Error};
use crate::policy::{Command, Verdict};
use crate::rows::{HomeRow, IdentityRow, Origin, Scope, home_row, identity_row, identity_rows};
use crate::state::{CONTENTION_RETRIES, OpenEnclave};

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
    /// Whose rights it has, if it is a service account.
    pub parent: Option<Identity>,
    /// The service accounts that have its rights, and go with it.
    pub service_accounts: Vec<Identity>,
    /// What its maker noted about it.
    pub tags: Tags,
}

/// What is noted about an identity, name to value.
pub type Tags = BTreeMap<String, String>;

/// Tags of one identity, and the bytes of one name or value: for people, not for data.
pub const TAGS_MAX: usize = 64;
/// The bytes of one tag's name or value.
pub const TAG_BYTES_MAX: usize = 256;
/// Service accounts of one identity: they stand in its row.
pub const SERVICE_ACCOUNTS_MAX: usize = 1000;

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
        self.create_tagged_identity(caller, scope, identity, privilege, policy, &Tags::new())
            .await
    }

    /// As [`Core::create_identity`], with tags.
    ///
    /// # Errors
    /// As there; `Error::IdentityForm` for tags that are too many or too long.
    pub async fn create_tagged_identity(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
        privilege: Privilege,
        policy: Option<&KeyName>,
        tags: &Tags,
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
            check_tags(tags)?;
            if let Some(policy) = policy {
                self.authorize(caller, scope, Command::PolicyAssign, Some(policy.as_str()))
                    .await?;
                self.policy_row(&access.enclave, scope, policy).await?;
            }
            trail.begin().await?;
            let created = self.state.origin(Some(caller.identity));
            let row = IdentityRow {
                tags: tags.clone(),
                ..IdentityRow::new(privilege, policy.cloned(), created)
            };
            self.write_identity(&access.enclave, scope, identity, &row)
                .await?;
            Ok(describe(*identity, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Makes a service account of the caller: an identity with the caller's rights, which is gone
    /// when the caller is. Users may do this without a policy that allows it, unless theirs denies
    /// it; a service account may not.
    ///
    /// # Errors
    /// `Error::IdentityExists` if it is known anywhere; `Error::IdentityForm` if the caller is not
    /// of this scope, is a service account itself or has too many; `Error::Denied`.
    pub async fn create_service_account(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
        tags: &Tags,
    ) -> Result<IdentityInfo, Error> {
        let command = Command::IdentityCreate;
        let mut trail = self.trail(caller, scope, command).subject(identity);
        let result = async {
            let rights = self.rights(caller, scope, command).await?;
            check_own_accounts(&rights, command, identity)?;
            check_tags(tags)?;
            trail.begin().await?;
            let created = self.state.origin(Some(caller.identity));
            let row = IdentityRow {
                parent: Some(caller.identity),
                tags: tags.clone(),
                ..IdentityRow::new(Privilege::User, None, created)
            };
            self.write_account(rights.enclave()?, scope, identity, &row)
                .await?;
            Ok(describe(*identity, &row))
        }
        .await;
        trail.committed(result).await
    }

    /// Forgets an identity and its service accounts. Anyone may forget its own service accounts.
    ///
    /// # Errors
    /// `Error::IdentityNotFound`; `Error::Denied`, also for a user who would forget an Admin.
    pub async fn delete_identity(
        &self,
        caller: &Caller,
        scope: &Scope,
        identity: &Identity,
    ) -> Result<(), Error> {
        let command = Command::IdentityDelete;
        let mut trail = self.trail(caller, scope, command).subject(identity);
        let result = async {
            let rights = self.rights(caller, scope, command).await?;
            let own_account = rights
                .own()
                .is_some_and(|own| own.accounts.contains(identity));
            if !own_account {
                rights.check(command, Some(&identity.to_string()))?;
            }
            let enclave = rights.enclave()?;
            trail.begin().await?;
            for _ in 0..CONTENTION_RETRIES {
                let row = self.identity_row(enclave, scope, identity).await?;
                let row = row.ok_or(Error::IdentityNotFound {
                    identity: *identity,
                })?;
                if row.privilege != Privilege::User && !rights.is_admin() {
                    return Err(rights.denied(command, DenyReason::NeedsAdmin));
                }
                if self.remove_identity(enclave, scope, identity, &row).await? {
                    return Ok(());
                }
            }
            Err(Error::Contended)
        }
        .await;
        trail.committed(result).await
    }

    /// What the caller is in a scope: anyone who is known there may ask. `None` for one who is
    /// not, such as a SysAdmin in an enclave.
    ///
    /// # Errors
    /// `Error::Store` if the metadata engine does not answer.
    pub async fn own_identity(
        &self,
        caller: &Caller,
        scope: &Scope,
    ) -> Result<Option<IdentityInfo>, Error> {
        let command = Command::IdentityStatus;
        let mut trail = self.trail(caller, scope, command).subject(caller.identity);
        let result = async {
            let rights = self.rights(caller, scope, command).await?;
            let own = rights.own();
            Ok(own.map(|row| describe(caller.identity, row)))
        }
        .await;
        trail.noted(result).await
    }

    /// Where an identity is known. The root identity of the configuration is of the system.
    ///
    /// # Errors
    /// `Error::Store` if the metadata engine does not answer.
    pub async fn home(&self, identity: &Identity) -> Result<Option<Scope>, Error> {
        if self.root == Some(*identity) {
            return Ok(Some(Scope::System));
        }
        let system = self.system_enclave().await?;
        let home = self
            .state
            .get(&system, &self.homes, &home_row(identity))
            .await?;
        Ok(home.map(|home| home.scope.clone()))
    }

    /// Whether an identity is the root identity of the configuration.
    pub fn is_root(&self, identity: &Identity) -> bool {
        self.root == Some(*identity)
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
            let row = self.identity_row(&access.enclave, scope, identity);
            let row = row.await?.ok_or(Error::IdentityNotFound {
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
            let (rows, next) = self.list_rows(&identity_rows(scope, b""), query).await?;
            let mut items = Vec::with_capacity(rows.len());
            for (text, sealed) in rows {
                let meta_key = identity_rows(scope, text.as_bytes());
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

    async fn write_identity(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        identity: &Identity,
        row: &IdentityRow,
    ) -> Result<(), Error> {
        let meta_key = identity_row(scope, identity);
        let writes = vec![
            self.home_write(scope, identity).await?,
            self.state.put(enclave, &meta_key, row),
        ];
        if self.is_root(identity) || !self.state.create(enclave, writes).await? {
            return Err(Error::IdentityExists {
                identity: *identity,
            });
        }
        Ok(())
    }

    /// Writes a service account, and its identity into the row of its parent.
    async fn write_account(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        identity: &Identity,
        row: &IdentityRow,
    ) -> Result<(), Error> {
        let exists = Error::IdentityExists {
            identity: *identity,
        };
        let home_key = home_row(identity);
        let parent = row.parent.expect("a service account has a parent");
        let parent_key = identity_row(scope, &parent);
        for _ in 0..CONTENTION_RETRIES {
            if self.is_root(identity) || self.state.sealed(&home_key).await?.is_some() {
                return Err(exists);
            }
            let missing = Error::IdentityNotFound { identity: parent };
            let sealed = self.state.sealed(&parent_key).await?.ok_or(missing)?;
            let mut changed: IdentityRow = self.state.open_row(enclave, &parent_key, &sealed)?;
            if changed.accounts.len() >= SERVICE_ACCOUNTS_MAX {
                return Err(Error::IdentityForm(
                    "an identity has at most 1000 service accounts",
                ));
            }
            changed.accounts.push(*identity);
            let meta_key = identity_row(scope, identity);
            let absent = |key| Check {
                key,
                expected: None,
            };
            let checks = vec![
                absent(home_key.clone()),
                absent(meta_key.clone()),
                Check {
                    key: parent_key.clone(),
                    expected: Some(sealed),
                },
            ];
            let writes = vec![
                self.home_write(scope, identity).await?,
                self.state.put(enclave, &meta_key, row),
                self.state.put(enclave, &parent_key, &changed),
            ];
            if self.state.commit_in(enclave, checks, writes).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    /// Removes an identity with its service accounts; `false` if something changed meanwhile.
    async fn remove_identity(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        identity: &Identity,
        row: &Arc<IdentityRow>,
    ) -> Result<bool, Error> {
        let own_key = identity_row(scope, identity);
        let Some(sealed) = self.state.sealed(&own_key).await? else {
            return Ok(false);
        };
        // The row that was judged must be the one that is removed.
        let current: IdentityRow = self.state.open_row(enclave, &own_key, &sealed)?;
        if current != **row {
            return Ok(false);
        }
        let mut checks = vec![Check {
            key: own_key,
            expected: Some(sealed),
        }];
        let mut writes = Vec::new();
        for gone in row.accounts.iter().chain([identity]) {
            writes.push(Write::Delete(home_row(gone)));
            writes.push(Write::Delete(identity_row(scope, gone)));
        }
        if let Some(parent) = row.parent {
            let key = identity_row(scope, &parent);
            if let Some(sealed) = self.state.sealed(&key).await? {
                let mut changed: IdentityRow = self.state.open_row(enclave, &key, &sealed)?;
                changed.accounts.retain(|account| account != identity);
                writes.push(self.state.put(enclave, &key, &changed));
                checks.push(Check {
                    key,
                    expected: Some(sealed),
                });
            }
        }
        self.state.commit_in(enclave, checks, writes).await
    }

    async fn home_write(&self, scope: &Scope, identity: &Identity) -> Result<Write, Error> {
        let system = self.system_enclave().await?;
        let home = HomeRow {
            scope: scope.clone(),
        };
        Ok(self.state.put(&system, &home_row(identity), &home))
    }

    pub(super) async fn system_enclave(&self) -> Result<Arc<OpenEnclave>, Error> {
        let system = self.state.enclave(&Scope::System).await?;
        system.ok_or_else(|| Error::Damaged {
            row: "kms/e/".into(),
        })
    }
}

/// Whether the caller may make a service account of its own.
fn check_own_accounts(rights: &Rights, command: Command, identity: &Identity) -> Result<(), Error> {
    match rights.own() {
        None => {
            // Says the same as for any other caller who is unknown here, unless it is one who may
            // do everything.
            rights.check(command, Some(&identity.to_string()))?;
            Err(Error::IdentityForm(
                "a service account belongs to the enclave of its parent; make it as an identity of that enclave",
            ))
        }
        Some(own) if own.parent.is_some() => Err(Error::IdentityForm(
            "a service account has no service accounts",
        )),
        Some(_) => match rights.explain(command, &identity.to_string()).verdict {
            Verdict::DeniedByRule => Err(rights.denied(command, DenyReason::DeniedByRule)),
            Verdict::Allowed | Verdict::NotAllowed => Ok(()),
        },
    }
}

fn check_tags(tags: &Tags) -> Result<(), Error> {
    let fits = |text: &String| text.len() <= TAG_BYTES_MAX;
    if tags.len() <= TAGS_MAX && tags.iter().all(|(name, value)| fits(name) && fits(value)) {
        Ok(())
    } else {
        Err(Error::IdentityForm(
            "an identity has at most 64 tags of 256 bytes each in name and value",
        ))
    }
}

pub(super) fn check_form(
    scope: &Scope,
    privilege: Privilege,
    policy: Option<&KeyName>,
) -> Result<(), Error> {
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

pub(super) fn describe(identity: Identity, row: &IdentityRow) -> IdentityInfo {
    IdentityInfo {
        identity,
        privilege: row.privilege,
        policy: row.policy.clone(),
        created: row.created,
        parent: row.parent,
        service_accounts: row.accounts.clone(),
        tags: row.tags.clone(),
    }
}
