//! `Upgrade` passed through (RFC 9110 section 7.8): the console of a store speaks WebSocket.
//!
//! The two fields are hop-by-hop, so they are taken off with the others and put on again, for a
//! request without a body that a client sent over HTTP/1.1. What the upstream answers is passed on
//! in the same way; with a 101 the listener joins both connections.

use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version};
use moat_net::{Body, Offer};

use crate::proxy::Flight;

/// The protocols that a request offers to change to. To be asked before hop-by-hop fields go.
pub(crate) fn wanted(head: &Parts, has_body: bool) -> Option<HeaderValue> {
    let asked = head.version == Version::HTTP_11 && !has_body && is_named(&head.headers);
    asked.then(|| head.headers.get(UPGRADE).cloned())?
}

fn is_named(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Puts the fields on.
pub(crate) fn ask(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Passes a 101 on; `flight` is over when the tunnel is, which may be silent for `idle_timeout`. `None`:
/// it is no answer that a client can be given, since nothing was offered.
pub(crate) fn pass_on(
    mut response: Response<Body>,
    was_wanted: bool,
    idle_timeout: Duration,
    flight: Flight,
) -> Option<Response<Body>> {
    let offer = response.extensions_mut().remove::<Offer>()?;
    if !was_wanted {
        return None;
    }
    let protocol = response.headers().get(UPGRADE).cloned();
    let headers = response.headers_mut();
    crate::headers::strip_hop_by_hop(headers);
    if let Some(protocol) = protocol {
        ask(headers, protocol);
    }
    response
        .extensions_mut()
        .insert(offer.idle_after(idle_timeout).holding(flight));
    Some(response)
}
