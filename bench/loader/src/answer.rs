//! Heads of HTTP/1.1 answers, as far as a loader needs them: the status and how the body is framed.

use anyhow::{Context, Result, bail, ensure};

/// How many bytes of body follow a head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// So many.
    Length(u64),
    /// Chunks, up to an empty one.
    Chunked,
}

/// A parsed head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) framing: Framing,
    /// The server will close the connection behind this answer.
    pub(crate) close: bool,
}

/// Finds the end of a head: the offset behind its empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Parses a whole head. Answers to HEAD, 204 and 304 have no body, whatever the head says.
///
/// # Errors
/// If it is not HTTP/1.1, or the body would end with the connection.
pub(crate) fn parse(head: &[u8], to_head: bool) -> Result<Head> {
    let text = std::str::from_utf8(head).context("the answer's head is not text")?;
    let mut lines = text.split("\r\n");
    let status: u16 = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .context("the answer is not HTTP/1.1")?;
    let (mut length, mut chunked, mut close) = (None, false, false);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(
                value
                    .parse()
                    .context("the answer's length is not a number")?,
            );
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            ensure!(
                value.eq_ignore_ascii_case("chunked"),
                "transfer encoding {value} is not known"
            );
            chunked = true;
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        }
    }
    let framing = match length {
        _ if to_head || matches!(status, 204 | 304) || status < 200 => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => bail!("the answer has neither length nor chunks"),
    };
    Ok(Head {
        status,
        framing,
        close,
    })
}

/// The value of a header in a head, if it is there.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head)
        .ok()?
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The size in a chunk's first line; extensions are ignored.
///
/// # Errors
/// If it is not a hexadecimal number.
pub(crate) fn chunk_size(line: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(line).context("a chunk size is not text")?;
    let digits = text.split(';').next().unwrap_or_default().trim();
    u64::from_str_radix(digits, 16)
        .with_context(|| format!("a chunk size is not a number: {digits:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, to_head: bool, expected: Option<(u16, Framing, bool)>) {
        let got = parse(head.as_bytes(), to_head).ok();
        assert_eq!(
            got.map(|h| (h.status, h.framing, h.close)),
            expected,
            "{head:?}"
        );
    }

    #[test]
    fn heads_say_how_the_body_ends() {
        let length = Framing::Length;
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
            false,
            Some((200, length(12), false)),
        );
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n",
            false,
            Some((200, Framing::Chunked, false)),
        );
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n",
            true,
            Some((200, length(0), false)),
        );
        check(
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            false,
            Some((204, length(0), true)),
        );
        check("HTTP/1.1 200 OK\r\n\r\n", false, None);
        check("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", false, None);
    }

    #[test]
    fn chunk_sizes_are_hexadecimal_and_may_carry_extensions() {
        assert_eq!(chunk_size(b"1aF").ok(), Some(0x1af));
        assert_eq!(chunk_size(b"10;name=value").ok(), Some(16));
        assert!(chunk_size(b"x").is_err());
    }

    #[test]
    fn headers_are_found_whatever_their_case() {
        let head =
            b"HTTP/1.1 200 OK\r\nETag: \"x\"\r\nX-Amz-Server-Side-Encryption: aws:kms\r\n\r\n";
        assert_eq!(
            header(head, "x-amz-server-side-encryption"),
            Some("aws:kms")
        );
        assert_eq!(header(head, "etag"), Some("\"x\""));
        assert_eq!(header(head, "missing"), None);
        assert_eq!(end_of_head(head), Some(head.len()));
    }
}
