//! What `x-amz-content-sha256` says about the payload.

use http::HeaderMap;

use super::AuthError;

const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const STREAMING_SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const STREAMING_SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const STREAMING_UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// The form of the payload, and how it is protected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PayloadHash {
    /// A plain body with this SHA-256.
    Sha256([u8; 32]),
    /// A plain body that the signature does not cover.
    Unsigned,
    /// `aws-chunked`, each chunk signed.
    StreamingSigned,
    /// `aws-chunked`, each chunk and the trailers signed.
    StreamingSignedTrailer,
    /// `aws-chunked` with trailers, nothing signed.
    StreamingUnsignedTrailer,
}

impl PayloadHash {
    /// Parses the header's value; `None` if it is none of the forms that are supported. The
    /// `ECDSA` forms of SigV4a are not.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            UNSIGNED => Self::Unsigned,
            STREAMING_SIGNED => Self::StreamingSigned,
            STREAMING_SIGNED_TRAILER => Self::StreamingSignedTrailer,
            STREAMING_UNSIGNED_TRAILER => Self::StreamingUnsignedTrailer,
            digits => {
                let mut hash = [0; 32];
                hex::decode_to_slice(digits, &mut hash).ok()?;
                Self::Sha256(hash)
            }
        })
    }

    /// What an unauthenticated request says; without the header its body is plain and unsigned.
    ///
    /// # Errors
    /// `InvalidPayloadHash` for an unknown form, and for signed chunks, which need a signature.
    pub fn of_anonymous(headers: &HeaderMap) -> Result<Self, AuthError> {
        let Some(value) = headers.get("x-amz-content-sha256") else {
            return Ok(Self::Unsigned);
        };
        let text = value.to_str().map_err(|_| AuthError::InvalidPayloadHash)?;
        Self::parse_without_seed(text.trim())
    }

    /// Parses the value for a request that has no seed of chunk signatures.
    pub(crate) fn parse_without_seed(text: &str) -> Result<Self, AuthError> {
        match Self::parse(text) {
            Some(Self::StreamingSigned | Self::StreamingSignedTrailer) | None => {
                Err(AuthError::InvalidPayloadHash)
            }
            Some(payload) => Ok(payload),
        }
    }

    /// The header's value.
    pub fn to_text(self) -> std::borrow::Cow<'static, str> {
        match self {
            Self::Sha256(hash) => hex::encode(hash).into(),
            Self::Unsigned => UNSIGNED.into(),
            Self::StreamingSigned => STREAMING_SIGNED.into(),
            Self::StreamingSignedTrailer => STREAMING_SIGNED_TRAILER.into(),
            Self::StreamingUnsignedTrailer => STREAMING_UNSIGNED_TRAILER.into(),
        }
    }

    /// Whether the body is framed as `aws-chunked`.
    pub const fn is_chunked(self) -> bool {
        !matches!(self, Self::Sha256(_) | Self::Unsigned)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn forms_round_trip() {
        for payload in [
            PayloadHash::Sha256([0xab; 32]),
            PayloadHash::Unsigned,
            PayloadHash::StreamingSigned,
            PayloadHash::StreamingSignedTrailer,
            PayloadHash::StreamingUnsignedTrailer,
        ] {
            assert_eq!(PayloadHash::parse(&payload.to_text()), Some(payload));
        }
        for bad in [
            "",
            "unsigned-payload",
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
            "abcd",
        ] {
            assert_eq!(PayloadHash::parse(bad), None);
        }
    }

    #[test]
    fn anonymous_requests_cannot_have_signed_chunks() {
        let mut headers = HeaderMap::new();
        assert_eq!(
            PayloadHash::of_anonymous(&headers),
            Ok(PayloadHash::Unsigned)
        );
        headers.insert(
            "x-amz-content-sha256",
            HeaderValue::from_static(STREAMING_SIGNED),
        );
        assert!(PayloadHash::of_anonymous(&headers).is_err());
        headers.insert(
            "x-amz-content-sha256",
            HeaderValue::from_static(STREAMING_UNSIGNED_TRAILER),
        );
        assert!(PayloadHash::of_anonymous(&headers).is_ok());
    }
}
