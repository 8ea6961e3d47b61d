//! The payload digests that S3 knows: additional checksums, `Content-MD5`, payload SHA-256.

mod combine;
mod digest;
mod hasher;
mod request;
mod value;

pub use combine::{composite_of_parts, full_object_of_parts};
pub use digest::{Digested, PayloadDigest};
pub use hasher::ChecksumHasher;
pub use request::{ChecksumRequest, Expected};
pub use value::ChecksumValue;

/// An additional checksum algorithm.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), as in zip and gzip.
    Crc32,
    /// CRC-32C (Castagnoli), as in iSCSI.
    Crc32c,
    /// CRC-64/NVME: what the newest SDKs and S3 itself choose.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// How the checksum of a multipart object is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ChecksumType {
    /// Over all bytes of the object. CRCs only, as they can be combined from those of the parts.
    FullObject,
    /// Over the checksums of the parts; shown as `VALUE-PARTS`.
    Composite,
}

impl ChecksumAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// As in `x-amz-checksum-algorithm`: `CRC32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header of the value: `x-amz-checksum-crc32`.
    pub const fn header_name(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The XML element of the value: `ChecksumCRC32`.
    pub const fn element_name(self) -> &'static str {
        match self {
            Self::Crc32 => "ChecksumCRC32",
            Self::Crc32c => "ChecksumCRC32C",
            Self::Crc64Nvme => "ChecksumCRC64NVME",
            Self::Sha1 => "ChecksumSHA1",
            Self::Sha256 => "ChecksumSHA256",
        }
    }

    /// The length of the value in bytes.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Finds the algorithm of a [`ChecksumAlgorithm::name`] in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// Finds the algorithm of a [`ChecksumAlgorithm::header_name`] in lower case.
    pub fn from_header_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.header_name() == name)
    }

    /// Finds the algorithm of a [`ChecksumAlgorithm::element_name`].
    pub fn from_element_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.element_name() == name)
    }

    /// The type of a multipart checksum if the client names none.
    pub const fn default_type(self) -> ChecksumType {
        match self {
            Self::Crc64Nvme => ChecksumType::FullObject,
            _ => ChecksumType::Composite,
        }
    }

    /// Whether multipart objects can have a checksum of this algorithm and type: CRC-64 exists
    /// for full objects only, the SHAs for composites only.
    pub const fn supports(self, checksum_type: ChecksumType) -> bool {
        matches!(
            (self, checksum_type),
            (Self::Crc32 | Self::Crc32c, _)
                | (Self::Crc64Nvme, ChecksumType::FullObject)
                | (Self::Sha1 | Self::Sha256, ChecksumType::Composite)
        )
    }
}

impl ChecksumType {
    /// As in `x-amz-checksum-type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    /// Finds the type of a [`ChecksumType::name`] in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FullObject, Self::Composite]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for algorithm in ChecksumAlgorithm::ALL {
            let lower = algorithm.name().to_ascii_lowercase();
            assert_eq!(ChecksumAlgorithm::from_name(&lower), Some(algorithm));
            assert_eq!(
                ChecksumAlgorithm::from_header_name(algorithm.header_name()),
                Some(algorithm)
            );
            assert_eq!(
                ChecksumAlgorithm::from_element_name(algorithm.element_name()),
                Some(algorithm)
            );
            assert!(algorithm.supports(algorithm.default_type()));
        }
        assert_eq!(ChecksumAlgorithm::from_name("MD5"), None);
        assert_eq!(
            ChecksumType::from_name("full_object"),
            Some(ChecksumType::FullObject)
        );
        assert_eq!(ChecksumType::from_name(""), None);
    }
}
