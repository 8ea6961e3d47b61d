//! Rights that are asked for without an operation of the core behind them: the wires' own pages.

use moat_meta::MetaStore;

use super::{Caller, Core};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::Scope;

impl<M: MetaStore> Core<M> {
    /// Checks that `caller` may use `command` on `name` in `scope`, and notes it in the audit
    /// either way.
    ///
    /// # Errors
    /// `Error::Denied`; `Error::EnclaveNotFound` for a SysAdmin.
    pub async fn permit(
        &self,
        caller: &Caller,
        scope: &Scope,
        command: Command,
        name: &str,
    ) -> Result<(), Error> {
        let mut trail = self.trail(caller, scope, command).subject(name);
        let result = self.authorize(caller, scope, command, Some(name)).await;
        trail.noted(result.map(drop)).await
    }

    /// As [`Core::permit`], for what is asked every few seconds and releases nothing: only
    /// refusals go to the audit.
    ///
    /// # Errors
    /// As there.
    pub async fn permit_quietly(
        &self,
        caller: &Caller,
        scope: &Scope,
        command: Command,
        name: &str,
    ) -> Result<(), Error> {
        match self.authorize(caller, scope, command, Some(name)).await {
            Ok(_) => Ok(()),
            Err(e) => {
                let mut trail = self.trail(caller, scope, command).subject(name);
                trail.noted(Err(e)).await
            }
        }
    }

    /// Whether `caller` may read the metrics of the whole server.
    ///
    /// # Errors
    /// `Error::Denied` without `METRICS:READ` in the system.
    pub async fn check_metrics(&self, caller: &Caller) -> Result<(), Error> {
        self.permit_quietly(caller, &Scope::System, Command::MetricsRead, "metrics")
            .await
    }
}
