//! After a KMS key got a new version: the epoch keys are wrapped under it, so that the old version
//! may be destroyed.
//!
//! What a KMS key wraps is one small row per bucket, key and day, so this costs O(epochs), whatever
//! the objects weigh. It goes page by page and keeps nothing between pages: a caller that stops may
//! go on where it was, or begin anew, and what was done already is only looked at.

use std::collections::BTreeMap;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_crypto::{EpochScope, KeyRingError};
use moat_meta::{Check, MetaStore, Outcome, Write, prefix_end};
use moat_types::{BucketName, KeyName, KeyVersion};

use crate::Store;
use crate::error::Result;
use crate::rows::{Damaged, EpochRow, keys};

/// The most epochs of one page: each may be a request to the key manager.
pub(crate) const REWRAP_PAGE_MAX: usize = 1000;
/// Rows are some hundred bytes.
const PAGE_BYTES: usize = 8 << 20;

/// What a page of the work did.
#[derive(Debug, Default)]
pub(crate) struct RewrapPage {
    /// Epochs that were looked at.
    pub(crate) examined: u64,
    /// Those that were under an old version and no longer are.
    pub(crate) rewrapped: u64,
    /// Those that stay as they are, and why: their key is disabled, deleted, or withheld.
    pub(crate) refused: Vec<(BucketName, KeyName, KeyVersion, String)>,
    /// The version that each key's epochs are under now.
    pub(crate) versions: BTreeMap<KeyName, KeyVersion>,
    /// Where the next page begins; `None` at the end.
    pub(crate) next: Option<Bytes>,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Wraps the epoch keys of a bucket, or of all, under the latest versions: at most `limit`
    /// rows from `from` on. Reads and writes go on meanwhile.
    ///
    /// Fails if the key manager can't be reached; what was done before stays done.
    pub(crate) async fn rewrap_epochs(
        &self,
        bucket: Option<&BucketName>,
        from: Option<Bytes>,
        limit: usize,
    ) -> Result<RewrapPage> {
        let prefix = match bucket {
            Some(bucket) => {
                self.bucket_row(bucket).await?;
                let [epochs, _] = keys::epoch_prefixes(bucket);
                epochs
            }
            None => keys::all_epochs(),
        };
        let end = prefix_end(&prefix);
        let start = from.filter(|from| *from >= prefix).unwrap_or(prefix);
        let limit = limit.clamp(1, REWRAP_PAGE_MAX);
        let rows = self.meta.scan(start..end, limit, PAGE_BYTES).await?;
        let mut page = RewrapPage::default();
        for (meta_key, row) in rows.rows() {
            self.rewrap_row(meta_key, row, &mut page).await?;
        }
        // The smallest key above the last one.
        page.next = rows
            .len()
            .checked_sub(1)
            .map(|last| Bytes::from([rows.row(last).0, &[0]].concat()));
        Ok(page)
    }

    async fn rewrap_row(&self, meta_key: &[u8], row: &[u8], page: &mut RewrapPage) -> Result<()> {
        let (bucket, epoch) =
            keys::parse_epoch(meta_key).ok_or(Damaged("the key of an epoch's row"))?;
        let old = EpochRow::decode(row)?;
        page.examined += 1;
        if page.versions.get(&old.key) == Some(&old.version) {
            return Ok(());
        }
        let scope = EpochScope {
            bucket: bucket.clone(),
            key: old.key.clone(),
            epoch,
        };
        let new = match self.epochs.ring().rewrap(scope, old.wrapped.clone()).await {
            Ok(new) => new,
            Err(error @ KeyRingError::Unavailable { .. }) => return Err(error.into()),
            Err(error) => {
                let refused = (bucket, old.key, old.version, error.to_string());
                page.refused.push(refused);
                return Ok(());
            }
        };
        page.versions.insert(old.key.clone(), new.version);
        if new.wrapped == old.wrapped {
            return Ok(());
        }
        let check = Check {
            key: Bytes::copy_from_slice(meta_key),
            expected: Some(Bytes::copy_from_slice(row)),
        };
        let changed = EpochRow {
            version: new.version,
            wrapped: new.wrapped,
            ..old
        };
        let write = Write::Put(check.key.clone(), changed.encode().into());
        // A row that changed meanwhile was rewrapped by another, or its bucket is gone.
        if self.meta.commit(vec![check], vec![write]).await? == Outcome::Committed {
            page.rewrapped += 1;
        }
        Ok(())
    }
}
