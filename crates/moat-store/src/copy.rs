//! CopyObject: the DEK is unwrapped at the source's place and wrapped at the destination's. No
//! byte of the content moves, whatever the encryption of either side.

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};
use moat_types::{BucketName, ObjectKey, VersionId};

use crate::Store;
use crate::batch::Batch;
use crate::envelope::{Kek, Protection, Target};
use crate::error::{Error, Result};
use crate::objects::{Description, OpenObject, PUT_BYTES_MAX, Written, check_condition};
use crate::rows::{Attributes, Body, Entry, ObjectRow, keys};
use crate::store::{CONFLICT_TRIES_MAX, too_many_conflicts};

/// What is copied, and how.
pub(crate) struct CopyRequest<'a> {
    pub(crate) source_bucket: &'a BucketName,
    pub(crate) source_object: &'a ObjectKey,
    /// The key of an SSE-C source.
    pub(crate) source_customer: Option<CustomerKey>,
    /// Judges the `x-amz-copy-source-if-*` conditions.
    pub(crate) source_condition: Conditions,
    pub(crate) bucket: &'a BucketName,
    pub(crate) object: &'a ObjectKey,
    pub(crate) asked: SseRequest,
    /// `Some` to replace headers and metadata, `None` to copy the source's.
    pub(crate) replace: Option<Description>,
    /// The storage class of the copy; empty for `STANDARD`.
    pub(crate) storage_class: String,
    pub(crate) condition: Conditions,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Copies an object. When this returns, the copy is durable.
    pub(crate) async fn copy_object(&self, request: CopyRequest<'_>) -> Result<Written> {
        let source_key = keys::object(request.source_bucket, request.source_object);
        for _ in 0..CONFLICT_TRIES_MAX {
            let (_, bucket_row) = self.bucket(request.bucket).await?;
            let source = self
                .open_object(
                    request.source_bucket,
                    request.source_object,
                    request.source_customer.as_ref(),
                )
                .await?;
            request
                .source_condition
                .for_copy_source(source.row.facts())?;
            if source.row.entry.size > PUT_BYTES_MAX {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "The specified copy source is larger than the maximum allowable size for a \
                     copy source: 5368709120. Copy it in parts.",
                ));
            }
            let protection =
                Protection::decide(request.asked.clone(), &bucket_row, &self.settings)?;
            refuse_idle_self_copy(&request, &source)?;
            let written = self.rewrap(&request, &source, &protection).await?;
            let body = source.row.body;
            let source_bytes = source.bytes;
            let copied = self
                .commit_copy(
                    &request,
                    &written.row,
                    (source_key.clone(), source_bytes),
                    body,
                )
                .await?;
            if copied {
                return Ok(written);
            }
            // The source changed: judge and copy what is there now.
        }
        Err(too_many_conflicts())
    }

    /// One attempt. `Ok(false)` if a row changed in the meantime.
    async fn commit_copy(
        &self,
        request: &CopyRequest<'_>,
        row: &ObjectRow,
        source: (Bytes, Bytes),
        body: Body,
    ) -> Result<bool> {
        let key = keys::object(request.bucket, request.object);
        let (bucket_bytes, _) = self.bucket(request.bucket).await?;
        let current = self.object(request.bucket, request.object).await?;
        check_condition(&request.condition, current.as_ref().map(|(_, row)| row))?;
        let mut batch = Batch::default();
        batch.check(keys::bucket(request.bucket), Some(bucket_bytes));
        batch.check(source.0, Some(source.1)).refer_body(body);
        if let Some((_, old)) = &current {
            batch.release_body(old.body);
        }
        batch.check(key.clone(), current.map(|(bytes, _)| bytes));
        batch.put(key, row.encode());
        batch.commit(&*self.meta, self.clock.now()).await
    }

    async fn rewrap(
        &self,
        request: &CopyRequest<'_>,
        source: &OpenObject,
        protection: &Protection,
    ) -> Result<Written> {
        let kek = Kek::for_sealing(&self.epochs, request.bucket, protection).await?;
        let version = VersionId::random(&*self.random);
        let target = Target {
            bucket: request.bucket,
            object: request.object,
            version,
            body: source.row.body.id(),
        };
        let entry = Entry {
            modified: self.clock.now(),
            storage_class: request.storage_class.clone(),
            ..source.row.entry.clone()
        };
        let attributes = match &request.replace {
            None => source.attributes.clone(),
            Some(description) => Attributes {
                headers: description.headers.clone(),
                metadata: description.metadata.clone(),
                ..source.attributes.clone()
            },
        };
        let envelope = kek.seal(protection, &source.dek, target, &*self.random);
        let row = self.seal_row(
            &source.dek.attributes_key(),
            target,
            entry,
            &attributes,
            envelope,
            source.row.body,
        );
        let context = protection.context().to_vec();
        Ok(Written {
            row,
            attributes,
            context,
        })
    }
}

/// S3 refuses to copy an object onto itself when nothing would change.
fn refuse_idle_self_copy(request: &CopyRequest<'_>, source: &OpenObject) -> Result<()> {
    let same_place =
        request.source_bucket == request.bucket && request.source_object == request.object;
    let same_class = request.storage_class == source.row.entry.storage_class;
    let asks_encryption = !matches!(request.asked, SseRequest::None);
    if same_place && same_class && !asks_encryption && request.replace.is_none() {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself \
             without changing the object's metadata, storage class, website redirect location or \
             encryption attributes.",
        ));
    }
    Ok(())
}
