//! What a proxy changes in headers, and nothing else: hop-by-hop fields go (RFC 9110 section 7.6.1),
//! `X-Forwarded-*` come.
//!
//! Duplicates, the order of values and empty values stay: signatures cover them.

use std::net::{IpAddr, SocketAddr};

use http::header::{
    CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, HeaderName, IF_MATCH, IF_NONE_MATCH,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Uri};
use moat_net::Peer;

use crate::config::Network;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// Fields of one connection, beside `Connection` and those that it names.
const HOP_BY_HOP: [HeaderName; 7] = [
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];
/// Proxies on one way that are taken note of. A header may hold thousands of made-up ones.
const HOPS_MAX: usize = 32;

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
    // Nearly always there is none, and a look at the names costs less than seven searches.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
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

/// Says who asked, through which door, under which name.
///
/// Values of the peer itself are dropped: the store trusts these headers because they come from here.
/// Only where the peer is a trusted proxy are its values kept, with its own address added to the way.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, uri: &Uri, peer: &Peer, trusted: &[Network]) {
    // The form that a dual-stack socket gives to IPv4 peers would match no rule written for IPv4.
    let address = peer.addr.ip().to_canonical();
    let from_proxy = trusted.iter().any(|network| network.contains(address));
    let (client, way) = if from_proxy {
        let said = way_of(headers);
        let client = client_on(&said, trusted).unwrap_or(address);
        let way: Vec<String> = said
            .into_iter()
            .chain([address])
            .map(|one| one.to_string())
            .collect();
        (of_text(&client.to_string()), of_text(&way.join(", ")))
    } else {
        let address = of_text(&address.to_string());
        (address.clone(), address)
    };
    headers.remove(FORWARDED);
    headers.insert(REAL_IP, client);
    headers.insert(FORWARDED_FOR, way);
    if !from_proxy || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(peer.scheme()));
    }
    if from_proxy && headers.contains_key(FORWARDED_HOST) {
        return;
    }
    let host = headers.get(HOST).cloned().or_else(|| {
        let authority = uri.authority()?.as_str();
        HeaderValue::from_str(authority).ok()
    });
    match host {
        Some(host) => drop(headers.insert(FORWARDED_HOST, host)),
        None => drop(headers.remove(FORWARDED_HOST)),
    }
}

fn of_text(addresses: &str) -> HeaderValue {
    HeaderValue::from_str(addresses).expect("IP addresses and commas are visible ASCII")
}

/// The addresses of `X-Forwarded-For`, the nearest last. What is no address ends the way: nothing
/// before it can be vouched for.
fn way_of(headers: &HeaderMap) -> Vec<IpAddr> {
    let mut way = Vec::new();
    let values = headers.get_all(FORWARDED_FOR).iter();
    for part in values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let part = std::str::from_utf8(part).unwrap_or_default().trim();
        match address_of(part) {
            Some(address) => way.push(address),
            None => way.clear(),
        }
    }
    let surplus = way.len().saturating_sub(HOPS_MAX);
    way.split_off(surplus)
}

/// An address, or one with a port as some balancers write it.
fn address_of(text: &str) -> Option<IpAddr> {
    let plain: Option<IpAddr> = text.parse().ok();
    let with_port = || text.parse().ok().map(|socket: SocketAddr| socket.ip());
    plain.or_else(with_port).map(|ip| ip.to_canonical())
}

/// The first address from behind that is no proxy of ours: what lies before it, the client may have
/// made up.
fn client_on(way: &[IpAddr], trusted: &[Network]) -> Option<IpAddr> {
    let is_proxy = |address: &IpAddr| trusted.iter().any(|network| network.contains(*address));
    let client = way.iter().rev().find(|address| !is_proxy(address));
    client.or(way.first()).copied()
}

/// The client's address as [`set_forwarded`] found it; the peer's, before that.
pub(crate) fn client_of(headers: &HeaderMap, peer: &Peer) -> IpAddr {
    let found = headers
        .get(REAL_IP)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    found.unwrap_or_else(|| peer.addr.ip().to_canonical())
}

/// Whether a write depends on what is there: done twice, the second one would fail by the first.
pub(crate) fn is_conditional(headers: &HeaderMap) -> bool {
    headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH)
}

/// Names and values, as a measure of a head's size.
pub(crate) fn bytes_of(headers: &HeaderMap) -> u64 {
    let each = headers.iter();
    each.map(|(name, value)| (name.as_str().len() + value.len()) as u64)
        .sum()
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
        set_forwarded(&mut headers, &Uri::from_static("/b/k"), &peer, &[]);
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

    #[test]
    fn a_trusted_proxy_is_believed_as_far_as_its_own_kind_reaches() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let check = |said: &[(&str, &str)], client: &str, way: &str, proto: &str| {
            let mut headers = map(said);
            headers.insert("host", "h".parse().unwrap());
            let peer = Peer::plain("10.0.0.9:5".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
            set_forwarded(&mut headers, &Uri::from_static("/"), &peer, &trusted);
            assert_eq!(headers["x-real-ip"], client, "{said:?}");
            assert_eq!(headers["x-forwarded-for"], way, "{said:?}");
            assert_eq!(headers["x-forwarded-proto"], proto, "{said:?}");
            assert_eq!(client_of(&headers, &peer).to_string(), client);
        };
        check(&[], "10.0.0.9", "10.0.0.9", "http");
        check(
            &[
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "https"),
            ],
            "192.0.2.1",
            "192.0.2.1, 10.0.0.9",
            "https",
        );
        // The client made the first one up; the second is what our own proxy saw.
        check(
            &[("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.0.0.7")],
            "192.0.2.1",
            "1.1.1.1, 192.0.2.1, 10.0.0.7, 10.0.0.9",
            "http",
        );
        check(
            &[
                ("x-forwarded-for", "1.1.1.1, unknown"),
                ("x-forwarded-for", "192.0.2.1:80"),
            ],
            "192.0.2.1",
            "192.0.2.1, 10.0.0.9",
            "http",
        );
    }
}
