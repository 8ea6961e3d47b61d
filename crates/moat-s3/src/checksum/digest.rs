//! All digests of one payload in one pass.

use aws_lc_rs::digest::{Context, SHA256};
use md5::{Digest as _, Md5};

use super::{ChecksumHasher, ChecksumRequest, ChecksumValue, Expected};
use crate::chunked::Trailers;
use crate::error::{ErrorCode, S3Error};

/// Runs the digests that [`Expected`] asks for, and no other. Fed with the payload's bytes in
/// order; signed chunks are the decoder's to check.
pub struct PayloadDigest {
    expected: Expected,
    length: u64,
    sha256: Option<Context>,
    md5: Option<Md5>,
    checksum: Option<ChecksumHasher>,
}

/// What was computed of a payload that is as expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digested {
    /// The number of bytes.
    pub length: u64,
    /// The MD5, if it was sent or wanted.
    pub md5: Option<[u8; 16]>,
    /// The additional checksum, if one was asked for.
    pub checksum: Option<ChecksumValue>,
}

impl PayloadDigest {
    /// A digest of nothing yet.
    pub fn new(expected: Expected) -> Self {
        Self {
            length: 0,
            sha256: expected.sha256.map(|_| Context::new(&SHA256)),
            md5: (expected.compute_md5 || expected.md5.is_some()).then(Md5::new),
            checksum: expected
                .checksum
                .map(|request| ChecksumHasher::new(request.algorithm())),
            expected,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `IncompleteBody` as soon as there are more bytes than expected.
    pub fn update(&mut self, data: &[u8]) -> Result<(), S3Error> {
        self.length += data.len() as u64;
        if self
            .expected
            .length
            .is_some_and(|length| self.length > length)
        {
            return Err(ErrorCode::IncompleteBody.into());
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
        if let Some(checksum) = &mut self.checksum {
            checksum.update(data);
        }
        Ok(())
    }

    /// Compares with what was expected. `trailers` are those of a framed body, else empty.
    ///
    /// # Errors
    /// `IncompleteBody`, `XAmzContentSHA256Mismatch`, `BadDigest`, or `MalformedTrailerError` if
    /// the trailer that holds the checksum is missing or no checksum.
    pub fn finish(self, trailers: &Trailers) -> Result<Digested, S3Error> {
        if self
            .expected
            .length
            .is_some_and(|length| self.length != length)
        {
            return Err(ErrorCode::IncompleteBody.into());
        }
        if let (Some(context), Some(expected)) = (self.sha256, self.expected.sha256)
            && context.finish().as_ref() != expected
        {
            return Err(ErrorCode::XAmzContentSHA256Mismatch.into());
        }
        let md5: Option<[u8; 16]> = self.md5.map(|md5| md5.finalize().into());
        if self.expected.md5.is_some() && md5 != self.expected.md5 {
            return Err(S3Error::new(
                ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ));
        }
        let checksum = self.checksum.map(ChecksumHasher::finish);
        if let (Some(request), Some(computed)) = (self.expected.checksum, checksum) {
            compare(request, computed, trailers)?;
        }
        Ok(Digested {
            length: self.length,
            md5,
            checksum,
        })
    }
}

impl std::fmt::Debug for PayloadDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PayloadDigest(at {} of {:?})",
            self.length, self.expected.length
        )
    }
}

fn compare(
    request: ChecksumRequest,
    computed: ChecksumValue,
    trailers: &Trailers,
) -> Result<(), S3Error> {
    let given = match request {
        ChecksumRequest::Computed(_) => return Ok(()),
        ChecksumRequest::Header(value) => value,
        ChecksumRequest::Trailer(algorithm) => trailers
            .get(algorithm.header_name())
            .and_then(|text| ChecksumValue::parse(algorithm, text))
            .ok_or(ErrorCode::MalformedTrailerError)?,
    };
    if given == computed {
        return Ok(());
    }
    Err(S3Error::new(
        ErrorCode::BadDigest,
        format!(
            "The {} you specified did not match the calculated checksum.",
            computed.algorithm().name()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::ChecksumAlgorithm;

    const DATA: &[u8] = b"the quick brown fox";

    fn run(expected: Expected) -> Result<Digested, ErrorCode> {
        let mut digest = PayloadDigest::new(expected);
        for piece in DATA.chunks(7) {
            digest.update(piece).map_err(|e| e.code)?;
        }
        digest.finish(&Trailers::default()).map_err(|e| e.code)
    }

    fn right() -> Expected {
        Expected {
            length: Some(DATA.len() as u64),
            sha256: Some(crate::sigv4::sha256(DATA)),
            md5: Some(Md5::digest(DATA).into()),
            compute_md5: false,
            checksum: Some(ChecksumRequest::Header(ChecksumHasher::digest(
                ChecksumAlgorithm::Crc32c,
                DATA,
            ))),
        }
    }

    #[test]
    fn right_digests_are_returned() {
        let digested = run(right()).unwrap();
        assert_eq!(digested.length, DATA.len() as u64);
        assert_eq!(digested.md5, Some(Md5::digest(DATA).into()));
        assert!(digested.checksum.is_some());
    }

    #[test]
    fn nothing_is_computed_unasked() {
        let digested = run(Expected::default()).unwrap();
        assert_eq!((digested.md5, digested.checksum), (None, None));
        let wanted = Expected {
            compute_md5: true,
            checksum: Some(ChecksumRequest::Computed(ChecksumAlgorithm::Crc64Nvme)),
            ..Expected::default()
        };
        let digested = run(wanted).unwrap();
        assert!(digested.md5.is_some() && digested.checksum.is_some());
    }

    #[test]
    fn each_wrong_digest_has_its_code() {
        let wrong = |change: fn(&mut Expected)| {
            let mut expected = right();
            change(&mut expected);
            run(expected).unwrap_err()
        };
        assert_eq!(wrong(|e| e.length = Some(18)), ErrorCode::IncompleteBody);
        assert_eq!(wrong(|e| e.length = Some(20)), ErrorCode::IncompleteBody);
        assert_eq!(
            wrong(|e| e.sha256 = Some([0; 32])),
            ErrorCode::XAmzContentSHA256Mismatch
        );
        assert_eq!(wrong(|e| e.md5 = Some([0; 16])), ErrorCode::BadDigest);
        assert_eq!(
            wrong(|e| {
                let other = ChecksumHasher::digest(ChecksumAlgorithm::Crc32c, b"other");
                e.checksum = Some(ChecksumRequest::Header(other));
            }),
            ErrorCode::BadDigest
        );
        assert_eq!(
            wrong(|e| e.checksum = Some(ChecksumRequest::Trailer(ChecksumAlgorithm::Sha1))),
            ErrorCode::MalformedTrailerError
        );
    }
}
