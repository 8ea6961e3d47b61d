//! Making an object of parts, once, however often it is asked for.

use bytes::Bytes;
use md5::{Digest as _, Md5};
use moat_blob::BlobStore;
use moat_crypto::AttributesKey;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_types::{BucketName, ObjectKey, PartNumber, UploadId};

use super::{CompleteOptions, Completed, JoinChecksums, NamedPart, OpenUpload, upload_entry};
use crate::Store;
use crate::batch::BlobKind;
use crate::envelope::{Target, attributes_place};
use crate::error::{Error, Result};
use crate::objects::NewObject;
use crate::rows::{
    Attributes, Body, Checksum, CompletedRow, Entry, ManifestRow, ObjectRow, PartContent, PartRow,
    Segment, keys,
};

/// Every part but the last must have this many bytes.
const PART_BYTES_MIN: u64 = 5 << 20;
/// The largest object, in bytes (S3: 5 TiB).
const OBJECT_BYTES_MAX: u64 = 5 << 40;

/// The object that an upload becomes.
struct Assembled {
    row: ObjectRow,
    manifest: ManifestRow,
    checksum: Option<Checksum>,
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
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
        let made = self
            .assemble(bucket, object, &upload, named, &stored, &options, checksums)
            .await?;
        let committed = self
            .commit_complete(
                bucket,
                object,
                &upload,
                named,
                &stored,
                &made,
                &options,
                request_hash,
            )
            .await;
        match committed {
            Ok(()) => Ok(Completed {
                row: made.row,
                checksum: made.checksum,
            }),
            // Another Complete may have won; then its answer is ours.
            Err(error) => {
                let repeated = self
                    .repeated_complete(bucket, object, id, request_hash)
                    .await?;
                repeated.ok_or(error)
            }
        }
    }

    /// Checks the list against what is stored and builds the object's row and manifest.
    #[allow(
        clippy::too_many_arguments,
        reason = "the parameters of Complete, once more"
    )]
    async fn assemble(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &OpenUpload,
        named: &[NamedPart],
        stored: &[StoredPart],
        options: &CompleteOptions,
        checksums: &(dyn JoinChecksums + Sync),
    ) -> Result<Assembled> {
        let key = self.upload_attributes_key(bucket, object, upload).await?;
        let chosen = choose(named, stored)?;
        let contents = chosen
            .iter()
            .map(|(number, _, row)| Ok(row.open(upload.id, *number, &key)?))
            .collect::<Result<Vec<_>>>()?;
        check_part_checksums(named, &contents)?;
        let size = total_size(&chosen, options.size)?;
        let parts: Vec<_> = chosen
            .iter()
            .zip(&contents)
            .map(|((_, _, row), content)| (content.checksum.clone(), row.entry.size))
            .collect();
        let checksum = join_checksums(upload.row.checksum_kind, &parts, options, checksums)?;
        let target = upload.target(bucket, object);
        let row = self.completed_row(upload, target, &key, &chosen, size, checksum.clone())?;
        let segments: Vec<Segment> = contents
            .into_iter()
            .flat_map(|content| content.segments)
            .collect();
        let manifest = ManifestRow::seal(upload.row.manifest, &segments, &key, &*self.random);
        Ok(Assembled {
            row,
            manifest,
            checksum,
        })
    }

    /// Puts the object in the place of the upload and its parts.
    #[allow(
        clippy::too_many_arguments,
        reason = "what was assembled, and from what"
    )]
    async fn commit_complete(
        &self,
        bucket: &BucketName,
        object: &ObjectKey,
        upload: &OpenUpload,
        named: &[NamedPart],
        stored: &[StoredPart],
        made: &Assembled,
        options: &CompleteOptions,
        request_hash: [u8; 32],
    ) -> Result<()> {
        let completed = CompletedRow {
            completed: self.clock.now(),
            bucket: bucket.as_str().to_owned(),
            object: object.as_str().to_owned(),
            request_hash,
            version: made.row.version,
        };
        let new = NewObject {
            row: made.row.clone(),
            inline: Some(made.manifest.encode().into()),
            pending: None,
        };
        let upload_key = keys::upload(bucket, object, upload.id);
        self.commit_object(bucket, object, new, &options.condition, |batch| {
            batch
                .check(upload_key.clone(), Some(upload.bytes.clone()))
                .delete(upload_key.clone())
                .put(keys::completed(upload.id), completed.encode());
            for (number, bytes, part) in stored {
                let part_key = keys::part(upload.id, *number);
                batch
                    .check(part_key.clone(), Some(bytes.clone()))
                    .delete(part_key);
                // The list is in order of part numbers; parts it leaves out are dropped.
                if named
                    .binary_search_by_key(number, |named| named.number)
                    .is_err()
                {
                    for (blob, inline) in &part.blobs {
                        batch.release(*blob, BlobKind::of(*inline));
                    }
                }
            }
        })
        .await
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
        && !checksums.agree(stated, joined)
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
