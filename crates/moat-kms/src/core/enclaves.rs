//! Operations on enclaves: for SysAdmins, and for those whom a policy of the system allows.

use bytes::Bytes;
use moat_kms_client::Identity;
use moat_meta::MetaStore;
use moat_types::EnclaveName;

use super::{Caller, Core, ListQuery, Page};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{
    Origin, Scope, enclave_row, home_row, identity_rows, key_row, lake_row, policy_row,
};
use crate::state::CONTENTION_RETRIES;

/// An enclave.
#[derive(Clone, Debug)]
pub struct EnclaveInfo {
    /// Its name.
    pub name: EnclaveName,
    /// Who made it, and when.
    pub created: Origin,
}

impl<M: MetaStore> Core<M> {
    /// Makes an enclave.
    ///
    /// # Errors
    /// `Error::EnclaveExists` if there is one of that name.
    pub async fn create_enclave(
        &self,
        caller: &Caller,
        name: &EnclaveName,
    ) -> Result<EnclaveInfo, Error> {
        let command = Command::EnclaveCreate;
        let mut trail = self.trail(caller, &Scope::System, command).subject(name);
        let result = async {
            self.authorize(caller, &Scope::System, command, Some(name.as_str()))
                .await?;
            trail.begin().await?;
            let scope = Scope::Enclave(name.clone());
            if self.state.enclave_for_change(&scope).await?.is_none() {
                // A deletion that a crash cut short leaves rows behind.
                self.sweep_enclave(&scope).await?;
            }
            if !self
                .state
                .create_enclave(&scope, Some(caller.identity))
                .await?
            {
                return Err(Error::EnclaveExists {
                    enclave: name.clone(),
                });
            }
            self.describe_enclave(name).await
        }
        .await;
        trail.committed(result).await
    }

    /// Deletes an enclave with its keys, identities and policies, now and for good. From the first
    /// write on nothing that its keys encrypted can be read again.
    ///
    /// # Errors
    /// `Error::EnclaveNotFound` if there is none of that name.
    pub async fn delete_enclave(&self, caller: &Caller, name: &EnclaveName) -> Result<(), Error> {
        let command = Command::EnclaveDelete;
        let mut trail = self.trail(caller, &Scope::System, command).subject(name);
        let result = async {
            self.authorize(caller, &Scope::System, command, Some(name.as_str()))
                .await?;
            trail.begin().await?;
            let scope = Scope::Enclave(name.clone());
            for _ in 0..CONTENTION_RETRIES {
                let enclave = self.state.enclave_for_change(&scope).await?;
                let enclave = enclave.ok_or_else(|| Error::EnclaveNotFound {
                    enclave: name.clone(),
                })?;
                match self.state.remove_enclave(&scope, &enclave).await {
                    Ok(_) => return self.sweep_enclave(&scope).await,
                    Err(Error::Contended) => {}
                    Err(e) => return Err(e),
                }
            }
            Err(Error::Contended)
        }
        .await;
        trail.committed(result).await
    }

    /// Removes what is left of an enclave that is gone. Its key is gone with it, so the rows mean
    /// nothing; they would only be in the way of a new enclave of the same name.
    async fn sweep_enclave(&self, scope: &Scope) -> Result<(), Error> {
        /// Rows of one commit.
        const ROWS: usize = 500;
        let identities = identity_rows(scope, b"");
        let keys = key_row(scope.as_str(), "");
        let lakes = lake_row(scope.as_str(), "");
        for prefix in [keys, identities.clone(), policy_row(scope, ""), lakes] {
            loop {
                let (page, next) = self.state.list(&prefix, prefix.clone(), ROWS).await?;
                let mut gone = Vec::with_capacity(2 * page.len());
                for (meta_key, _) in page.rows() {
                    let name = String::from_utf8_lossy(&meta_key[prefix.len()..]);
                    if prefix == identities
                        && let Some(identity) = Identity::parse(&name)
                    {
                        gone.push(home_row(&identity));
                    }
                    gone.push(Bytes::copy_from_slice(meta_key));
                }
                self.state.remove(gone).await?;
                if next.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Describes an enclave.
    ///
    /// # Errors
    /// `Error::EnclaveNotFound` if there is none of that name.
    pub async fn enclave_info(
        &self,
        caller: &Caller,
        name: &EnclaveName,
    ) -> Result<EnclaveInfo, Error> {
        let command = Command::EnclaveStatus;
        let mut trail = self.trail(caller, &Scope::System, command).subject(name);
        let result = async {
            self.authorize(caller, &Scope::System, command, Some(name.as_str()))
                .await?;
            self.describe_enclave(name).await
        }
        .await;
        trail.noted(result).await
    }

    /// Lists enclaves.
    ///
    /// # Errors
    /// `Error::Denied` unless the caller may list some.
    pub async fn list_enclaves(
        &self,
        caller: &Caller,
        query: &ListQuery,
    ) -> Result<Page<EnclaveInfo>, Error> {
        let command = Command::EnclaveList;
        let mut trail = self.trail(caller, &Scope::System, command);
        let result = async {
            let access = self
                .authorize(caller, &Scope::System, command, None)
                .await?;
            let base = enclave_row(&Scope::System);
            let (names, next) = self.list_names(&base, query).await?;
            let mut items = Vec::with_capacity(names.len());
            for name in names.iter().filter(|name| access.shows(command, name)) {
                // The row with the empty name is the system's.
                if let Ok(name) = EnclaveName::parse(name) {
                    items.push(self.describe_enclave(&name).await?);
                }
            }
            Ok(Page { items, next })
        }
        .await;
        trail.noted(result).await
    }

    async fn describe_enclave(&self, name: &EnclaveName) -> Result<EnclaveInfo, Error> {
        let enclave = self.state.enclave(&Scope::Enclave(name.clone())).await?;
        let enclave = enclave.ok_or_else(|| Error::EnclaveNotFound {
            enclave: name.clone(),
        })?;
        Ok(EnclaveInfo {
            name: name.clone(),
            created: enclave.created,
        })
    }

    /// The names of a listing whose row keys begin with `base`, and the first name behind them.
    pub(super) async fn list_names(
        &self,
        base: &Bytes,
        query: &ListQuery,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let (rows, next) = self.list_rows(base, query).await?;
        Ok((rows.into_iter().map(|(name, _)| name).collect(), next))
    }

    /// The names and sealed values of a listing whose row keys begin with `base`, and the first
    /// name behind them.
    pub(super) async fn list_rows(
        &self,
        base: &Bytes,
        query: &ListQuery,
    ) -> Result<(Vec<(String, Vec<u8>)>, Option<String>), Error> {
        const NAME_BYTES_MAX: usize = 128;
        if query.prefix.len() > NAME_BYTES_MAX || query.from.len() > NAME_BYTES_MAX {
            return Err(Error::Length {
                what: "prefix and from",
                min: 0,
                max: NAME_BYTES_MAX,
            });
        }
        let below = |text: &str| Bytes::from([base, text.as_bytes()].concat());
        let (page, next) = self
            .state
            .list(&below(&query.prefix), below(&query.from), query.limit())
            .await?;
        let name = |meta_key: &[u8]| String::from_utf8_lossy(&meta_key[base.len()..]).into_owned();
        let rows = page
            .rows()
            .map(|(key, value)| (name(key), value.to_vec()))
            .collect();
        Ok((rows, next.map(|key| name(&key))))
    }
}
