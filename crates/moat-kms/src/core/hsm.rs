//! The keys that seal the state: what there is, and the change to another one.

use std::sync::Arc;

use moat_meta::MetaStore;

use super::{Caller, Core};
use crate::error::Error;
use crate::hsm::{Hsm, HsmError};
use crate::policy::Command;
use crate::rows::Scope;

/// An HSM key.
#[derive(Clone, Debug)]
pub struct HsmInfo {
    /// Its id, in hex.
    pub id: String,
    /// What it is; none if this node does not have it.
    pub about: Option<String>,
    /// Whether new enclaves are sealed under it.
    pub current: bool,
    /// How many enclaves (with the system itself) are sealed under it.
    pub enclaves: u64,
    /// What is wrong with it, if it does not seal and open at this moment.
    pub problem: Option<String>,
}

/// The HSM keys of this node and of the state.
#[derive(Clone, Debug)]
pub struct HsmStatus {
    /// Every key that this node has or that the state names.
    pub keys: Vec<HsmInfo>,
}

/// What a rotation did.
#[derive(Clone, Debug)]
pub struct HsmRotation {
    /// The key that seals from now on.
    pub id: String,
    /// What it is.
    pub about: String,
    /// How many enclaves were sealed anew.
    pub enclaves: u64,
}

impl<M: MetaStore> Core<M> {
    /// Describes the HSM keys, and tries those that this node has.
    ///
    /// # Errors
    /// `Error::Denied` without `HSM:STATUS` in the system.
    pub async fn hsm_status(&self, caller: &Caller) -> Result<HsmStatus, Error> {
        let command = Command::HsmStatus;
        let mut trail = self.trail(caller, &Scope::System, command);
        let result = async {
            self.authorize(caller, &Scope::System, command, Some("hsm"))
                .await?;
            self.describe_hsms().await
        }
        .await;
        trail.noted(result).await
    }

    /// Seals the state under the HSM key that `to` names, a file or a URI of the server's machine;
    /// without it, under the one that the configuration names first. Operations go on meanwhile.
    ///
    /// # Errors
    /// `Error::Denied` without `HSM:ROTATE` in the system; `Error::Hsm` says what is wrong with
    /// the key, and then nothing was changed unless some enclaves were sealed already: both keys
    /// are needed until a repetition succeeds.
    pub async fn rotate_hsm(
        &self,
        caller: &Caller,
        to: Option<&str>,
    ) -> Result<HsmRotation, Error> {
        let command = Command::HsmRotate;
        let mut trail = self.trail(caller, &Scope::System, command);
        if let Some(to) = to {
            trail = trail.subject(to);
        }
        let result = async {
            self.authorize(caller, &Scope::System, command, Some("hsm"))
                .await?;
            let hsm = match to {
                Some(to) => self.find_hsm(to).await?,
                None => self.state.hsms.first(),
            };
            let id = hsm.id();
            let about = hsm.describe();
            self.state.hsms.probe(Arc::clone(&hsm)).await?;
            self.state.hsms.add(hsm);
            trail.begin().await?;
            let enclaves = self.state.reseal(id).await?;
            Ok(HsmRotation {
                id: hex::encode(id),
                about,
                enclaves,
            })
        }
        .await;
        trail.committed(result).await
    }

    async fn find_hsm(&self, to: &str) -> Result<Arc<dyn Hsm>, Error> {
        let source = self.hsm_source.clone().ok_or_else(|| {
            let problem = "this key manager takes no other HSM key while it runs";
            HsmError::Source(problem.to_owned())
        })?;
        let to = to.to_owned();
        // A token may take its time.
        let found = tokio::task::spawn_blocking(move || source(&to)).await;
        let found = found.map_err(|_| HsmError::Source("the token's driver crashed".into()))?;
        Ok(Arc::from(found?))
    }

    async fn describe_hsms(&self) -> Result<HsmStatus, Error> {
        let sealed = self.state.sealed_under().await?;
        let mut keys = Vec::new();
        for hsm in self.state.hsms.all() {
            let id = hsm.id();
            keys.push(HsmInfo {
                id: hex::encode(id),
                about: Some(hsm.describe()),
                current: id == sealed.current,
                enclaves: sealed.rows.get(&id).copied().unwrap_or(0),
                problem: self
                    .state
                    .hsms
                    .probe(hsm)
                    .await
                    .err()
                    .map(|e| e.to_string()),
            });
        }
        for (id, enclaves) in &sealed.rows {
            let hex = hex::encode(id);
            if keys.iter().all(|key| key.id != hex) {
                keys.push(HsmInfo {
                    id: hex,
                    about: None,
                    current: *id == sealed.current,
                    enclaves: *enclaves,
                    problem: Some("this node does not have it".into()),
                });
            }
        }
        Ok(HsmStatus { keys })
    }
}
