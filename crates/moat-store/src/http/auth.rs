//! Who is asking: access keys, and the signing keys derived from their secrets.
//!
//! Today there is one principal, root. Users, policies and temporary credentials join here.

use std::collections::HashMap;
use std::sync::RwLock;

use http::HeaderMap;
use moat_s3::sigv4::{Authentication, ChunkSeed, Claim, PayloadHash, RequestParts, SigningKey};
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
    /// For signed chunks.
    pub(super) chunk_seed: ChunkSeed,
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

    pub(super) fn authenticate(
        &self,
        request: &RequestParts<'_>,
        now: UnixMillis,
    ) -> Result<Authenticated> {
        let claim = match Authentication::parse(request).map_err(S3Error::from)? {
            Authentication::Header(claim) | Authentication::Presigned(claim) => claim,
            // There is no anonymous access until a bucket policy can grant it.
            Authentication::Anonymous => return Err(ErrorCode::AccessDenied.into()),
        };
        if *claim.access_key_id != *self.root.access_key_id {
            return Err(Error::from(ErrorCode::InvalidAccessKeyId)
                .with("AWSAccessKeyId", claim.access_key_id.into_owned()));
        }
        if claim.security_token.is_some() {
            return Err(ErrorCode::InvalidToken.into());
        }
        self.check_scope(&claim)?;
        let key = self.signing_key(&claim);
        let verified = claim.verify(request, &key, now).map_err(S3Error::from)?;
        Ok(Authenticated {
            payload: verified.payload,
            chunk_seed: verified.chunk_seed,
        })
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
