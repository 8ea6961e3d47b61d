//! Where a wrapped DEK belongs. The wrap is bound to its place, so ciphertext that is moved,
//! swapped or given to another version does not open.

use moat_types::{BlobId, BucketName, EnclaveName, EpochId, KeyName, ObjectKey, VersionId};

/// What the DEK is wrapped under.
#[derive(Debug, Clone, Copy)]
pub enum Wrapping<'a> {
    /// An epoch key of a KMS key (SSE-S3 and SSE-KMS).
    ///
    /// The key's version is left out on purpose: the epoch's own row names it, and a rewrap
    /// under a newer version must not touch every object (`docs/design/0001-envelope.md`).
    Epoch {
        /// The enclave of the KMS key.
        enclave: &'a EnclaveName,
        /// The KMS key.
        key: &'a KeyName,
        /// The epoch.
        epoch: EpochId,
    },
    /// A customer's key (SSE-C).
    Customer,
}

/// The place of one wrapped DEK.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// What wraps it.
    pub wrapping: Wrapping<'a>,
    /// The bucket.
    pub bucket: &'a BucketName,
    /// The object.
    pub object: &'a ObjectKey,
    /// The write of the object; for a part, the upload's id.
    pub version: VersionId,
    /// 0 for an object, else the part number.
    pub part: u16,
    /// The blob that the DEK seals.
    pub blob: BlobId,
    /// The client's encryption context as it was sent (canonical JSON), empty if none.
    pub context: &'a [u8],
}

impl Place<'_> {
    /// The associated data: a label, then each field with its length as a 32-bit big-endian
    /// number in front where it can vary.
    pub fn associated_data(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self.wrapping {
            Wrapping::Epoch {
                enclave,
                key,
                epoch,
            } => {
                out.extend_from_slice(b"moat dek v1 epoch\0");
                field(&mut out, enclave.as_str().as_bytes());
                field(&mut out, key.as_str().as_bytes());
                out.extend_from_slice(epoch.as_bytes());
            }
            Wrapping::Customer => out.extend_from_slice(b"moat dek v1 customer\0"),
        }
        field(&mut out, self.bucket.as_str().as_bytes());
        field(&mut out, self.object.as_str().as_bytes());
        out.extend_from_slice(self.version.as_bytes());
        out.extend_from_slice(&self.part.to_be_bytes());
        out.extend_from_slice(self.blob.as_bytes());
        field(&mut out, self.context);
        out
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    // Names are at most 1 KiB and contexts at most 8 KiB, so the length always fits.
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}
