//! Presigned URLs of AWS Signature Version 2 (S3 developer guide, "Signing and authenticating
//! REST requests", section "Query string request authentication alternative").
//!
//! boto3 makes such URLs unless it is told otherwise (`AWSAccessKeyId`, `Signature`, `Expires`), so
//! a store that wants to be read through links has to take them. Only this form: everything that
//! signs each request speaks version 4, and an `Authorization: AWS` header stays refused.
//!
//! ```text
//! string to sign:  METHOD LF content-md5 LF content-type LF expires LF
//!                  { x-amz-name ":" value LF }        sorted, repeated values joined by a comma
//!                  [ "/" bucket-of-the-host ] raw-path [ "?" sub-resource [ "=" value ] { "&" ... } ]
//! signature:       base64(HMAC-SHA1(secret access key, string to sign))
//! ```
//!
//! What version 2 does not cover is weaker than version 4, by its design: neither the body, nor
//! the host, nor parameters such as `prefix`. It does cover every parameter that chooses another
//! operation, so a link to an object cannot be turned into one to its ACL.

use std::collections::BTreeMap;

use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, verify};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use moat_types::{SecretString, UnixMillis};

use crate::request::{Hoisting, Query, is_subresource};
use crate::sigv4::{AuthError, PayloadHash, RequestParts};

/// The parameters that carry the signature.
const ACCESS_KEY_ID: &str = "AWSAccessKeyId";
const SIGNATURE: &str = "Signature";
const EXPIRES: &str = "Expires";

const SECURITY_TOKEN: &str = "x-amz-security-token";
const PAYLOAD_HEADER: &str = "x-amz-content-sha256";

/// Parameters of the canonical resource that do not name a sub-resource of ours by themselves:
/// what AWS documents, and what botocore signs beyond it.
const SIGNED_PARAMETERS: [&str; 16] = [
    "defaultObjectAcl",
    "delete",
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "select",
    "select-type",
    "storageClass",
    "uploadId",
    "uploads",
    "versionId",
];

/// Who claims to have presigned what. Nothing in it is proven before [`QueryClaim::verify`].
#[derive(Clone)]
pub struct QueryClaim<'a> {
    query: Query<'a>,
    /// In seconds since 1970.
    expires: i64,
}

impl<'a> QueryClaim<'a> {
    /// Whether a query is presigned with version 2, well or not.
    pub(crate) fn is_in(query: &Query<'_>) -> bool {
        query.has(SIGNATURE) || query.has(ACCESS_KEY_ID)
    }

    /// # Errors
    /// `MalformedPresigned` if a part is missing or `Expires` is not a number.
    pub(crate) fn parse(query: Query<'a>) -> Result<Self, AuthError> {
        let (Some(_), Some(_), Some(expires)) = (
            query.get(ACCESS_KEY_ID),
            query.get(SIGNATURE),
            query.get(EXPIRES),
        ) else {
            return Err(AuthError::MalformedPresigned(
                "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
            ));
        };
        let expires = expires.parse().map_err(|_| {
            AuthError::MalformedPresigned("Invalid date (should be seconds since epoch)")
        })?;
        Ok(Self { query, expires })
    }

    /// Whose secret made the signature.
    pub fn access_key_id(&self) -> &str {
        self.query.get(ACCESS_KEY_ID).unwrap_or_default()
    }

    /// The token of temporary credentials, which stands in the query or a header.
    pub fn security_token<'c>(&'c self, request: &RequestParts<'c>) -> Option<&'c str> {
        let header = || request.headers.get(SECURITY_TOKEN)?.to_str().ok();
        self.query.get_ignore_case(SECURITY_TOKEN).or_else(header)
    }

    /// Verifies the claim against the request that it came with, and tells what the body must be.
    ///
    /// `host_bucket` is the bucket that the host names; `None` for path style. `secret` belongs to
    /// [`Self::access_key_id`].
    ///
    /// # Errors
    /// `AuthError`: expired, or a signature that does not match.
    pub fn verify(
        &self,
        request: &RequestParts<'_>,
        host_bucket: Option<&str>,
        secret: &SecretString,
        now: UnixMillis,
    ) -> Result<PayloadHash, AuthError> {
        if now.0 > self.expires.saturating_mul(1000) {
            return Err(AuthError::Expired);
        }
        let expires = self.query.get(EXPIRES).unwrap_or_default();
        let text = string_to_sign(request, &self.query, host_bucket, expires)?;
        let signature = self.query.get(SIGNATURE).unwrap_or_default();
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| AuthError::SignatureMismatch)?;
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
        // This compares in constant time.
        verify(&key, &text, &signature).map_err(|_| AuthError::SignatureMismatch)?;
        self.payload(request.headers)
    }

    /// What the body must be. The signature covers `x-amz-content-sha256` if it is there, which
    /// is rare. There is no seed that signed chunks could begin with.
    fn payload(&self, headers: &HeaderMap) -> Result<PayloadHash, AuthError> {
        if headers.contains_key(PAYLOAD_HEADER) {
            return PayloadHash::of_anonymous(headers);
        }
        match self.query.get_ignore_case(PAYLOAD_HEADER) {
            Some(text) => PayloadHash::parse_without_seed(text),
            None => Ok(PayloadHash::Unsigned),
        }
    }
}

/// Signatures and tokens must not stand in logs.
impl std::fmt::Debug for QueryClaim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryClaim")
            .field("access_key_id", &self.access_key_id())
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Writes the string to sign. `date` is what stands in its fourth line.
fn string_to_sign(
    request: &RequestParts<'_>,
    query: &Query<'_>,
    host_bucket: Option<&str>,
    date: &str,
) -> Result<Vec<u8>, AuthError> {
    let headers = signed_headers(request.headers, query)?;
    let header = |name| headers.get(name).map_or(&b""[..], Vec::as_slice);
    let mut out = Vec::with_capacity(256);
    for line in [
        request.method.as_str().as_bytes(),
        header("content-md5"),
        header("content-type"),
        date.as_bytes(),
    ] {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    for (name, value) in &headers {
        if name.starts_with("x-amz-") {
            out.extend_from_slice(name.as_bytes());
            out.push(b':');
            out.extend_from_slice(value);
            out.push(b'\n');
        }
    }
    push_resource(&mut out, request.path, query, host_bucket);
    Ok(out)
}

/// The headers that the signature covers, sent or hoisted into the query. As in
/// [`Hoisting::restore`], a header that was sent hides the parameter.
///
/// A parameter that can be no header is refused: a line feed in it would let one signed header
/// pass for two.
fn signed_headers(
    sent: &HeaderMap,
    query: &Query<'_>,
) -> Result<BTreeMap<String, Vec<u8>>, AuthError> {
    let mut signed = BTreeMap::new();
    for name in sent.keys().map(http::HeaderName::as_str) {
        if name.starts_with("x-amz-") || name == "content-md5" || name == "content-type" {
            let values: Vec<&[u8]> = sent.get_all(name).iter().map(trimmed).collect();
            signed.insert(name.to_owned(), values.join(&b','));
        }
    }
    for header in Hoisting::Version2.headers_in(query) {
        let (name, value) = header.map_err(|_| AuthError::SignatureMismatch)?;
        signed
            .entry(name.as_str().to_owned())
            .or_insert_with(|| trimmed(&value).to_vec());
    }
    Ok(signed)
}

fn trimmed(value: &HeaderValue) -> &[u8] {
    value.as_bytes().trim_ascii()
}

/// Writes bucket, path as received, and the sorted parameters that count, decoded.
fn push_resource(out: &mut Vec<u8>, path: &str, query: &Query<'_>, host_bucket: Option<&str>) {
    if let Some(bucket) = host_bucket {
        out.push(b'/');
        out.extend_from_slice(bucket.as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    // The resource of a bucket ends with a slash, also where the path does not.
    if host_bucket.is_none() && path.rfind('/') == Some(0) && path.len() > 1 {
        out.push(b'/');
    }
    let mut parameters: Vec<(&str, &str)> = query
        .iter()
        .filter(|(name, _)| is_signed_parameter(name))
        .collect();
    parameters.sort_by_key(|(name, _)| *name);
    for (index, (name, value)) in parameters.into_iter().enumerate() {
        out.push(if index == 0 { b'?' } else { b'&' });
        out.extend_from_slice(name.as_bytes());
        if !value.is_empty() {
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

fn is_signed_parameter(name: &str) -> bool {
    SIGNED_PARAMETERS.contains(&name) || is_subresource(name)
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::sigv4::Authentication;

    /// The example credentials of the AWS documentation.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    /// The signature in base64, with `date` in the fourth line.
    fn signature(
        method: &Method,
        uri: &'static str,
        bucket: Option<&str>,
        sent: &HeaderMap,
        date: &str,
    ) -> String {
        let uri = Uri::from_static(uri);
        let request = RequestParts::new(method, &uri, sent);
        let query = Query::parse(request.query).unwrap();
        let text = string_to_sign(&request, &query, bucket, date).unwrap();
        let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
        STANDARD.encode(aws_lc_rs::hmac::sign(&key, &text))
    }

    #[test]
    fn the_documented_examples_have_the_documented_signatures() {
        // S3 developer guide, "Authentication examples" of version 2. Those with an Authorization
        // header have the date in the line where a presigned URL has its expiry.
        let check = |method, uri, bucket, sent: &[_], date, expected| {
            assert_eq!(
                signature(&method, uri, bucket, &headers(sent), date),
                expected,
                "{uri}"
            );
        };
        let bucket = Some("johnsmith");
        check(
            Method::GET,
            "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Expires=1175139620",
            bucket,
            &[],
            "1175139620",
            "NpgCjnDzrM+WFzoENXmpNDUsSn8=",
        );
        check(
            Method::PUT,
            "/photos/puppy.jpg",
            bucket,
            &[("content-type", "image/jpeg"), ("content-length", "94328")],
            "Tue, 27 Mar 2007 21:15:45 +0000",
            "MyyxeRY7whkBe+bq8fHCL/2kKUg=",
        );
        check(
            Method::GET,
            "/?prefix=photos&max-keys=50&marker=puppy",
            bucket,
            &[("user-agent", "Mozilla/5.0")],
            "Tue, 27 Mar 2007 19:42:41 +0000",
            "htDYFYduRNen8P9ZfE/s9SuKy0U=",
        );
        check(
            Method::GET,
            "/?acl",
            bucket,
            &[],
            "Tue, 27 Mar 2007 19:44:46 +0000",
            "c2WLPFtWHVgbEmeEG93a4cG37dM=",
        );
        // The same in path style.
        check(
            Method::GET,
            "/johnsmith?acl",
            None,
            &[],
            "Tue, 27 Mar 2007 19:44:46 +0000",
            "c2WLPFtWHVgbEmeEG93a4cG37dM=",
        );
        check(
            Method::DELETE,
            "/johnsmith/photos/puppy.jpg",
            None,
            &[],
            "Tue, 27 Mar 2007 21:20:26 +0000",
            "lx3byBScXR6KzyMaifNkardMwNk=",
        );
        check(
            Method::PUT,
            "/db-backup.dat.gz",
            Some("static.johnsmith.net"),
            &[
                ("x-amz-acl", "public-read"),
                ("content-type", "application/x-download"),
                ("content-md5", "4gJE4saaMU4BqNR0kLY+lw=="),
                ("x-amz-meta-reviewedby", "joe@johnsmith.net"),
                ("x-amz-meta-reviewedby", "jane@johnsmith.net"),
                ("x-amz-meta-filechecksum", "0x02661779"),
                ("x-amz-meta-checksumalgorithm", "crc32"),
                ("content-disposition", "attachment; filename=database.dat"),
                ("content-encoding", "gzip"),
            ],
            "Tue, 27 Mar 2007 21:06:08 +0000",
            "ilyl83RwaSoYIEdixDQcA4OnAnc=",
        );
        check(
            Method::GET,
            "/dictionary/fran%C3%A7ais/pr%c3%a9f%c3%a8re",
            None,
            &[],
            "Wed, 28 Mar 2007 01:49:49 +0000",
            "DNEZGsoieTZ92F3bUfSPQcbGmlM=",
        );
    }

    fn verify_get(uri: &str, sent: &HeaderMap, now_seconds: i64) -> Result<PayloadHash, AuthError> {
        let uri: Uri = uri.parse().unwrap();
        let request = RequestParts::new(&Method::GET, &uri, sent);
        let Authentication::PresignedV2(claim) = Authentication::parse(&request)? else {
            panic!("not presigned with version 2");
        };
        assert_eq!(claim.access_key_id(), "AKIAIOSFODNN7EXAMPLE");
        assert!(!format!("{claim:?}").contains("NpgCjnDzrM"));
        let secret = SecretString::new(SECRET.to_owned());
        claim.verify(
            &request,
            Some("johnsmith"),
            &secret,
            UnixMillis(now_seconds * 1000),
        )
    }

    const PUPPY: &str = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE\
                         &Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620";

    #[test]
    fn a_link_is_good_until_it_expires() {
        let none = HeaderMap::new();
        assert_eq!(
            verify_get(PUPPY, &none, 1_175_139_620),
            Ok(PayloadHash::Unsigned)
        );
        assert_eq!(
            verify_get(PUPPY, &none, 1_175_139_621),
            Err(AuthError::Expired)
        );
        assert_eq!(AuthError::Expired.code().as_str(), "AccessDenied");
        assert_eq!(AuthError::Expired.to_string(), "Request has expired");
    }

    #[test]
    fn whatever_changes_the_meaning_of_a_link_breaks_it() {
        let none = HeaderMap::new();
        for suffix in [
            "&acl",
            "&retention",
            "&attributes",
            "&versionId=1",
            "&uploadId=1",
            "&response-content-type=text/html",
            "&x-amz-meta-a=1",
            "&content-type=text/plain",
            "&x-amz-a%0Ab=1",
            "&x-amz-a=1%0Ax-amz-b:2",
        ] {
            let result = verify_get(&format!("{PUPPY}{suffix}"), &none, 0);
            assert_eq!(result, Err(AuthError::SignatureMismatch), "{suffix}");
        }
        for sent in [("x-amz-acl", "private"), ("content-type", "text/plain")] {
            let result = verify_get(PUPPY, &headers(&[sent]), 0);
            assert_eq!(result, Err(AuthError::SignatureMismatch), "{sent:?}");
        }
        let later = PUPPY.replace("1175139620", "1175139621");
        assert_eq!(
            verify_get(&later, &none, 0),
            Err(AuthError::SignatureMismatch)
        );
        let other = PUPPY.replace("puppy", "kitten");
        assert_eq!(
            verify_get(&other, &none, 0),
            Err(AuthError::SignatureMismatch)
        );
        assert!(verify_get(&format!("{PUPPY}&utm_source=mail"), &none, 0).is_ok());
    }

    #[test]
    fn what_is_missing_or_no_number_is_said() {
        let none = HeaderMap::new();
        for (uri, message) in [
            ("/k?AWSAccessKeyId=a&Expires=1", "requires the Signature"),
            ("/k?Signature=a&Expires=1", "requires the Signature"),
            ("/k?AWSAccessKeyId=a&Signature=a", "requires the Signature"),
            (
                "/k?AWSAccessKeyId=a&Signature=a&Expires=soon",
                "seconds since epoch",
            ),
        ] {
            let error = verify_get(uri, &none, 0).unwrap_err();
            assert!(error.to_string().contains(message), "{uri}: {error}");
            assert_eq!(error.code().as_str(), "AccessDenied");
        }
        let both = format!("{PUPPY}&X-Amz-Algorithm=AWS4-HMAC-SHA256");
        assert_eq!(
            verify_get(&both, &none, 0),
            Err(AuthError::SeveralMechanisms)
        );
        let header = headers(&[("authorization", "AWS a:b")]);
        assert_eq!(
            verify_get(PUPPY, &header, 0),
            Err(AuthError::SeveralMechanisms)
        );
    }
}
