//! Heads: found, parsed, and judged.

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request, response,
};

use super::Framing;
use crate::limits::HEADERS_MAX;

/// A request's head as it was understood.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version, headers.
    pub parts: request::Parts,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the client means to send another request.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// An answer's head as it was understood.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) parts: response::Parts,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
}

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It can't be read, or be read in two ways.
    #[error("the head is malformed or ambiguous")]
    Malformed,
    /// Its target is longer than any that can be served.
    #[error("the target is too long")]
    TargetTooLong,
    /// It has too many bytes or too many headers.
    #[error("the head is too large")]
    TooLarge,
}

impl Refusal {
    /// What the client is told.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// Finds the end of a head among bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Finder {
    /// The line that was looked at last begins here.
    line: usize,
    /// How much of it was looked at.
    seen: usize,
}

impl Finder {
    /// Takes a head with its last line end from `read`, once it is all there. Empty lines before it
    /// are dropped (RFC 9112 section 2.2).
    ///
    /// # Errors
    /// A bare LF or a head longer than `bytes_max`.
    pub fn take(
        &mut self,
        read: &mut BytesMut,
        bytes_max: usize,
    ) -> Result<Option<Bytes>, Refusal> {
        while self.line == 0 && read.starts_with(b"\r\n") {
            read.advance(2);
            self.seen = self.seen.saturating_sub(2);
        }
        while let Some(found) = memchr::memchr(b'\n', &read[self.seen..]) {
            let end = self.seen + found;
            if end == self.line || read[end - 1] != b'\r' {
                return Err(Refusal::Malformed);
            }
            self.seen = end + 1;
            if end == self.line + 1 {
                *self = Self::default();
                return if end < bytes_max {
                    Ok(Some(read.split_to(end + 1).freeze()))
                } else {
                    Err(Refusal::TooLarge)
                };
            }
            self.line = end + 1;
        }
        self.seen = read.len();
        if read.len() > bytes_max {
            return Err(Refusal::TooLarge);
        }
        Ok(None)
    }
}

/// How much of a head that has not ended is looked at before its end; to look at more again and again
/// would cost more than waiting.
const LOOKED_AT_BYTES: usize = 1024;

/// Whether the beginning of a request can't become one: who speaks another protocol is told at once.
pub(crate) fn is_hopeless_request(begun: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    begun.len() <= LOOKED_AT_BYTES
        && httparse::Request::new(&mut fields)
            .parse(begun)
            .is_err_and(is_final)
}

/// Whether the beginning of an answer can't become one.
pub(crate) fn is_hopeless_answer(begun: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    begun.len() <= LOOKED_AT_BYTES
        && httparse::Response::new(&mut fields)
            .parse(begun)
            .is_err_and(is_final)
}

/// That there are too many headers is found out at the end.
fn is_final(error: httparse::Error) -> bool {
    error != httparse::Error::TooManyHeaders
}

/// Reads what [`Finder`] took.
///
/// # Errors
/// Why it is refused.
pub fn parse_request(head: &Bytes, headers_max: usize) -> Result<RequestHead, Refusal> {
    if headers_max <= HEADERS_MAX {
        request_of(
            head,
            &mut [httparse::EMPTY_HEADER; HEADERS_MAX][..headers_max],
        )
    } else {
        request_of(head, &mut vec![httparse::EMPTY_HEADER; headers_max])
    }
}

fn request_of<'a>(
    head: &'a Bytes,
    fields: &mut [httparse::Header<'a>],
) -> Result<RequestHead, Refusal> {
    let mut parsed = httparse::Request::new(fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        _ => return Err(Refusal::Malformed),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::Malformed);
    };
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::Malformed)?;
    parts.uri = uri(head.slice_ref(target.as_bytes()))?;
    parts.version = version(minor);
    let fields = Fields::read(head, parsed.headers).ok_or(Refusal::Malformed)?;
    let framing = match (fields.coding, fields.length) {
        (Some(_), Some(_)) => return Err(Refusal::Malformed),
        // A coding that is not ours to decode has no end that we know; and HTTP/1.0 has no codings.
        (Some(coding), None) if coding == Coding::Chunked && minor == 1 => Framing::Chunked,
        (Some(_), None) => return Err(Refusal::Malformed),
        (None, length) => Framing::Length(length.unwrap_or(0)),
    };
    let keep_alive = fields.keep_alive(minor);
    parts.headers = fields.headers;
    Ok(RequestHead {
        parts,
        framing,
        keep_alive,
        expects_continue: fields.expects_continue && minor == 1,
    })
}

/// Reads the head of an answer to a request of this method.
pub(crate) fn parse_response(head: &Bytes, method: &Method) -> Result<ResponseHead, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        _ => return Err(Refusal::Malformed),
    }
    let (Some(minor), Some(code)) = (parsed.version, parsed.code) else {
        return Err(Refusal::Malformed);
    };
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(code).map_err(|_| Refusal::Malformed)?;
    parts.version = version(minor);
    let fields = Fields::read(head, parsed.headers).ok_or(Refusal::Malformed)?;
    let framing = if *method == Method::HEAD || has_no_body(parts.status) {
        Framing::Length(0)
    } else {
        match (fields.coding, fields.length) {
            (Some(_), Some(_)) => return Err(Refusal::Malformed),
            (Some(Coding::Chunked), None) => Framing::Chunked,
            (Some(Coding::Other), None) | (None, None) => Framing::UntilClose,
            (None, Some(length)) => Framing::Length(length),
        }
    };
    let keep_alive = fields.keep_alive(minor) && framing != Framing::UntilClose;
    parts.headers = fields.headers;
    Ok(ResponseHead {
        parts,
        framing,
        keep_alive,
    })
}

/// Answers of these have no body, whatever their headers say (RFC 9112 section 6.3).
pub(crate) fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn uri(target: Bytes) -> Result<Uri, Refusal> {
    /// The longest that `Uri` can hold.
    const TARGET_BYTES_MAX: usize = 65_534;
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::TargetTooLong);
    }
    Uri::from_maybe_shared(target).map_err(|_| Refusal::Malformed)
}

const fn version(minor: u8) -> Version {
    if minor == 0 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    }
}

/// What headers say about the connection and the body.
struct Fields {
    headers: HeaderMap,
    length: Option<u64>,
    coding: Option<Coding>,
    close: bool,
    keep: bool,
    expects_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Other,
}

impl Fields {
    /// `None`: what they say can be understood in more than one way.
    fn read(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Option<Self> {
        let mut fields = Self {
            // With room for those that a proxy adds.
            headers: HeaderMap::with_capacity(parsed.len() + 6),
            length: None,
            coding: None,
            close: false,
            keep: false,
            expects_continue: false,
        };
        for field in parsed {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            if fields.note(&name, field.value)? {
                let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
                fields.headers.append(name, value);
            }
        }
        Some(fields)
    }

    /// Takes note of what matters here, and says whether the field is to be kept.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Option<bool> {
        if *name == CONTENT_LENGTH {
            let length = number(value)?;
            let again = self.length.replace(length);
            if again.is_some_and(|before| before != length) {
                return None;
            }
            return Some(again.is_none());
        }
        if *name == TRANSFER_ENCODING {
            let chunked = value.trim_ascii().eq_ignore_ascii_case(b"chunked");
            let coding = if chunked {
                Coding::Chunked
            } else {
                Coding::Other
            };
            if self.coding.replace(coding).is_some() {
                return None;
            }
        } else if *name == CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if *name == EXPECT {
            self.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
        Some(true)
    }

    const fn keep_alive(&self, minor: u8) -> bool {
        !self.close && (minor == 1 || self.keep)
    }
}

/// Digits alone: no sign, no list, nothing cut off.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::HEADER_BYTES_MAX;

    /// The first head in bytes that come in pieces, and what is left behind it.
    fn read(text: &[u8], piece: usize) -> Result<Option<(RequestHead, usize)>, Refusal> {
        let (mut buffer, mut finder) = (BytesMut::new(), Finder::default());
        for (at, piece) in text
            .chunks(piece)
            .enumerate()
            .map(|(n, part)| (n * piece + part.len(), part))
        {
            buffer.extend_from_slice(piece);
            if let Some(head) = finder.take(&mut buffer, HEADER_BYTES_MAX)? {
                let left = text.len() - at + buffer.len();
                return parse_request(&head, HEADERS_MAX).map(|head| Some((head, left)));
            }
        }
        Ok(None)
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused_however_it_is_cut() {
        let long = "0".repeat(2000);
        for text in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\tfolded\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\0\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: +5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length:\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length : 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding : chunked\r\n\r\n",
            "PUT / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
            &format!(
                "PUT / HTTP/1.1\r\ncontent-length: {long}5\r\ntransfer-encoding: chunked\r\n\r\n"
            ),
        ] {
            for piece in [1, 2, 3, 7, text.len()] {
                let found = read(text.as_bytes(), piece);
                assert_eq!(
                    found.unwrap_err(),
                    Refusal::Malformed,
                    "{text:?} by {piece}"
                );
            }
        }
    }

    #[test]
    fn ordinary_heads_are_read_however_they_are_cut() {
        let long = "a".repeat(5000);
        for (text, framing, keep_alive) in [
            (
                "\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            ("GET / HTTP/1.1\r\n\r\n", Framing::Length(0), true),
            (
                "GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n",
                Framing::Length(0),
                false,
            ),
            ("GET / HTTP/1.0\r\n\r\n", Framing::Length(0), false),
            (
                "GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            (
                "PUT / HTTP/1.1\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                true,
            ),
            (
                "PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunked,
                true,
            ),
            (
                "PUT / HTTP/1.1\r\ncontent-lengthy: x\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            (
                &format!("GET /{long} HTTP/1.1\r\nx-long: {long}\r\n\r\n"),
                Framing::Length(0),
                true,
            ),
        ] {
            let with_more = format!("{text}body");
            for piece in [1, 2, 3, 7, with_more.len()] {
                let (head, left) = read(with_more.as_bytes(), piece).unwrap().unwrap();
                assert_eq!(
                    (head.framing, head.keep_alive, left),
                    (framing, keep_alive, 4),
                    "{text:?}"
                );
            }
            let lengths = read(text.as_bytes(), text.len())
                .unwrap()
                .unwrap()
                .0
                .parts
                .headers;
            assert!(lengths.get_all(CONTENT_LENGTH).iter().count() <= 1);
        }
    }

    #[test]
    fn limits_have_statuses_of_their_own() {
        let head = |target: &str, headers: &str| format!("GET /{target} HTTP/1.1\r\n{headers}\r\n");
        let many = |count| "x: y\r\n".repeat(count);
        let check = |text: String| read(text.as_bytes(), 4096).map(|found| found.is_some());
        assert_eq!(check(head("", &many(HEADERS_MAX))), Ok(true));
        assert_eq!(
            check(head("", &many(HEADERS_MAX + 1))),
            Err(Refusal::TooLarge)
        );
        assert_eq!(check(head(&"a".repeat(65_000), "")), Ok(true));
        assert_eq!(
            check(head(&"a".repeat(66_000), "")),
            Err(Refusal::TargetTooLong)
        );
        assert_eq!(
            check(head(
                "",
                &format!("x: {}\r\n", "y".repeat(HEADER_BYTES_MAX))
            )),
            Err(Refusal::TooLarge)
        );
        // Not only at its end.
        assert_eq!(
            check("GET /".to_owned() + &"a".repeat(2 * HEADER_BYTES_MAX)),
            Err(Refusal::TooLarge)
        );
    }

    #[test]
    fn other_protocols_are_told_from_beginnings() {
        for begun in ["GET / HT", "GET", "GET /x HTTP/1.1\r\nhost: a\r\nx", ""] {
            assert!(!is_hopeless_request(begun.as_bytes()), "{begun:?}");
        }
        for begun in [
            "\x16\x03\x01\x02",
            "GET / FTP",
            "GET / HTTP/1.1\r\n x",
            "{\"a\":1}",
        ] {
            assert!(is_hopeless_request(begun.as_bytes()), "{begun:?}");
        }
        assert!(is_hopeless_answer(b"220 smtp") && !is_hopeless_answer(b"HTTP/1.1 20"));
    }

    fn answer(text: &str, method: &Method) -> Option<(Framing, bool)> {
        let head = parse_response(&Bytes::copy_from_slice(text.as_bytes()), method);
        head.ok().map(|head| (head.framing, head.keep_alive))
    }

    #[test]
    fn answers_say_where_they_end() {
        for (text, expected) in [
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
                Some((Framing::Length(5), true)),
            ),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                Some((Framing::Chunked, true)),
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n",
                Some((Framing::UntilClose, false)),
            ),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\n",
                Some((Framing::Length(5), false)),
            ),
            (
                "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
                Some((Framing::Length(0), true)),
            ),
            (
                "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
                Some((Framing::Length(0), true)),
            ),
            (
                "HTTP/1.1 200\r\ncontent-length: 5\r\nconnection: close\r\n\r\n",
                Some((Framing::Length(5), false)),
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
                None,
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
                None,
            ),
            ("SMTP/1.1 200 OK\r\n\r\n", None),
        ] {
            assert_eq!(answer(text, &Method::GET), expected, "{text:?}");
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(
            answer(head, &Method::HEAD),
            Some((Framing::Length(0), true))
        );
    }
}
