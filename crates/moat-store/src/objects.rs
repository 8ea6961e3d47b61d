//! Objects: put, delete, and opening one for reading or copying.

use std::sync::Arc;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_crypto::{AttributesKey, Dek};
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};
use moat_types::{BucketName, ObjectKey, VersionId};

use crate::Store;
use crate::batch::Batch;
use crate::collector::Pending;
use crate::envelope::{Kek, OpenEnvelope, Protection, Target, attributes_place};
use crate::error::{Error, Result};
use crate::list::{ListQuery, UploadQuery};
use crate::payload::Payload;
use crate::rows::{Attributes, Body, Entry, Envelope, ObjectRow, keys};
use crate::store::{CONFLICT_TRIES_MAX, no_such_key, too_many_conflicts};

/// The largest object that one PUT may make, in bytes (S3: 5 GiB).
pub(crate) const PUT_BYTES_MAX: u64 = 5 << 30;

/// Objects removed in one commit.
const DELETE_KEYS_MAX: usize = 1000;

/// What a client says of an object that it writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Description {
    /// Content headers by lower-case name.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// User metadata by lower-case name, without the prefix.
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    /// Empty for `STANDARD`.
    pub(crate) storage_class: String,
}

/// What a write answers with.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) row: ObjectRow,
    pub(crate) attributes: Attributes,
    /// The client's encryption context, if there was one.
    pub(crate) context: Vec<u8>,
}

/// An object whose envelope was opened and whose attributes were found genuine.
pub(crate) struct OpenObject {
    pub(crate) bytes: Bytes,
    pub(crate) row: ObjectRow,
    pub(crate) dek: Dek,
    pub(crate) context: Vec<u8>,
    pub(crate) attributes: Attributes,
}

/// A new row and what must be written with it.
pub(crate) struct NewObject {
    pub(crate) row: ObjectRow,
    /// A row in table `I`: an inline blob or a manifest.
    pub(crate) inline: Option<Bytes>,
    pub(crate) pending: Option<Pending>,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Stores an object. When this returns, it is durable.
    pub(crate) async fn put_object<P: Payload>(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        asked: SseRequest,
        description: Description,
        condition: &Conditions,
        mut payload: P,
    ) -> Result<Written> {
        let (_, bucket_row) = self.bucket(bucket).await?;
        let protection = Protection::decide(asked, &bucket_row, &self.settings)?;
        if payload
            .length()
            .is_some_and(|length| length > PUT_BYTES_MAX)
        {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        if !condition.is_empty() {
            // Refuse before the body is taken in; the commit judges again.
            let current = self.object(bucket, object).await?;
            check_condition(condition, current.as_ref().map(|(_, row)| row))?;
        }
        let kek = Kek::for_sealing(&self.epochs, bucket, &protection).await?;
        if protection.etag_is_md5() {
            payload.need_md5();
        }
        let sealed = self.seal_payload(payload).await?;
        let etag = match sealed.summary.md5 {
            Some(md5) if protection.etag_is_md5() => hex::encode(md5),
            _ => self.opaque_etag(),
        };
        let entry = Entry {
            size: sealed.size,
            modified: self.clock.now(),
            etag,
            checksum_kind: sealed
                .summary
                .checksum
                .as_ref()
                .map_or(0, |checksum| checksum.kind),
            storage_class: description.storage_class,
        };
        let attributes = Attributes {
            headers: description.headers,
            metadata: description.metadata,
            checksum: sealed.summary.checksum,
            parts: 0,
        };
        let version = VersionId::random(&*self.random);
        let target = Target {
            bucket,
            object,
            version,
            body: sealed.body.id(),
        };
        let envelope = kek.seal(&protection, &sealed.dek, target, &*self.random);
        let row = self.seal_row(
            &sealed.dek.attributes_key(),
            target,
            entry,
            &attributes,
            envelope,
            sealed.body,
        );
        let new = NewObject {
            row: row.clone(),
            inline: sealed.inline,
            pending: sealed.pending,
        };
        self.commit_object(bucket, object, new, condition, |_| {})
            .await?;
        let context = protection.context().to_vec();
        Ok(Written {
            row,
            attributes,
            context,
        })
    }

    /// Builds a row with its attributes sealed.
    pub(crate) fn seal_row(
        &self,
        key: &AttributesKey,
        target: Target<'_>,
        entry: Entry,
        attributes: &Attributes,
        envelope: Envelope,
        body: Body,
    ) -> ObjectRow {
        let place = attributes_place(self.epochs.ring().enclave(), &envelope, target);
        let sealed_attributes = key.seal(&attributes.encode(&entry), &place, &*self.random);
        ObjectRow {
            entry,
            version: target.version,
            envelope,
            body,
            sealed_attributes,
        }
    }

    /// An ETag that nobody takes for an MD5: 32 hex digits, a hyphen, a number of parts.
    pub(crate) fn opaque_etag(&self) -> String {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        format!("{}-1", hex::encode(bytes))
    }

    /// Makes `new` the current version. `more` adds to each attempt's batch.
    pub(crate) async fn commit_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        new: NewObject,
        condition: &Conditions,
        more: impl Fn(&mut Batch),
    ) -> Result<()> {
        let key = keys::object(bucket, object);
        let row = Bytes::from(new.row.encode());
        for _ in 0..CONFLICT_TRIES_MAX {
            let (bucket_bytes, _) = self.bucket(bucket).await?;
            let current = self.object(bucket, object).await?;
            check_condition(condition, current.as_ref().map(|(_, row)| row))?;
            let mut batch = Batch::default();
            batch.check(keys::bucket(bucket), Some(bucket_bytes));
            if let Some((_, old)) = &current {
                batch.release_body(old.body);
            }
            batch.check(key.clone(), current.map(|(bytes, _)| bytes));
            if let Some(inline) = &new.inline {
                batch.put_bytes(keys::inline_blob(new.row.body.id()), inline.clone());
            }
            if let Some(pending) = &new.pending {
                pending.adopt(&mut batch);
            }
            batch.put_bytes(key.clone(), row.clone());
            more(&mut batch);
            if batch.commit(&*self.meta, self.clock.now()).await? {
                if let Some(pending) = new.pending {
                    pending.committed();
                }
                return Ok(());
            }
        }
        Err(too_many_conflicts())
    }

    /// Opens an object's envelope and proves its attributes.
    pub(crate) async fn open_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        customer: Option<&CustomerKey>,
    ) -> Result<OpenObject> {
        let Some((bytes, row)) = self.object(bucket, object).await? else {
            self.bucket_row(bucket).await?;
            return Err(no_such_key(object));
        };
        self.open_row(bucket, object, bytes, row, customer).await
    }

    /// As `open_object`, for a row that was read already.
    pub(crate) async fn open_row(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        bytes: Bytes,
        row: ObjectRow,
        customer: Option<&CustomerKey>,
    ) -> Result<OpenObject> {
        let target = Target {
            bucket,
            object,
            version: row.version,
            body: row.body.id(),
        };
        let kek = Kek::for_opening(&self.epochs, bucket, &row.envelope, customer).await?;
        let OpenEnvelope { dek, context } = kek.open(&row.envelope, target)?;
        let place = attributes_place(self.epochs.ring().enclave(), &row.envelope, target);
        let plain = dek.attributes_key().open(&row.sealed_attributes, &place)?;
        let attributes = Attributes::decode(&plain, &row.entry)?;
        Ok(OpenObject {
            bytes,
            row,
            dek,
            context,
            attributes,
        })
    }

    /// Removes an object. Removing one that does not exist succeeds, unless `condition` asks for
    /// it. Says whether there was one.
    pub(crate) async fn delete_object(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        condition: &Conditions,
    ) -> Result<bool> {
        let key = keys::object(bucket, object);
        for _ in 0..CONFLICT_TRIES_MAX {
            let Some(bytes) = self.meta.get(&key).await? else {
                self.bucket_row(bucket).await?;
                check_condition(condition, None)?;
                return Ok(false);
            };
            // A row that can't be decoded must still be removable: its blobs are lost to the
            // collector, but the key is free again.
            let row = ObjectRow::decode(&bytes).ok();
            check_condition(condition, row.as_ref())?;
            let mut batch = Batch::default();
            batch.check(key.clone(), Some(bytes)).delete(key.clone());
            if let Some(row) = row {
                batch.release_body(row.body);
            }
            if batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(true);
            }
        }
        Err(too_many_conflicts())
    }

    /// Removes everything in a bucket, uploads in progress included.
    pub(crate) async fn empty_bucket(&self, bucket: &BucketName) -> Result<()> {
        let query = ListQuery {
            entries_max: DELETE_KEYS_MAX,
            ..ListQuery::default()
        };
        loop {
            let keys = self.list(bucket, &query).await?.object_keys()?;
            if keys.is_empty() {
                break;
            }
            self.delete_objects(bucket, &keys).await?;
        }
        let query = UploadQuery {
            entries_max: DELETE_KEYS_MAX,
            ..UploadQuery::default()
        };
        loop {
            let uploads = self.list_uploads(bucket, &query).await?.uploads;
            if uploads.is_empty() {
                return Ok(());
            }
            for (key, id, _) in uploads {
                let key = ObjectKey::parse(&key).map_err(internal)?;
                match self.abort_upload(bucket, &key, id).await {
                    Err(error) if error.code() != ErrorCode::NoSuchUpload => return Err(error),
                    _ => {}
                }
            }
        }
    }

    /// Removes up to a thousand objects in one commit. Keys that do not exist count as removed.
    pub(crate) async fn delete_objects(
        &self,
        bucket: &BucketName,
        objects: &[ObjectKey],
    ) -> Result<()> {
        self.bucket_row(bucket).await?;
        for _ in 0..CONFLICT_TRIES_MAX {
            let mut batch = Batch::default();
            let mut seen = std::collections::HashSet::new();
            for object in objects.iter().filter(|object| seen.insert(object.as_str())) {
                let key = keys::object(bucket, object);
                if let Some(bytes) = self.meta.get(&key).await? {
                    if let Ok(row) = ObjectRow::decode(&bytes) {
                        batch.release_body(row.body);
                    }
                    batch.check(key.clone(), Some(bytes)).delete(key);
                }
            }
            if batch.is_empty() || batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(());
            }
        }
        Err(too_many_conflicts())
    }

    /// Whether the store can do its work: its key ring answers and its metadata can be read.
    pub async fn is_ready(self: &Arc<Self>) -> bool {
        let meta = self.meta.get(&keys::format()).await.is_ok();
        meta && self.epochs.check(&self.settings.default_key).await.is_ok()
    }
}

/// Judges the conditions of a write or delete against the row that its commit checks, so one of
/// several writers wins.
pub(crate) fn check_condition(condition: &Conditions, current: Option<&ObjectRow>) -> Result<()> {
    let facts = current.map(ObjectRow::facts);
    Ok(condition.for_write(facts)?)
}

/// The cause of a condition that can't happen.
pub(crate) fn internal(cause: impl std::fmt::Display) -> Error {
    Error::from(ErrorCode::InternalError).because(cause)
}
