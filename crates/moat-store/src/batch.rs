//! One commit in the making: checks, writes, and changes of reference counts.

use std::collections::BTreeMap;

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Write};
use moat_types::{BlobId, UnixMillis};

use crate::error::Result;
use crate::rows::{Body, References, Tombstone, keys};

/// What kind of blob a reference is to: how it is freed depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlobKind {
    Inline,
    Disk,
    Manifest,
}

impl BlobKind {
    pub(crate) const fn of(inline: bool) -> Self {
        if inline { Self::Inline } else { Self::Disk }
    }
}

/// A commit in the making. Build it from rows that were just read; if `commit` says that a check
/// failed, read again and build a new one.
#[derive(Default)]
pub(crate) struct Batch {
    checks: Vec<Check>,
    writes: Vec<Write>,
    references: BTreeMap<BlobId, (BlobKind, i64)>,
}

impl Batch {
    /// The row must still be what was read.
    pub(crate) fn check(&mut self, key: Bytes, expected: Option<Bytes>) -> &mut Self {
        self.checks.push(Check { key, expected });
        self
    }

    pub(crate) fn put(&mut self, key: Bytes, value: Vec<u8>) -> &mut Self {
        self.writes.push(Write::Put(key, value.into()));
        self
    }

    pub(crate) fn put_bytes(&mut self, key: Bytes, value: Bytes) -> &mut Self {
        self.writes.push(Write::Put(key, value));
        self
    }

    pub(crate) fn delete(&mut self, key: Bytes) -> &mut Self {
        self.writes.push(Write::Delete(key));
        self
    }

    /// One more reference to a blob that has at least one.
    pub(crate) fn refer(&mut self, id: BlobId, kind: BlobKind) -> &mut Self {
        self.references.entry(id).or_insert((kind, 0)).1 += 1;
        self
    }

    /// One reference less; a blob without any gets its tombstone.
    pub(crate) fn release(&mut self, id: BlobId, kind: BlobKind) -> &mut Self {
        self.references.entry(id).or_insert((kind, 0)).1 -= 1;
        self
    }

    pub(crate) fn refer_body(&mut self, body: Body) -> &mut Self {
        match body {
            Body::Empty => self,
            Body::Blob { id, inline } => self.refer(id, BlobKind::of(inline)),
            Body::Manifest { id } => self.refer(id, BlobKind::Manifest),
        }
    }

    pub(crate) fn release_body(&mut self, body: Body) -> &mut Self {
        match body {
            Body::Empty => self,
            Body::Blob { id, inline } => self.release(id, BlobKind::of(inline)),
            Body::Manifest { id } => self.release(id, BlobKind::Manifest),
        }
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.references.is_empty()
    }

    /// Commits. `Ok(false)` if a row changed since it was read: nothing was written.
    pub(crate) async fn commit<M: MetaStore>(mut self, meta: &M, now: UnixMillis) -> Result<bool> {
        for (id, (kind, change)) in std::mem::take(&mut self.references) {
            if change != 0 {
                self.count(meta, id, kind, change, now).await?;
            }
        }
        Ok(meta.commit(self.checks, self.writes).await? == Outcome::Committed)
    }

    async fn count<M: MetaStore>(
        &mut self,
        meta: &M,
        id: BlobId,
        kind: BlobKind,
        change: i64,
        now: UnixMillis,
    ) -> Result<()> {
        let key = keys::references(id);
        let row = meta.get(&key).await?;
        let before = match &row {
            Some(row) => References::decode(row)?.0,
            None => 1,
        };
        self.check(key.clone(), row);
        match before.saturating_add_signed(change) {
            0 => {
                self.delete(key);
                self.free(id, kind, now);
            }
            1 => {
                self.delete(key);
            }
            count => {
                self.put(key, References(count).encode());
            }
        }
        Ok(())
    }

    fn free(&mut self, id: BlobId, kind: BlobKind, now: UnixMillis) {
        match kind {
            BlobKind::Inline => self.delete(keys::inline_blob(id)),
            BlobKind::Disk | BlobKind::Manifest => {
                let manifest = kind == BlobKind::Manifest;
                self.put(
                    keys::tombstone(id),
                    Tombstone::Dead {
                        since: now,
                        manifest,
                    }
                    .encode(),
                )
            }
        };
    }
}
