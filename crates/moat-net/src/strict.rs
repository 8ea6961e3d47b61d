//! Refuses HTTP/1 requests that two servers may read in two ways, before hyper reads them in one.
//!
//! Request smuggling lives on what parsers forgive: a line that ends with a bare LF, a field folded
//! over two lines, a length beside `Transfer-Encoding`, a coding other than `chunked`. RFC 9112 lets
//! a server repair most of that; a proxy in front of servers it does not know had better refuse it
//! (sections 2.2, 5.2, 6.1 and 6.3). hyper repairs: it takes a bare LF for a line's end, and drops the
//! length silently.
//!
//! So the bytes are looked at on their way to it. [`Guard`] follows the framing of requests as far as
//! it must, to know where heads are, and overwrites the byte that completes the fault, and all that
//! follow, with NULs, which no head may contain: hyper answers 400 and closes. Should the two ever disagree about
//! framing, the worst is such a 400.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::activity::Activity;

/// What a spoilt byte becomes.
const FAULT: u8 = 0;
/// What it becomes between chunks, where extensions and trailers may hold a NUL: a CR, which only LF
/// may follow.
const FAULT_IN_CHUNKS: u8 = b'\r';
/// The longest line that matters here; what is longer is refused if it is a length, a coding or the
/// size of a chunk. No more of a line is kept while its end is awaited.
const LINE_BYTES_MAX: usize = 1024;

/// A client's connection whose requests are looked at.
pub(crate) struct Strict<T> {
    inner: T,
    guard: Guard,
    activity: Arc<Activity>,
}

impl<T> Strict<T> {
    pub(crate) fn new(inner: T, activity: &Arc<Activity>) -> Self {
        Self {
            inner,
            guard: Guard::default(),
            activity: Arc::clone(activity),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Strict<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if !self.activity.is_tunnel() {
            self.guard.inspect(&mut buf.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Follows the requests of one connection.
#[derive(Default)]
pub struct Guard {
    state: State,
    /// Heads that have ended.
    heads: u64,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Whether what came of that line last was a CR.
    ends_with_cr: bool,
}

enum State {
    /// In a head.
    Head(Framing),
    /// In a body, with so many bytes to come.
    Body(u64),
    /// In the line that says how long a chunk is.
    ChunkSize,
    /// In a chunk or the line end after it, with so many bytes to come.
    Chunk(u64),
    /// After the last chunk.
    Trailers,
    /// A fault was found; nothing that follows is a request.
    Refused,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Framing::default())
    }
}

/// What a head has said of its body so far.
#[derive(Clone, Copy, Default)]
struct Framing {
    /// Whether the request line has come.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

/// Something that has more than one reading.
struct Fault;

impl Guard {
    /// Requests whose heads have ended, as far as it followed them.
    pub const fn heads(&self) -> u64 {
        self.heads
    }

    /// Looks at what was read, and spoils it at the first fault.
    pub fn inspect(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.state {
                State::Refused => return bytes[at..].fill(FAULT),
                State::Body(left) | State::Chunk(left) => {
                    let here = (*left).min((bytes.len() - at) as u64);
                    *left -= here;
                    // No more than what is there, so it is an index.
                    at += here as usize;
                    if *left == 0 {
                        self.state = match self.state {
                            State::Chunk(_) => State::ChunkSize,
                            _ => State::default(),
                        };
                    }
                }
                State::Head(_) | State::ChunkSize | State::Trailers => {
                    let rest = &bytes[at..];
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.keep(rest);
                        return;
                    };
                    let fault = match self.state {
                        State::Head(_) => FAULT,
                        _ => FAULT_IN_CHUNKS,
                    };
                    let outcome = self.end_line(&rest[..end]);
                    at += end + 1;
                    if outcome.is_err() {
                        bytes[at - 1] = fault;
                        self.state = State::Refused;
                    }
                }
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(last) = part.last() {
            self.ends_with_cr = *last == b'\r';
        }
        // One byte more than is allowed shows that it was too much.
        let room = (LINE_BYTES_MAX + 2).saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    /// Takes a line whose LF has come; `last` is what came of it last, without that.
    fn end_line(&mut self, last: &[u8]) -> Result<(), Fault> {
        if self.line.is_empty() {
            return self.take_line(last.strip_suffix(b"\r").ok_or(Fault)?);
        }
        self.keep(last);
        if !self.ends_with_cr {
            return Err(Fault);
        }
        let mut line = std::mem::take(&mut self.line);
        // Of a line that was cut off this takes another byte, but it stays one that is too long.
        line.pop();
        let outcome = self.take_line(&line);
        line.clear();
        self.line = line;
        outcome
    }

    /// Takes a line without its end.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.state = match &mut self.state {
            State::Head(framing) => match framing.take_line(line)? {
                None => return Ok(()),
                Some(next) => {
                    self.heads += 1;
                    next
                }
            },
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailers,
                // With the line end behind it.
                size => State::Chunk(size.checked_add(2).ok_or(Fault)?),
            },
            State::Trailers if line.is_empty() => State::default(),
            State::Trailers if is_folded(line) => return Err(Fault),
            _ => return Ok(()),
        };
        Ok(())
    }
}

impl Framing {
    /// What follows the head, if the line was its end.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<State>, Fault> {
        if !self.begun {
            // An empty line before a request is ignored (RFC 9112 section 2.2).
            self.begun = !line.is_empty();
            return Ok(None);
        }
        if line.is_empty() {
            return self.end().map(Some);
        }
        if is_folded(line) {
            return Err(Fault);
        }
        let (length, coding) = (
            value_of(line, b"content-length"),
            value_of(line, b"transfer-encoding"),
        );
        if line.len() > LINE_BYTES_MAX && (length.is_some() || coding.is_some()) {
            return Err(Fault);
        }
        if let Some(value) = length {
            let length = number(value)?;
            if self.length.is_some_and(|before| before != length) {
                return Err(Fault);
            }
            self.length = Some(length);
        } else if let Some(value) = coding {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault);
            }
            self.chunked = true;
        }
        Ok(None)
    }

    const fn end(self) -> Result<State, Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Fault),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(State::Body(length)),
            (false, _) => Ok(State::Head(Framing {
                begun: false,
                length: None,
                chunked: false,
            })),
        }
    }
}

const fn is_folded(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// The value of a field of this name, which is in lower case.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    if !start.eq_ignore_ascii_case(name) {
        return None;
    }
    // What stands between name and colon hyper refuses.
    Some(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii())
}

/// Digits alone: no sign, no list, nothing cut off.
fn number(digits: &[u8]) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Fault);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Fault)?;
    text.parse().map_err(|_| Fault)
}

/// The size of a chunk; what an extension says does not matter.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    if line.len() > LINE_BYTES_MAX {
        return Err(Fault);
    }
    let end = line.iter().position(|byte| *byte == b';');
    let digits = line[..end.unwrap_or(line.len())].trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Fault);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Fault)?;
    u64::from_str_radix(text, 16).map_err(|_| Fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a fault is found, in whatever pieces the bytes come.
    fn fault_in(text: &str) -> Option<usize> {
        let whole = look(text, text.len());
        for piece in 1..text.len().min(40) {
            assert_eq!(look(text, piece), whole, "pieces of {piece}: {text:?}");
        }
        whole
    }

    fn look(text: &str, piece: usize) -> Option<usize> {
        let mut guard = Guard::default();
        let mut bytes = text.as_bytes().to_vec();
        for piece in bytes.chunks_mut(piece.max(1)) {
            guard.inspect(piece);
        }
        let found = bytes
            .iter()
            .zip(text.as_bytes())
            .position(|(now, then)| now != then);
        assert_eq!(found.is_some(), matches!(guard.state, State::Refused));
        found
    }

    #[test]
    fn nothing_passes_behind_a_fault() {
        let mut guard = Guard::default();
        let text =
            b"PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4;x\ny\r\ndata\r\n0\r\n\r\n";
        let mut bytes = text.to_vec();
        guard.inspect(&mut bytes);
        let after = text.iter().position(|byte| *byte == b'x').unwrap() + 1;
        assert_eq!(bytes[after], FAULT_IN_CHUNKS);
        assert!(bytes[after + 1..].iter().all(|byte| *byte == FAULT));
        let mut more = *b"GET / HTTP/1.1\r\n\r\n";
        guard.inspect(&mut more);
        assert_eq!(more, [FAULT; 18]);
    }

    fn check_refused(head: &str) {
        assert!(fault_in(head).is_some(), "{head:?}");
        // Nor as the second request of a connection, after any kind of body.
        for before in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 4\r\n\r\n\n\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4;a=b\r\n\n\nab\r\n0\r\nx: y\r\n\r\n",
        ] {
            let found = fault_in(&format!("{before}{head}"));
            assert!(found.is_some_and(|at| at >= before.len()), "{head:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for head in [
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\n",
            "GET / HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n\tfolded\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: +5\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length:\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding : identity\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\nabcde\r\n0\r\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\n\r\n",
            "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: y\r\n z\r\n\r\n",
        ] {
            check_refused(head);
        }
        let long = "0".repeat(LINE_BYTES_MAX);
        check_refused(&format!(
            "PUT / HTTP/1.1\r\ncontent-length: {long}5\r\ntransfer-encoding: chunked\r\n\r\n"
        ));
        check_refused(&format!("PUT / HTTP/1.1\r\nx-long: {long}\n\r\n"));
    }

    #[test]
    fn ordinary_requests_pass_unchanged() {
        let long = "a".repeat(3 * LINE_BYTES_MAX);
        for text in [
            "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n\n\n\n\n\nGET / HTTP/1.1\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\nA;x=\"y\"\r\n0\n2\n4\n6\n8\n\r\n0\r\nx-amz-checksum: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "PUT / HTTP/1.1\r\ncontent-length: 0\r\n\r\nGET / HTTP/1.1\r\ncontent-lengthy: x\r\n\r\n",
            &format!("GET /{long} HTTP/1.1\r\nx-long: {long}\r\n\r\n"),
        ] {
            assert_eq!(fault_in(text), None, "{text:?}");
        }
    }
}
