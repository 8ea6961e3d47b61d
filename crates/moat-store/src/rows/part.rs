//! The row of an uploaded part.

use moat_crypto::AttributesKey;
use moat_types::{BlobId, PartNumber, Random, UploadId};

use super::codec::{Damaged, Decoder, Encoder};
use super::manifest::{Segment, decode_segments, encode_segments};
use super::object::{Checksum, Entry};

const FORMAT: u8 = 1;

/// A part. The entry and the names of its blobs stand in the clear, for ListParts and the
/// collector; the checksum and the segments are sealed with the attributes key of the upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartRow {
    pub(crate) entry: Entry,
    pub(crate) blobs: Vec<(BlobId, bool)>,
    sealed: Vec<u8>,
}

/// The sealed half of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartContent {
    pub(crate) checksum: Option<Checksum>,
    pub(crate) segments: Vec<Segment>,
}

impl PartRow {
    pub(crate) fn seal(
        upload: UploadId,
        number: PartNumber,
        entry: Entry,
        content: &PartContent,
        key: &AttributesKey,
        random: &dyn Random,
    ) -> Self {
        let mut plain = Encoder::with_capacity(content.segments.len() * 110 + 64);
        entry.encode(&mut plain);
        match &content.checksum {
            None => plain.u8(0),
            Some(checksum) => plain.u8(checksum.kind).text(&checksum.value),
        };
        encode_segments(&mut plain, &content.segments);
        let sealed = key.seal(&plain.finish(), &associated(upload, number), random);
        let blobs = content
            .segments
            .iter()
            .map(|segment| (segment.blob, segment.inline))
            .collect();
        Self {
            entry,
            blobs,
            sealed,
        }
    }

    /// Opens the sealed half.
    pub(crate) fn open(
        &self,
        upload: UploadId,
        number: PartNumber,
        key: &AttributesKey,
    ) -> Result<PartContent, Damaged> {
        const WHAT: &str = "sealed part";
        let plain = key
            .open(&self.sealed, &associated(upload, number))
            .map_err(|_| Damaged(WHAT))?;
        let mut expected = Encoder::default();
        self.entry.encode(&mut expected);
        let expected = expected.finish();
        let mut from = Decoder::new(&plain, WHAT);
        if from.slice(expected.len())? != expected {
            return Err(Damaged("part row: not what its sealed half says"));
        }
        let checksum = match from.u8()? {
            0 => None,
            kind => Some(Checksum {
                kind,
                value: from.text()?.to_owned(),
            }),
        };
        let segments = decode_segments(&mut from)?;
        from.end()?;
        Ok(PartContent { checksum, segments })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(128 + self.sealed.len());
        out.u8(FORMAT);
        self.entry.encode(&mut out);
        out.number(self.blobs.len() as u64);
        for (blob, inline) in &self.blobs {
            out.fixed(blob.as_bytes()).u8((*inline).into());
        }
        out.bytes(&self.sealed);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        const WHAT: &str = "part row";
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let entry = Entry::decode(&mut from)?;
        let count = from.number()?;
        let blobs = (0..count)
            .map(|_| Ok((BlobId::from_bytes(from.fixed()?), from.u8()? != 0)))
            .collect::<Result<_, Damaged>>()?;
        let sealed = from.bytes()?.to_vec();
        from.end()?;
        Ok(Self {
            entry,
            blobs,
            sealed,
        })
    }
}

fn associated(upload: UploadId, number: PartNumber) -> Vec<u8> {
    let mut out = b"moat part v1\0".to_vec();
    out.extend_from_slice(upload.as_bytes());
    out.extend_from_slice(&number.number().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use moat_crypto::{Dek, WRAPPED_DEK_BYTES, WrappedDek};
    use moat_types::{SystemRandom, UnixMillis};

    use super::*;

    #[test]
    fn a_part_reads_back_and_opens_only_as_itself() {
        let key = Dek::random(&SystemRandom).attributes_key();
        let number = |n| PartNumber::new(n).expect("a part number");
        let upload = UploadId::from_bytes([1; 16]);
        let entry = Entry {
            size: 5,
            modified: UnixMillis(7),
            etag: "e-1".into(),
            checksum_kind: 1,
            storage_class: String::new(),
        };
        let content = PartContent {
            checksum: Some(Checksum {
                kind: 1,
                value: "AAAA".into(),
            }),
            segments: vec![Segment {
                part: 1,
                blob: BlobId::from_bytes([2; 16]),
                inline: false,
                blob_bytes: 5,
                offset: 0,
                length: 5,
                wrapped: WrappedDek([3; WRAPPED_DEK_BYTES]),
            }],
        };
        let row = PartRow::seal(upload, number(1), entry, &content, &key, &SystemRandom);
        let row = PartRow::decode(&row.encode()).expect("its own encoding");
        assert_eq!(row.open(upload, number(1), &key), Ok(content));
        assert!(row.open(upload, number(2), &key).is_err());
        let mut forged = row;
        forged.entry.size = 6;
        assert!(forged.open(upload, number(1), &key).is_err());
    }
}
