//! Multipart uploads. The object's DEK is drawn and wrapped for its final place when the upload
//! begins; each part has a DEK of its own, wrapped by that one. Complete seals a manifest of the
//! parts: O(parts), no content is touched.

mod complete;
mod parts;

use bytes::Bytes;
use moat_blob::BlobStore;
use moat_crypto::{AttributesKey, Dek, WrappedDek};
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};
use moat_types::{
    BlobId, BucketName, EpochId, KeyName, ObjectKey, PartNumber, UnixMillis, UploadId, VersionId,
};

use crate::Store;
use crate::batch::{Batch, BlobKind};
use crate::envelope::{Kek, Protection, Target, attributes_place};
use crate::error::{Error, Result};
use crate::objects::Description;
use crate::rows::{
    Attributes, Checksum, Damaged, Entry, Envelope, ObjectRow, PartRow, Scheme, UploadRow, keys,
};
use crate::store::{CONFLICT_TRIES_MAX, too_many_conflicts};

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
    pub(crate) modified: UnixMillis,
}

/// Joins the checksums of parts. `http::checksums` implements it on `moat_s3`'s algorithms.
pub(crate) trait JoinChecksums {
    /// The object's checksum of `kind` from the parts' checksums and sizes, or `None` where a
    /// part has none of that kind.
    fn join(&self, kind: u8, parts: &[(Option<Checksum>, u64)]) -> Option<Checksum>;

    /// Whether the checksum that a client states for the object is the one that was joined.
    fn agree(&self, stated: &Checksum, joined: &Checksum) -> bool;

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
    ) -> Result<(KeyName, [u8; 16], WrappedDek)> {
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
        parts::check_part_customer(&envelope.scheme, customer)?;
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
                let epoch = EpochId::from_bytes(*epoch);
                let kek = Kek::of_epoch(&self.epochs, bucket, key, epoch).await?;
                kek.held_attributes_key(wrapped, upload.target(bucket, object))
            }
        }
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
                let number = keys::parse_part(key).ok_or(Damaged("part number in a row's key"))?;
                Ok((number, Bytes::copy_from_slice(row), PartRow::decode(row)?))
            })
            .collect()
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
        modified: UnixMillis(0),
        etag: String::new(),
        checksum_kind: 0,
        storage_class: storage_class.to_owned(),
    }
}
