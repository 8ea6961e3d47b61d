//! Who is asking: accounts, their access keys, and the signing keys derived from their secrets.
//!
//! What store and gateway share. Both forms of signatures end here: version 4 in headers and links,
//! version 2 in links alone.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use moat_types::{SecretString, UnixMillis};

use crate::error::{ErrorCode, S3Error};
use crate::request::Hoisting;
use crate::sigv2::QueryClaim;
use crate::sigv4::{
    Authentication, ChunkSeed, Claim, ClaimKind, PayloadHash, RequestParts, SigningKey,
};

/// Signing keys stay valid for a day; the number kept for one account bounds memory against
/// made-up regions.
const SIGNING_KEYS_MAX: usize = 64;

/// An access key and what belongs to it.
#[derive(Debug, Clone)]
pub struct Account {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretString,
    /// The token that must come with it, for temporary keys.
    pub session_token: Option<SecretString>,
}

/// What authentication established.
#[derive(Debug)]
pub struct Authenticated {
    /// Which account it was, as its place in the list that [`Authenticator::new`] got.
    pub account: usize,
    /// What the body must be.
    pub payload: PayloadHash,
    /// Where the signatures of chunks begin; version 2 has none.
    pub chunk_seed: Option<ChunkSeed>,
    /// For a presigned request: which query parameters count as headers.
    pub hoisting: Option<Hoisting>,
}

/// Why a request is refused, with what its error document says beyond the usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Code and message.
    pub error: S3Error,
    /// A further element of the document.
    pub extra: Option<(&'static str, String)>,
}

impl<T: Into<S3Error>> From<T> for Refused {
    fn from(error: T) -> Self {
        Self {
            error: error.into(),
            extra: None,
        }
    }
}

/// Verifies signatures.
pub struct Authenticator {
    accounts: Vec<Keys>,
    by_id: HashMap<String, usize>,
    region: String,
}

struct Keys {
    account: Account,
    /// Few, since the days, regions and services of one account are.
    derived: RwLock<Vec<SigningKey>>,
}

impl Authenticator {
    /// Knows these accounts; of several with one id the last counts. A `region` that is not empty is
    /// the only one that requests may be signed for.
    pub fn new(accounts: Vec<Account>, region: String) -> Self {
        let ids = accounts.iter().enumerate();
        Self {
            by_id: ids
                .map(|(index, account)| (account.access_key_id.clone(), index))
                .collect(),
            accounts: accounts.into_iter().map(Keys::new).collect(),
            region,
        }
    }

    /// Verifies the signature of a request. `host_bucket` is the bucket that its host names.
    ///
    /// # Errors
    /// The S3 error for what is wrong; `AccessDenied` for a request without a signature.
    pub fn authenticate(
        &self,
        request: &RequestParts<'_>,
        host_bucket: Option<&str>,
        now: UnixMillis,
    ) -> Result<Authenticated, Refused> {
        match Authentication::parse(request)? {
            Authentication::Header(claim) | Authentication::Presigned(claim) => {
                self.version_4(&claim, request, now)
            }
            Authentication::PresignedV2(claim) => self.version_2(&claim, request, host_bucket, now),
            Authentication::Anonymous => Err(ErrorCode::AccessDenied.into()),
        }
    }

    fn version_4(
        &self,
        claim: &Claim<'_>,
        request: &RequestParts<'_>,
        now: UnixMillis,
    ) -> Result<Authenticated, Refused> {
        let index = self.find(&claim.access_key_id)?;
        let keys = &self.accounts[index];
        let token = claim.security_token.as_deref();
        if !keys.account.takes_token(token) {
            return Err(ErrorCode::InvalidToken.into());
        }
        self.check_scope(claim)?;
        let verified = claim.verify(request, &keys.signing_key(claim), now)?;
        Ok(Authenticated {
            account: index,
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
    ) -> Result<Authenticated, Refused> {
        let index = self.find(claim.access_key_id())?;
        let account = &self.accounts[index].account;
        if !account.takes_token(claim.security_token(request)) {
            return Err(ErrorCode::InvalidToken.into());
        }
        let secret = &account.secret_access_key;
        let payload = claim.verify(request, host_bucket, secret, now)?;
        Ok(Authenticated {
            account: index,
            payload,
            chunk_seed: None,
            hoisting: Some(Hoisting::Version2),
        })
    }

    fn find(&self, access_key_id: &str) -> Result<usize, Refused> {
        self.by_id
            .get(access_key_id)
            .copied()
            .ok_or_else(|| Refused {
                error: ErrorCode::InvalidAccessKeyId.into(),
                extra: Some(("AWSAccessKeyId", access_key_id.to_owned())),
            })
    }

    /// A region of ours in the configuration means that another one is a mistake, which the
    /// answer explains; SDKs follow the `Region` element.
    fn check_scope(&self, claim: &Claim<'_>) -> Result<(), Refused> {
        let malformed =
            |message: String| S3Error::new(ErrorCode::AuthorizationHeaderMalformed, message);
        if claim.service != "s3" {
            let message = "The credential scope names another service than s3.".to_owned();
            return Err(malformed(message).into());
        }
        if self.region.is_empty() || claim.region == self.region {
            return Ok(());
        }
        let message = format!(
            "The authorization header is malformed; the region '{}' is wrong; expecting '{}'",
            claim.region, self.region
        );
        Err(Refused {
            error: malformed(message),
            extra: Some(("Region", self.region.clone())),
        })
    }
}

/// Names no account: who has one is nobody's business.
impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authenticator({} accounts)", self.accounts.len())
    }
}

impl Account {
    /// Permanent keys come without a token, temporary ones with theirs.
    fn takes_token(&self, given: Option<&str>) -> bool {
        match (&self.session_token, given) {
            (None, None) => true,
            (Some(token), Some(given)) => *token == SecretString::new(given.to_owned()),
            _ => false,
        }
    }
}

impl Keys {
    fn new(account: Account) -> Self {
        Self {
            account,
            derived: RwLock::default(),
        }
    }

    fn signing_key(&self, claim: &Claim<'_>) -> SigningKey {
        let derived = self.derived.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = derived.iter().find(|key| claim.is_in_scope_of(key)) {
            return key.clone();
        }
        drop(derived);
        let secret = &self.account.secret_access_key;
        let key = SigningKey::derive(secret, &claim.date, &claim.region, &claim.service);
        let mut derived = self.derived.write().unwrap_or_else(PoisonError::into_inner);
        if derived.len() >= SIGNING_KEYS_MAX {
            derived.clear();
        }
        derived.push(key.clone());
        key
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method, Uri};

    use super::*;
    use crate::sigv4::{Credentials, Signer};

    /// The example of the S3 developer guide for presigned URLs of version 2.
    const LINK: &str = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE\
                        &Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620";
    const SIGNED_AT: UnixMillis = UnixMillis(1_175_139_000_000);

    fn account(id: &str, secret: &str, token: Option<&str>) -> Account {
        Account {
            access_key_id: id.to_owned(),
            secret_access_key: SecretString::new(secret.to_owned()),
            session_token: token.map(|token| SecretString::new(token.to_owned())),
        }
    }

    fn authenticate(
        method: &Method,
        link: &str,
        headers: &HeaderMap,
    ) -> Result<Authenticated, Refused> {
        let accounts = vec![
            account("other", "x", None),
            account(
                "AKIAIOSFODNN7EXAMPLE",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                None,
            ),
        ];
        let uri: Uri = link.parse().unwrap();
        let request = RequestParts::new(method, &uri, headers);
        let authenticator = Authenticator::new(accounts, "eu-west-1".to_owned());
        authenticator.authenticate(&request, Some("johnsmith"), SIGNED_AT)
    }

    #[test]
    fn a_link_of_version_2_authenticates_an_unsigned_payload() {
        let proven = authenticate(&Method::GET, LINK, &HeaderMap::new()).unwrap();
        assert_eq!(proven.account, 1);
        assert_eq!(proven.payload, PayloadHash::Unsigned);
        assert!(proven.chunk_seed.is_none());
        assert_eq!(proven.hoisting, Some(Hoisting::Version2));
    }

    #[test]
    fn other_keys_tokens_methods_and_headers_are_refused() {
        let code = |method: &Method, link: &str, headers: &HeaderMap| {
            authenticate(method, link, headers).unwrap_err().error.code
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
        header.insert("authorization", HeaderValue::from_static("AWS a:b"));
        assert_eq!(code(&Method::GET, "/k", &header), ErrorCode::InvalidRequest);
    }

    #[test]
    fn temporary_keys_need_their_token_and_the_right_region() {
        let authenticator = Authenticator::new(vec![account("ak", "sk", Some("t"))], "r1".into());
        let check = |token: Option<&str>, region: &str| {
            let credentials = Credentials {
                access_key_id: "ak".to_owned(),
                secret_access_key: SecretString::new("sk".to_owned()),
                session_token: token.map(str::to_owned),
            };
            let uri = Uri::from_static("http://h/b/k");
            let mut headers = HeaderMap::new();
            let payload = PayloadHash::Unsigned;
            Signer::new(credentials, region, "s3")
                .sign(&Method::GET, &uri, &mut headers, payload, SIGNED_AT)
                .unwrap();
            let request = RequestParts::new(&Method::GET, &uri, &headers);
            let outcome = authenticator.authenticate(&request, None, SIGNED_AT);
            outcome.map(|_| ()).map_err(|refused| refused.error.code)
        };
        assert_eq!(check(Some("t"), "r1"), Ok(()));
        assert_eq!(check(None, "r1"), Err(ErrorCode::InvalidToken));
        assert_eq!(check(Some("u"), "r1"), Err(ErrorCode::InvalidToken));
        let wrong = Err(ErrorCode::AuthorizationHeaderMalformed);
        assert_eq!(check(Some("t"), "r2"), wrong);
    }
}
