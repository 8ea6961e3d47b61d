//! Finds out how a request authenticates, and whom it claims to come from.

use std::borrow::Cow;

use http::HeaderMap;
use moat_types::UnixMillis;

use super::{
    ALGORITHM, AuthError, EMPTY_SHA256, PRESIGNED_SECONDS_MAX, PayloadHash, RequestParts, Signature,
};
use crate::request::Query;
use crate::sigv2::QueryClaim;
use crate::time::{AmzDate, amz_date, parse_amz_date, parse_http_date};

const PAYLOAD_HEADER: &str = "x-amz-content-sha256";
const TOKEN_HEADER: &str = "x-amz-security-token";

/// The most headers that one signature may list; a bound on the work of a refused request.
const SIGNED_HEADERS_MAX: usize = 256;

/// How a request authenticates.
#[derive(Clone, Debug)]
pub enum Authentication<'a> {
    /// By an `Authorization` header.
    Header(Claim<'a>),
    /// By `X-Amz-*` query parameters.
    Presigned(Claim<'a>),
    /// By the query parameters of version 2.
    PresignedV2(QueryClaim<'a>),
    /// Not at all.
    Anonymous,
}

/// Where the claim stood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimKind {
    /// In the `Authorization` header.
    Header,
    /// In the query, good for this many seconds.
    Presigned {
        /// `X-Amz-Expires`, 1 to [`PRESIGNED_SECONDS_MAX`].
        expires_seconds: u32,
    },
}

/// Who claims to have signed what. Nothing in it is proven before [`Claim::verify`].
#[derive(Clone)]
pub struct Claim<'a> {
    /// Where the claim stood.
    pub kind: ClaimKind,
    /// Whose secret made the signature.
    pub access_key_id: Cow<'a, str>,
    /// The scope's date, `YYYYMMDD`; it is the day of `timestamp`.
    pub date: Cow<'a, str>,
    /// The scope's region; empty in MinIO's admin calls.
    pub region: Cow<'a, str>,
    /// The scope's service: `s3`, `sts`.
    pub service: Cow<'a, str>,
    /// The token of temporary credentials.
    pub security_token: Option<Cow<'a, str>>,
    /// The time of the request.
    pub timestamp: UnixMillis,
    /// What the payload must be.
    pub payload: PayloadHash,
    /// `payload` as it was sent, for the canonical request.
    pub(super) payload_text: Cow<'a, str>,
    pub(super) amz_date: AmzDate,
    pub(super) signed_headers: Cow<'a, str>,
    pub(super) signature: Signature,
}

impl<'a> Authentication<'a> {
    /// Parses the authentication of a request.
    ///
    /// # Errors
    /// `AuthError` if there is one but it is not well formed or not supported.
    pub fn parse(request: &RequestParts<'a>) -> Result<Self, AuthError> {
        let mut values = request.headers.get_all(http::header::AUTHORIZATION).iter();
        let header = values.next();
        let query = presigned_query(request.query)?;
        match (header, query) {
            (None, None) => Ok(Self::Anonymous),
            (Some(value), None) if values.next().is_none() => {
                let text = std::str::from_utf8(value.as_bytes())
                    .map_err(|_| AuthError::UnsupportedType)?;
                Ok(Self::Header(parse_header(text, request.headers)?))
            }
            (None, Some(PresignedQuery::V4(query))) => {
                Ok(Self::Presigned(parse_presigned(&query, request.headers)?))
            }
            (None, Some(PresignedQuery::V2(query))) => {
                Ok(Self::PresignedV2(QueryClaim::parse(query)?))
            }
            _ => Err(AuthError::SeveralMechanisms),
        }
    }
}

impl Claim<'_> {
    /// For services that send no `x-amz-content-sha256` (STS): the signature covers the hash of
    /// the body, which the caller has read. Without this call the body counts as empty.
    pub fn set_body_hash(&mut self, sha256: [u8; 32]) {
        self.payload = PayloadHash::Sha256(sha256);
        self.payload_text = Cow::Owned(hex::encode(sha256));
    }
}

/// Tokens and signatures must not stand in logs.
impl std::fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claim")
            .field("kind", &self.kind)
            .field("access_key_id", &self.access_key_id)
            .field("date", &self.date)
            .field("region", &self.region)
            .field("service", &self.service)
            .field("payload", &self.payload)
            .field("signed_headers", &self.signed_headers)
            .finish_non_exhaustive()
    }
}

/// A parsed query that holds a signature.
enum PresignedQuery<'a> {
    V2(Query<'a>),
    V4(Query<'a>),
}

fn presigned_query(raw: &str) -> Result<Option<PresignedQuery<'_>>, AuthError> {
    // Most requests have no such parameter; they are spared the parsing.
    let may_be_presigned = raw.contains("Signature")
        || raw.contains("AWSAccessKeyId")
        || contains_ignore_case(raw, "x-amz-algorithm");
    if !may_be_presigned {
        return Ok(None);
    }
    let query = Query::parse(raw).map_err(|_| AuthError::InvalidUri)?;
    let is_v4 = query.get_ignore_case("X-Amz-Algorithm").is_some()
        || query.get_ignore_case("X-Amz-Signature").is_some();
    match (is_v4, QueryClaim::is_in(&query)) {
        (true, true) => Err(AuthError::SeveralMechanisms),
        (true, false) => Ok(Some(PresignedQuery::V4(query))),
        (false, true) => Ok(Some(PresignedQuery::V2(query))),
        (false, false) => Ok(None),
    }
}

fn contains_ignore_case(text: &str, lower_case: &str) -> bool {
    text.as_bytes()
        .windows(lower_case.len())
        .any(|window| window.eq_ignore_ascii_case(lower_case.as_bytes()))
}

/// Parses `AWS4-HMAC-SHA256 Credential=..., SignedHeaders=..., Signature=...`. Fields may come in
/// any order, with or without spaces around the commas.
fn parse_header<'a>(text: &'a str, headers: &'a HeaderMap) -> Result<Claim<'a>, AuthError> {
    let text = text.trim();
    let (scheme, fields) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    match scheme {
        ALGORITHM => {}
        "AWS" => return Err(AuthError::UnsupportedMechanism),
        other if other.starts_with("AWS4-") => return Err(AuthError::UnsupportedMechanism),
        _ => return Err(AuthError::UnsupportedType),
    }
    let [credential, signed_headers, signature] = header_fields(fields)?;
    let (access_key_id, [date, region, service]) = split_credential(credential).ok_or_else(|| {
        malformed_header("the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
    })?;
    let signature = Signature::parse(signature.as_bytes())
        .ok_or_else(|| malformed_header("the Signature is not 64 lower-case hex digits."))?;
    check_signed_headers(signed_headers).map_err(malformed_header)?;
    let (timestamp, amz_date) = header_date(headers)?;
    if !amz_date.starts_with(date) || date.len() != 8 {
        return Err(malformed_header(format!(
            "Invalid credential date. This date is not the same as X-Amz-Date: \"{}\".",
            &amz_date[..8]
        )));
    }
    let (payload, payload_text) = header_payload(headers, service)?;
    Ok(Claim {
        kind: ClaimKind::Header,
        access_key_id: access_key_id.into(),
        date: date.into(),
        region: region.into(),
        service: service.into(),
        security_token: header_str(headers, TOKEN_HEADER).map(Cow::Borrowed),
        timestamp,
        payload,
        payload_text,
        amz_date,
        signed_headers: signed_headers.into(),
        signature,
    })
}

/// `Credential`, `SignedHeaders` and `Signature`, each exactly once.
fn header_fields(text: &str) -> Result<[&str; 3], AuthError> {
    const NAMES: [&str; 3] = ["Credential", "SignedHeaders", "Signature"];
    let mut found: [Option<&str>; 3] = [None; 3];
    for field in text.split(',') {
        let (name, value) = field
            .trim()
            .split_once('=')
            .ok_or_else(|| malformed_header("a field is not of the form name=value."))?;
        let slot = NAMES
            .iter()
            .position(|known| *known == name.trim())
            .ok_or_else(|| malformed_header("it has an unknown field."))?;
        if found[slot].replace(value.trim()).is_some() {
            return Err(malformed_header("a field stands twice."));
        }
    }
    match found {
        [Some(credential), Some(signed_headers), Some(signature)] => {
            Ok([credential, signed_headers, signature])
        }
        _ => Err(malformed_header(
            "it must hold Credential, SignedHeaders and Signature.",
        )),
    }
}

/// Splits from the right, as access key ids of third parties may hold a slash.
fn split_credential(text: &str) -> Option<(&str, [&str; 3])> {
    let mut parts = text.rsplitn(5, '/');
    let terminator = parts.next()?;
    let (service, region, date) = (parts.next()?, parts.next()?, parts.next()?);
    let access_key_id = parts.next()?;
    if terminator != "aws4_request" || access_key_id.is_empty() || service.is_empty() {
        return None;
    }
    Some((access_key_id, [date, region, service]))
}

/// Checks the list of signed headers: lower case, no name empty, `host` among them.
fn check_signed_headers(list: &str) -> Result<(), &'static str> {
    let mut has_host = false;
    for (index, name) in list.split(';').enumerate() {
        if index >= SIGNED_HEADERS_MAX {
            return Err("it lists too many signed headers.");
        }
        let is_token = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase());
        if !is_token {
            return Err("SignedHeaders must be lower-case names separated by semicolons.");
        }
        has_host |= name == "host";
    }
    if has_host {
        Ok(())
    } else {
        Err("the host header must be signed.")
    }
}

/// The time of the request: `x-amz-date`, else `Date`, in either form.
fn header_date(headers: &HeaderMap) -> Result<(UnixMillis, AmzDate), AuthError> {
    let text = header_str(headers, "x-amz-date")
        .or_else(|| header_str(headers, "date"))
        .ok_or(AuthError::MissingDate)?;
    let at = parse_amz_date(text)
        .or_else(|| parse_http_date(text))
        .ok_or(AuthError::MissingDate)?;
    Ok((at, amz_date(at)))
}

fn header_payload<'a>(
    headers: &'a HeaderMap,
    service: &str,
) -> Result<(PayloadHash, Cow<'a, str>), AuthError> {
    let Some(text) = header_str(headers, PAYLOAD_HEADER) else {
        if service == "s3" {
            return Err(AuthError::MissingPayloadHash);
        }
        let hash = PayloadHash::Sha256(EMPTY_SHA256);
        return Ok((hash, hash.to_text()));
    };
    let payload = PayloadHash::parse(text).ok_or(AuthError::InvalidPayloadHash)?;
    Ok((payload, text.into()))
}

fn parse_presigned<'a>(query: &Query<'a>, headers: &'a HeaderMap) -> Result<Claim<'a>, AuthError> {
    let get = |name: &str| {
        query.get_ignore_case(name).ok_or_else(|| {
            malformed_query("Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.")
        })
    };
    if get("X-Amz-Algorithm")? != ALGORITHM {
        return Err(malformed_query(
            "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\"",
        ));
    }
    let credential = get("X-Amz-Credential")?;
    let signed_headers = get("X-Amz-SignedHeaders")?;
    let signature = get("X-Amz-Signature")?;
    let (date_text, expires) = (get("X-Amz-Date")?, get("X-Amz-Expires")?);
    let (access_key_id, [date, region, service]) = split_credential(credential).ok_or_else(|| {
        malformed_query("Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\".")
    })?;
    let expires_seconds = parse_expires(expires)?;
    let timestamp = parse_amz_date(date_text).ok_or_else(|| {
        malformed_query("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"")
    })?;
    if !date_text.starts_with(date) || date.len() != 8 {
        return Err(malformed_query(
            "Invalid credential date. This date is not the same as X-Amz-Date.",
        ));
    }
    check_signed_headers(signed_headers).map_err(malformed_query)?;
    let signature = Signature::parse(signature.as_bytes()).ok_or(AuthError::SignatureMismatch)?;
    let (payload, payload_text) = presigned_payload(query, headers, signed_headers)?;
    Ok(Claim {
        kind: ClaimKind::Presigned { expires_seconds },
        access_key_id: access_key_id.to_owned().into(),
        date: date.to_owned().into(),
        region: region.to_owned().into(),
        service: service.to_owned().into(),
        security_token: query
            .get_ignore_case("X-Amz-Security-Token")
            .map(|token| token.to_owned().into())
            .or_else(|| header_str(headers, TOKEN_HEADER).map(Cow::Borrowed)),
        timestamp,
        payload,
        payload_text,
        amz_date: amz_date(timestamp),
        signed_headers: signed_headers.to_owned().into(),
        signature,
    })
}

fn parse_expires(text: &str) -> Result<u32, AuthError> {
    let seconds: i64 = text
        .parse()
        .map_err(|_| malformed_query("X-Amz-Expires should be a number"))?;
    if seconds < 1 {
        return Err(malformed_query("X-Amz-Expires must be positive"));
    }
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= PRESIGNED_SECONDS_MAX)
        .ok_or_else(|| {
            malformed_query("X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less than 604800 seconds")
        })
}

/// The payload of a presigned request: what a signed header or parameter says, else unsigned.
/// An `x-amz-content-sha256` header outside the signature binds nothing and is not believed.
fn presigned_payload<'a>(
    query: &Query<'_>,
    headers: &'a HeaderMap,
    signed_headers: &str,
) -> Result<(PayloadHash, Cow<'a, str>), AuthError> {
    let text: Cow<'a, str> = if let Some(text) = query.get_ignore_case("X-Amz-Content-Sha256") {
        text.to_owned().into()
    } else if signed_headers.split(';').any(|name| name == PAYLOAD_HEADER) {
        header_str(headers, PAYLOAD_HEADER)
            .ok_or(AuthError::MissingPayloadHash)?
            .into()
    } else {
        PayloadHash::Unsigned.to_text()
    };
    let payload = PayloadHash::parse(&text).ok_or(AuthError::InvalidPayloadHash)?;
    Ok((payload, text))
}

fn header_str<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn malformed_header(problem: impl Into<Cow<'static, str>>) -> AuthError {
    AuthError::MalformedHeader(problem.into())
}

fn malformed_query(problem: impl Into<Cow<'static, str>>) -> AuthError {
    AuthError::MalformedQuery(problem.into())
}
