//! One structured line per request, without secrets.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::Peer;

/// The tracing target of access lines, so that a filter can turn them on and off alone.
pub const TARGET: &str = "moat::access";

/// What is known of a request when its answer has ended.
#[derive(Clone, Debug)]
pub struct Access<'a> {
    /// The id that the answer carries.
    pub request_id: &'a str,
    /// Request method.
    pub method: &'a Method,
    /// Request path, as it came.
    pub path: &'a str,
    /// Query, as it came; secrets are cut out before it is written.
    pub query: Option<&'a str>,
    /// The answer's status.
    pub status: StatusCode,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were sent.
    pub bytes_out: u64,
    /// From the request's head to the end of the answer.
    pub duration: Duration,
}

impl Access<'_> {
    /// Writes the line, if anyone listens to [`TARGET`].
    pub fn log(&self, peer: &Peer) {
        tracing::info!(
            target: TARGET,
            request_id = self.request_id,
            peer = %peer.addr,
            tls = peer.tls,
            method = %self.method,
            path = self.path,
            query = self.query.map(redact_query).as_deref(),
            status = self.status.as_u16(),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            duration_ms = self.duration.as_secs_f64() * 1000.0,
        );
    }
}

/// Whether anyone reads access lines; callers may skip collecting their facts otherwise.
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// Query parameters whose value is a credential or lets the URL be used again.
const SECRET_PARAMETERS: [&str; 7] = [
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-security-token",
    "signature",
    "awsaccesskeyid",
    "webidentitytoken",
    "token",
];

/// A query string fit for a log: values of secret parameters are replaced by `REDACTED`.
pub fn redact_query(query: &str) -> Cow<'_, str> {
    if !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let parts: Vec<Cow<'_, str>> = query.split('&').map(redact_parameter).collect();
    Cow::Owned(parts.join("&"))
}

fn redact_parameter(parameter: &str) -> Cow<'_, str> {
    match parameter.split_once('=') {
        Some((name, _)) if is_secret(parameter) => Cow::Owned(format!("{name}=REDACTED")),
        _ => Cow::Borrowed(parameter),
    }
}

fn is_secret(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or(parameter);
    let name = name.replace("%2d", "-").replace("%2D", "-");
    SECRET_PARAMETERS
        .iter()
        .any(|secret| name.eq_ignore_ascii_case(secret))
        || name
            .to_ascii_lowercase()
            .contains("server-side-encryption-customer")
}

/// Whether a header's value must not be logged.
pub fn is_secret_header(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "authorization"
            | "proxy-authorization"
            | "cookie"
            | "set-cookie"
            | "x-amz-security-token"
            | "x-amz-signature"
    ) || name.contains("server-side-encryption-customer")
        || name == "x-amz-server-side-encryption-context"
}

/// Headers fit for a log, as `name: value` pairs.
pub fn redact_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = if is_secret_header(name) {
                "REDACTED".to_owned()
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.to_string(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presigned_queries_lose_what_makes_them_usable_and_nothing_else() {
        assert_eq!(
            redact_query(
                "X-Amz-Date=20260101T000000Z&x-amz-credential=AK%2F&X-Amz-Signature=ab=c&delete"
            ),
            "X-Amz-Date=20260101T000000Z&x-amz-credential=REDACTED&X-Amz-Signature=REDACTED&delete"
        );
        assert!(matches!(
            redact_query("list-type=2&prefix=a%2Fb"),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            redact_query("X%2DAmz-Signature=1"),
            "X%2DAmz-Signature=REDACTED"
        );
    }

    #[test]
    fn customer_keys_and_credentials_are_secret_headers() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "x-amz-server-side-encryption-customer-key",
            "x-amz-copy-source-server-side-encryption-customer-key-md5",
            "x-amz-security-token",
        ] {
            headers.insert(name, http::HeaderValue::from_static("s3cr3t"));
        }
        headers.insert("range", http::HeaderValue::from_static("bytes=0-1"));
        let shown = redact_headers(&headers);
        assert!(!format!("{shown:?}").contains("s3cr3t"));
        assert!(shown.contains(&("range".into(), "bytes=0-1".into())));
    }
}
