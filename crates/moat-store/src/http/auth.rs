//! Who is asking: access keys, and the signing keys derived from their secrets.
//!
//! Today there is one principal, root. Users, policies and temporary credentials join here.

use std::collections::HashMap;
use std::sync::RwLock;

use http::HeaderMap;
use moat_s3::request::Hoisting;
use moat_s3::sigv2::QueryClaim;
use moat_s3::sigv4::{
    Authentication, ChunkSeed, Claim, ClaimKind, PayloadHash, RequestParts, SigningKey,
};
use moat_s3::{ErrorCode, S3Error};
use moat_types::{SecretString, UnixMillis};

use crate::error::{Error, Result};

/// The access keys of root.
#[derive(Debug, Clone)]
pub struct RootCredentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretString,
}

/// What authentication established.
#[derive(Debug)]
pub(super) struct Authenticated {
    /// What the body must be.
    pub(super) payload: PayloadHash,
    /// Where the signatures of chunks begin; version 2 has none.
    pub(super) chunk_seed: Option<ChunkSeed>,
    /// For a presigned request: which query parameters count as headers.
    pub(super) hoisting: Option<Hoisting>,
}

/// Signing keys stay valid for a day; the number kept bounds memory against made-up regions.
const SIGNING_KEYS_MAX: usize = 64;

/// Verifies signatures.
pub(super) struct Authenticator {
    root: RootCredentials,
    region: String,
    /// By (date, region, service).
    signing_keys: RwLock<HashMap<(String, String, String), SigningKey>>,
}

impl Authenticator {
    pub(super) fn new(root: RootCredentials, region: String) -> Self {
        Self {
            root,
            region,
            signing_keys: RwLock::default(),
        }
    }

    /// Verifies the signature of a request. `host_bucket` is the bucket that its host names.
    pub(super) fn authenticate(
        &self,
        request: &RequestParts<'_>,
        host_bucket: Option<&str>,
        now: UnixMillis,
    ) -> Result<Authenticated> {
        match Authentication::parse(request).map_err(S3Error::from)? {
            Authentication::Header(claim) | Authentication::Presigned(claim) => {
                self.version_4(&claim, request, now)
            }
            Authentication::PresignedV2(claim) => self.version_2(&claim, request, host_bucket, now),
            // There is no anonymous access until a bucket policy can grant it.
            Authentication::Anonymous => Err(ErrorCode::AccessDenied.into()),
        }
    }

    fn version_4(
        &self,
        claim: &Claim<'_>,
        request: &RequestParts<'_>,
        now: UnixMillis,
    ) -> Result<Authenticated> {
        self.check_access_key(&claim.access_key_id, claim.security_token.is_some())?;
        self.check_scope(claim)?;
        let key = self.signing_key(claim);
        let verified = claim.verify(request, &key, now).map_err(S3Error::from)?;
        Ok(Authenticated {
            payload: verified.payload,
            chunk_seed: Some(verified.chunk_seed),
            hoisting: match claim.kind {
                ClaimKind::Header => None,
                ClaimKind::Presigned { .. } => Some(Hoisting::Version4),
            },
        })
    }

    fn version_2(
        &self,
        claim: &QueryClaim<'_>,
        request: &RequestParts<'_>,
        host_bucket: Option<&str>,
        now: UnixMillis,
    ) -> Result<Authenticated> {
        self.check_access_key(claim.access_key_id(), claim.has_security_token(request))?;
        let secret = &self.root.secret_access_key;
        let payload = claim
            .verify(request, host_bucket, secret, now)
            .map_err(S3Error::from)?;
        Ok(Authenticated {
            payload,
            chunk_seed: None,
            hoisting: Some(Hoisting::Version2),
        })
    }

    fn check_access_key(&self, access_key_id: &str, has_token: bool) -> Result<()> {
        if *access_key_id != *self.root.access_key_id {
            return Err(
                Error::from(ErrorCode::InvalidAccessKeyId).with("AWSAccessKeyId", access_key_id)
            );
        }
        // Root's keys never come with a token.
        if has_token {
            return Err(ErrorCode::InvalidToken.into());
        }
        Ok(())
    }

    /// A region of ours in the configuration means that another one is a mistake, which the
    /// answer explains; SDKs follow the `Region` element.
    fn check_scope(&self, claim: &Claim<'_>) -> Result<()> {
        if claim.service != "s3" {
            return Err(Error::new(
                ErrorCode::AuthorizationHeaderMalformed,
                "The credential scope names another service than s3.",
            ));
        }
        let fits = self.region.is_empty() || claim.region == self.region;
        if fits {
            return Ok(());
        }
        let message = format!(
            "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
            claim.region, self.region
        );
        Err(Error::new(ErrorCode::AuthorizationHeaderMalformed, message)
            .with("Region", self.region.clone()))
    }

    fn signing_key(&self, claim: &Claim<'_>) -> SigningKey {
        let known = self.signing_keys.read().expect("no panic under this lock");
        // Almost always there is one entry, and comparing it is cheaper than hashing a new key.
        if let Some(key) = known.values().find(|key| claim.is_in_scope_of(key)) {
            return key.clone();
        }
        drop(known);
        let scope = (
            claim.date.to_string(),
            claim.region.to_string(),
            claim.service.to_string(),
        );
        let secret = &self.root.secret_access_key;
        let key = SigningKey::derive(secret, &scope.0, &scope.1, &scope.2);
        let mut known = self.signing_keys.write().expect("no panic under this lock");
        if known.len() >= SIGNING_KEYS_MAX {
            known.clear();
        }
        known.insert(scope, key.clone());
        key
    }
}

/// Whether the request came to us over TLS, as far as we can trust what is said of it.
pub(super) fn is_secure(
    peer: &moat_net::Peer,
    headers: &HeaderMap,
    trusted: &[std::net::IpAddr],
) -> bool {
    let forwarded = headers.get("x-forwarded-proto").filter(|_| {
        let address = peer.addr.ip().to_canonical();
        trusted.contains(&address)
    });
    match forwarded {
        Some(scheme) => scheme.as_bytes().eq_ignore_ascii_case(b"https"),
        None => peer.tls,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    /// The example of the S3 developer guide for presigned URLs of version 2.
    const LINK: &str = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE\
                        &Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620";
    const SIGNED_AT: UnixMillis = UnixMillis(1_175_139_000_000);

    fn authenticate(method: &Method, link: &str, headers: &HeaderMap) -> Result<Authenticated> {
        let root = RootCredentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: SecretString::new(
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            ),
        };
        let uri: Uri = link.parse().unwrap();
        let request = RequestParts::new(method, &uri, headers);
        let authenticator = Authenticator::new(root, "eu-west-1".to_owned());
        authenticator.authenticate(&request, Some("johnsmith"), SIGNED_AT)
    }

    #[test]
    fn a_link_of_version_2_authenticates_an_unsigned_payload() {
        let proven = authenticate(&Method::GET, LINK, &HeaderMap::new()).unwrap();
        assert_eq!(proven.payload, PayloadHash::Unsigned);
        assert!(proven.chunk_seed.is_none());
        assert_eq!(proven.hoisting, Some(Hoisting::Version2));
    }

    #[test]
    fn other_keys_tokens_methods_and_headers_are_refused() {
        let code = |method: &Method, link: &str, headers: &HeaderMap| {
            authenticate(method, link, headers).unwrap_err().code()
        };
        let none = HeaderMap::new();
        let other_key = LINK.replace("AKIAIOSFODNN7EXAMPLE", "AK");
        assert_eq!(
            code(&Method::GET, &other_key, &none),
            ErrorCode::InvalidAccessKeyId
        );
        let token = format!("{LINK}&x-amz-security-token=t");
        assert_eq!(code(&Method::GET, &token, &none), ErrorCode::InvalidToken);
        assert_eq!(
            code(&Method::PUT, LINK, &none),
            ErrorCode::SignatureDoesNotMatch
        );
        assert_eq!(code(&Method::GET, "/k", &none), ErrorCode::AccessDenied);
        let mut header = HeaderMap::new();
        header.insert("authorization", http::HeaderValue::from_static("AWS a:b"));
        assert_eq!(code(&Method::GET, "/k", &header), ErrorCode::InvalidRequest);
    }
}
