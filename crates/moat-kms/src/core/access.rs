//! Who may do what: the check that every operation begins with.

use std::sync::Arc;

use moat_kms_client::{Identity, Privilege};
use moat_meta::MetaStore;
use moat_types::KeyName;

use super::{Caller, Core};
use crate::error::{DenyReason, Error};
use crate::policy::{Command, Verdict};
use crate::rows::{IdentityRow, PolicyRow, Scope, identity_row, policy_row};
use crate::state::OpenEnclave;

/// What an operation may go on with.
pub(super) struct Access {
    /// Where it takes place.
    pub(super) enclave: Arc<OpenEnclave>,
    level: Level,
}

#[derive(Clone)]
enum Level {
    /// A SysAdmin anywhere, or an Admin in its enclave.
    All(Privilege),
    /// A user, by its policy.
    Policy(KeyName, Arc<PolicyRow>),
}

/// What a caller may do in a scope: found once, asked for each item of a batch.
pub(super) struct Rights {
    caller: Identity,
    scope: Scope,
    enclave: Option<Arc<OpenEnclave>>,
    /// The row of the caller itself; none for a SysAdmin in an enclave.
    own: Option<Arc<IdentityRow>>,
    level: Result<Level, DenyReason>,
}

impl Rights {
    /// Checks that the caller may use `command` on `name`. Without a name (a listing) any pattern
    /// that allows the command is enough.
    pub(super) fn check(&self, command: Command, name: Option<&str>) -> Result<(), Error> {
        let allowed = match &self.level {
            Ok(Level::All(_)) => Ok(()),
            Ok(Level::Policy(_, policy)) => check_policy(policy, command, name),
            Err(reason) => Err(*reason),
        };
        allowed.map_err(|reason| self.denied(command, reason))
    }

    /// Where the operation takes place. To be asked for behind a check: who may do nothing here
    /// is not told whether the enclave exists.
    pub(super) fn enclave(&self) -> Result<&Arc<OpenEnclave>, Error> {
        self.enclave.as_ref().ok_or_else(|| match &self.scope {
            Scope::Enclave(name) => Error::EnclaveNotFound {
                enclave: name.clone(),
            },
            Scope::System => Error::Damaged {
                row: "kms/e/".into(),
            },
        })
    }

    /// The row of the caller itself, if it is known in this very scope.
    pub(super) const fn own(&self) -> Option<&Arc<IdentityRow>> {
        self.own.as_ref()
    }

    /// Whether the caller may do anything in the scope.
    pub(super) const fn is_admin(&self) -> bool {
        matches!(self.level, Ok(Level::All(_)))
    }

    /// The policy that decides for the caller, if one does.
    pub(super) const fn policy(&self) -> Option<(&KeyName, &Arc<PolicyRow>)> {
        match &self.level {
            Ok(Level::Policy(name, row)) => Some((name, row)),
            Ok(Level::All(_)) | Err(_) => None,
        }
    }

    /// What decides for the caller: its privilege, or the policy and the pattern in it.
    pub(super) fn explain(&self, command: Command, name: &str) -> Decision {
        let (verdict, by, pattern) = match &self.level {
            Ok(Level::All(privilege)) => (Verdict::Allowed, Decider::Privilege(*privilege), None),
            Ok(Level::Policy(policy, row)) => {
                let (verdict, pattern) = row.policy.explain(command, name);
                (verdict, Decider::Policy(policy.clone()), pattern)
            }
            Err(reason) => (Verdict::NotAllowed, Decider::Nothing(*reason), None),
        };
        Decision {
            verdict,
            by,
            pattern,
        }
    }

    pub(super) const fn denied(&self, command: Command, reason: DenyReason) -> Error {
        Error::Denied {
            identity: self.caller,
            command,
            reason,
        }
    }

    fn into_access(self, command: Command) -> Result<Access, Error> {
        let level = self
            .level
            .clone()
            .map_err(|reason| self.denied(command, reason))?;
        let enclave = self.enclave()?.clone();
        Ok(Access { enclave, level })
    }
}

/// How it was decided whether an identity may do something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// The outcome.
    pub verdict: Verdict,
    /// What decided.
    pub by: Decider,
    /// The pattern of the policy that matched, if one did.
    pub pattern: Option<String>,
}

/// What decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decider {
    /// The privilege of the identity, or of the one whose service account it is.
    Privilege(Privilege),
    /// A policy.
    Policy(KeyName),
    /// Nothing speaks for the identity, and why not.
    Nothing(DenyReason),
}

impl Access {
    /// Whether the caller may do anything in the scope.
    pub(super) const fn is_admin(&self) -> bool {
        matches!(self.level, Level::All(_))
    }

    /// Whether `name` may be seen in a listing.
    pub(super) fn shows(&self, command: Command, name: &str) -> bool {
        match &self.level {
            Level::All(_) => true,
            Level::Policy(_, row) => row.policy.decide(command, name) == Verdict::Allowed,
        }
    }
}

impl<M: MetaStore> Core<M> {
    /// Checks that `caller` may use `command` on `name` in `scope`. Without a name (a listing)
    /// any pattern that allows the command is enough, and the items are to be asked for one by
    /// one with [`Access::shows`].
    pub(super) async fn authorize(
        &self,
        caller: &Caller,
        scope: &Scope,
        command: Command,
        name: Option<&str>,
    ) -> Result<Access, Error> {
        let rights = self.rights(caller, scope, command).await?;
        rights.check(command, name)?;
        rights.into_access(command)
    }

    /// What `caller` may do in `scope`, for operations of the kind of `command`.
    pub(super) async fn rights(
        &self,
        caller: &Caller,
        scope: &Scope,
        command: Command,
    ) -> Result<Rights, Error> {
        self.admit(caller.identity)?;
        self.rights_of(caller.identity, scope, command).await
    }

    pub(super) async fn rights_of(
        &self,
        identity: Identity,
        scope: &Scope,
        command: Command,
    ) -> Result<Rights, Error> {
        // What changes the state must not do so in an enclave that another node just deleted.
        let enclave = if command.changes() {
            self.state.enclave_for_change(scope).await?
        } else {
            self.state.enclave(scope).await?
        };
        let own = match &enclave {
            Some(enclave) => self.identity_row(enclave, scope, &identity).await?,
            None => None,
        };
        let level = match (&own, &enclave) {
            (Some(own), Some(enclave)) => self.level(enclave, scope, own).await?,
            _ if self.is_sysadmin(identity).await? => Ok(Level::All(Privilege::SysAdmin)),
            _ => Err(DenyReason::UnknownIdentity),
        };
        Ok(Rights {
            caller: identity,
            scope: scope.clone(),
            enclave,
            own,
            level,
        })
    }

    /// What the owner of a row may do; a service account may do what its parent may.
    async fn level(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        own: &Arc<IdentityRow>,
    ) -> Result<Result<Level, DenyReason>, Error> {
        let row = match &own.parent {
            None => own.clone(),
            Some(parent) => match self.identity_row(enclave, scope, parent).await? {
                Some(row) => row,
                None => return Ok(Err(DenyReason::UnknownIdentity)),
            },
        };
        if row.privilege != Privilege::User {
            return Ok(Ok(Level::All(row.privilege)));
        }
        let Some(name) = &row.policy else {
            return Ok(Err(DenyReason::NoPolicy));
        };
        let meta_key = policy_row(scope, name.as_str());
        let policy = self.state.get(enclave, &self.policies, &meta_key).await?;
        Ok(policy
            .map(|policy| Level::Policy(name.clone(), policy))
            .ok_or(DenyReason::PolicyGone))
    }

    async fn is_sysadmin(&self, identity: Identity) -> Result<bool, Error> {
        if self.root == Some(identity) {
            return Ok(true);
        }
        let scope = Scope::System;
        let Some(system) = self.state.enclave(&scope).await? else {
            return Ok(false);
        };
        let Some(own) = self.identity_row(&system, &scope, &identity).await? else {
            return Ok(false);
        };
        let level = self.level(&system, &scope, &own).await?;
        Ok(matches!(level, Ok(Level::All(Privilege::SysAdmin))))
    }

    pub(super) async fn identity_row(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        identity: &Identity,
    ) -> Result<Option<Arc<IdentityRow>>, Error> {
        let meta_key = identity_row(scope, identity);
        self.state.get(enclave, &self.identities, &meta_key).await
    }
}

fn check_policy(row: &PolicyRow, command: Command, name: Option<&str>) -> Result<(), DenyReason> {
    let verdict = match name {
        Some(name) => row.policy.decide(command, name),
        None if row.policy.allows_some(command) => Verdict::Allowed,
        None => Verdict::NotAllowed,
    };
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::DeniedByRule => Err(DenyReason::DeniedByRule),
        Verdict::NotAllowed => Err(DenyReason::NotAllowed),
    }
}
