//! The canonical request of SigV4, over the request as it was received.

use std::borrow::Cow;
use std::ops::Range;

use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::uri::{Slash, decode, decode_query, encode_into};

/// The parts of a request that a signature covers.
#[derive(Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, as received: still encoded, never normalised.
    pub path: &'a str,
    /// The query, as received, without the `?`.
    pub query: &'a str,
    /// The headers, as received.
    pub headers: &'a HeaderMap,
    /// The host that the client meant: the `Host` header, or `:authority` in HTTP/2.
    pub host: &'a str,
}

/// Headers and query may hold keys, tokens and signatures; they are not shown.
impl std::fmt::Debug for RequestParts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestParts({} {})", self.method, self.path)
    }
}

impl<'a> RequestParts<'a> {
    /// Takes the parts of an `http` request. The `Host` header wins over the URI's authority,
    /// as it is what the client signed.
    pub fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        let host = headers
            .get(http::header::HOST)
            .and_then(|value| value.to_str().ok())
            .or_else(|| uri.authority().map(http::uri::Authority::as_str))
            .unwrap_or_default();
        Self {
            method,
            path: uri.path(),
            query: uri.query().unwrap_or_default(),
            headers,
            host,
        }
    }
}

/// How a `%2F` in the path is canonicalised. Clients that sign the path as they send it keep it;
/// those that encode the decoded path make it a slash. Both mean the same key, so accepting both
/// gives nobody another object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum EncodedSlash {
    Kept,
    Decoded,
}

/// Writes the canonical request. `signed_headers` is the list as it was sent.
pub(super) fn canonical_request(
    request: &RequestParts<'_>,
    signed_headers: &str,
    payload: &str,
    encoded_slash: EncodedSlash,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b'\n');
    push_path(&mut out, request.path, encoded_slash);
    out.push(b'\n');
    push_query(&mut out, request.query);
    out.push(b'\n');
    for name in signed_headers.split(';') {
        push_header(&mut out, request, name);
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload.as_bytes());
    out
}

fn push_path(out: &mut Vec<u8>, path: &str, encoded_slash: EncodedSlash) {
    if path.is_empty() {
        out.push(b'/');
        return;
    }
    match encoded_slash {
        EncodedSlash::Decoded => encode_into(out, &decode(path.as_bytes()), Slash::Keep),
        EncodedSlash::Kept => {
            for (index, segment) in path.split('/').enumerate() {
                if index > 0 {
                    out.push(b'/');
                }
                encode_into(out, &decode(segment.as_bytes()), Slash::Encode);
            }
        }
    }
}

/// Writes the parameters, encoded and sorted; the signature itself is left out.
fn push_query(out: &mut Vec<u8>, query: &str) {
    if query.is_empty() {
        return;
    }
    let mut encoded = Vec::with_capacity(query.len() + 32);
    let mut parameters: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = push_encoded_part(&mut encoded, name);
        if encoded[name.clone()].eq_ignore_ascii_case(b"X-Amz-Signature") {
            continue;
        }
        let value = push_encoded_part(&mut encoded, value);
        parameters.push((name, value));
    }
    let text = |(name, value): &(Range<usize>, Range<usize>)| {
        (&encoded[name.clone()], &encoded[value.clone()])
    };
    parameters.sort_by(|a, b| text(a).cmp(&text(b)));
    for (index, parameter) in parameters.iter().enumerate() {
        let (name, value) = text(parameter);
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

fn push_encoded_part(encoded: &mut Vec<u8>, raw: &str) -> Range<usize> {
    let start = encoded.len();
    encode_into(encoded, &decode_query(raw.as_bytes()), Slash::Encode);
    start..encoded.len()
}

/// Writes `name:value` and a line feed.
fn push_header(out: &mut Vec<u8>, request: &RequestParts<'_>, name: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b':');
    let mut values = request.headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        push_collapsed(out, implied_value(request, name).as_bytes());
    }
    for (index, value) in values.map(HeaderValue::as_bytes).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_collapsed(out, value);
    }
    out.push(b'\n');
}

/// The value of a signed header that servers may take off a request before we see it.
fn implied_value<'a>(request: &RequestParts<'a>, name: &str) -> Cow<'a, str> {
    match name {
        "host" => Cow::Borrowed(request.host),
        "expect" => Cow::Borrowed("100-continue"),
        _ => Cow::Borrowed(""),
    }
}

/// Trims, and makes each run of white space one space.
fn push_collapsed(out: &mut Vec<u8>, value: &[u8]) {
    let mut words = value
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.extend_from_slice(first);
    }
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str, encoded_slash: EncodedSlash) -> String {
        let mut out = Vec::new();
        push_path(&mut out, raw, encoded_slash);
        String::from_utf8(out).unwrap()
    }

    fn query(raw: &str) -> String {
        let mut out = Vec::new();
        push_query(&mut out, raw);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn paths_are_encoded_once_and_not_normalised() {
        let kept = |raw| path(raw, EncodedSlash::Kept);
        assert_eq!(kept(""), "/");
        assert_eq!(kept("/b//a/./../x"), "/b//a/./../x");
        assert_eq!(kept("/b/a%20b+c%c3%a9*"), "/b/a%20b%2Bc%C3%A9%2A");
        assert_eq!(kept("/b/a%2fb"), "/b/a%2Fb");
        assert_eq!(kept("/b/100%"), "/b/100%25");
        assert_eq!(path("/b/a%2fb", EncodedSlash::Decoded), "/b/a/b");
    }

    #[test]
    fn queries_are_sorted_and_encoded() {
        assert_eq!(query("delete"), "delete=");
        assert_eq!(query("b=2&a=1&A=0&a=0"), "A=0&a=0&a=1&b=2");
        assert_eq!(query("prefix=a/b c+d&&x"), "prefix=a%2Fb%20c%20d&x=");
        assert_eq!(query("a-b=1&a=2&a%3D=3"), "a=2&a%3D=3&a-b=1");
        assert_eq!(query("X-Amz-Signature=1&z=1"), "z=1");
        assert_eq!(query("k=a=b"), "k=a%3Db");
    }

    #[test]
    fn header_values_are_collapsed_and_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-meta-a", HeaderValue::from_static("  a   b\t c "));
        headers.append("x-amz-meta-a", HeaderValue::from_static(""));
        headers.append("x-amz-meta-a", HeaderValue::from_static("d"));
        let request = RequestParts {
            method: &Method::GET,
            path: "/",
            query: "",
            headers: &headers,
            host: "h:9000",
        };
        let got = canonical_request(
            &request,
            "expect;host;x-amz-meta-a",
            "P",
            EncodedSlash::Kept,
        );
        assert_eq!(
            String::from_utf8(got).unwrap(),
            "GET\n/\n\nexpect:100-continue\nhost:h:9000\nx-amz-meta-a:a b c,,d\n\n\
             expect;host;x-amz-meta-a\nP"
        );
    }
}
