//! Storing parts: from a body, or from bytes of an existing object without moving them.

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::CustomerKey;
use moat_types::{BucketName, ObjectKey, PartNumber};

use super::{JoinChecksums, OpenUpload, WrittenPart};
use crate::Store;
use crate::batch::{Batch, BlobKind};
use crate::error::{Error, Result};
use crate::objects::{OpenObject, PUT_BYTES_MAX};
use crate::payload::Payload;
use crate::rows::{Body, Entry, PartContent, PartRow, Scheme, Segment, keys};
use crate::source::slice;
use crate::store::{CONFLICT_TRIES_MAX, too_many_conflicts};

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Stores a part. When this returns, it is durable.
    pub(crate) async fn put_part<P: Payload>(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: OpenUpload,
        number: PartNumber,
        customer: Option<&CustomerKey>,
        mut payload: P,
    ) -> Result<WrittenPart> {
        if payload
            .length()
            .is_some_and(|length| length > PUT_BYTES_MAX)
        {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        let object_dek = self.upload_dek(bucket, object, &upload, customer).await?;
        let etag_is_md5 = upload.row.envelope.scheme == Scheme::S3;
        if etag_is_md5 {
            payload.need_md5();
        }
        let sealed = self.seal_payload(payload).await?;
        let etag = match sealed.summary.md5 {
            Some(md5) if etag_is_md5 => hex::encode(md5),
            _ => self.opaque_etag(),
        };
        let segments = match sealed.body {
            Body::Blob { id, inline } => vec![Segment {
                part: number.number(),
                blob: id,
                inline,
                blob_bytes: sealed.size,
                offset: 0,
                length: sealed.size,
                wrapped: object_dek.wrap_part(&sealed.dek, id, &*self.random),
            }],
            _ => Vec::new(),
        };
        let content = PartContent {
            checksum: sealed.summary.checksum,
            segments,
        };
        let entry = self.part_entry(sealed.size, etag, &content);
        let row = PartRow::seal(
            upload.id,
            number,
            entry,
            &content,
            &object_dek.attributes_key(),
            &*self.random,
        );
        let upload_key = keys::upload(bucket, object, upload.id);
        self.commit_part(&upload, upload_key, number, &row, |batch| {
            if let (Some(inline), Body::Blob { id, .. }) = (&sealed.inline, sealed.body) {
                batch.put_bytes(keys::inline_blob(id), inline.clone());
            }
            if let Some(pending) = &sealed.pending {
                pending.adopt(batch);
            }
        })
        .await?;
        if let Some(pending) = sealed.pending {
            pending.committed();
        }
        Ok(WrittenPart {
            etag: row.entry.etag,
            checksum: content.checksum,
            modified: row.entry.modified,
        })
    }

    /// Makes a part of bytes `start..end` of an existing object, without moving them.
    #[allow(
        clippy::too_many_arguments,
        reason = "the parameters of UploadPartCopy"
    )]
    pub(crate) async fn copy_part(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: OpenUpload,
        number: PartNumber,
        customer: Option<&CustomerKey>,
        source_key: Bytes,
        source: &OpenObject,
        start: u64,
        end: u64,
        checksums: &(dyn JoinChecksums + Sync),
    ) -> Result<WrittenPart> {
        if end - start > PUT_BYTES_MAX {
            return Err(ErrorCode::EntityTooLarge.into());
        }
        let object_dek = self.upload_dek(bucket, object, &upload, customer).await?;
        let mut segments = match source.row.body {
            Body::Empty => Vec::new(),
            Body::Blob { id, inline } => {
                let size = source.row.entry.size;
                let whole = Segment {
                    part: 0,
                    blob: id,
                    inline,
                    blob_bytes: size,
                    offset: 0,
                    length: size,
                    wrapped: object_dek.wrap_part(&source.dek, id, &*self.random),
                };
                slice(&[whole], start, end)?
            }
            Body::Manifest { id } => {
                let mut segments = slice(&self.manifest(id, source).await?, start, end)?;
                for segment in &mut segments {
                    let dek = source.dek.unwrap_part(&segment.wrapped, segment.blob)?;
                    segment.wrapped = object_dek.wrap_part(&dek, segment.blob, &*self.random);
                }
                segments
            }
        };
        for segment in &mut segments {
            segment.part = number.number();
        }
        // The checksum of the whole source is that of the part only if the whole was copied.
        let whole = start == 0 && end == source.row.entry.size && source.attributes.parts == 0;
        let kind = checksums.kind_of_part(upload.row.checksum_kind);
        let checksum = source
            .attributes
            .checksum
            .clone()
            .filter(|checksum| whole && checksum.kind == kind);
        let content = PartContent { checksum, segments };
        let entry = self.part_entry(end - start, self.opaque_etag(), &content);
        let key = object_dek.attributes_key();
        let row = PartRow::seal(upload.id, number, entry, &content, &key, &*self.random);
        let upload_key = keys::upload(bucket, object, upload.id);
        self.commit_part(&upload, upload_key, number, &row, |batch| {
            batch.check(source_key.clone(), Some(source.bytes.clone()));
            for segment in &content.segments {
                batch.refer(segment.blob, BlobKind::of(segment.inline));
            }
        })
        .await?;
        Ok(WrittenPart {
            etag: row.entry.etag,
            checksum: content.checksum,
            modified: row.entry.modified,
        })
    }

    fn part_entry(&self, size: u64, etag: String, content: &PartContent) -> Entry {
        Entry {
            size,
            modified: self.clock.now(),
            etag,
            checksum_kind: content
                .checksum
                .as_ref()
                .map_or(0, |checksum| checksum.kind),
            storage_class: String::new(),
        }
    }

    async fn commit_part(
        &self,
        upload: &OpenUpload,
        upload_key: Bytes,
        number: PartNumber,
        row: &PartRow,
        more: impl Fn(&mut Batch),
    ) -> Result<()> {
        let key = keys::part(upload.id, number);
        for _ in 0..CONFLICT_TRIES_MAX {
            let old = self.meta.get(&key).await?;
            let mut batch = Batch::default();
            batch.check(upload_key.clone(), Some(upload.bytes.clone()));
            more(&mut batch);
            if let Some(old) = &old {
                for (blob, inline) in PartRow::decode(old)?.blobs {
                    batch.release(blob, BlobKind::of(inline));
                }
            }
            batch.check(key.clone(), old).put(key.clone(), row.encode());
            if batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(());
            }
            if self.meta.get(&upload_key).await?.as_ref() != Some(&upload.bytes) {
                let id = upload.id.to_string();
                return Err(Error::from(ErrorCode::NoSuchUpload).with("UploadId", id));
            }
        }
        Err(too_many_conflicts())
    }
}

/// Parts of an SSE-C upload need the key, parts of others must not bring one.
pub(super) fn check_part_customer(scheme: &Scheme, customer: Option<&CustomerKey>) -> Result<()> {
    match (scheme, customer) {
        (Scheme::Customer { .. }, None) => Err(Error::new(
            ErrorCode::InvalidRequest,
            "The multipart upload was initiated with a customer-provided encryption key. Send the \
             same key with each part.",
        )),
        (Scheme::Customer { key_md5 }, Some(customer)) if *key_md5 != customer.md5_base64 => {
            Err(Error::new(
                ErrorCode::InvalidArgument,
                "The provided encryption parameters did not match the ones used originally.",
            ))
        }
        (Scheme::Customer { .. }, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(Error::new(
            ErrorCode::InvalidRequest,
            "The multipart upload was not initiated with a customer-provided encryption key.",
        )),
    }
}
