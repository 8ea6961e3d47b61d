//! What a request says about the digests of its payload.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;

use super::{ChecksumAlgorithm, ChecksumValue};
use crate::chunked::AnnouncedTrailers;
use crate::error::{ErrorCode, S3Error};
use crate::request::header_text;
use crate::sigv4::PayloadHash;

const PREFIX: &str = "x-amz-checksum-";

/// Where the value of the checksum is to be found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumRequest {
    /// In a header.
    Header(ChecksumValue),
    /// In the trailer of this algorithm's header name.
    Trailer(ChecksumAlgorithm),
    /// Nowhere: compute it, to keep it with the object.
    Computed(ChecksumAlgorithm),
}

impl ChecksumRequest {
    /// The algorithm.
    pub const fn algorithm(&self) -> ChecksumAlgorithm {
        match self {
            Self::Header(value) => value.algorithm(),
            Self::Trailer(algorithm) | Self::Computed(algorithm) => *algorithm,
        }
    }

    /// Reads `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// # Errors
    /// `InvalidRequest` for a value that is not well formed, an algorithm that S3 does not have,
    /// two checksums, or an announced algorithm whose value is nowhere.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, S3Error> {
        let mut found = in_headers(headers)?;
        let announced = AnnouncedTrailers::from_headers(headers)?;
        for name in announced.iter().filter(|name| name.starts_with(PREFIX)) {
            let algorithm = ChecksumAlgorithm::from_header_name(name).ok_or_else(|| {
                invalid("The value specified in the x-amz-trailer header is not supported")
            })?;
            if found.replace(Self::Trailer(algorithm)).is_some() {
                return Err(several());
            }
        }
        check_sdk_algorithm(headers, found.as_ref())?;
        Ok(found)
    }
}

fn in_headers(headers: &HeaderMap) -> Result<Option<ChecksumRequest>, S3Error> {
    let mut found = None;
    for name in headers.keys().map(http::HeaderName::as_str) {
        let is_value = name
            .strip_prefix(PREFIX)
            .is_some_and(|rest| !matches!(rest, "algorithm" | "type" | "mode"));
        if !is_value {
            continue;
        }
        let algorithm = ChecksumAlgorithm::from_header_name(name)
            .ok_or_else(|| invalid(format!("The header {name} is not supported.")))?;
        let text = header_text(headers, name)?.unwrap_or_default();
        let value = ChecksumValue::parse(algorithm, text)
            .ok_or_else(|| invalid(format!("Value for {name} header is invalid.")))?;
        if found.replace(ChecksumRequest::Header(value)).is_some() {
            return Err(several());
        }
    }
    Ok(found)
}

fn check_sdk_algorithm(
    headers: &HeaderMap,
    found: Option<&ChecksumRequest>,
) -> Result<(), S3Error> {
    let Some(text) = header_text(headers, "x-amz-sdk-checksum-algorithm")? else {
        return Ok(());
    };
    let algorithm = ChecksumAlgorithm::from_name(text)
        .ok_or_else(|| invalid("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"))?;
    match found {
        Some(request) if request.algorithm() == algorithm => Ok(()),
        Some(_) => Err(invalid(
            "Value for x-amz-sdk-checksum-algorithm header is invalid.",
        )),
        None => Err(invalid(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or \
             x-amz-trailer headers were found.",
        )),
    }
}

fn several() -> S3Error {
    invalid("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest, message)
}

/// What a payload must be, and what is to be computed on the way.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Expected {
    /// The number of payload bytes, if it is known.
    pub length: Option<u64>,
    /// The SHA-256 that the signature covers.
    pub sha256: Option<[u8; 32]>,
    /// `Content-MD5`.
    pub md5: Option<[u8; 16]>,
    /// Whether the MD5 is wanted for the ETag although the client sent none.
    pub compute_md5: bool,
    /// The additional checksum.
    pub checksum: Option<ChecksumRequest>,
}

impl Expected {
    /// Reads a request's headers. Not for copies: S3A sends the source's `Content-MD5` with them.
    ///
    /// # Errors
    /// `InvalidDigest` for a bad `Content-MD5`, `InvalidArgument` or `MissingContentLength` for a
    /// bad or missing length of a framed payload, and those of [`ChecksumRequest::from_headers`].
    pub fn from_headers(headers: &HeaderMap, payload: PayloadHash) -> Result<Self, S3Error> {
        let sha256 = match payload {
            PayloadHash::Sha256(hash) => Some(hash),
            _ => None,
        };
        Ok(Self {
            length: payload_length(headers, payload)?,
            sha256,
            md5: content_md5(headers)?,
            compute_md5: false,
            checksum: ChecksumRequest::from_headers(headers)?,
        })
    }
}

/// The number of payload bytes: `Content-Length`, or for framed bodies
/// `x-amz-decoded-content-length`, which must be there.
fn payload_length(headers: &HeaderMap, payload: PayloadHash) -> Result<Option<u64>, S3Error> {
    let name = if payload.is_chunked() {
        "x-amz-decoded-content-length"
    } else {
        "content-length"
    };
    match header_text(headers, name)? {
        Some(text) if text.bytes().all(|b| b.is_ascii_digit()) => {
            text.parse().map(Some).map_err(|_| {
                S3Error::new(
                    ErrorCode::InvalidArgument,
                    format!("{name} is not a number."),
                )
            })
        }
        Some(_) => Err(S3Error::new(
            ErrorCode::InvalidArgument,
            format!("{name} is not a number."),
        )),
        None if payload.is_chunked() => Err(ErrorCode::MissingContentLength.into()),
        None => Ok(None),
    }
}

fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, S3Error> {
    let Some(text) = header_text(headers, "content-md5")? else {
        return Ok(None);
    };
    BASE64
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .map(Some)
        .ok_or_else(|| {
            S3Error::new(
                ErrorCode::InvalidDigest,
                "The Content-MD5 you specified was invalid.",
            )
        })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn read(pairs: &[(&'static str, &'static str)]) -> Result<Option<ChecksumRequest>, ErrorCode> {
        ChecksumRequest::from_headers(&headers(pairs)).map_err(|e| e.code)
    }

    #[test]
    fn checksums_are_found_in_headers_and_trailers() {
        let value = ChecksumValue::parse(ChecksumAlgorithm::Crc32, "AAAAAA==").unwrap();
        assert_eq!(
            read(&[
                ("x-amz-checksum-crc32", "AAAAAA=="),
                ("x-amz-sdk-checksum-algorithm", "crc32"),
                ("x-amz-checksum-mode", "ENABLED"),
            ]),
            Ok(Some(ChecksumRequest::Header(value)))
        );
        assert_eq!(
            read(&[("x-amz-trailer", "X-Amz-Checksum-CRC64NVME")]),
            Ok(Some(ChecksumRequest::Trailer(ChecksumAlgorithm::Crc64Nvme)))
        );
        assert_eq!(read(&[("x-amz-trailer", "x-other")]), Ok(None));
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn contradictions_are_refused() {
        for pairs in [
            &[("x-amz-checksum-crc32", "AAAA")][..],
            &[("x-amz-checksum-xxhash", "AAAA")],
            &[("x-amz-trailer", "x-amz-checksum-xxhash")],
            &[
                ("x-amz-checksum-crc32", "AAAAAA=="),
                ("x-amz-checksum-crc32c", "AAAAAA=="),
            ],
            &[
                ("x-amz-checksum-crc32", "AAAAAA=="),
                ("x-amz-trailer", "x-amz-checksum-crc32"),
            ],
            &[("x-amz-sdk-checksum-algorithm", "CRC32")],
            &[("x-amz-sdk-checksum-algorithm", "MD4")],
            &[
                ("x-amz-checksum-crc32", "AAAAAA=="),
                ("x-amz-sdk-checksum-algorithm", "SHA1"),
            ],
        ] {
            assert_eq!(read(pairs), Err(ErrorCode::InvalidRequest), "{pairs:?}");
        }
    }

    #[test]
    fn lengths_and_md5_are_read() {
        let plain = headers(&[
            ("content-length", "7"),
            ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ]);
        let expected = Expected::from_headers(&plain, PayloadHash::Unsigned).unwrap();
        assert_eq!((expected.length, expected.md5.is_some()), (Some(7), true));
        let framed = headers(&[
            ("content-length", "99"),
            ("x-amz-decoded-content-length", "7"),
        ]);
        let expected = Expected::from_headers(&framed, PayloadHash::StreamingSigned).unwrap();
        assert_eq!(expected.length, Some(7));
        let code = |pairs: &[(&'static str, &'static str)], payload| {
            Expected::from_headers(&headers(pairs), payload)
                .unwrap_err()
                .code
        };
        assert_eq!(
            code(&[], PayloadHash::StreamingSigned),
            ErrorCode::MissingContentLength
        );
        assert_eq!(
            code(
                &[("x-amz-decoded-content-length", "-1")],
                PayloadHash::StreamingSigned
            ),
            ErrorCode::InvalidArgument
        );
        assert_eq!(
            code(&[("content-md5", "abc")], PayloadHash::Unsigned),
            ErrorCode::InvalidDigest
        );
        assert_eq!(
            code(&[("content-md5", "")], PayloadHash::Unsigned),
            ErrorCode::InvalidDigest
        );
    }
}
