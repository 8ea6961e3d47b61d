//! Makes signatures: for the loader, the re-signing gateway and tests.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use moat_types::{SecretString, UnixMillis};

use super::canonical::{EncodedSlash, canonical_request};
use super::{ALGORITHM, ChunkSeed, PRESIGNED_SECONDS_MAX, PayloadHash, RequestParts, SigningKey};
use crate::time::{AmzDate, amz_date};
use crate::uri::{Slash, encode};

/// What an access key consists of.
#[derive(Clone)]
pub struct Credentials {
    /// The public half.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: SecretString,
    /// The token of temporary credentials.
    pub session_token: Option<String>,
}

/// Only the public half is shown.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.access_key_id)
    }
}

/// Which headers a signature covers besides `host` and all `x-amz-*`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SignedHeaders {
    /// `content-type`, `content-md5` and `range`, which proxies leave alone.
    #[default]
    Usual,
    /// All headers of the request.
    All,
}

/// Why a request can't be signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// Neither a `Host` header nor an authority in the URI.
    #[error("the request names no host")]
    NoHost,
    /// A credential that cannot stand in a header.
    #[error("the credentials hold characters that no header can hold")]
    InvalidCredentials,
    /// A validity outside 1 second to 7 days.
    #[error("a presigned URL must be valid for 1 second to 7 days")]
    InvalidExpiry,
}

/// Signs requests with one access key for one region and service. Keeps the key of the day.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
    signed_headers: SignedHeaders,
    key_of_day: Mutex<Option<SigningKey>>,
}

impl Signer {
    /// A signer; the service is `s3` for all but STS.
    pub fn new(credentials: Credentials, region: &str, service: &str) -> Self {
        Self {
            credentials,
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers: SignedHeaders::default(),
            key_of_day: Mutex::new(None),
        }
    }

    /// The same signer with another choice of headers.
    #[must_use]
    pub const fn with_signed_headers(mut self, signed_headers: SignedHeaders) -> Self {
        self.signed_headers = signed_headers;
        self
    }

    /// The signing key for the day of `at`.
    pub fn signing_key(&self, at: UnixMillis) -> SigningKey {
        let date = amz_date(at);
        let date = &date[..8];
        let mut kept = self
            .key_of_day
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some(key) if key.scope().starts_with(date) => key.clone(),
            _ => {
                let secret = &self.credentials.secret_access_key;
                let key = SigningKey::derive(secret, date, &self.region, &self.service);
                kept.insert(key).clone()
            }
        }
    }

    /// Signs by header: sets `x-amz-date`, `x-amz-content-sha256`, `x-amz-security-token` and
    /// `authorization`, and `host` if it is missing. The URI's path and query must be encoded as
    /// they will be sent. The result begins the chunk signatures of a streaming payload.
    ///
    /// # Errors
    /// `SignError` if there is no host, or the credentials do not fit into headers.
    pub fn sign(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &mut HeaderMap,
        payload: PayloadHash,
        at: UnixMillis,
    ) -> Result<ChunkSeed, SignError> {
        let date = amz_date(at);
        let payload_text = payload.to_text();
        self.set_headers(uri, headers, &payload_text, &date)?;
        let signed_headers = self.list_signed_headers(headers);
        let key = self.signing_key(at);
        let request = RequestParts::new(method, uri, headers);
        let canonical =
            canonical_request(&request, &signed_headers, &payload_text, EncodedSlash::Kept);
        let signature = key.sign_canonical(&date, &canonical);
        let value = [
            ALGORITHM,
            " Credential=",
            &self.credentials.access_key_id,
            "/",
            key.scope(),
            ", SignedHeaders=",
            &signed_headers,
            ", Signature=",
            &signature.to_hex(),
        ]
        .concat();
        headers.insert(http::header::AUTHORIZATION, header_value(&value)?);
        Ok(ChunkSeed {
            key,
            at: date,
            signature,
        })
    }

    fn set_headers(
        &self,
        uri: &Uri,
        headers: &mut HeaderMap,
        payload_text: &str,
        date: &AmzDate,
    ) -> Result<(), SignError> {
        headers.remove(http::header::AUTHORIZATION);
        if !headers.contains_key(http::header::HOST) {
            let authority = uri.authority().ok_or(SignError::NoHost)?;
            headers.insert(http::header::HOST, header_value(authority.as_str())?);
        }
        headers.insert("x-amz-date", header_value(date)?);
        headers.insert("x-amz-content-sha256", header_value(payload_text)?);
        match &self.credentials.session_token {
            Some(token) => headers.insert("x-amz-security-token", header_value(token)?),
            None => headers.remove("x-amz-security-token"),
        };
        Ok(())
    }

    /// The names to sign, sorted, separated by semicolons.
    fn list_signed_headers(&self, headers: &HeaderMap) -> String {
        let mut names: Vec<&str> = headers
            .keys()
            .map(HeaderName::as_str)
            .filter(|name| self.covers(name))
            .collect();
        names.sort_unstable();
        names.join(";")
    }

    fn covers(&self, name: &str) -> bool {
        self.signed_headers == SignedHeaders::All
            || name.starts_with("x-amz-")
            || matches!(name, "host" | "content-type" | "content-md5" | "range")
    }

    /// Makes a presigned URL for a request that will send `headers` (all of them are signed) and
    /// an unsigned payload. Returns the whole URI as text.
    ///
    /// # Errors
    /// `SignError` if there is no host or the validity is out of bounds.
    pub fn presign(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        expires_seconds: u32,
        at: UnixMillis,
    ) -> Result<String, SignError> {
        if !(1..=PRESIGNED_SECONDS_MAX).contains(&expires_seconds) {
            return Err(SignError::InvalidExpiry);
        }
        let authority = uri.authority().ok_or(SignError::NoHost)?;
        let mut headers = headers.clone();
        if !headers.contains_key(http::header::HOST) {
            headers.insert(http::header::HOST, header_value(authority.as_str())?);
        }
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let signed_headers = names.join(";");
        let (date, key) = (amz_date(at), self.signing_key(at));
        let query = self.presigned_query(uri, &key, &date, expires_seconds, &signed_headers);
        let request = RequestParts {
            method,
            path: uri.path(),
            query: &query,
            headers: &headers,
            host: authority.as_str(),
        };
        let payload = PayloadHash::Unsigned.to_text();
        let canonical = canonical_request(&request, &signed_headers, &payload, EncodedSlash::Kept);
        let signature = key.sign_canonical(&date, &canonical).to_hex();
        let scheme = uri.scheme_str().unwrap_or("https");
        let path = uri.path();
        Ok(format!(
            "{scheme}://{authority}{path}?{query}&X-Amz-Signature={signature}"
        ))
    }

    fn presigned_query(
        &self,
        uri: &Uri,
        key: &SigningKey,
        date: &AmzDate,
        expires_seconds: u32,
        signed_headers: &str,
    ) -> String {
        let credential = [&self.credentials.access_key_id, "/", key.scope()].concat();
        let mut query = uri.query().unwrap_or_default().to_owned();
        let mut add = |name: &str, value: &str| {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            query.push_str(&encode(value.as_bytes(), Slash::Encode));
        };
        add("X-Amz-Algorithm", ALGORITHM);
        add("X-Amz-Credential", &credential);
        add("X-Amz-Date", date);
        add("X-Amz-Expires", &expires_seconds.to_string());
        if let Some(token) = &self.credentials.session_token {
            add("X-Amz-Security-Token", token);
        }
        add("X-Amz-SignedHeaders", signed_headers);
        query
    }
}

fn header_value(text: &str) -> Result<HeaderValue, SignError> {
    HeaderValue::from_str(text).map_err(|_| SignError::InvalidCredentials)
}
