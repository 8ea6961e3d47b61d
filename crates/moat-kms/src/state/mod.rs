//! The key manager's state: typed, sealed rows over any metadata engine.
//!
//! Every read goes to the engine, so that each node sees each committed change at once, unless the
//! engine knows by itself that nothing was committed since ([`MetaStore::revision`]); what is kept
//! in memory is only the opened form of a row, and it counts only while the engine still answers
//! with the same sealed row. A row rolled back to an older sealed value by someone who
//! can write to the engine is not noticed; that takes the engine's own access control.

mod enclaves;
mod rotation;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Write, prefix_end};
use moat_types::{Clock, Random};

use crate::error::Error;
use crate::hsm::Hsms;
use crate::rows::{Origin, Row, Scope, enclave_row, singleton_row};
use crate::seal::{Mark, Sealer, mark};

/// How many opened rows of one kind are kept. A row in use is a few hundred bytes; with more keys
/// than this in use, rows are opened again, which takes microseconds.
const OPENED_ROWS_MAX: usize = 10_000;
/// How often a change is tried again when others change the same row.
pub(crate) const CONTENTION_RETRIES: usize = 16;
/// How long a probe may take: health checks give up after some seconds.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct State<M> {
    store: M,
    pub(crate) hsms: Hsms,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    enclaves: RwLock<HashMap<Scope, Arc<OpenEnclave>>>,
}

/// An enclave whose key is open.
pub(crate) struct OpenEnclave {
    pub(crate) created: Origin,
    sealer: Sealer,
    /// Tells whether a row that was sealed anew still holds the same key.
    key_hash: [u8; 32],
    /// The enclave's row as it was read, so that a change can be made to depend on it.
    row: Check,
}

impl<M: MetaStore> State<M> {
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
        // Asked for before the row is read: what is committed in between is then noticed.
        let revision = self.store.revision();
        if let Some(row) = cache.current(meta_key, revision) {
            return Ok(Some(row));
        }
        let Some(sealed) = self.store.get(meta_key).await? else {
            return Ok(None);
        };
        if let Some(row) = cache.get(meta_key, &sealed, revision) {
            return Ok(Some(row));
        }
        let row = match self.open_row::<R>(enclave, meta_key, &sealed) {
            Ok(row) => Arc::new(row),
            Err(damaged) => return Err(self.damaged_or_outdated(enclave, damaged).await),
        };
        if let Some(mark) = mark(&sealed) {
            let row = row.clone();
            let opened = OpenedRow {
                mark,
                revision,
                row,
            };
            cache.insert(meta_key, opened);
        }
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
        within_patience(async {
            self.store.get(&enclave_row(&Scope::System)).await?;
            Ok(())
        })
        .await
    }

    /// Commits a change that changes nothing, to see whether the engine takes changes.
    pub(crate) async fn probe_write(&self) -> Result<(), Error> {
        within_patience(self.set(Write::Delete(singleton_row("probe")))).await
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

/// Opened rows of one kind.
pub(crate) struct Opened<R>(Mutex<HashMap<Box<[u8]>, OpenedRow<R>>>);

struct OpenedRow<R> {
    /// Of the sealed bytes that it was opened from: they lie in the engine already, and would be half
    /// of what a row costs here.
    mark: Mark,
    /// The engine's revision when it was last seen to stand there.
    revision: Option<u64>,
    row: Arc<R>,
}

impl<R> Default for Opened<R> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<R> Opened<R> {
    /// A row that stands there at a known revision.
    fn current(&self, meta_key: &[u8], revision: Option<u64>) -> Option<Arc<R>> {
        let rows = self.rows();
        let opened = rows.get(meta_key)?;
        (revision.is_some() && opened.revision == revision).then(|| opened.row.clone())
    }

    /// A row that was read, if it is the one that was opened before.
    fn get(&self, meta_key: &[u8], sealed: &[u8], revision: Option<u64>) -> Option<Arc<R>> {
        let mut rows = self.rows();
        let opened = rows.get_mut(meta_key)?;
        if Some(opened.mark) != mark(sealed) {
            return None;
        }
        opened.revision = revision;
        Some(opened.row.clone())
    }

    fn insert(&self, meta_key: &[u8], opened: OpenedRow<R>) {
        let mut rows = self.rows();
        if rows.len() >= OPENED_ROWS_MAX {
            rows.clear();
        }
        rows.insert(meta_key.into(), opened);
    }

    fn rows(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, OpenedRow<R>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation waits for a database that restarts; who asks whether it is there wants to know now.
async fn within_patience(probe: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    tokio::time::timeout(PROBE_PATIENCE, probe)
        .await
        .unwrap_or_else(|_| {
            Err(Error::Store(moat_meta::Error::Unreachable {
                place: "the state".into(),
                reason: format!("no answer within {} s", PROBE_PATIENCE.as_secs()),
            }))
        })
}

pub(crate) fn text(meta_key: &[u8]) -> String {
    String::from_utf8_lossy(meta_key).into_owned()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}
