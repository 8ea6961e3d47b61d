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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri};
    use moat_types::SecretString;

    use super::*;
    use crate::sigv4::{Authentication, sha256};
    use crate::time::{AmzDate, amz_date, http_date};

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn key(service: &str) -> SigningKey {
        let secret = SecretString::new("secret".to_owned());
        SigningKey::derive(&secret, "20231114", "r", service)
    }

    /// Signs by hand, as clients do that sign other headers than ours.
    fn sign(headers: &mut HeaderMap, key: &SigningKey, signed: &str, payload: &str, at: &AmzDate) {
        let uri = Uri::from_static("/");
        let request = RequestParts::new(&Method::POST, &uri, headers);
        let canonical = canonical_request(&request, signed, payload, EncodedSlash::Kept);
        let signature = key.sign_canonical(at, &canonical).to_hex();
        let value = format!(
            "AWS4-HMAC-SHA256 Credential=AK/{},SignedHeaders={signed},Signature={signature}",
            key.scope()
        );
        headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
    }

    fn headers(date: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("h"));
        headers.insert(date, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn claim_of<'a>(request: &RequestParts<'a>) -> Claim<'a> {
        match Authentication::parse(request).unwrap() {
            Authentication::Header(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_date_header_stands_in_for_x_amz_date() {
        for text in [http_date(NOW).as_str(), amz_date(NOW).as_str()] {
            let mut headers = headers("date", text);
            headers.insert(
                "x-amz-content-sha256",
                HeaderValue::from_static("UNSIGNED-PAYLOAD"),
            );
            let signed = "date;host;x-amz-content-sha256";
            sign(
                &mut headers,
                &key("s3"),
                signed,
                "UNSIGNED-PAYLOAD",
                &amz_date(NOW),
            );
            let uri = Uri::from_static("/");
            let request = RequestParts::new(&Method::POST, &uri, &headers);
            assert!(claim_of(&request).verify(&request, &key("s3"), NOW).is_ok());
        }
    }

    #[test]
    fn sts_requests_without_a_payload_header_sign_their_body() {
        let body = sha256(b"Action=AssumeRole");
        let mut headers = headers("x-amz-date", &amz_date(NOW));
        let payload = hex::encode(body);
        sign(
            &mut headers,
            &key("sts"),
            "host;x-amz-date",
            &payload,
            &amz_date(NOW),
        );
        let uri = Uri::from_static("/");
        let request = RequestParts::new(&Method::POST, &uri, &headers);
        let mut claim = claim_of(&request);
        assert!(
            claim.verify(&request, &key("sts"), NOW).is_err(),
            "the body counts as empty"
        );
        claim.set_body_hash(body);
        let verified = claim.verify(&request, &key("sts"), NOW).unwrap();
        assert_eq!(verified.payload, PayloadHash::Sha256(body));
    }

    #[test]
    fn an_unsigned_amz_header_is_named() {
        let mut headers = headers("x-amz-date", &amz_date(NOW));
        headers.insert(
            "x-amz-content-sha256",
            HeaderValue::from_static("UNSIGNED-PAYLOAD"),
        );
        let signed = "host;x-amz-content-sha256;x-amz-date";
        sign(
            &mut headers,
            &key("s3"),
            signed,
            "UNSIGNED-PAYLOAD",
            &amz_date(NOW),
        );
        headers.insert("x-amz-acl", HeaderValue::from_static("public-read"));
        let uri = Uri::from_static("/");
        let request = RequestParts::new(&Method::POST, &uri, &headers);
        let error = claim_of(&request)
            .verify(&request, &key("s3"), NOW)
            .unwrap_err();
        assert_eq!(error, AuthError::UnsignedHeader("x-amz-acl".to_owned()));
        assert_eq!(error.code().as_str(), "AccessDenied");
    }

    #[test]
    fn http_2_signs_the_authority_as_host() {
        let mut headers = headers("x-amz-date", &amz_date(NOW));
        headers.insert(
            "x-amz-content-sha256",
            HeaderValue::from_static("UNSIGNED-PAYLOAD"),
        );
        let signed = "host;x-amz-content-sha256;x-amz-date";
        sign(
            &mut headers,
            &key("s3"),
            signed,
            "UNSIGNED-PAYLOAD",
            &amz_date(NOW),
        );
        headers.remove("host");
        let uri = Uri::from_static("https://h/");
        let request = RequestParts::new(&Method::POST, &uri, &headers);
        assert!(claim_of(&request).verify(&request, &key("s3"), NOW).is_ok());
    }
}
