//! Between `moat_s3`'s checksums and the numbered form that rows keep.
//!
//! A kind is the algorithm, 1 to 5, plus 16 for a checksum of the parts' checksums. Parts have
//! plain kinds. 0 is no checksum. The numbers stand in rows and never change.

use http::HeaderMap;
use http::header::HeaderName;
use moat_s3::ErrorCode;
use moat_s3::checksum::{
    ChecksumAlgorithm, ChecksumType, ChecksumValue, composite_of_parts, full_object_of_parts,
};
use moat_s3::xml::{Checksums, CompletedPart};

use super::answer::set;
use super::call::Call;
use crate::error::{Error, Result};
use crate::multipart::JoinChecksums;
use crate::rows::Checksum;

/// Names of headers.
pub(super) mod checksum_header {
    pub(in crate::http) const MODE: &str = "x-amz-checksum-mode";
    pub(in crate::http) const ALGORITHM: &str = "x-amz-checksum-algorithm";
    pub(in crate::http) const TYPE: &str = "x-amz-checksum-type";
}

const COMPOSITE: u8 = 16;

/// The algorithm of a kind.
pub(super) fn algorithm_of(kind: u8) -> Option<ChecksumAlgorithm> {
    Some(match kind & !COMPOSITE {
        1 => ChecksumAlgorithm::Crc32,
        2 => ChecksumAlgorithm::Crc32c,
        3 => ChecksumAlgorithm::Crc64Nvme,
        4 => ChecksumAlgorithm::Sha1,
        5 => ChecksumAlgorithm::Sha256,
        _ => return None,
    })
}

const fn type_of(kind: u8) -> ChecksumType {
    if kind & COMPOSITE == 0 {
        ChecksumType::FullObject
    } else {
        ChecksumType::Composite
    }
}

pub(super) const fn kind_of(algorithm: ChecksumAlgorithm, checksum_type: ChecksumType) -> u8 {
    let number = match algorithm {
        ChecksumAlgorithm::Crc32 => 1,
        ChecksumAlgorithm::Crc32c => 2,
        ChecksumAlgorithm::Crc64Nvme => 3,
        ChecksumAlgorithm::Sha1 => 4,
        ChecksumAlgorithm::Sha256 => 5,
    };
    match checksum_type {
        ChecksumType::FullObject => number,
        ChecksumType::Composite => number | COMPOSITE,
    }
}

/// The checksum of a whole payload, as rows keep it.
pub(super) fn of_payload(value: &ChecksumValue) -> Checksum {
    Checksum {
        kind: kind_of(value.algorithm(), ChecksumType::FullObject),
        value: value.to_base64(),
    }
}

/// What CreateMultipartUpload says of the checksums to come.
pub(super) fn kind_of_upload(call: &Call<'_>) -> Result<u8> {
    let unknown = |name: &str| {
        Error::new(
            ErrorCode::InvalidRequest,
            format!("{name} has a value that S3 does not have."),
        )
    };
    let named_type = call.header(checksum_header::TYPE)?;
    let Some(name) = call.header(checksum_header::ALGORITHM)? else {
        return match named_type {
            None => Ok(0),
            Some(_) => Err(Error::new(
                ErrorCode::InvalidRequest,
                "The x-amz-checksum-type header can only be used with the \
                 x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm =
        ChecksumAlgorithm::from_name(name).ok_or_else(|| unknown(checksum_header::ALGORITHM))?;
    let checksum_type = match named_type {
        None => algorithm.default_type(),
        Some(name) => {
            ChecksumType::from_name(name).ok_or_else(|| unknown(checksum_header::TYPE))?
        }
    };
    if !algorithm.supports(checksum_type) {
        return Err(Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "The {} checksum type cannot be used with the {} checksum algorithm.",
                checksum_type.name(),
                algorithm.name().to_ascii_lowercase()
            ),
        ));
    }
    Ok(kind_of(algorithm, checksum_type))
}

/// The checksum that CompleteMultipartUpload names for a part.
pub(super) fn of_named_part(part: &CompletedPart) -> Option<Checksum> {
    part.checksums.first().map(of_payload)
}

/// The checksum of the whole object that CompleteMultipartUpload's headers state. A composite may
/// lack its number of parts, as minio-go writes it, and then looks like one of the whole object.
pub(super) fn stated_for_object(call: &Call<'_>) -> Result<Option<Checksum>> {
    for algorithm in ChecksumAlgorithm::ALL {
        if let Some(text) = call.header(algorithm.header_name())? {
            let (_, parts) =
                ChecksumValue::parse_of_multipart(algorithm, text).ok_or_else(|| {
                    let header = algorithm.header_name();
                    let message = format!("Value for {header} header is invalid.");
                    Error::new(ErrorCode::InvalidRequest, message)
                })?;
            let checksum_type = match parts {
                Some(_) => ChecksumType::Composite,
                None => ChecksumType::FullObject,
            };
            return Ok(Some(Checksum {
                kind: kind_of(algorithm, checksum_type),
                value: text.to_owned(),
            }));
        }
    }
    Ok(None)
}

/// Sets the headers of an object's checksum.
pub(super) fn set_checksum(headers: &mut HeaderMap, checksum: Option<&Checksum>) {
    let Some(checksum) = checksum else { return };
    let Some(algorithm) = algorithm_of(checksum.kind) else {
        return;
    };
    set(
        headers,
        HeaderName::from_static(algorithm.header_name()),
        &checksum.value,
    );
    let kind = type_of(checksum.kind).name();
    set(
        headers,
        HeaderName::from_static(checksum_header::TYPE),
        kind,
    );
}

/// Sets the headers that name an upload's algorithm and type.
pub(super) fn set_kind(headers: &mut HeaderMap, kind: u8) {
    let Some(algorithm) = algorithm_of(kind) else {
        return;
    };
    set(
        headers,
        HeaderName::from_static(checksum_header::ALGORITHM),
        algorithm.name(),
    );
    let checksum_type = type_of(kind).name();
    set(
        headers,
        HeaderName::from_static(checksum_header::TYPE),
        checksum_type,
    );
}

/// Algorithm and type of a kind, as listings show them.
pub(super) fn algorithm_and_type(kind: u8) -> Option<(ChecksumAlgorithm, ChecksumType)> {
    Some((algorithm_of(kind)?, type_of(kind)))
}

/// A checksum as documents show it.
pub(super) fn shown_checksum(checksum: &Checksum) -> Option<Checksums<'_>> {
    let (algorithm, checksum_type) = algorithm_and_type(checksum.kind)?;
    Some(Checksums {
        algorithm,
        text: &checksum.value,
        checksum_type: Some(checksum_type),
    })
}

/// Joins the checksums of parts.
pub(super) struct Joiner;

impl JoinChecksums for Joiner {
    fn join(&self, kind: u8, parts: &[(Option<Checksum>, u64)]) -> Option<Checksum> {
        let algorithm = algorithm_of(kind)?;
        let values = parts
            .iter()
            .map(|(checksum, size)| {
                let value = ChecksumValue::parse(algorithm, &checksum.as_ref()?.value)?;
                Some((value, *size))
            })
            .collect::<Option<Vec<_>>>()?;
        let value = match type_of(kind) {
            ChecksumType::Composite => {
                let joined = composite_of_parts(algorithm, values.iter().map(|(v, _)| v))?;
                joined.to_composite_text(parts.len())
            }
            ChecksumType::FullObject => {
                let joined =
                    full_object_of_parts(algorithm, values.iter().map(|(v, size)| (v, *size)))?;
                joined.to_base64()
            }
        };
        Some(Checksum { kind, value })
    }

    fn agree(&self, stated: &Checksum, joined: &Checksum) -> bool {
        let value = match stated.value.contains('-') {
            true => joined.value.as_str(),
            false => joined.value.split('-').next().unwrap_or_default(),
        };
        algorithm_of(stated.kind) == algorithm_of(joined.kind) && stated.value == value
    }

    fn kind_of_part(&self, upload_kind: u8) -> u8 {
        upload_kind & !COMPOSITE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_distinct_and_read_back() {
        let mut seen = std::collections::HashSet::new();
        for algorithm in ChecksumAlgorithm::ALL {
            for checksum_type in [ChecksumType::FullObject, ChecksumType::Composite] {
                let kind = kind_of(algorithm, checksum_type);
                assert!(kind != 0 && seen.insert(kind));
                assert_eq!(algorithm_of(kind), Some(algorithm));
                assert_eq!(type_of(kind), checksum_type);
            }
        }
        assert_eq!(algorithm_of(0), None);
    }
}
