//! Frees blobs that nothing refers to: only those that a tombstone row names.
//!
//! Three sources of work: tombstones of deleted objects, `Writing` tombstones of processes that
//! are gone, and uploads of this process that ended without a commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_types::{BlobId, UnixMillis};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Store;
use crate::batch::{Batch, BlobKind};
use crate::error::Result;
use crate::rows::{CompletedRow, ManifestRow, Tombstone, keys};

/// How often tombstones are looked through when nothing wakes the collector.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Tombstones taken up at once.
const SWEEP_ROWS: usize = 1000;
/// How long a dead blob stays, so that a GET which just read the row can still open it.
const DEAD_AGE_MIN: Duration = Duration::from_secs(5);
/// How long the result of a completed upload is remembered: longer than any client retries.
const COMPLETED_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where uploads that end without a commit leave their blobs.
#[derive(Clone)]
pub(crate) struct Abandoned(mpsc::UnboundedSender<(BlobId, Bytes)>);

/// Receives what was left there.
pub(crate) type AbandonedBlobs = mpsc::UnboundedReceiver<(BlobId, Bytes)>;

impl Abandoned {
    pub(crate) fn channel() -> (Self, AbandonedBlobs) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Watches over a blob that is being written.
    pub(crate) fn guard(&self, id: BlobId, tombstone: Bytes) -> Pending {
        Pending {
            id,
            tombstone,
            abandoned: self.clone(),
            committed: false,
        }
    }
}

/// A disk blob between its first byte and the commit that refers to it.
pub(crate) struct Pending {
    id: BlobId,
    tombstone: Bytes,
    abandoned: Abandoned,
    committed: bool,
}

impl Pending {
    /// Adds to `batch` that the blob is referred to from now on.
    pub(crate) fn adopt(&self, batch: &mut Batch) {
        let key = keys::tombstone(self.id);
        batch
            .check(key.clone(), Some(self.tombstone.clone()))
            .delete(key);
    }

    /// The commit succeeded.
    pub(crate) fn committed(mut self) {
        self.committed = true;
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            // If the collector is gone, so is the process: the row is found at the next start.
            let _ = self.abandoned.0.send((self.id, self.tombstone.clone()));
        }
    }
}

/// Blobs and manifests that answers are being read from. Their tombstones wait.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<HashMap<BlobId, usize>>>);

/// Keeps one blob or manifest from being freed.
pub(crate) struct Pinned {
    id: BlobId,
    pins: Pins,
}

impl Pins {
    pub(crate) fn pin(&self, id: BlobId) -> Pinned {
        *self
            .0
            .lock()
            .expect("no panic under this lock")
            .entry(id)
            .or_insert(0) += 1;
        Pinned {
            id,
            pins: self.clone(),
        }
    }

    fn holds(&self, id: BlobId) -> bool {
        self.0
            .lock()
            .expect("no panic under this lock")
            .contains_key(&id)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.pins.0.lock().expect("no panic under this lock");
        if let Some(count) = pins.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.id);
            }
        }
    }
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Runs until the store is dropped by its last other owner.
    pub(crate) async fn collect(self: Arc<Self>, mut abandoned: AbandonedBlobs) {
        let store = Arc::downgrade(&self);
        drop(self);
        // At fixed times: uploads that keep failing, as on a full disk, must not put off the sweep
        // that makes room.
        let mut next_sweep = Instant::now() + SWEEP_INTERVAL;
        loop {
            let due = Instant::now() >= next_sweep;
            let left = if due {
                None
            } else {
                tokio::time::timeout_at(next_sweep, abandoned.recv())
                    .await
                    .ok()
            };
            let Some(store) = store.upgrade() else { return };
            let result = match left {
                Some(Some((id, tombstone))) => store.free_abandoned(id, tombstone).await,
                Some(None) => return,
                None => {
                    let swept = store.sweep().await;
                    next_sweep = Instant::now() + SWEEP_INTERVAL;
                    swept
                }
            };
            if let Err(error) = result {
                tracing::warn!(cause = %error.cause, "the collector could not free a blob");
            }
        }
    }

    /// Frees a blob whose upload ended without a commit, unless the commit happened after all.
    async fn free_abandoned(&self, id: BlobId, tombstone: Bytes) -> Result<()> {
        let dead = Tombstone::Dead {
            since: self.clock.now(),
            manifest: false,
        }
        .encode();
        let mut batch = Batch::default();
        batch
            .check(keys::tombstone(id), Some(tombstone))
            .put(keys::tombstone(id), dead);
        if batch.commit(&*self.meta, self.clock.now()).await? {
            self.free_blob(id).await?;
        }
        Ok(())
    }

    /// One pass over all tombstones and results of old uploads.
    pub(crate) async fn sweep(&self) -> Result<()> {
        let now = self.clock.now();
        let mut range = keys::tombstones();
        loop {
            let page = self.meta.scan(range.clone(), SWEEP_ROWS, 1 << 20).await?;
            for (key, row) in page.rows() {
                let Some(id) = key.get(1..).and_then(|id| id.try_into().ok()) else {
                    continue;
                };
                self.bury(BlobId::from_bytes(id), Tombstone::decode(row)?, now)
                    .await?;
            }
            if page.len() < SWEEP_ROWS {
                break;
            }
            let (last, _) = page.row(page.len() - 1);
            range.start = [last, &[0]].concat().into();
        }
        self.forget_completed(now).await
    }

    async fn bury(&self, id: BlobId, tombstone: Tombstone, now: UnixMillis) -> Result<()> {
        let is_old = |since: UnixMillis| now.0 - since.0 >= DEAD_AGE_MIN.as_millis() as i64;
        match tombstone {
            // The embedded engine admits one process, so another id means a process that is gone.
            Tombstone::Writing { process, .. } if process != self.process => {
                self.free_blob(id).await
            }
            Tombstone::Dead { .. } if self.pins.holds(id) => Ok(()),
            Tombstone::Dead {
                since,
                manifest: false,
            } if is_old(since) => self.free_blob(id).await,
            Tombstone::Dead {
                since,
                manifest: true,
            } if is_old(since) => self.free_manifest(id).await,
            _ => Ok(()),
        }
    }

    async fn free_blob(&self, id: BlobId) -> Result<()> {
        self.blobs.delete(id).await?;
        let mut batch = Batch::default();
        batch.delete(keys::tombstone(id));
        batch.commit(&*self.meta, self.clock.now()).await?;
        Ok(())
    }

    /// Drops the references that a manifest held, and the manifest.
    async fn free_manifest(&self, id: BlobId) -> Result<()> {
        let key = keys::inline_blob(id);
        loop {
            let row = self.meta.get(&key).await?;
            let mut batch = Batch::default();
            if let Some(row) = &row {
                for (blob, inline) in ManifestRow::decode(row)?.blobs {
                    batch.release(blob, BlobKind::of(inline));
                }
            }
            batch
                .check(key.clone(), row)
                .delete(key.clone())
                .delete(keys::tombstone(id));
            if batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(());
            }
        }
    }

    async fn forget_completed(&self, now: UnixMillis) -> Result<()> {
        let mut range = keys::all_completed();
        let mut batch = Batch::default();
        loop {
            let page = self.meta.scan(range.clone(), SWEEP_ROWS, 1 << 20).await?;
            for (key, row) in page.rows() {
                let age = now.0 - CompletedRow::decode(row)?.completed.0;
                if age >= COMPLETED_AGE_MAX.as_millis() as i64 {
                    batch.delete(Bytes::copy_from_slice(key));
                }
            }
            if page.len() < SWEEP_ROWS {
                break;
            }
            let (last, _) = page.row(page.len() - 1);
            range.start = [last, &[0]].concat().into();
        }
        if !batch.is_empty() {
            batch.commit(&*self.meta, now).await?;
        }
        Ok(())
    }
}
