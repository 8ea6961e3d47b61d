//! Rows of multipart uploads, of their results, and of epochs.

use moat_crypto::{WRAPPED_DEK_BYTES, WrappedDek};
use moat_types::{BlobId, KeyName, KeyVersion, UnixMillis, VersionId};

use super::codec::{Damaged, Decoder, Encoder};
use super::object::Envelope;

const FORMAT: u8 = 1;

/// A multipart upload in progress. The ids of the object that it will become are drawn when it
/// begins, so that the DEK is wrapped once, for its final place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UploadRow {
    pub(crate) initiated: UnixMillis,
    /// As `Entry::checksum_kind`; 0 if the client named no algorithm.
    pub(crate) checksum_kind: u8,
    pub(crate) storage_class: String,
    pub(crate) version: VersionId,
    pub(crate) manifest: BlobId,
    pub(crate) envelope: Envelope,
    /// Under SSE-C: the attributes key, wrapped by an epoch key of the store, so that Complete
    /// can seal the result without the customer's key.
    pub(crate) held: Option<(KeyName, [u8; 16], WrappedDek)>,
    /// Attributes for the object, sealed with its attributes key.
    pub(crate) sealed_attributes: Vec<u8>,
}

impl UploadRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(256 + self.sealed_attributes.len());
        out.u8(FORMAT)
            .number(self.initiated.0.max(0) as u64)
            .u8(self.checksum_kind)
            .text(&self.storage_class)
            .fixed(self.version.as_bytes())
            .fixed(self.manifest.as_bytes());
        self.envelope.encode(&mut out);
        match &self.held {
            None => out.u8(0),
            Some((key, epoch, wrapped)) => {
                out.u8(1).text(key.as_str()).fixed(epoch).fixed(&wrapped.0)
            }
        };
        out.bytes(&self.sealed_attributes);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        const WHAT: &str = "upload row";
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let initiated = from.number()?;
        let initiated = UnixMillis(from.parsed(i64::try_from(initiated).ok())?);
        let checksum_kind = from.u8()?;
        let storage_class = from.text()?.to_owned();
        let version = VersionId::from_bytes(from.fixed()?);
        let manifest = BlobId::from_bytes(from.fixed()?);
        let envelope = Envelope::decode(&mut from)?;
        let held = match from.u8()? {
            0 => None,
            _ => {
                let name = from.text()?;
                Some((
                    from.parsed(KeyName::parse(name).ok())?,
                    from.fixed()?,
                    WrappedDek(from.fixed::<WRAPPED_DEK_BYTES>()?),
                ))
            }
        };
        let sealed_attributes = from.bytes()?.to_vec();
        from.end()?;
        Ok(Self {
            initiated,
            checksum_kind,
            storage_class,
            version,
            manifest,
            envelope,
            held,
            sealed_attributes,
        })
    }
}

/// What a completed upload became: a repeated Complete gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompletedRow {
    pub(crate) completed: UnixMillis,
    pub(crate) bucket: String,
    pub(crate) object: String,
    /// SHA-256 of the list of parts that was asked for.
    pub(crate) request_hash: [u8; 32],
    /// The version that it became: the answer is taken from the object while it is still there.
    pub(crate) version: VersionId,
}

impl CompletedRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(FORMAT)
            .number(self.completed.0.max(0) as u64)
            .text(&self.bucket)
            .text(&self.object)
            .fixed(&self.request_hash)
            .fixed(self.version.as_bytes());
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        const WHAT: &str = "completed upload row";
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let completed = from.number()?;
        let row = Self {
            completed: UnixMillis(from.parsed(i64::try_from(completed).ok())?),
            bucket: from.text()?.to_owned(),
            object: from.text()?.to_owned(),
            request_hash: from.fixed()?,
            version: VersionId::from_bytes(from.fixed()?),
        };
        from.end()?;
        Ok(row)
    }
}

/// A wrapped epoch key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EpochRow {
    pub(crate) created: UnixMillis,
    pub(crate) key: KeyName,
    pub(crate) version: KeyVersion,
    /// Opaque to the store.
    pub(crate) wrapped: Vec<u8>,
}

impl EpochRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(FORMAT)
            .number(self.created.0.max(0) as u64)
            .text(self.key.as_str())
            .number(self.version.number().into())
            .bytes(&self.wrapped);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        const WHAT: &str = "epoch row";
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let created = from.number()?;
        let created = UnixMillis(from.parsed(i64::try_from(created).ok())?);
        let name = from.text()?;
        let key = from.parsed(KeyName::parse(name).ok())?;
        let version = from.number()?;
        let version = from.parsed(u32::try_from(version).ok().and_then(KeyVersion::new))?;
        let wrapped = from.bytes()?.to_vec();
        from.end()?;
        Ok(Self {
            created,
            key,
            version,
            wrapped,
        })
    }
}
