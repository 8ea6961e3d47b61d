//! Checks a claim: time, signed headers, signature.

use std::ops::RangeInclusive;

use moat_types::UnixMillis;

use super::canonical::{EncodedSlash, canonical_request};
use super::{
    AuthError, ChunkSeed, Claim, ClaimKind, PayloadHash, RequestParts, SKEW_MILLIS_MAX, SigningKey,
};

/// What a verified signature proves.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What the body must be; checking that is the body reader's work.
    pub payload: PayloadHash,
    /// The begin of the chain of chunk signatures, for `aws-chunked` with signed chunks.
    pub chunk_seed: ChunkSeed,
}

impl Claim<'_> {
    /// Whether `key` was derived for this claim's date, region and service.
    pub fn is_in_scope_of(&self, key: &SigningKey) -> bool {
        let mut parts = key.scope().split('/');
        // A region holds no slash: the credential was split there.
        parts.next() == Some(&*self.date)
            && parts.next() == Some(&*self.region)
            && parts.next() == Some(&*self.service)
    }

    /// Verifies the claim against the request that it came with. `key` belongs to
    /// [`Claim::access_key_id`]; see [`SigningKey::derive`].
    ///
    /// # Errors
    /// `AuthError`: too old or too new, an `x-amz-*` header that is not signed, or a signature
    /// that does not match. A key of another scope never matches.
    pub fn verify(
        &self,
        request: &RequestParts<'_>,
        key: &SigningKey,
        now: UnixMillis,
    ) -> Result<Verified, AuthError> {
        self.check_time(now)?;
        self.check_signed_headers(request)?;
        if !self.is_in_scope_of(key) || !self.signature_matches(request, key) {
            return Err(AuthError::SignatureMismatch);
        }
        Ok(Verified {
            payload: self.payload,
            chunk_seed: ChunkSeed {
                key: key.clone(),
                at: self.amz_date,
                signature: self.signature,
            },
        })
    }

    fn check_time(&self, now: UnixMillis) -> Result<(), AuthError> {
        let age = now.0.saturating_sub(self.timestamp.0);
        const NEAR: RangeInclusive<i64> = -SKEW_MILLIS_MAX..=SKEW_MILLIS_MAX;
        match self.kind {
            ClaimKind::Header if !NEAR.contains(&age) => Err(AuthError::TimeTooSkewed),
            ClaimKind::Header => Ok(()),
            ClaimKind::Presigned { .. } if age < *NEAR.start() => Err(AuthError::NotYetValid),
            ClaimKind::Presigned { expires_seconds } if age > i64::from(expires_seconds) * 1000 => {
                Err(AuthError::Expired)
            }
            ClaimKind::Presigned { .. } => Ok(()),
        }
    }

    /// Every `x-amz-*` header that was sent must be signed, as on S3; so must a session token.
    fn check_signed_headers(&self, request: &RequestParts<'_>) -> Result<(), AuthError> {
        let presigned = matches!(self.kind, ClaimKind::Presigned { .. });
        for name in request.headers.keys().map(http::HeaderName::as_str) {
            if !name.starts_with("x-amz-") || self.is_signed(name) {
                continue;
            }
            // Tools add it to presigned requests too; unsigned it has no effect there.
            if presigned && name == "x-amz-content-sha256" {
                continue;
            }
            return Err(AuthError::UnsignedHeader(name.to_owned()));
        }
        Ok(())
    }

    fn is_signed(&self, name: &str) -> bool {
        self.signed_headers.split(';').any(|signed| signed == name)
    }

    fn signature_matches(&self, request: &RequestParts<'_>, key: &SigningKey) -> bool {
        let matches = |encoded_slash| {
            let canonical = canonical_request(
                request,
                &self.signed_headers,
                &self.payload_text,
                encoded_slash,
            );
            key.sign_canonical(&self.amz_date, &canonical) == self.signature
        };
        let has_encoded_slash = || request.path.contains("%2F") || request.path.contains("%2f");
        matches(EncodedSlash::Kept) || (has_encoded_slash() && matches(EncodedSlash::Decoded))
    }
}
