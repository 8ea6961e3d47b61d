//! The checksum of a multipart object, from those of its parts and without its bytes.

use super::hasher::crc_of;
use super::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue};

/// `COMPOSITE`: the checksum over the values of the parts, in order. `None` if a part's value is
/// of another algorithm.
pub fn composite_of_parts<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = &'a ChecksumValue>,
) -> Option<ChecksumValue> {
    let mut hasher = ChecksumHasher::new(algorithm);
    for part in parts {
        if part.algorithm() != algorithm {
            return None;
        }
        hasher.update(part.as_bytes());
    }
    Some(hasher.finish())
}

/// `FULL_OBJECT`: the CRC of all bytes, from the CRCs and lengths of the parts, in order. `None`
/// for the SHAs, which can't be combined, or if a part's value is of another algorithm.
pub fn full_object_of_parts<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = (&'a ChecksumValue, u64)>,
) -> Option<ChecksumValue> {
    let crc = crc_of(algorithm)?;
    let mut whole = ChecksumHasher::digest(algorithm, b"").to_crc()?;
    for (part, length) in parts {
        if part.algorithm() != algorithm {
            return None;
        }
        // Combining with nothing changes nothing, and the library need not be asked about it.
        if length > 0 {
            whole = crc_fast::checksum_combine(crc, whole, part.to_crc()?, length);
        }
    }
    Some(ChecksumValue::of_crc(algorithm, whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn composites_hash_the_values() {
        let parts =
            [&b"a"[..], b"b"].map(|data| ChecksumHasher::digest(ChecksumAlgorithm::Sha256, data));
        let joined: Vec<u8> = parts.iter().flat_map(|p| p.as_bytes().to_vec()).collect();
        assert_eq!(
            composite_of_parts(ChecksumAlgorithm::Sha256, &parts),
            Some(ChecksumHasher::digest(ChecksumAlgorithm::Sha256, &joined))
        );
        assert_eq!(composite_of_parts(ChecksumAlgorithm::Crc32, &parts), None);
    }

    #[test]
    fn shas_cannot_be_combined() {
        let part = ChecksumHasher::digest(ChecksumAlgorithm::Sha1, b"a");
        assert_eq!(
            full_object_of_parts(ChecksumAlgorithm::Sha1, [(&part, 1)]),
            None
        );
    }

    proptest! {
        #[test]
        fn combined_crcs_are_those_of_all_bytes(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
        ) {
            for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
                let values: Vec<_> = parts
                    .iter()
                    .map(|part| (ChecksumHasher::digest(algorithm, part), part.len() as u64))
                    .collect();
                let whole = ChecksumHasher::digest(algorithm, &parts.concat());
                let combined = full_object_of_parts(algorithm, values.iter().map(|(v, n)| (v, *n)));
                prop_assert_eq!(combined, Some(whole));
            }
        }
    }
}
