//! AWS Signature Version 4: parsing, verifying and making signatures (S3 API reference,
//! "Authenticating Requests"; `HMAC-SHA256` only).
//!
//! The canonical request is built over the request as it was received: the raw path is encoded
//! once and never normalised, and header values are those that came. Verification is in two
//! steps, since the secret has to be looked up in between:
//!
//! 1. [`Authentication::parse`] finds out who claims to have sent the request.
//! 2. [`Claim::verify`] checks time, signed headers and signature with the [`SigningKey`] of that
//!    access key. Signing keys hold for a day; callers may keep them.
//!
//! The result tells what the payload must be ([`PayloadHash`]) and, for signed chunks, holds the
//! seed of the chunk signatures ([`ChunkSeed`]).

mod canonical;
mod error;
mod key;
mod parse;
mod payload;
mod sign;
mod verify;

pub use canonical::RequestParts;
pub use error::AuthError;
pub use key::{ChunkSeed, Signature, SigningKey};
pub use parse::{Authentication, Claim, ClaimKind};
pub use payload::PayloadHash;
pub use sign::{Credentials, SignError, SignedHeaders, Signer};
pub use verify::Verified;

/// The algorithm, as it stands in headers and strings to sign.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// How far the time of a request may be off, either way (S3 documents 15 minutes).
pub const SKEW_MILLIS_MAX: i64 = 15 * 60 * 1000;

/// The longest validity of a presigned URL: one week.
pub const PRESIGNED_SECONDS_MAX: u32 = 7 * 24 * 60 * 60;

/// SHA-256 of nothing.
pub const EMPTY_SHA256: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// SHA-256 of `data`.
pub(crate) fn sha256(data: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Appends lower-case hex digits.
pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for b in bytes {
        let digits = b"0123456789abcdef";
        out.extend_from_slice(&[digits[usize::from(b >> 4)], digits[usize::from(b & 15)]]);
    }
}
