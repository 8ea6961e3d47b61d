//! The store: its parts, its settings, and what every operation needs of them.

use std::sync::Arc;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_crypto::KeyRing;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_types::{BucketName, Clock, KeyName, ObjectKey, Random};

use crate::collector::{Abandoned, AbandonedBlobs, Pins};
use crate::epochs::Epochs;
use crate::error::{Error, Result};
use crate::rows::{BucketRow, ObjectRow, keys};

/// How often an operation is tried again because a row changed under it. Each failure means that
/// another request succeeded, so a client that meets this limit is one of very many.
pub(crate) const CONFLICT_TRIES_MAX: usize = 100;

/// What an operator decides.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The KMS key of SSE-S3, and of SSE-KMS where no key is named.
    pub default_key: KeyName,
    /// SSE-KMS with the default key where neither request nor bucket names an encryption
    /// (`MINIO_KMS_AUTO_ENCRYPTION`); otherwise SSE-S3.
    pub auto_encryption: bool,
    /// The region that clients sign for. Requests signed for another one are refused with the
    /// right one named; empty admits any.
    pub region: String,
    /// Domains under which `BUCKET.DOMAIN` addresses a bucket.
    pub domains: Vec<String>,
}

/// The ports to the world below.
pub struct Parts<M, B> {
    /// Metadata.
    pub meta: Arc<M>,
    /// Blobs.
    pub blobs: Arc<B>,
    /// Epoch keys.
    pub ring: Arc<dyn KeyRing>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// An S3 object store over a metadata engine, a blob engine and a key ring.
pub struct Store<M, B> {
    pub(crate) meta: Arc<M>,
    pub(crate) blobs: Arc<B>,
    pub(crate) epochs: Epochs<M>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) settings: Settings,
    /// Drawn at start: tells this process's unfinished blobs from those of a dead one.
    pub(crate) process: [u8; 16],
    pub(crate) abandoned: Abandoned,
    pub(crate) pins: Pins,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Opens the store and starts its collector and its census on the current runtime. They end
    /// when the store is dropped.
    pub async fn open(
        parts: Parts<M, B>,
        settings: Settings,
    ) -> std::result::Result<Arc<Self>, OpenError> {
        let mut process = [0; 16];
        parts.random.fill(&mut process);
        check_format(&*parts.meta).await?;
        let (abandoned, left): (Abandoned, AbandonedBlobs) = Abandoned::channel();
        let epochs = Epochs::new(
            Arc::clone(&parts.meta),
            parts.ring,
            Arc::clone(&parts.clock),
            Arc::clone(&parts.random),
        );
        let store = Arc::new(Self {
            meta: parts.meta,
            blobs: parts.blobs,
            epochs,
            clock: parts.clock,
            random: parts.random,
            settings,
            process,
            abandoned,
            pins: Pins::default(),
        });
        tokio::spawn(Arc::clone(&store).collect(left));
        tokio::spawn(crate::census::count_for_ever(Arc::downgrade(&store)));
        Ok(store)
    }

    /// The row of a bucket and its bytes, for a check in a commit.
    pub(crate) async fn bucket(&self, name: &BucketName) -> Result<(Bytes, BucketRow)> {
        let row = self.meta.get(&keys::bucket(name)).await?;
        let row = row.ok_or_else(|| no_such_bucket(name))?;
        let decoded = BucketRow::decode(&row)?;
        if decoded.deleting {
            return Err(no_such_bucket(name));
        }
        Ok((row, decoded))
    }

    /// The current row of an object, with its bytes.
    pub(crate) async fn object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
    ) -> Result<Option<(Bytes, ObjectRow)>> {
        match self.meta.get(&keys::object(bucket, object)).await? {
            None => Ok(None),
            Some(row) => {
                let decoded = ObjectRow::decode(&row)?;
                Ok(Some((row, decoded)))
            }
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The metadata engine failed.
    #[error(transparent)]
    Meta(#[from] moat_meta::Error),
    /// The metadata was written by another version of this program.
    #[error("the metadata has format {found}, this program knows format {known}: use a newer one")]
    Format {
        /// What stands in the metadata.
        found: String,
        /// What this program writes.
        known: &'static str,
    },
}

/// The format of the whole database, as written at its first start.
const DATABASE_FORMAT: &str = "moat-store 1";

async fn check_format<M: MetaStore>(meta: &M) -> std::result::Result<(), OpenError> {
    let key = keys::format();
    if let Some(found) = meta.get(&key).await? {
        if found == DATABASE_FORMAT.as_bytes() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found).into_owned();
        return Err(OpenError::Format {
            found,
            known: DATABASE_FORMAT,
        });
    }
    let check = moat_meta::Check {
        key: key.clone(),
        expected: None,
    };
    let write = moat_meta::Write::Put(key, Bytes::from_static(DATABASE_FORMAT.as_bytes()));
    // If another process was faster, it wrote the same.
    let _ = meta.commit(vec![check], vec![write]).await?;
    Ok(())
}

pub(crate) fn no_such_bucket(name: &BucketName) -> Error {
    Error::from(ErrorCode::NoSuchBucket).with("BucketName", name.as_str())
}

pub(crate) fn no_such_key(key: &ObjectKey) -> Error {
    Error::from(ErrorCode::NoSuchKey).with("Key", key.as_str())
}

pub(crate) fn too_many_conflicts() -> Error {
    Error::new(
        ErrorCode::SlowDown,
        "Too many requests change this resource at once. Try again.",
    )
}
