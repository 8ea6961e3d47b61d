//! The row of an object (and, in the same form, of a part): what LIST needs in the clear, the
//! envelope, where the bytes are, and the sealed attributes.

use moat_crypto::{WRAPPED_DEK_BYTES, WrappedDek};
use moat_s3::request::ObjectFacts;
use moat_types::{BlobId, EpochId, KeyName, UnixMillis, VersionId};

use super::codec::{Damaged, Decoder, Encoder};

const FORMAT: u8 = 1;
const WHAT: &str = "object row";

/// What LIST answers with. In the clear, and sealed once more among the attributes: the two are
/// compared whenever the object is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Plaintext bytes.
    pub(crate) size: u64,
    pub(crate) modified: UnixMillis,
    /// Without quotes.
    pub(crate) etag: String,
    /// Checksum algorithm and type as `moat_s3` numbers them, 0 for none.
    pub(crate) checksum_kind: u8,
    pub(crate) storage_class: String,
}

/// An [`Entry`] still in its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListedObject<'a> {
    pub(crate) size: u64,
    pub(crate) modified: UnixMillis,
    pub(crate) etag: &'a str,
    pub(crate) checksum_kind: u8,
    /// Empty for `STANDARD`.
    pub(crate) storage_class: &'a str,
    pub(crate) version: VersionId,
}

/// How an object is encrypted, as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// SSE-S3: the store's own KMS key.
    S3,
    /// SSE-KMS. `named` is the key id as the client or the bucket's rule wrote it.
    Kms { named: String },
    /// SSE-C.
    Customer { key_md5: String },
}

/// How the object's DEK is wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) scheme: Scheme,
    /// The KMS key and epoch that wrap the DEK; `None` under SSE-C.
    pub(crate) epoch: Option<(KeyName, EpochId)>,
    pub(crate) wrapped: WrappedDek,
    /// The client's encryption context, sealed under the epoch key; empty for none.
    pub(crate) sealed_context: Vec<u8>,
}

/// Where the sealed bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    /// No bytes.
    Empty,
    /// One blob; `inline` for one that lives in table `I`.
    Blob { id: BlobId, inline: bool },
    /// A list of segments in table `I`.
    Manifest { id: BlobId },
}

impl Body {
    /// The id that the DEK's place names.
    pub(crate) const fn id(self) -> BlobId {
        match self {
            Self::Empty => BlobId::from_bytes([0; 16]),
            Self::Blob { id, .. } | Self::Manifest { id } => id,
        }
    }
}

/// The row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectRow {
    pub(crate) entry: Entry,
    pub(crate) version: VersionId,
    pub(crate) envelope: Envelope,
    pub(crate) body: Body,
    pub(crate) sealed_attributes: Vec<u8>,
}

impl ObjectRow {
    /// What conditional headers are judged by.
    pub(crate) fn facts(&self) -> ObjectFacts<'_> {
        ObjectFacts {
            etag: &self.entry.etag,
            last_modified: self.entry.modified,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(256 + self.sealed_attributes.len());
        out.u8(FORMAT);
        self.entry.encode(&mut out);
        out.fixed(self.version.as_bytes());
        self.envelope.encode(&mut out);
        match self.body {
            Body::Empty => out.u8(0),
            Body::Blob { id, inline } => out.u8(if inline { 1 } else { 2 }).fixed(id.as_bytes()),
            Body::Manifest { id } => out.u8(3).fixed(id.as_bytes()),
        };
        out.bytes(&self.sealed_attributes);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut from = Decoder::new(row, WHAT);
        let listed = ListedObject::decode_from(&mut from)?;
        let envelope = Envelope::decode(&mut from)?;
        let body = match from.u8()? {
            0 => Body::Empty,
            kind @ 1..=2 => Body::Blob {
                id: BlobId::from_bytes(from.fixed()?),
                inline: kind == 1,
            },
            3 => Body::Manifest {
                id: BlobId::from_bytes(from.fixed()?),
            },
            _ => return Err(Damaged(WHAT)),
        };
        let sealed_attributes = from.bytes()?.to_vec();
        from.end()?;
        let entry = Entry {
            size: listed.size,
            modified: listed.modified,
            etag: listed.etag.to_owned(),
            checksum_kind: listed.checksum_kind,
            storage_class: listed.storage_class.to_owned(),
        };
        Ok(Self {
            entry,
            version: listed.version,
            envelope,
            body,
            sealed_attributes,
        })
    }
}

impl<'a> ListedObject<'a> {
    /// Reads the head of an object row and leaves the rest alone.
    pub(crate) fn decode(row: &'a [u8]) -> Result<Self, Damaged> {
        Self::decode_from(&mut Decoder::new(row, WHAT))
    }

    fn decode_from(from: &mut Decoder<'a>) -> Result<Self, Damaged> {
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let size = from.number()?;
        let modified = from.number()?;
        let modified = UnixMillis(from.parsed(i64::try_from(modified).ok())?);
        Ok(Self {
            size,
            modified,
            etag: from.text()?,
            checksum_kind: from.u8()?,
            storage_class: from.text()?,
            version: VersionId::from_bytes(from.fixed()?),
        })
    }
}

/// The size of an object and the name of the KMS key that it is sealed under, if it is under one,
/// read from its row without decoding the rest.
pub(crate) fn sealed_under(row: &[u8]) -> Result<(u64, Option<&str>), Damaged> {
    let mut from = Decoder::new(row, WHAT);
    let listed = ListedObject::decode_from(&mut from)?;
    let key = match from.u8()? {
        0 => Some(from.text()?),
        1 => {
            // What the client called it; the name stands behind.
            from.text()?;
            Some(from.text()?)
        }
        2 => None,
        _ => return Err(Damaged("envelope")),
    };
    Ok((listed.size, key))
}

impl Entry {
    pub(super) fn encode(&self, out: &mut Encoder) {
        // Clocks before 1970 are refused at start, so the time is never negative.
        out.number(self.size)
            .number(self.modified.0.max(0) as u64)
            .text(&self.etag)
            .u8(self.checksum_kind)
            .text(&self.storage_class);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let size = from.number()?;
        let modified = from.number()?;
        Ok(Self {
            size,
            modified: UnixMillis(from.parsed(i64::try_from(modified).ok())?),
            etag: from.text()?.to_owned(),
            checksum_kind: from.u8()?,
            storage_class: from.text()?.to_owned(),
        })
    }
}

impl Envelope {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        match &self.scheme {
            Scheme::S3 => out.u8(0),
            Scheme::Kms { named } => out.u8(1).text(named),
            Scheme::Customer { key_md5 } => out.u8(2).text(key_md5),
        };
        if let Some((key, epoch)) = &self.epoch {
            out.text(key.as_str()).fixed(epoch.as_bytes());
        }
        out.fixed(&self.wrapped.0).bytes(&self.sealed_context);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let scheme = match from.u8()? {
            0 => Scheme::S3,
            1 => Scheme::Kms {
                named: from.text()?.to_owned(),
            },
            2 => Scheme::Customer {
                key_md5: from.text()?.to_owned(),
            },
            _ => return Err(Damaged("envelope")),
        };
        let epoch = if let Scheme::Customer { .. } = scheme {
            None
        } else {
            let name = from.text()?;
            Some((
                from.parsed(KeyName::parse(name).ok())?,
                EpochId::from_bytes(from.fixed()?),
            ))
        };
        let wrapped = WrappedDek(from.fixed::<WRAPPED_DEK_BYTES>()?);
        Ok(Self {
            scheme,
            epoch,
            wrapped,
            sealed_context: from.bytes()?.to_vec(),
        })
    }
}

/// A checksum as the client gave it or as it was computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    /// As in [`Entry::checksum_kind`].
    pub(crate) kind: u8,
    /// Base64, with `-N` where it is a checksum of checksums.
    pub(crate) value: String,
}

/// What is sealed with the object's DEK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes {
    /// Content-Type, Content-Encoding, Cache-Control and the like, by lower-case name.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// User metadata: names without `x-amz-meta-`, in lower case.
    pub(crate) metadata: Vec<(String, Vec<u8>)>,
    pub(crate) checksum: Option<Checksum>,
    /// Number of parts; 0 for an object that was put whole.
    pub(crate) parts: u16,
}

impl Attributes {
    /// The sealed form repeats `entry`, so that what LIST shows can be checked.
    pub(crate) fn encode(&self, entry: &Entry) -> Vec<u8> {
        let mut out = Encoder::with_capacity(128);
        out.u8(FORMAT);
        entry.encode(&mut out);
        for pairs in [&self.headers, &self.metadata] {
            out.number(pairs.len() as u64);
            for (name, value) in pairs {
                out.text(name).bytes(value);
            }
        }
        match &self.checksum {
            None => out.u8(0),
            Some(checksum) => out.u8(checksum.kind).text(&checksum.value),
        };
        out.number(self.parts.into());
        out.finish()
    }

    /// Decodes the sealed form; a clear `entry` that differs from the sealed one is damage.
    pub(crate) fn decode(plain: &[u8], entry: &Entry) -> Result<Self, Damaged> {
        const WHAT: &str = "sealed attributes";
        let mut from = Decoder::new(plain, WHAT);
        let mut expected = Encoder::default();
        expected.u8(FORMAT);
        entry.encode(&mut expected);
        let expected = expected.finish();
        if from.slice(expected.len())? != expected {
            return Err(Damaged("object row: not what its sealed attributes say"));
        }
        let mut pairs = || -> Result<Vec<(String, Vec<u8>)>, Damaged> {
            let count = from.number()?;
            (0..count)
                .map(|_| Ok((from.text()?.to_owned(), from.bytes()?.to_vec())))
                .collect()
        };
        let (headers, metadata) = (pairs()?, pairs()?);
        let checksum = match from.u8()? {
            0 => None,
            kind => Some(Checksum {
                kind,
                value: from.text()?.to_owned(),
            }),
        };
        let parts = from.number()?;
        let parts = from.parsed(u16::try_from(parts).ok())?;
        from.end()?;
        Ok(Self {
            headers,
            metadata,
            checksum,
            parts,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(scheme: Scheme, body: Body) -> ObjectRow {
        let customer = matches!(scheme, Scheme::Customer { .. });
        ObjectRow {
            entry: Entry {
                size: 1 << 40,
                modified: UnixMillis(1_764_000_000_123),
                etag: "d41d8cd98f00b204e9800998ecf8427e-1".into(),
                checksum_kind: 3,
                storage_class: String::new(),
            },
            version: VersionId::from_bytes([1; 16]),
            envelope: Envelope {
                scheme,
                epoch: (!customer).then(|| {
                    (
                        KeyName::parse("key").expect("a name"),
                        EpochId::from_bytes([2; 16]),
                    )
                }),
                wrapped: WrappedDek([3; WRAPPED_DEK_BYTES]),
                sealed_context: vec![4; 5],
            },
            body,
            sealed_attributes: vec![5; 77],
        }
    }

    #[test]
    fn rows_of_every_kind_read_back() {
        let schemes = [
            Scheme::S3,
            Scheme::Kms {
                named: "arn:aws:kms:key".into(),
            },
            Scheme::Customer {
                key_md5: "bWQ1".into(),
            },
        ];
        let id = BlobId::from_bytes([9; 16]);
        let bodies = [
            Body::Empty,
            Body::Blob { id, inline: true },
            Body::Blob { id, inline: false },
            Body::Manifest { id },
        ];
        for scheme in schemes {
            for body in bodies {
                let row = row(scheme.clone(), body);
                assert_eq!(ObjectRow::decode(&row.encode()), Ok(row.clone()));
                let bytes = row.encode();
                let listed = ListedObject::decode(&bytes).expect("a good row");
                assert_eq!(
                    (listed.size, listed.etag),
                    (row.entry.size, row.entry.etag.as_str())
                );
            }
        }
    }

    #[test]
    fn attributes_refuse_an_entry_that_was_forged() {
        let entry = row(Scheme::S3, Body::Empty).entry;
        let attributes = Attributes {
            headers: vec![("content-type".into(), b"text/plain".to_vec())],
            metadata: vec![("a".into(), vec![0xFF, 0])],
            checksum: Some(Checksum {
                kind: 1,
                value: "AAAA".into(),
            }),
            parts: 3,
        };
        let sealed = attributes.encode(&entry);
        assert_eq!(Attributes::decode(&sealed, &entry), Ok(attributes));
        for forged in [
            Entry {
                size: 1,
                ..entry.clone()
            },
            Entry {
                modified: UnixMillis(0),
                ..entry.clone()
            },
            Entry {
                etag: "x".into(),
                ..entry.clone()
            },
            Entry {
                checksum_kind: 0,
                ..entry.clone()
            },
        ] {
            assert!(Attributes::decode(&sealed, &forged).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = ObjectRow::decode(&bytes);
            let _ = ListedObject::decode(&bytes);
        }
    }
}
