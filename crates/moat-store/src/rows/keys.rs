//! The keys of rows. One letter for the table, then the parts in an order that makes every
//! listing a range scan. See the table in `rows/mod.rs`.

use std::ops::Range;

use bytes::Bytes;
use moat_meta::prefix_end;
use moat_types::{BlobId, BucketName, EpochId, KeyName, ObjectKey, PartNumber, UploadId};

fn join(table: u8, parts: &[&[u8]]) -> Bytes {
    let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    Bytes::from(key)
}

/// Bucket names hold no zero byte, so zero ends them; what follows may hold anything.
const END: &[u8] = &[0];

pub(crate) fn bucket(bucket: &BucketName) -> Bytes {
    join(b'B', &[bucket.as_str().as_bytes()])
}

pub(crate) fn buckets() -> Range<Bytes> {
    Bytes::from_static(b"B")..Bytes::from_static(b"C")
}

/// The current row of an object: its key is the tail, so rows stand in S3's listing order.
pub(crate) fn object(bucket: &BucketName, object: &ObjectKey) -> Bytes {
    join(
        b'O',
        &[bucket.as_str().as_bytes(), END, object.as_str().as_bytes()],
    )
}

/// What stands before the object key in the rows of a bucket.
pub(crate) fn object_prefix(bucket: &BucketName) -> Bytes {
    join(b'O', &[bucket.as_str().as_bytes(), END])
}

/// The current rows of all objects.
pub(crate) fn objects() -> Range<Bytes> {
    Bytes::from_static(b"O")..Bytes::from_static(b"P")
}

/// The bucket of an object's row.
pub(crate) fn bucket_of_object(row: &[u8]) -> Option<&[u8]> {
    let rest = row.strip_prefix(b"O")?;
    rest.split(|byte| *byte == END[0]).next()
}

pub(crate) fn inline_blob(id: BlobId) -> Bytes {
    join(b'I', &[id.as_bytes()])
}

pub(crate) fn references(id: BlobId) -> Bytes {
    join(b'R', &[id.as_bytes()])
}

pub(crate) fn tombstone(id: BlobId) -> Bytes {
    join(b'T', &[id.as_bytes()])
}

pub(crate) fn tombstones() -> Range<Bytes> {
    Bytes::from_static(b"T")..Bytes::from_static(b"U")
}

/// An upload: key order first, then the upload's id. The object key is followed by two zero
/// bytes, a zero inside it is written as `00 01`, so that order is kept and the end is certain.
pub(crate) fn upload(bucket: &BucketName, object: &ObjectKey, id: UploadId) -> Bytes {
    join(
        b'U',
        &[
            bucket.as_str().as_bytes(),
            END,
            &escaped(object.as_str()),
            &[0, 0],
            id.as_bytes(),
        ],
    )
}

pub(crate) fn upload_prefix(bucket: &BucketName) -> Bytes {
    join(b'U', &[bucket.as_str().as_bytes(), END])
}

/// The first possible upload row of keys that are not below `object_key`.
pub(crate) fn uploads_from(bucket: &BucketName, object_key: &str) -> Bytes {
    join(
        b'U',
        &[bucket.as_str().as_bytes(), END, &escaped(object_key)],
    )
}

/// Object key and upload id out of an upload row's key.
pub(crate) fn parse_upload(row: &[u8], prefix: &[u8]) -> Option<(String, UploadId)> {
    let rest = row.strip_prefix(prefix)?;
    let (escaped_key, id) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
    let escaped_key = escaped_key.strip_suffix(&[0, 0])?;
    let mut key = Vec::with_capacity(escaped_key.len());
    let mut bytes = escaped_key.iter();
    while let Some(&byte) = bytes.next() {
        if byte == 0 && bytes.next() != Some(&1) {
            return None;
        }
        key.push(byte);
    }
    Some((
        String::from_utf8(key).ok()?,
        UploadId::from_bytes(id.try_into().ok()?),
    ))
}

fn escaped(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text.as_bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(1);
        }
    }
    out
}

pub(crate) fn part(id: UploadId, number: PartNumber) -> Bytes {
    join(b'P', &[id.as_bytes(), &number.number().to_be_bytes()])
}

pub(crate) fn parts(id: UploadId) -> Range<Bytes> {
    let prefix = join(b'P', &[id.as_bytes()]);
    let end = prefix_end(&prefix);
    prefix..end
}

pub(crate) fn parse_part(row: &[u8]) -> Option<PartNumber> {
    let number: [u8; 2] = row.get(17..)?.try_into().ok()?;
    PartNumber::new(u16::from_be_bytes(number).into())
}

pub(crate) fn epoch(bucket: &BucketName, id: EpochId) -> Bytes {
    join(b'E', &[bucket.as_str().as_bytes(), END, id.as_bytes()])
}

/// What stands before the rows of all epochs.
pub(crate) fn all_epochs() -> Bytes {
    Bytes::from_static(b"E")
}

/// The bucket and id of an epoch's row.
pub(crate) fn parse_epoch(row: &[u8]) -> Option<(BucketName, EpochId)> {
    let (bucket, id) = row.strip_prefix(b"E")?.split_last_chunk::<16>()?;
    let bucket = std::str::from_utf8(bucket.strip_suffix(END)?).ok()?;
    Some((BucketName::parse(bucket).ok()?, EpochId::from_bytes(*id)))
}

/// The row that names the epoch in which new objects of (bucket, KMS key) are sealed.
pub(crate) fn current_epoch(bucket: &BucketName, key: &KeyName) -> Bytes {
    join(
        b'C',
        &[bucket.as_str().as_bytes(), END, key.as_str().as_bytes()],
    )
}

/// What stands before the rows of a bucket's epochs, in both tables.
pub(crate) fn epoch_prefixes(bucket: &BucketName) -> [Bytes; 2] {
    [b'E', b'C'].map(|table| join(table, &[bucket.as_str().as_bytes(), END]))
}

/// A completed upload, kept for some time so that a repeated Complete gets the same answer.
pub(crate) fn completed(id: UploadId) -> Bytes {
    join(b'D', &[id.as_bytes()])
}

pub(crate) fn all_completed() -> Range<Bytes> {
    Bytes::from_static(b"D")..Bytes::from_static(b"E")
}

/// The format of the whole database.
pub(crate) fn format() -> Bytes {
    Bytes::from_static(b"Sformat")
}

/// The id of the lake.
pub(crate) fn lake() -> Bytes {
    Bytes::from_static(b"Slake")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket_name() -> BucketName {
        BucketName::parse("bucket").expect("a good name")
    }

    #[test]
    fn upload_rows_keep_key_order_and_parse_back() {
        let keys = ["a", "a\0", "a\0b", "a\u{1}", "ab", "b"];
        let id = UploadId::from_bytes([0xFF; 16]);
        let prefix = upload_prefix(&bucket_name());
        let rows: Vec<_> = keys
            .iter()
            .map(|key| upload(&bucket_name(), &ObjectKey::parse(key).expect("a key"), id))
            .collect();
        assert!(rows.is_sorted());
        for (row, key) in rows.iter().zip(keys) {
            assert_eq!(parse_upload(row, &prefix), Some(((*key).to_owned(), id)));
        }
    }

    #[test]
    fn part_numbers_parse_back_in_order() {
        let id = UploadId::from_bytes([3; 16]);
        let number = PartNumber::new(10_000).expect("a part number");
        assert_eq!(parse_part(&part(id, number)), Some(number));
        assert!(parts(id).contains(&part(id, number)));
    }
}
