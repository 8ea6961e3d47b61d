//! The value of a checksum.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::ChecksumAlgorithm;

const VALUE_BYTES_MAX: usize = 32;

/// A checksum: the algorithm and its value. CRCs are kept in network byte order, as they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChecksumValue {
    algorithm: ChecksumAlgorithm,
    bytes: [u8; VALUE_BYTES_MAX],
}

impl ChecksumValue {
    /// Takes the bytes; `None` if their number is not the algorithm's.
    pub fn new(algorithm: ChecksumAlgorithm, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; VALUE_BYTES_MAX];
        if value.len() != algorithm.value_bytes() {
            return None;
        }
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { algorithm, bytes })
    }

    /// Parses base64, as headers, trailers and XML hold it.
    pub fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Option<Self> {
        let mut buffer = [0; VALUE_BYTES_MAX + 3];
        let length = BASE64.decode_slice(text, &mut buffer).ok()?;
        Self::new(algorithm, &buffer[..length])
    }

    /// Parses the value of a multipart object: base64, for composites with `-` and the number
    /// of parts. CompleteMultipartUpload takes this form in its headers.
    pub fn parse_of_multipart(
        algorithm: ChecksumAlgorithm,
        text: &str,
    ) -> Option<(Self, Option<u32>)> {
        // Standard base64 has no hyphen.
        let Some((value, parts)) = text.split_once('-') else {
            return Some((Self::parse(algorithm, text)?, None));
        };
        let is_number = !parts.is_empty() && parts.bytes().all(|b| b.is_ascii_digit());
        let parts = is_number.then(|| parts.parse().ok())??;
        Some((Self::parse(algorithm, value)?, Some(parts)))
    }

    /// The value of a CRC.
    pub(super) fn of_crc(algorithm: ChecksumAlgorithm, crc: u64) -> Self {
        let bytes = crc.to_be_bytes();
        Self::new(algorithm, &bytes[8 - algorithm.value_bytes()..])
            .expect("CRCs have at most 8 bytes")
    }

    /// The value as the number of a CRC; `None` for the SHAs.
    pub(super) fn to_crc(self) -> Option<u64> {
        let value = self.as_bytes();
        if value.len() > 8 {
            return None;
        }
        let mut bytes = [0; 8];
        bytes[8 - value.len()..].copy_from_slice(value);
        Some(u64::from_be_bytes(bytes))
    }

    /// The algorithm.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The bytes of the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.value_bytes()]
    }

    /// The base64 form.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.as_bytes())
    }

    /// The form of a composite checksum: base64, `-`, number of parts.
    pub fn to_composite_text(&self, parts: usize) -> String {
        format!("{}-{parts}", self.to_base64())
    }
}

impl fmt::Debug for ChecksumValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.to_base64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composites_carry_the_number_of_parts() {
        let value = ChecksumValue::new(ChecksumAlgorithm::Crc32, &[1, 2, 3, 4]).unwrap();
        let parse = |text: &str| ChecksumValue::parse_of_multipart(ChecksumAlgorithm::Crc32, text);
        assert_eq!(parse(&value.to_composite_text(12)), Some((value, Some(12))));
        assert_eq!(parse(&value.to_base64()), Some((value, None)));
        for bad in [
            "AQIDBA==-",
            "AQIDBA==-+1",
            "AQIDBA==-x",
            "-1",
            "AQIDBA==-1-2",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn base64_round_trips_and_wrong_lengths_are_refused() {
        for algorithm in ChecksumAlgorithm::ALL {
            let bytes = vec![0xA5; algorithm.value_bytes()];
            let value = ChecksumValue::new(algorithm, &bytes).unwrap();
            assert_eq!(
                ChecksumValue::parse(algorithm, &value.to_base64()),
                Some(value)
            );
            for other in ChecksumAlgorithm::ALL {
                if other.value_bytes() != algorithm.value_bytes() {
                    assert_eq!(ChecksumValue::parse(other, &value.to_base64()), None);
                }
            }
        }
        for bad in [
            "",
            "AAAA",
            "AAAAAA",
            "AAAAAA==x",
            "!!!!!!==",
            &"A".repeat(4000),
        ] {
            assert_eq!(
                ChecksumValue::parse(ChecksumAlgorithm::Crc32, bad),
                None,
                "{bad}"
            );
        }
    }
}
