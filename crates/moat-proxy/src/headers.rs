//! What a proxy changes in headers, and nothing else: hop-by-hop fields go (RFC 9110 section 7.6.1),
//! `X-Forwarded-*` come.
//!
//! Duplicates, the order of values and empty values stay: signatures cover them.

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Uri};

use moat_net::Peer;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Removes the fields that are about one connection only.
///
/// `Trailer` stays: it is end to end, and hyper sends no trailers that it doesn't announce.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // `Connection` must name `TE`, so look before it is removed: that a client takes trailers is worth
    // telling the upstream, since we take them too.
    let trailers = takes_trailers(headers);
    if headers.contains_key(CONNECTION) {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The fields that `Connection` names, except those without which a request is another one. A client
/// could otherwise strip what the upstream decides by (RFC 9110 section 7.6.1 forbids the attempt).
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| {
            *name != HOST
                && *name != CONTENT_LENGTH
                && *name != http::header::AUTHORIZATION
                && !name.as_str().starts_with("x-amz-")
        })
        .collect()
}

/// Says who asked, through which door, under which name. The client's own values are dropped: the
/// store trusts these headers because they come from here.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, uri: &Uri, peer: &Peer) {
    headers.remove(FORWARDED);
    // The form that a dual-stack socket gives to IPv4 peers would match no rule written for IPv4.
    let address = peer.addr.ip().to_canonical().to_string();
    let address = HeaderValue::from_str(&address).expect("an IP address is visible ASCII");
    headers.insert(REAL_IP, address.clone());
    headers.insert(FORWARDED_FOR, address);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(peer.scheme()));
    let host = headers.get(HOST).cloned().or_else(|| {
        let authority = uri.authority()?.as_str();
        HeaderValue::from_str(authority).ok()
    });
    match host {
        Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
        None => drop(headers.remove(FORWARDED_HOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        headers
    }

    #[test]
    fn hop_by_hop_fields_go_and_all_else_stays_in_order() {
        let mut headers = map(&[
            ("connection", "close, X-Drop, te"),
            ("x-drop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-amz-checksum-crc32"),
            ("x-amz-meta-a", "2"),
            ("x-amz-meta-a", "1"),
            ("x-empty", ""),
            ("expect", "100-continue"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("te", "trailers"),
                ("trailer", "x-amz-checksum-crc32"),
                ("x-amz-meta-a", "2"),
                ("x-amz-meta-a", "1"),
                ("x-empty", ""),
                ("expect", "100-continue"),
            ])
        );
    }

    #[test]
    fn connection_cannot_strip_what_the_store_decides_by() {
        let pairs = [
            ("host", "b.s3"),
            ("x-amz-server-side-encryption", "aws:kms"),
            ("authorization", "AWS4-HMAC-SHA256 x"),
        ];
        let mut headers = map(&pairs);
        headers.insert(
            "connection",
            "host, x-amz-server-side-encryption, authorization"
                .parse()
                .unwrap(),
        );
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&pairs));
    }

    #[test]
    fn forwarded_values_of_the_client_are_replaced() {
        let mut headers = map(&[
            ("host", "bucket.s3.example:8091"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=1.1.1.1;proto=https"),
        ]);
        let peer = Peer::plain(
            "[::ffff:10.0.0.9]:5".parse().unwrap(),
            "10.0.0.1:8091".parse().unwrap(),
        );
        set_forwarded(&mut headers, &Uri::from_static("/b/k"), &peer);
        assert_eq!(
            headers,
            map(&[
                ("host", "bucket.s3.example:8091"),
                ("x-real-ip", "10.0.0.9"),
                ("x-forwarded-for", "10.0.0.9"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "bucket.s3.example:8091"),
            ])
        );
    }
}
