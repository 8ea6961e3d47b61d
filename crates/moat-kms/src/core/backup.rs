//! Taking a backup while everything goes on.

use moat_meta::MetaStore;

use super::{Caller, Core};
use crate::backup::BackupInfo;
use crate::error::Error;
use crate::policy::Command;
use crate::rows::Scope;

impl<M: MetaStore> Core<M> {
    /// The whole state as it is at one moment, encrypted; see [`crate::restore`].
    ///
    /// # Errors
    /// `Error::Denied` without `SYSTEM:BACKUP` in the system; `Error::Backup`.
    pub async fn backup(&self, caller: &Caller) -> Result<(Vec<u8>, BackupInfo), Error> {
        let command = Command::SystemBackup;
        let mut trail = self.trail(caller, &Scope::System, command);
        let result = async {
            self.authorize(caller, &Scope::System, command, Some("backup"))
                .await?;
            Ok(self.state.backup().await?)
        }
        .await;
        // It leaves the house, even though sealed.
        trail.committed(result).await
    }
}
