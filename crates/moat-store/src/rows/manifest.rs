//! A manifest: the segments that an object or part is made of, for those that are not one blob.
//!
//! The clear half names the blobs, so that the collector can drop references without any key.
//! The sealed half says how they are put together. It is sealed with the attributes key of the
//! object's DEK; each segment's DEK is wrapped by that DEK, so the manifest alone opens no content.
//! A copy shares the manifest: its reference count stands for all of its blobs.

use moat_crypto::{AttributesKey, WRAPPED_DEK_BYTES, WrappedDek};
use moat_types::{BlobId, Random};

use super::codec::{Damaged, Decoder, Encoder};

const FORMAT: u8 = 1;

/// Some bytes of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The part that it belongs to, counted from 1.
    pub(crate) part: u16,
    pub(crate) blob: BlobId,
    pub(crate) inline: bool,
    /// Plaintext bytes of the whole blob: where its last chunk is depends on it.
    pub(crate) blob_bytes: u64,
    /// First byte of the blob that belongs to the object.
    pub(crate) offset: u64,
    /// Number of bytes that belong to the object.
    pub(crate) length: u64,
    /// The blob's DEK, wrapped by the object's DEK.
    pub(crate) wrapped: WrappedDek,
}

/// The row in table `I`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestRow {
    /// Every blob referenced, once for each segment.
    pub(crate) blobs: Vec<(BlobId, bool)>,
    pub(crate) sealed: Vec<u8>,
}

impl ManifestRow {
    pub(crate) fn seal(
        id: BlobId,
        segments: &[Segment],
        key: &AttributesKey,
        random: &dyn Random,
    ) -> Self {
        let mut plain = Encoder::with_capacity(segments.len() * 110);
        plain.u8(FORMAT);
        encode_segments(&mut plain, segments);
        Self {
            blobs: segments
                .iter()
                .map(|segment| (segment.blob, segment.inline))
                .collect(),
            sealed: key.seal(&plain.finish(), &associated(id), random),
        }
    }

    /// Opens the sealed half. `Err(None)` if it does not open under this key.
    pub(crate) fn open(
        &self,
        id: BlobId,
        key: &AttributesKey,
    ) -> Result<Vec<Segment>, Option<Damaged>> {
        let plain = key.open(&self.sealed, &associated(id)).map_err(|_| None)?;
        Self::decode_plain(&plain).map_err(Some)
    }

    fn decode_plain(plain: &[u8]) -> Result<Vec<Segment>, Damaged> {
        let mut from = Decoder::new(plain, "sealed manifest");
        if from.u8()? != FORMAT {
            return Err(Damaged("sealed manifest"));
        }
        let segments = decode_segments(&mut from)?;
        from.end()?;
        Ok(segments)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(self.blobs.len() * 17 + self.sealed.len() + 16);
        out.u8(FORMAT).number(self.blobs.len() as u64);
        for (blob, inline) in &self.blobs {
            out.fixed(blob.as_bytes()).u8((*inline).into());
        }
        out.bytes(&self.sealed);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut from = Decoder::new(row, "manifest row");
        if from.u8()? != FORMAT {
            return Err(Damaged("manifest row"));
        }
        let count = from.number()?;
        let blobs = (0..count)
            .map(|_| Ok((BlobId::from_bytes(from.fixed()?), from.u8()? != 0)))
            .collect::<Result<_, Damaged>>()?;
        let sealed = from.bytes()?.to_vec();
        from.end()?;
        Ok(Self { blobs, sealed })
    }
}

pub(super) fn encode_segments(out: &mut Encoder, segments: &[Segment]) {
    out.number(segments.len() as u64);
    for segment in segments {
        out.number(segment.part.into())
            .fixed(segment.blob.as_bytes())
            .u8(segment.inline.into())
            .number(segment.blob_bytes)
            .number(segment.offset)
            .number(segment.length)
            .fixed(&segment.wrapped.0);
    }
}

pub(super) fn decode_segments(from: &mut Decoder<'_>) -> Result<Vec<Segment>, Damaged> {
    let count = from.number()?;
    (0..count)
        .map(|_| {
            let part = from.number()?;
            Ok(Segment {
                part: from.parsed(u16::try_from(part).ok())?,
                blob: BlobId::from_bytes(from.fixed()?),
                inline: from.u8()? != 0,
                blob_bytes: from.number()?,
                offset: from.number()?,
                length: from.number()?,
                wrapped: WrappedDek(from.fixed::<WRAPPED_DEK_BYTES>()?),
            })
        })
        .collect()
}

fn associated(id: BlobId) -> Vec<u8> {
    let mut out = b"moat manifest v1\0".to_vec();
    out.extend_from_slice(id.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use moat_crypto::Dek;
    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn a_manifest_reads_back_and_is_bound_to_its_id_and_key() {
        let key = Dek::random(&SystemRandom).attributes_key();
        let segments: Vec<Segment> = (1..=3)
            .map(|part| Segment {
                part,
                blob: BlobId::from_bytes([part as u8; 16]),
                inline: part == 2,
                blob_bytes: 100,
                offset: 5,
                length: 50,
                wrapped: WrappedDek([part as u8; WRAPPED_DEK_BYTES]),
            })
            .collect();
        let (id, other) = (BlobId::from_bytes([7; 16]), BlobId::from_bytes([8; 16]));
        let row = ManifestRow::seal(id, &segments, &key, &SystemRandom);
        let row = ManifestRow::decode(&row.encode()).expect("its own encoding");
        assert_eq!(row.open(id, &key), Ok(segments));
        assert_eq!(row.open(other, &key), Err(None));
        let other_key = Dek::random(&SystemRandom).attributes_key();
        assert_eq!(row.open(id, &other_key), Err(None));
    }
}
