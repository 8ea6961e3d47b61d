//! The key manager's state: typed, sealed rows over any metadata engine.
//!
//! Every read goes to the engine, so that each node sees each committed change at once; what is
//! kept in memory is only the opened form of a row, and it counts only while the engine still
//! answers with the same sealed bytes. A row rolled back to an older sealed value by someone who
//! can write to the engine is not noticed; that takes the engine's own access control.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Write, prefix_end};
use moat_types::{Clock, Random, SecretBytes};

use crate::error::{Error, OpenError};
use crate::hsm::{Hsm, HsmError};
use crate::rows::{ALL_ROWS, EnclaveRow, Origin, Row, Scope, enclave_row};
use crate::seal::Sealer;

/// How many opened rows of one kind are kept. A row in use is a few hundred bytes; with more keys
/// than this in use, rows are opened again, which takes microseconds.
const OPENED_ROWS_MAX: usize = 10_000;
/// How often a change is tried again when others change the same row.
pub(crate) const CONTENTION_RETRIES: usize = 16;
const HSM_ID_BYTES: usize = 8;

pub(crate) struct State<M> {
    store: M,
    hsm: Box<dyn Hsm>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    enclaves: RwLock<HashMap<Scope, Arc<OpenEnclave>>>,
}

/// An enclave whose key is open.
pub(crate) struct OpenEnclave {
    pub(crate) created: Origin,
    sealer: Sealer,
    /// The enclave's row as it was read, so that a change can be made to depend on it.
    row: Check,
}

impl<M: MetaStore> State<M> {
    /// Opens the state, or makes it if the engine holds none. Changes nothing unless the HSM key
    /// is the right one.
    pub(crate) async fn open(
        store: M,
        hsm: Box<dyn Hsm>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let state = Self {
            store,
            hsm,
            clock,
            random,
            enclaves: RwLock::default(),
        };
        match state.load_enclave(&Scope::System).await {
            Ok(Some(_)) => return Ok(state),
            Ok(None) => {}
            Err(e) => return Err(e.into()),
        }
        let prefix = Bytes::from_static(ALL_ROWS.as_bytes());
        let end = prefix_end(&prefix);
        if !state.store.last(prefix..end).await?.is_empty() {
            return Err(OpenError::Incomplete);
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
    ) -> Result<bool, CreateError> {
        let mut key = vec![0; 32];
        self.random.fill(&mut key);
        let row = EnclaveRow {
            key: SecretBytes::new(key),
            created: self.origin(by),
        };
        let meta_key = enclave_row(scope);
        let sealed = self
            .hsm
            .seal(&meta_key, row.encode().as_slice(), &*self.random)?;
        let value = [self.hsm.id().as_slice(), &sealed].concat();
        let check = Check {
            key: meta_key.clone(),
            expected: None,
        };
        let write = Write::Put(meta_key, value.into());
        match self.store.commit(vec![check], vec![write]).await? {
            Outcome::Committed => Ok(true),
            Outcome::CheckFailed(_) => Ok(false),
        }
    }

    /// An enclave, its key open; `None` if there is no such enclave.
    pub(crate) async fn enclave(&self, scope: &Scope) -> Result<Option<Arc<OpenEnclave>>, Error> {
        let held = read(&self.enclaves).get(scope).cloned();
        if held.is_some() {
            return Ok(held);
        }
        self.load_enclave(scope).await.map_err(|e| match e {
            LoadError::Store(e) => Error::Store(e),
            LoadError::WrongHsm | LoadError::Damaged => Error::Damaged {
                row: text(&enclave_row(scope)),
            },
        })
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
        mut checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> Result<bool, Error> {
        let own = checks.len();
        checks.push(enclave.row.clone());
        match self.store.commit(checks, writes).await? {
            Outcome::Committed => Ok(true),
            // The enclave was deleted, or sealed anew, between reading and writing.
            Outcome::CheckFailed(index) if index == own => Err(Error::Contended),
            Outcome::CheckFailed(_) => Ok(false),
        }
    }

    async fn load_enclave(&self, scope: &Scope) -> Result<Option<Arc<OpenEnclave>>, LoadError> {
        let meta_key = enclave_row(scope);
        let Some(value) = self.store.get(&meta_key).await? else {
            return Ok(None);
        };
        let (id, sealed) = value
            .split_first_chunk::<HSM_ID_BYTES>()
            .ok_or(LoadError::Damaged)?;
        if *id != self.hsm.id() {
            return Err(LoadError::WrongHsm);
        }
        let row = self.hsm.open(&meta_key, sealed)?;
        let row = EnclaveRow::decode(row.expose()).map_err(|_| LoadError::Damaged)?;
        let opened = Arc::new(OpenEnclave {
            created: row.created,
            sealer: Sealer::new(&row.key).ok_or(LoadError::Damaged)?,
            row: Check {
                key: meta_key,
                expected: Some(value.clone()),
            },
        });
        self.enclaves
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(scope.clone(), opened.clone());
        Ok(Some(opened))
    }

    /// A page of sealed rows: at most `limit` that begin with `prefix` and are not below `from`,
    /// and the key of the row after them.
    pub(crate) async fn list(
        &self,
        prefix: &Bytes,
        from: Bytes,
        limit: usize,
    ) -> Result<(moat_meta::Page, Option<Bytes>), Error> {
        /// A page of a listing is held in memory, sealed.
        const PAGE_BYTES_MAX: usize = 8 << 20;
        let end = prefix_end(prefix);
        let from = from.max(prefix.clone());
        if from >= end {
            return Ok(Default::default());
        }
        let page = self
            .store
            .scan(from..end.clone(), limit, PAGE_BYTES_MAX)
            .await?;
        let Some(last) = page.len().checked_sub(1) else {
            return Ok((page, None));
        };
        // The smallest key above the last one of the page.
        let behind = Bytes::from([page.row(last).0, &[0]].concat());
        let next = self.store.scan(behind..end, 1, PAGE_BYTES_MAX).await?;
        let next = next
            .rows()
            .next()
            .map(|(key, _)| Bytes::copy_from_slice(key));
        Ok((page, next))
    }

    /// A row, opened.
    pub(crate) async fn get<R: Row>(
        &self,
        enclave: &OpenEnclave,
        cache: &Opened<R>,
        meta_key: &Bytes,
    ) -> Result<Option<Arc<R>>, Error> {
        let Some(sealed) = self.store.get(meta_key).await? else {
            return Ok(None);
        };
        if let Some(row) = cache.get(meta_key, &sealed) {
            return Ok(Some(row));
        }
        let row = Arc::new(self.open_row::<R>(enclave, meta_key, &sealed)?);
        cache.insert(meta_key.clone(), sealed, row.clone());
        Ok(Some(row))
    }

    pub(crate) fn open_row<R: Row>(
        &self,
        enclave: &OpenEnclave,
        meta_key: &[u8],
        sealed: &[u8],
    ) -> Result<R, Error> {
        let damaged = || Error::Damaged {
            row: text(meta_key),
        };
        let plain = enclave.sealer.open(meta_key, sealed).ok_or_else(damaged)?;
        R::decode(plain.expose()).map_err(|_| damaged())
    }

    /// The write that sets a row.
    pub(crate) fn put<R: Row>(&self, enclave: &OpenEnclave, meta_key: &Bytes, row: &R) -> Write {
        let sealed = enclave
            .sealer
            .seal(meta_key, row.encode().as_slice(), &*self.random);
        Write::Put(meta_key.clone(), sealed.into())
    }

    /// Writes rows that must not exist yet; `false` if one does.
    pub(crate) async fn create(
        &self,
        enclave: &OpenEnclave,
        writes: Vec<Write>,
    ) -> Result<bool, Error> {
        let checks = writes
            .iter()
            .map(|write| match write {
                Write::Put(key, _) | Write::Delete(key) => Check {
                    key: key.clone(),
                    expected: None,
                },
            })
            .collect();
        self.commit_in(enclave, checks, writes).await
    }

    /// The sealed bytes of a row.
    pub(crate) async fn sealed(&self, meta_key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.store.get(meta_key).await?)
    }

    /// Removes rows whatever they hold.
    pub(crate) async fn remove(&self, meta_keys: Vec<Bytes>) -> Result<(), Error> {
        let writes = meta_keys.into_iter().map(Write::Delete).collect();
        // Without checks a commit can't be refused.
        let _ = self.store.commit(Vec::new(), writes).await?;
        Ok(())
    }

    /// Applies one write whatever is there.
    pub(crate) async fn set(&self, write: Write) -> Result<(), Error> {
        // Without checks a commit can't be refused.
        let _ = self.store.commit(Vec::new(), vec![write]).await?;
        Ok(())
    }

    /// Reads the system's row, to see whether the engine answers.
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        self.store.get(&enclave_row(&Scope::System)).await?;
        Ok(())
    }

    /// Changes a row that exists: `change` gives the new row, or `None` to leave it. Returns the
    /// row as it then stands, or `None` if there is no such row.
    pub(crate) async fn update<R: Row>(
        &self,
        enclave: &OpenEnclave,
        meta_key: &Bytes,
        mut change: impl FnMut(&R) -> Result<Option<R>, Error>,
    ) -> Result<Option<R>, Error> {
        for _ in 0..CONTENTION_RETRIES {
            let Some(sealed) = self.store.get(meta_key).await? else {
                return Ok(None);
            };
            let row = self.open_row::<R>(enclave, meta_key, &sealed)?;
            let Some(changed) = change(&row)? else {
                return Ok(Some(row));
            };
            let check = Check {
                key: meta_key.clone(),
                expected: Some(sealed),
            };
            let write = self.put(enclave, meta_key, &changed);
            if self.commit_in(enclave, vec![check], vec![write]).await? {
                return Ok(Some(changed));
            }
        }
        Err(Error::Contended)
    }

    pub(crate) fn origin(&self, by: Option<moat_kms_client::Identity>) -> Origin {
        Origin {
            at: self.clock.now(),
            by,
        }
    }
}

/// Opened rows of one kind, each beside the sealed bytes that it was opened from.
pub(crate) struct Opened<R>(Mutex<HashMap<Bytes, (Bytes, Arc<R>)>>);

impl<R> Default for Opened<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Opened<R> {
    fn get(&self, meta_key: &Bytes, sealed: &Bytes) -> Option<Arc<R>> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (opened_from, row) = rows.get(meta_key)?;
        (opened_from == sealed).then(|| row.clone())
    }

    fn insert(&self, meta_key: Bytes, sealed: Bytes, row: Arc<R>) {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.len() >= OPENED_ROWS_MAX {
            rows.clear();
        }
        rows.insert(meta_key, (sealed, row));
    }
}

/// Why an enclave could not be made.
pub(crate) enum CreateError {
    Hsm(HsmError),
    Store(moat_meta::Error),
}

impl From<HsmError> for CreateError {
    fn from(e: HsmError) -> Self {
        Self::Hsm(e)
    }
}

impl From<moat_meta::Error> for CreateError {
    fn from(e: moat_meta::Error) -> Self {
        Self::Store(e)
    }
}

impl From<CreateError> for Error {
    fn from(e: CreateError) -> Self {
        match e {
            CreateError::Hsm(e) => Self::Hsm(e),
            CreateError::Store(e) => Self::Store(e),
        }
    }
}

impl From<CreateError> for OpenError {
    fn from(e: CreateError) -> Self {
        match e {
            CreateError::Hsm(e) => Self::Hsm(e),
            CreateError::Store(e) => Self::Store(e),
        }
    }
}

enum LoadError {
    WrongHsm,
    Damaged,
    Store(moat_meta::Error),
}

impl From<moat_meta::Error> for LoadError {
    fn from(e: moat_meta::Error) -> Self {
        Self::Store(e)
    }
}

impl From<HsmError> for LoadError {
    fn from(_: HsmError) -> Self {
        Self::Damaged
    }
}

impl From<LoadError> for OpenError {
    fn from(e: LoadError) -> Self {
        match e {
            LoadError::WrongHsm => Self::WrongHsmKey,
            LoadError::Damaged => Self::Damaged {
                row: text(&enclave_row(&Scope::System)),
            },
            LoadError::Store(e) => Self::Store(e),
        }
    }
}

pub(crate) fn text(meta_key: &[u8]) -> String {
    String::from_utf8_lossy(meta_key).into_owned()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
