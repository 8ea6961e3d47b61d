//! Buckets and their default encryption.

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_meta::{MetaStore, prefix_end};
use moat_s3::ErrorCode;
use moat_s3::request::KmsKeyId;
use moat_types::{BucketName, KeyName};

use crate::Store;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::rows::{BucketRow, Damaged, DefaultEncryption, keys};
use crate::store::{CONFLICT_TRIES_MAX, no_such_bucket, too_many_conflicts};

/// S3 lets an account have this many buckets at most (the raised quota).
const BUCKETS_MAX: usize = 10_000;

/// A bucket could not be created at set-up.
#[derive(Debug, thiserror::Error)]
#[error("bucket {bucket} could not be created: {reason}")]
pub struct SetUpError {
    bucket: BucketName,
    reason: String,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Creates a bucket.
    pub(crate) async fn create_bucket(
        &self,
        name: &BucketName,
        region: &str,
        encryption: Option<DefaultEncryption>,
    ) -> Result<()> {
        if self.meta.get(&keys::bucket(name)).await?.is_some() {
            return Err(ErrorCode::BucketAlreadyOwnedByYou.into());
        }
        let row = BucketRow {
            created: self.clock.now(),
            deleting: false,
            encryption,
            region: region.to_owned(),
        };
        let mut batch = Batch::default();
        batch
            .check(keys::bucket(name), None)
            .put(keys::bucket(name), row.encode());
        if batch.commit(&*self.meta, self.clock.now()).await? {
            Ok(())
        } else {
            Err(ErrorCode::BucketAlreadyOwnedByYou.into())
        }
    }

    /// Creates a bucket at set-up, with a rule for SSE-KMS if a key is named; one that exists is
    /// left as it is. Says whether it was created.
    pub async fn ensure_bucket(
        &self,
        name: &BucketName,
        key: Option<&KeyName>,
    ) -> std::result::Result<bool, SetUpError> {
        let encryption = key.map(|key| DefaultEncryption::Kms {
            named: key.as_str().to_owned(),
            bucket_key: false,
        });
        match self.create_bucket(name, "", encryption).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == ErrorCode::BucketAlreadyOwnedByYou => Ok(false),
            Err(error) => Err(SetUpError {
                bucket: name.clone(),
                reason: format!("{} {}", error.public.message, error.cause),
            }),
        }
    }

    /// All buckets, in order of their names.
    pub(crate) async fn buckets(&self) -> Result<Vec<(BucketName, BucketRow)>> {
        let page = self
            .meta
            .scan(keys::buckets(), BUCKETS_MAX, 64 << 20)
            .await?;
        let mut buckets = Vec::with_capacity(page.len());
        for (key, row) in page.rows() {
            let name = std::str::from_utf8(&key[1..])
                .ok()
                .and_then(|n| BucketName::parse(n).ok());
            let row = BucketRow::decode(row)?;
            if !row.deleting {
                buckets.push((name.ok_or(Damaged("bucket name in a row's key"))?, row));
            }
        }
        Ok(buckets)
    }

    /// Deletes an empty bucket. New objects are refused from the first commit on, so emptiness,
    /// once seen, lasts.
    pub(crate) async fn delete_bucket(&self, name: &BucketName) -> Result<()> {
        let key = keys::bucket(name);
        let (bytes, row) = self.bucket(name).await?;
        let closed = BucketRow {
            deleting: true,
            ..row
        };
        let closed_bytes = Bytes::from(closed.encode());
        let mut batch = Batch::default();
        batch
            .check(key.clone(), Some(bytes.clone()))
            .put_bytes(key.clone(), closed_bytes.clone());
        if !batch.commit(&*self.meta, self.clock.now()).await? {
            return Err(ErrorCode::OperationAborted.into());
        }
        let empty = self.is_empty(name).await;
        let mut batch = Batch::default();
        batch.check(key.clone(), Some(closed_bytes));
        match empty {
            Ok(true) => {
                batch.delete(key);
                self.delete_epochs(name, &mut batch).await?;
            }
            _ => {
                batch.put_bytes(key, bytes);
            }
        }
        let committed = batch.commit(&*self.meta, self.clock.now()).await?;
        if !empty? {
            return Err(Error::from(ErrorCode::BucketNotEmpty).with("BucketName", name.as_str()));
        }
        if !committed {
            return Err(ErrorCode::OperationAborted.into());
        }
        self.epochs.forget_bucket(name);
        Ok(())
    }

    async fn is_empty(&self, name: &BucketName) -> Result<bool> {
        for prefix in [keys::object_prefix(name), keys::upload_prefix(name)] {
            let end = prefix_end(&prefix);
            if !self.meta.scan(prefix..end, 1, 1).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The epochs of an empty bucket guard nothing any more.
    async fn delete_epochs(&self, name: &BucketName, batch: &mut Batch) -> Result<()> {
        for prefix in keys::epoch_prefixes(name) {
            let end = prefix_end(&prefix);
            let page = self.meta.scan(prefix..end, usize::MAX, 64 << 20).await?;
            for (key, _) in page.rows() {
                batch.delete(Bytes::copy_from_slice(key));
            }
        }
        Ok(())
    }

    /// Sets or removes the default encryption. The named key must exist and be usable, so that a
    /// typing error shows here and not at the first upload.
    pub(crate) async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: Option<DefaultEncryption>,
    ) -> Result<()> {
        self.bucket(name).await?;
        if let Some(DefaultEncryption::Kms { named, .. }) = &encryption {
            let key = if named.is_empty() {
                self.settings.default_key.clone()
            } else {
                KmsKeyId::parse(named)?.key_name().clone()
            };
            self.epochs.check(&key).await?;
        }
        for _ in 0..CONFLICT_TRIES_MAX {
            let (bytes, row) = self.bucket(name).await?;
            let changed = BucketRow {
                encryption: encryption.clone(),
                ..row
            };
            let mut batch = Batch::default();
            batch
                .check(keys::bucket(name), Some(bytes))
                .put(keys::bucket(name), changed.encode());
            if batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(());
            }
        }
        Err(too_many_conflicts())
    }

    /// The bucket's row, for requests that only read it.
    pub(crate) async fn bucket_row(&self, name: &BucketName) -> Result<BucketRow> {
        match self.meta.get(&keys::bucket(name)).await? {
            Some(row) => {
                let row = BucketRow::decode(&row)?;
                if row.deleting {
                    Err(no_such_bucket(name))
                } else {
                    Ok(row)
                }
            }
            None => Err(no_such_bucket(name)),
        }
    }
}
