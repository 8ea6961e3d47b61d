//! Operations on enclaves: for SysAdmins, and for those whom a policy of the system allows.

use moat_meta::MetaStore;
use moat_types::EnclaveName;

use super::{Caller, Core, ListQuery, Page};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{Origin, Scope, enclave_row};

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
        base: &bytes::Bytes,
        query: &ListQuery,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let (rows, next) = self.list_rows(base, query).await?;
        Ok((rows.into_iter().map(|(name, _)| name).collect(), next))
    }

    /// The names and sealed values of a listing whose row keys begin with `base`, and the first
    /// name behind them.
    pub(super) async fn list_rows(
        &self,
        base: &bytes::Bytes,
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
        let below = |text: &str| bytes::Bytes::from([base, text.as_bytes()].concat());
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
