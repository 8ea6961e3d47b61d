//! Runs one checksum algorithm over a stream.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use crc_fast::{CrcAlgorithm, Digest as CrcDigest};

use super::{ChecksumAlgorithm, ChecksumValue};

/// A running checksum.
#[derive(Clone)]
pub struct ChecksumHasher {
    algorithm: ChecksumAlgorithm,
    state: State,
}

#[derive(Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "one lives per request, and a box would cost an allocation on each"
)]
enum State {
    Crc(CrcDigest),
    Sha(Context),
}

impl ChecksumHasher {
    /// A checksum of nothing yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        let state = match (crc_of(algorithm), algorithm) {
            (Some(crc), _) => State::Crc(CrcDigest::new(crc)),
            (None, ChecksumAlgorithm::Sha1) => State::Sha(Context::new(&SHA1_FOR_LEGACY_USE_ONLY)),
            (None, _) => State::Sha(Context::new(&SHA256)),
        };
        Self { algorithm, state }
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// Takes the next bytes.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.state {
            State::Crc(digest) => digest.update(data),
            State::Sha(context) => context.update(data),
        }
    }

    /// The checksum of all bytes.
    pub fn finish(self) -> ChecksumValue {
        match self.state {
            State::Crc(digest) => ChecksumValue::of_crc(self.algorithm, digest.finalize()),
            State::Sha(context) => ChecksumValue::new(self.algorithm, context.finish().as_ref())
                .expect("the digest has the algorithm's length"),
        }
    }

    /// The checksum of `data`.
    pub fn digest(algorithm: ChecksumAlgorithm, data: &[u8]) -> ChecksumValue {
        let mut hasher = Self::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }
}

impl std::fmt::Debug for ChecksumHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ChecksumHasher({})", self.algorithm.name())
    }
}

/// The CRC of an algorithm; `None` for the SHAs.
pub(super) const fn crc_of(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(algorithm: ChecksumAlgorithm, expected_hex: &str) {
        let value = ChecksumHasher::digest(algorithm, b"123456789");
        assert_eq!(hex::encode(value.as_bytes()), expected_hex, "{algorithm:?}");
        let mut split = ChecksumHasher::new(algorithm);
        for piece in [&b"12"[..], b"", b"3456789"] {
            split.update(piece);
        }
        assert_eq!(split.finish(), value);
    }

    #[test]
    fn check_values_of_the_crc_catalogue_and_fips_180() {
        check(ChecksumAlgorithm::Crc32, "cbf43926");
        check(ChecksumAlgorithm::Crc32c, "e3069283");
        check(ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888");
        check(
            ChecksumAlgorithm::Sha1,
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
        );
        check(
            ChecksumAlgorithm::Sha256,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        );
    }
}
