//! Heads on their way to a peer.

use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, StatusCode, request, response};

use super::head::has_no_body;
use super::{Framing, date};

/// How an answer is framed, and what of that its head says itself.
pub(crate) struct Announce {
    /// The body's framing; for HEAD, what it would have been.
    pub(crate) framing: Framing,
    /// Whether the head says that the connection ends.
    pub(crate) close: bool,
    /// Whether the client speaks HTTP/1.0 only.
    pub(crate) http10: bool,
}

/// Writes the head of an answer. Headers that say how the body is framed are ours to write.
pub(crate) fn write_response(text: &mut Vec<u8>, parts: &response::Parts, announce: &Announce) {
    text.reserve(256 + 48 * parts.headers.len());
    text.extend_from_slice(if announce.http10 {
        b"HTTP/1.0 "
    } else {
        b"HTTP/1.1 "
    });
    text.extend_from_slice(parts.status.as_str().as_bytes());
    text.push(b' ');
    text.extend_from_slice(
        parts
            .status
            .canonical_reason()
            .unwrap_or("Unknown")
            .as_bytes(),
    );
    text.extend_from_slice(b"\r\n");
    let (mut length, mut connection, mut dated) = (false, false, false);
    let bodyless = has_no_body(parts.status);
    for (name, value) in &parts.headers {
        if *name == TRANSFER_ENCODING || (*name == CONTENT_LENGTH && bodyless_length(parts.status))
        {
            continue;
        }
        length |= *name == CONTENT_LENGTH;
        connection |= *name == CONNECTION;
        dated |= *name == DATE;
        push_field(text, name, value);
    }
    match announce.framing {
        _ if bodyless || length => {}
        Framing::Length(length) => push_length(text, length),
        Framing::Chunked => text.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::UntilClose => {}
    }
    if !connection && announce.close {
        text.extend_from_slice(b"connection: close\r\n");
    } else if !connection && announce.http10 {
        text.extend_from_slice(b"connection: keep-alive\r\n");
    }
    if !dated {
        text.extend_from_slice(b"date: ");
        date::push(text);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
}

/// Answers that must not even say a length; that of 304 is about the object.
fn bodyless_length(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// Writes the head of a request; `framing` is `None` where it has no body and need not say so.
pub(crate) fn write_request(text: &mut Vec<u8>, parts: &request::Parts, framing: Option<Framing>) {
    text.reserve(128 + parts.uri.path().len() + 48 * parts.headers.len());
    text.extend_from_slice(parts.method.as_str().as_bytes());
    text.push(b' ');
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    text.extend_from_slice(target.as_bytes());
    text.extend_from_slice(b" HTTP/1.1\r\n");
    let mut length = false;
    for (name, value) in &parts.headers {
        if *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONTENT_LENGTH {
            // Where the body knows its length, that is the same.
            if framing == Some(Framing::Chunked) {
                continue;
            }
            length = true;
        }
        push_field(text, name, value);
    }
    match framing {
        Some(Framing::Chunked) => text.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Some(Framing::Length(bytes)) if !length => push_length(text, bytes),
        _ => {}
    }
    text.extend_from_slice(b"\r\n");
}

pub(super) fn push_field(text: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    text.extend_from_slice(name.as_str().as_bytes());
    text.extend_from_slice(b": ");
    text.extend_from_slice(value.as_bytes());
    text.extend_from_slice(b"\r\n");
}

fn push_length(text: &mut Vec<u8>, length: u64) {
    use std::io::Write as _;
    // A vector takes all that is written to it.
    let _ = write!(text, "content-length: {length}\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: StatusCode, headers: &[(&str, &str)], announce: &Announce) -> String {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            parts
                .headers
                .append(name, HeaderValue::from_str(value).unwrap());
        }
        let mut text = Vec::new();
        write_response(&mut text, &parts, announce);
        let text = String::from_utf8(text).unwrap();
        // All but the date, which is checked for its form.
        let (before, date) = text.split_once("date: ").unwrap();
        let (date, after) = date.split_once("\r\n").unwrap();
        assert_eq!((date.len(), date.ends_with(" GMT")), (29, true), "{date}");
        format!("{before}{after}")
    }

    #[test]
    fn the_framing_of_an_answer_is_said_once() {
        let announce = |framing, close, http10| Announce {
            framing,
            close,
            http10,
        };
        let ok = StatusCode::OK;
        let plain = announce(Framing::Length(5), false, false);
        assert_eq!(
            written(ok, &[("x", "y")], &plain),
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\n\r\n"
        );
        let own = [("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(
            written(ok, &own, &plain),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
        );
        let chunked = announce(Framing::Chunked, true, false);
        assert_eq!(
            written(ok, &[], &chunked),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        let old = announce(Framing::Length(0), false, true);
        assert_eq!(
            written(ok, &[], &old),
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
        );
        assert_eq!(
            written(StatusCode::NO_CONTENT, &own[..1], &plain),
            "HTTP/1.1 204 No Content\r\n\r\n"
        );
        assert_eq!(
            written(StatusCode::NOT_MODIFIED, &own[..1], &plain),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n"
        );
        let unknown = StatusCode::from_u16(599).unwrap();
        assert!(written(unknown, &[], &plain).starts_with("HTTP/1.1 599 "));
    }

    #[test]
    fn the_framing_of_a_request_is_said_once_and_only_of_a_body() {
        let written = |headers: &[(&'static str, &'static str)], framing| {
            let mut request = http::Request::put("http://h/a%2Fb//c?d=%20");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut text = Vec::new();
            write_request(
                &mut text,
                &request.body(()).unwrap().into_parts().0,
                framing,
            );
            String::from_utf8(text).unwrap()
        };
        let line = "PUT /a%2Fb//c?d=%20 HTTP/1.1\r\n";
        assert_eq!(written(&[("x", "y")], None), format!("{line}x: y\r\n\r\n"));
        assert_eq!(
            written(&[], Some(Framing::Length(5))),
            format!("{line}content-length: 5\r\n\r\n")
        );
        assert_eq!(
            written(
                &[("content-length", "5"), ("transfer-encoding", "chunked")],
                Some(Framing::Length(5))
            ),
            format!("{line}content-length: 5\r\n\r\n")
        );
        assert_eq!(
            written(&[("transfer-encoding", "chunked")], Some(Framing::Chunked)),
            format!("{line}transfer-encoding: chunked\r\n\r\n")
        );
    }
}
