//! Enclaves: their keys, sealed by the HSM, and what depends on an enclave still being there.

use std::sync::{Arc, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Write, prefix_end};
use moat_types::{Clock, Random, SecretBytes};

use super::{CONTENTION_RETRIES, OpenEnclave, State, read, text};
use crate::error::{Error, OpenError};
use crate::hsm::{HSM_ID_BYTES, HsmError, Hsms};
use crate::rows::{ALL_ROWS, EnclaveRow, Row, Scope, enclave_row};
use crate::seal::Sealer;

impl<M: MetaStore> State<M> {
    /// Opens the state, or makes it if the engine holds none. Changes nothing unless the HSM key
    /// is the right one.
    pub(crate) async fn open(
        store: M,
        hsms: Hsms,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let state = Self {
            store,
            hsms,
            clock,
            random,
            enclaves: Default::default(),
        };
        match state.load_enclave(&Scope::System).await {
            Ok(Some(_)) => return Ok(state),
            Ok(None) => {}
            Err(e) => return Err(e.into()),
        }
        let prefix = Bytes::from_static(ALL_ROWS.as_bytes());
        let end = prefix_end(&prefix);
        if !state.store.last(prefix..end).await?.is_empty() {
            // Another node may have made the system since: its row is the first one that there is.
            return match state.load_enclave(&Scope::System).await? {
                Some(_) => Ok(state),
                None => Err(OpenError::Incomplete),
            };
        }
        // Another node may make the system at the same moment; then the check fails, and the row
        // that it wrote is the one that counts.
        let _ = state.create_enclave(&Scope::System, None).await?;
        match state.load_enclave(&Scope::System).await? {
            Some(_) => Ok(state),
            None => Err(OpenError::Incomplete),
        }
    }

    /// Makes an enclave; `false` if it exists.
    pub(crate) async fn create_enclave(
        &self,
        scope: &Scope,
        by: Option<moat_kms_client::Identity>,
    ) -> Result<bool, EnclaveError> {
        let mut key = vec![0; 32];
        self.random.fill(&mut key);
        let row = EnclaveRow {
            key: SecretBytes::new(key),
            created: self.origin(by),
        };
        let meta_key = enclave_row(scope);
        for _ in 0..CONTENTION_RETRIES {
            // The system's row says under which HSM key, and must still say so when this is written:
            // a rotation that goes on elsewhere then sees every row that it has to seal anew.
            let (id, system) = match scope {
                Scope::System => (self.hsms.first().id(), None),
                Scope::Enclave(_) => {
                    let (id, check) = self.sealing_hsm().await?;
                    (id, Some(check))
                }
            };
            let plain = SecretBytes::new(row.encode().as_slice().to_vec());
            let value = self.hsms.seal(id, &meta_key, plain).await?;
            let mut checks = vec![Check {
                key: meta_key.clone(),
                expected: None,
            }];
            checks.extend(system);
            let write = Write::Put(meta_key.clone(), value.into());
            match self.store.commit(checks, vec![write]).await? {
                Outcome::Committed => return Ok(true),
                Outcome::CheckFailed(0) => return Ok(false),
                Outcome::CheckFailed(_) => {}
            }
        }
        Err(EnclaveError::Contended)
    }

    /// The id of the HSM key that seals, and the row that says so.
    pub(super) async fn sealing_hsm(&self) -> Result<([u8; HSM_ID_BYTES], Check), EnclaveError> {
        let meta_key = enclave_row(&Scope::System);
        let value = self.store.get(&meta_key).await?;
        let id = value
            .as_ref()
            .and_then(|value| value.first_chunk())
            .copied();
        let check = Check {
            key: meta_key,
            expected: value,
        };
        Ok((id.ok_or(EnclaveError::Damaged)?, check))
    }

    /// An enclave, its key open; `None` if there is no such enclave.
    pub(crate) async fn enclave(&self, scope: &Scope) -> Result<Option<Arc<OpenEnclave>>, Error> {
        let held = read(&self.enclaves).get(scope).cloned();
        if held.is_some() {
            return Ok(held);
        }
        let loaded = self.load_enclave(scope).await;
        loaded.map_err(|e| e.into_error(scope))
    }

    /// As [`State::enclave`], but as it stands in the engine now: an enclave that another node
    /// deleted is not found.
    pub(crate) async fn enclave_for_change(
        &self,
        scope: &Scope,
    ) -> Result<Option<Arc<OpenEnclave>>, Error> {
        let value = self.store.get(&enclave_row(scope)).await?;
        let held = read(&self.enclaves).get(scope).cloned();
        match held {
            Some(held) if held.row.expected == value => Ok(Some(held)),
            _ => {
                self.forget_enclave(scope);
                self.enclave(scope).await
            }
        }
    }

    /// Takes an enclave out of memory.
    pub(crate) fn forget_enclave(&self, scope: &Scope) {
        self.enclaves
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(scope);
    }

    /// Removes an enclave's row: from then on nothing that is sealed under its key opens again.
    /// `false` if the row changed since it was read.
    pub(crate) async fn remove_enclave(
        &self,
        scope: &Scope,
        enclave: &OpenEnclave,
    ) -> Result<bool, Error> {
        let writes = vec![Write::Delete(enclave.row.key.clone())];
        let removed = self.commit_in(enclave, Vec::new(), writes).await?;
        self.forget_enclave(scope);
        Ok(removed)
    }

    /// Applies `writes` if all `checks` hold and the enclave is still there; `false` if a check
    /// does not hold.
    pub(crate) async fn commit_in(
        &self,
        enclave: &OpenEnclave,
        checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> Result<bool, Error> {
        let own = checks.len();
        let mut row = enclave.row.clone();
        for _ in 0..CONTENTION_RETRIES {
            let mut all = checks.clone();
            all.push(row);
            match self.store.commit(all, writes.clone()).await? {
                Outcome::Committed => return Ok(true),
                Outcome::CheckFailed(index) if index != own => return Ok(false),
                Outcome::CheckFailed(_) => {}
            }
            // Sealed anew by a rotation of the HSM key, or deleted.
            match self.same_enclave_now(enclave).await? {
                Some(now) => row = now.row.clone(),
                None => break,
            }
        }
        Err(Error::Contended)
    }

    /// What a row that does not open means: that the enclave was deleted and made again elsewhere,
    /// in which case it is read anew next time, or damage.
    pub(super) async fn damaged_or_outdated(&self, enclave: &OpenEnclave, damaged: Error) -> Error {
        match self.store.get(&enclave.row.key).await {
            Ok(value) if value == enclave.row.expected => damaged,
            Ok(_) => match self.same_enclave_now(enclave).await {
                Ok(Some(_)) => damaged,
                Ok(None) => Error::Contended,
                Err(e) => e,
            },
            Err(e) => Error::Store(e),
        }
    }

    /// The enclave as the engine has it now, if its key is still the one of `enclave`.
    async fn same_enclave_now(
        &self,
        enclave: &OpenEnclave,
    ) -> Result<Option<Arc<OpenEnclave>>, Error> {
        let Some(scope) = Scope::of_enclave_row(&enclave.row.key) else {
            return Ok(None);
        };
        self.forget_enclave(&scope);
        let now = self.load_enclave(&scope).await;
        let now = now.map_err(|e| e.into_error(&scope))?;
        Ok(now.filter(|now| now.key_hash == enclave.key_hash))
    }

    pub(super) async fn load_enclave(
        &self,
        scope: &Scope,
    ) -> Result<Option<Arc<OpenEnclave>>, EnclaveError> {
        let meta_key = enclave_row(scope);
        let Some(value) = self.store.get(&meta_key).await? else {
            return Ok(None);
        };
        let row = self.hsms.open(&meta_key, &value).await?;
        let row = EnclaveRow::decode(row.expose()).map_err(|_| EnclaveError::Damaged)?;
        let mut key_hash = [0; 32];
        key_hash.copy_from_slice(digest(&SHA256, row.key.expose()).as_ref());
        let opened = Arc::new(OpenEnclave {
            created: row.created,
            sealer: Sealer::new(&row.key).ok_or(EnclaveError::Damaged)?,
            key_hash,
            row: Check {
                key: meta_key,
                expected: Some(value),
            },
        });
        self.enclaves
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(scope.clone(), opened.clone());
        Ok(Some(opened))
    }
}

/// Why an enclave could not be made or opened.
pub(crate) enum EnclaveError {
    Hsm(HsmError),
    Damaged,
    Contended,
    Store(moat_meta::Error),
}

impl EnclaveError {
    fn into_error(self, scope: &Scope) -> Error {
        match self {
            Self::Hsm(HsmError::Sealed) | Self::Damaged => Error::Damaged {
                row: text(&enclave_row(scope)),
            },
            Self::Hsm(e) => Error::Hsm(e),
            Self::Contended => Error::Contended,
            Self::Store(e) => Error::Store(e),
        }
    }
}

impl From<HsmError> for EnclaveError {
    fn from(e: HsmError) -> Self {
        Self::Hsm(e)
    }
}

impl From<moat_meta::Error> for EnclaveError {
    fn from(e: moat_meta::Error) -> Self {
        Self::Store(e)
    }
}

impl From<EnclaveError> for Error {
    fn from(e: EnclaveError) -> Self {
        e.into_error(&Scope::System)
    }
}

impl From<EnclaveError> for OpenError {
    fn from(e: EnclaveError) -> Self {
        match e {
            EnclaveError::Hsm(HsmError::Unknown { .. }) => Self::WrongHsmKey,
            EnclaveError::Store(e) => Self::Store(e),
            other => other.into_error(&Scope::System).into(),
        }
    }
}
