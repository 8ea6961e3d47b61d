//! Multipart uploads. The object's DEK is drawn and wrapped for its final place when the upload
//! begins; each part has a DEK of its own, wrapped by that one. Complete seals a manifest of the
//! parts: O(parts), no content is touched.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use moat_blob::BlobStore;
use moat_crypto::{AttributesKey, Dek};
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};
use moat_types::{BlobId, BucketName, ObjectKey, PartNumber, UploadId, VersionId};

use crate::Store;
use crate::batch::{Batch, BlobKind};
use crate::envelope::{Kek, Protection, Target, attributes_place};
use crate::error::{Error, Result};
use crate::objects::{Description, NewObject, OpenObject, PUT_BYTES_MAX};
use crate::payload::Payload;
use crate::rows::{
    Attributes, Body, Checksum, CompletedRow, Entry, Envelope, ManifestRow, ObjectRow, PartContent,
    PartRow, Scheme, Segment, UploadRow, keys,
};
use crate::source::slice;
use crate::store::{CONFLICT_TRIES_MAX, too_many_conflicts};

/// Every part but the last must have this many bytes.
const PART_BYTES_MIN: u64 = 5 << 20;
/// The largest object, in bytes (S3: 5 TiB).
const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Rows read at once when all parts of an upload are read.
const PARTS_PAGE_BYTES: usize = 64 << 20;

/// An upload that was found.
pub(crate) struct OpenUpload {
    pub(crate) id: UploadId,
    bytes: Bytes,
    pub(crate) row: UploadRow,
}

/// A part named by CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedPart {
    pub(crate) number: PartNumber,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) checksum: Option<Checksum>,
}

/// What Complete is asked for beyond the list of parts.
#[derive(Debug, Clone, Default)]
pub(crate) struct CompleteOptions {
    pub(crate) condition: Conditions,
    /// Checksum of the whole object as the client states it.
    pub(crate) checksum: Option<Checksum>,
    /// Size in bytes as the client states it.
    pub(crate) size: Option<u64>,
}

/// What Complete answers with.
pub(crate) struct Completed {
    pub(crate) row: ObjectRow,
    pub(crate) checksum: Option<Checksum>,
}

/// A stored part.
pub(crate) struct WrittenPart {
    pub(crate) etag: String,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) modified: moat_types::UnixMillis,
}

/// Joins the checksums of parts. `http::checksums` implements it on `moat_s3`'s algorithms.
pub(crate) trait JoinChecksums {
    /// The object's checksum of `kind` from the parts' checksums and sizes, or `None` where a
    /// part has none of that kind.
    fn join(&self, kind: u8, parts: &[(Option<Checksum>, u64)]) -> Option<Checksum>;

    /// The kind of a part's checksum in an upload of this kind.
    fn kind_of_part(&self, upload_kind: u8) -> u8;
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// Begins an upload.
    pub(crate) async fn create_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        asked: SseRequest,
        description: Description,
        checksum_kind: u8,
    ) -> Result<(UploadId, Envelope, Vec<u8>)> {
        let (bucket_bytes, bucket_row) = self.bucket(bucket).await?;
        let protection = Protection::decide(asked, &bucket_row, &self.settings)?;
        let kek = Kek::for_sealing(&self.epochs, bucket, &protection).await?;
        let id = UploadId::random(&*self.random);
        let version = VersionId::random(&*self.random);
        let manifest = BlobId::random(&*self.random);
        let dek = Dek::random(&*self.random);
        let target = Target {
            bucket,
            object,
            version,
            body: manifest,
        };
        let envelope = kek.seal(&protection, &dek, target, &*self.random);
        let held = match &protection {
            Protection::Epoch { .. } => None,
            Protection::Customer(_) => Some(self.hold(bucket, &dek, target).await?),
        };
        let attributes = Attributes {
            headers: description.headers,
            metadata: description.metadata,
            ..Attributes::default()
        };
        let place = attributes_place(self.epochs.ring().enclave(), &envelope, target);
        let plain = attributes.encode(&upload_entry(&description.storage_class));
        let row = UploadRow {
            initiated: self.clock.now(),
            checksum_kind,
            storage_class: description.storage_class,
            version,
            manifest,
            envelope: envelope.clone(),
            held,
            sealed_attributes: dek.attributes_key().seal(&plain, &place, &*self.random),
        };
        let mut batch = Batch::default();
        batch
            .check(keys::bucket(bucket), Some(bucket_bytes))
            .put(keys::upload(bucket, object, id), row.encode());
        if !batch.commit(&*self.meta, self.clock.now()).await? {
            return Err(ErrorCode::OperationAborted.into());
        }
        let context = protection.context().to_vec();
        Ok((id, envelope, context))
    }

    async fn hold(
        &self,
        bucket: &BucketName,
        dek: &Dek,
        target: Target<'_>,
    ) -> Result<(moat_types::KeyName, [u8; 16], moat_crypto::WrappedDek)> {
        let key = self.settings.default_key.clone();
        let own = Protection::Epoch {
            scheme: Scheme::S3,
            key: key.clone(),
            context: Vec::new(),
        };
        let kek = Kek::for_sealing(&self.epochs, bucket, &own).await?;
        let wrapped = kek.hold_attributes_key(dek, target, &*self.random);
        let (_, epoch) = kek
            .epoch
            .as_ref()
            .expect("an epoch protection has an epoch");
        Ok((key, *epoch.as_bytes(), wrapped))
    }

    /// Finds an upload in progress.
    pub(crate) async fn upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: UploadId,
    ) -> Result<OpenUpload> {
        let Some(bytes) = self.meta.get(&keys::upload(bucket, object, id)).await? else {
            self.bucket_row(bucket).await?;
            return Err(Error::from(ErrorCode::NoSuchUpload).with("UploadId", id.to_string()));
        };
        let row = UploadRow::decode(&bytes)?;
        Ok(OpenUpload { id, bytes, row })
    }

    /// The DEK of the object that an upload will become.
    async fn upload_dek(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &OpenUpload,
        customer: Option<&CustomerKey>,
    ) -> Result<Dek> {
        let envelope = &upload.row.envelope;
        let target = upload.target(bucket, object);
        check_part_customer(&envelope.scheme, customer)?;
        let kek = Kek::for_opening(&self.epochs, bucket, envelope, customer).await?;
        Ok(kek.open(envelope, target)?.dek)
    }

    /// The attributes key alone, which Complete and ListParts need: without the customer's key
    /// it is the one that is held for them.
    pub(crate) async fn upload_attributes_key(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &OpenUpload,
    ) -> Result<AttributesKey> {
        match &upload.row.held {
            None => Ok(self
                .upload_dek(bucket, object, upload, None)
                .await?
                .attributes_key()),
            Some((key, epoch, wrapped)) => {
                let epoch = moat_types::EpochId::from_bytes(*epoch);
                let kek = Kek::of_epoch(&self.epochs, bucket, key, epoch).await?;
                kek.held_attributes_key(wrapped, upload.target(bucket, object))
            }
        }
    }

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

    /// All parts of an upload in order, with the bytes of their rows.
    pub(crate) async fn parts(&self, id: UploadId) -> Result<Vec<(PartNumber, Bytes, PartRow)>> {
        let rows_max = usize::from(PartNumber::MAX);
        let page = self
            .meta
            .scan(keys::parts(id), rows_max, PARTS_PAGE_BYTES)
            .await?;
        page.rows()
            .map(|(key, row)| {
                let number = keys::parse_part(key)
                    .ok_or(crate::rows::Damaged("part number in a row's key"))?;
                Ok((number, Bytes::copy_from_slice(row), PartRow::decode(row)?))
            })
            .collect()
    }

    /// Makes an object of the named parts. A repeated call gets the same answer.
    pub(crate) async fn complete_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: UploadId,
        named: &[NamedPart],
        options: CompleteOptions,
        checksums: &(dyn JoinChecksums + Sync),
    ) -> Result<Completed> {
        let request_hash = request_hash(named);
        let upload = match self.upload(bucket, object, id).await {
            Err(error) if error.code() == ErrorCode::NoSuchUpload => {
                let repeated = self
                    .repeated_complete(bucket, object, id, request_hash)
                    .await?;
                return repeated.ok_or(error);
            }
            found => found?,
        };
        let stored = self.parts(id).await?;
        let key = self.upload_attributes_key(bucket, object, &upload).await?;
        let chosen = choose(named, &stored)?;
        let contents = chosen
            .iter()
            .map(|(number, _, row)| Ok(row.open(id, *number, &key)?))
            .collect::<Result<Vec<_>>>()?;
        check_part_checksums(named, &contents)?;
        let size = total_size(&chosen, options.size)?;
        let parts: Vec<_> = chosen
            .iter()
            .zip(&contents)
            .map(|((_, _, row), content)| (content.checksum.clone(), row.entry.size))
            .collect();
        let checksum = join_checksums(upload.row.checksum_kind, &parts, &options, checksums)?;

        let target = upload.target(bucket, object);
        let row = self.completed_row(&upload, target, &key, &chosen, size, checksum.clone())?;
        let segments: Vec<Segment> = contents
            .into_iter()
            .flat_map(|content| content.segments)
            .collect();
        let manifest = ManifestRow::seal(upload.row.manifest, &segments, &key, &*self.random);
        let completed = CompletedRow {
            completed: self.clock.now(),
            bucket: bucket.as_str().to_owned(),
            object: object.as_str().to_owned(),
            request_hash,
            version: row.version,
        };
        let new = NewObject {
            row: row.clone(),
            inline: Some(manifest.encode().into()),
            pending: None,
        };
        let upload_key = keys::upload(bucket, object, id);
        let result = self
            .commit_object(bucket, object, new, &options.condition, |batch| {
                batch
                    .check(upload_key.clone(), Some(upload.bytes.clone()))
                    .delete(upload_key.clone())
                    .put(keys::completed(id), completed.encode());
                for (number, bytes, part) in &stored {
                    let part_key = keys::part(id, *number);
                    batch
                        .check(part_key.clone(), Some(bytes.clone()))
                        .delete(part_key);
                    if !named.iter().any(|named| named.number == *number) {
                        for (blob, inline) in &part.blobs {
                            batch.release(*blob, BlobKind::of(*inline));
                        }
                    }
                }
            })
            .await;
        match result {
            Ok(()) => Ok(Completed { row, checksum }),
            // Another Complete may have won; then its answer is ours.
            Err(error) => {
                let repeated = self
                    .repeated_complete(bucket, object, id, request_hash)
                    .await?;
                repeated.ok_or(error)
            }
        }
    }

    fn completed_row(
        &self,
        upload: &OpenUpload,
        target: Target<'_>,
        key: &AttributesKey,
        chosen: &[&(PartNumber, Bytes, PartRow)],
        size: u64,
        checksum: Option<Checksum>,
    ) -> Result<ObjectRow> {
        let place = attributes_place(self.epochs.ring().enclave(), &upload.row.envelope, target);
        let plain = key.open(&upload.row.sealed_attributes, &place)?;
        let described = Attributes::decode(&plain, &upload_entry(&upload.row.storage_class))?;
        let entry = Entry {
            size,
            modified: self.clock.now(),
            etag: multipart_etag(chosen.iter().map(|(_, _, row)| row.entry.etag.as_str())),
            checksum_kind: checksum.as_ref().map_or(0, |checksum| checksum.kind),
            storage_class: upload.row.storage_class.clone(),
        };
        let parts = u16::try_from(chosen.len()).expect("at most 10,000 parts");
        let attributes = Attributes {
            checksum,
            parts,
            ..described
        };
        let body = Body::Manifest {
            id: upload.row.manifest,
        };
        let envelope = upload.row.envelope.clone();
        Ok(self.seal_row(key, target, entry, &attributes, envelope, body))
    }

    /// The answer of an earlier Complete with the same list, while its object is still there.
    async fn repeated_complete(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: UploadId,
        request_hash: [u8; 32],
    ) -> Result<Option<Completed>> {
        let Some(row) = self.meta.get(&keys::completed(id)).await? else {
            return Ok(None);
        };
        let row = CompletedRow::decode(&row)?;
        let same = row.bucket == bucket.as_str()
            && row.object == object.as_str()
            && row.request_hash == request_hash;
        if !same {
            return Ok(None);
        }
        let current = self.object(bucket, object).await?;
        Ok(current
            .filter(|(_, current)| current.version == row.version)
            .map(|(_, row)| Completed {
                row,
                checksum: None,
            }))
    }

    /// Gives up an upload and frees its parts.
    pub(crate) async fn abort_upload(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        id: UploadId,
    ) -> Result<()> {
        for _ in 0..CONFLICT_TRIES_MAX {
            let upload = self.upload(bucket, object, id).await?;
            let upload_key = keys::upload(bucket, object, id);
            let mut batch = Batch::default();
            batch
                .check(upload_key.clone(), Some(upload.bytes))
                .delete(upload_key);
            for (number, bytes, part) in self.parts(id).await? {
                let key = keys::part(id, number);
                batch.check(key.clone(), Some(bytes)).delete(key);
                for (blob, inline) in part.blobs {
                    batch.release(blob, BlobKind::of(inline));
                }
            }
            if batch.commit(&*self.meta, self.clock.now()).await? {
                return Ok(());
            }
        }
        Err(too_many_conflicts())
    }
}

impl OpenUpload {
    fn target<'a>(&self, bucket: &'a BucketName, object: &'a ObjectKey) -> Target<'a> {
        Target {
            bucket,
            object,
            version: self.row.version,
            body: self.row.manifest,
        }
    }
}

/// The entry that stands in for the object's while it does not exist yet.
fn upload_entry(storage_class: &str) -> Entry {
    Entry {
        size: 0,
        modified: moat_types::UnixMillis(0),
        etag: String::new(),
        checksum_kind: 0,
        storage_class: storage_class.to_owned(),
    }
}

/// Parts of an SSE-C upload need the key, parts of others must not bring one.
fn check_part_customer(scheme: &Scheme, customer: Option<&CustomerKey>) -> Result<()> {
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

fn request_hash(named: &[NamedPart]) -> [u8; 32] {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in named {
        context.update(&part.number.number().to_be_bytes());
        context.update(part.etag.as_bytes());
        context.update(&[0]);
    }
    context
        .finish()
        .as_ref()
        .try_into()
        .expect("SHA-256 has 32 bytes")
}

type StoredPart = (PartNumber, Bytes, PartRow);

/// The stored parts that the client named, checked for order, presence, ETag and size.
fn choose<'a>(named: &[NamedPart], stored: &'a [StoredPart]) -> Result<Vec<&'a StoredPart>> {
    if named.is_empty() {
        return Err(Error::new(
            ErrorCode::MalformedXml,
            "You must specify at least one part.",
        ));
    }
    if named
        .windows(2)
        .any(|pair| pair[0].number >= pair[1].number)
    {
        return Err(ErrorCode::InvalidPartOrder.into());
    }
    let mut chosen = Vec::with_capacity(named.len());
    for part in named {
        let found = stored
            .binary_search_by_key(&part.number, |(number, _, _)| *number)
            .ok()
            .map(|index| &stored[index])
            .filter(|(_, _, row)| row.entry.etag == part.etag);
        chosen.push(found.ok_or_else(|| {
            Error::from(ErrorCode::InvalidPart)
                .with("PartNumber", part.number.to_string())
                .with("ETag", part.etag.clone())
        })?);
    }
    for (number, _, row) in &chosen[..chosen.len() - 1] {
        if row.entry.size < PART_BYTES_MIN {
            return Err(Error::from(ErrorCode::EntityTooSmall)
                .with("ProposedSize", row.entry.size.to_string())
                .with("MinSizeAllowed", PART_BYTES_MIN.to_string())
                .with("PartNumber", number.to_string())
                .with("ETag", row.entry.etag.clone()));
        }
    }
    Ok(chosen)
}

fn check_part_checksums(named: &[NamedPart], contents: &[PartContent]) -> Result<()> {
    for (part, content) in named.iter().zip(contents) {
        if part.checksum.is_some() && part.checksum != content.checksum {
            return Err(Error::from(ErrorCode::InvalidPart)
                .with("PartNumber", part.number.to_string())
                .with("ETag", part.etag.clone()));
        }
    }
    Ok(())
}

fn total_size(chosen: &[&StoredPart], stated: Option<u64>) -> Result<u64> {
    let size = chosen.iter().map(|(_, _, row)| row.entry.size).sum();
    if size > OBJECT_BYTES_MAX {
        return Err(ErrorCode::EntityTooLarge.into());
    }
    if stated.is_some_and(|stated| stated != size) {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            "The provided 'x-amz-mp-object-size' header does not match the size of the parts.",
        ));
    }
    Ok(size)
}

fn join_checksums(
    kind: u8,
    parts: &[(Option<Checksum>, u64)],
    options: &CompleteOptions,
    checksums: &(dyn JoinChecksums + Sync),
) -> Result<Option<Checksum>> {
    if kind == 0 {
        return Ok(None);
    }
    let joined = checksums.join(kind, parts);
    if let (Some(stated), Some(joined)) = (&options.checksum, &joined)
        && stated != joined
    {
        return Err(Error::new(
            ErrorCode::BadDigest,
            "The checksum of the whole object that you specified is not that of the parts.",
        ));
    }
    Ok(joined)
}

/// Hex MD5 of the parts' ETags in binary, a hyphen, their number.
fn multipart_etag<'a>(etags: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = etags.len();
    let mut md5 = Md5::new();
    for etag in etags {
        let digits = etag.split('-').next().unwrap_or(etag);
        md5.update(hex::decode(digits).unwrap_or_default());
    }
    format!("{}-{count}", hex::encode(md5.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_etag_of_a_multipart_object_is_that_of_s3() {
        // Two parts: MD5 of the empty content twice, as S3 computes it.
        let empty = "d41d8cd98f00b204e9800998ecf8427e";
        let joined = [hex::decode(empty).unwrap(), hex::decode(empty).unwrap()].concat();
        let expected = format!("{}-2", hex::encode(Md5::digest(joined)));
        assert_eq!(multipart_etag([empty, empty].into_iter()), expected);
        assert_eq!(
            multipart_etag([empty, &format!("{empty}-1")].into_iter()),
            expected
        );
    }
}
