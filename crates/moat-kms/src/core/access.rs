//! Who may do what: the check that every operation begins with.

use std::sync::Arc;

use moat_kms_client::Privilege;
use moat_meta::MetaStore;

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

enum Level {
    /// A SysAdmin anywhere, or an Admin in its enclave.
    All,
    /// A user, by its policy.
    Policy(Arc<PolicyRow>),
}

impl Access {
    /// Whether the caller may do anything in the scope.
    pub(super) const fn is_admin(&self) -> bool {
        matches!(self.level, Level::All)
    }

    /// Whether `name` may be seen in a listing.
    pub(super) fn shows(&self, command: Command, name: &str) -> bool {
        match &self.level {
            Level::All => true,
            Level::Policy(row) => row.policy.decide(command, name) == Verdict::Allowed,
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
        let denied = |reason| Error::Denied {
            identity: caller.identity,
            command,
            reason,
        };
        let enclave = self.state.enclave(scope).await?;
        let known = match &enclave {
            Some(enclave) => self.identity(enclave, scope, caller).await?,
            None => None,
        };
        let level = match known {
            Some(row) if row.privilege != Privilege::User => Level::All,
            Some(row) => {
                let policy = row.policy.as_ref().ok_or(denied(DenyReason::NoPolicy))?;
                let enclave = enclave.as_ref().expect("an identity was found in it");
                let meta_key = policy_row(scope, policy.as_str());
                let policy = self.state.get(enclave, &self.policies, &meta_key).await?;
                let policy = policy.ok_or(denied(DenyReason::NoPolicy))?;
                check_policy(&policy, command, name).map_err(denied)?;
                Level::Policy(policy)
            }
            None if self.is_sysadmin(caller).await? => Level::All,
            None => return Err(denied(DenyReason::UnknownIdentity)),
        };
        match (enclave, scope) {
            (Some(enclave), _) => Ok(Access { enclave, level }),
            (None, Scope::Enclave(name)) => Err(Error::EnclaveNotFound {
                enclave: name.clone(),
            }),
            (None, Scope::System) => Err(Error::Damaged {
                row: "kms/e/".into(),
            }),
        }
    }

    async fn is_sysadmin(&self, caller: &Caller) -> Result<bool, Error> {
        if self.root == Some(caller.identity) {
            return Ok(true);
        }
        let Some(system) = self.state.enclave(&Scope::System).await? else {
            return Ok(false);
        };
        let row = self.identity(&system, &Scope::System, caller).await?;
        Ok(row.is_some_and(|row| row.privilege == Privilege::SysAdmin))
    }

    async fn identity(
        &self,
        enclave: &OpenEnclave,
        scope: &Scope,
        caller: &Caller,
    ) -> Result<Option<Arc<IdentityRow>>, Error> {
        let meta_key = identity_row(scope, &caller.identity.to_string());
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
