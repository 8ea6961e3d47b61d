//! Why a request is not authenticated, with the S3 code for each reason.

use std::borrow::Cow;

use crate::error::{ErrorCode, S3Error};

/// A reason to refuse. The display text is the message for the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The `Authorization` header is not well formed.
    #[error("The authorization header is malformed; {0}")]
    MalformedHeader(Cow<'static, str>),
    /// The `X-Amz-*` parameters are not well formed.
    #[error("{0}")]
    MalformedQuery(Cow<'static, str>),
    /// A presigned URL of version 2 that is not well formed.
    #[error("{0}")]
    MalformedPresigned(&'static str),
    /// Signature version 2 in a header, or version 4 with another algorithm.
    #[error(
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
    )]
    UnsupportedMechanism,
    /// An `Authorization` header of another scheme.
    #[error("Unsupported Authorization Type")]
    UnsupportedType,
    /// Header and query both authenticate, or there are two headers.
    #[error(
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified"
    )]
    SeveralMechanisms,
    /// `x-amz-content-sha256` is missing.
    #[error("Missing required header for this request: x-amz-content-sha256")]
    MissingPayloadHash,
    /// `x-amz-content-sha256` is none of its forms.
    #[error(
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
    )]
    InvalidPayloadHash,
    /// There is no date, or none that can be read.
    #[error("AWS authentication requires a valid Date or x-amz-date header")]
    MissingDate,
    /// A header is there that the signature does not cover.
    #[error("There were headers present in the request which were not signed: {0}")]
    UnsignedHeader(String),
    /// A presigned URL after its end.
    #[error("Request has expired")]
    Expired,
    /// A presigned URL before its begin.
    #[error("Request is not valid yet")]
    NotYetValid,
    /// The time of the request is too far off.
    #[error("The difference between the request time and the server's time is too large.")]
    TimeTooSkewed,
    /// The signature is not the one that the secret gives.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your key and signing method."
    )]
    SignatureMismatch,
    /// The query cannot be decoded.
    #[error("The specified URI couldn't be parsed.")]
    InvalidUri,
}

impl AuthError {
    /// The S3 code.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::MalformedHeader(_) => ErrorCode::AuthorizationHeaderMalformed,
            Self::MalformedQuery(_) => ErrorCode::AuthorizationQueryParametersError,
            Self::UnsupportedMechanism | Self::MissingPayloadHash => ErrorCode::InvalidRequest,
            Self::UnsupportedType | Self::SeveralMechanisms | Self::InvalidPayloadHash => {
                ErrorCode::InvalidArgument
            }
            Self::MalformedPresigned(_)
            | Self::MissingDate
            | Self::UnsignedHeader(_)
            | Self::Expired
            | Self::NotYetValid => ErrorCode::AccessDenied,
            Self::TimeTooSkewed => ErrorCode::RequestTimeTooSkewed,
            Self::SignatureMismatch => ErrorCode::SignatureDoesNotMatch,
            Self::InvalidUri => ErrorCode::InvalidUri,
        }
    }
}

impl From<AuthError> for S3Error {
    fn from(error: AuthError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
