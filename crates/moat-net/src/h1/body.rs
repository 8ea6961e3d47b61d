//! Where a body ends, and the chunks that it may come in (RFC 9112 sections 6 and 7).

use bytes::{Bytes, BytesMut};
use http::header::TRAILER;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use super::Outbound;
use crate::BoxError;

/// The longest line that says how long a chunk is, extensions included.
const SIZE_LINE_BYTES_MAX: usize = 1024;
/// All trailers together. The SDKs send a checksum or two and a signature.
const TRAILERS_BYTES_MAX: usize = 16 * 1024;
/// Trailers of one body.
const TRAILERS_MAX: usize = 32;

/// How a head says where its body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; without a body that is 0.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// With the connection. For answers alone.
    UntilClose,
}

/// A body that is not framed as it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The line before a chunk is no size.
    #[error("a chunk has no proper size")]
    ChunkSize,
    /// A chunk does not end where its size says.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// What follows the last chunk are no fields, or too many.
    #[error("the trailers are malformed or too large")]
    Trailers,
    /// The connection ended first.
    #[error("the connection ended before the body did")]
    Truncated,
}

/// What was found of a body.
#[derive(Debug)]
pub enum Piece {
    /// Some of its bytes, never none.
    Data(Bytes),
    /// The fields after its last chunk. It has ended.
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// More has to be read.
    More,
}

/// Finds a body in what is read.
#[derive(Clone, Debug)]
pub struct Decoder(State);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// In the line before a chunk.
    Size,
    /// In a chunk, with so many bytes to come.
    Chunk(u64),
    /// In the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    Ended,
}

impl Decoder {
    /// At the beginning of a body.
    pub const fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether all of the body was taken.
    pub fn has_ended(&self) -> bool {
        self.0 == State::Ended
    }

    /// How many bytes are to come, where the head said it.
    pub const fn remaining(&self) -> Option<u64> {
        match self.0 {
            State::Length(left) => Some(left),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// How many bytes it may be worth reading at once.
    pub fn wanted(&self) -> usize {
        match self.0 {
            // With the line end, and the size of the next.
            State::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX).max(64) - 32,
            State::Length(left) => usize::try_from(left).unwrap_or(usize::MAX),
            State::UntilClose => usize::MAX,
            State::Size | State::ChunkEnd | State::Trailers | State::Ended => 0,
        }
    }

    /// Takes the next piece from the beginning of `read`.
    ///
    /// # Errors
    /// The [`Fault`]; the connection is of no more use.
    pub fn take(&mut self, read: &mut BytesMut) -> Result<Piece, Fault> {
        loop {
            match &mut self.0 {
                State::Ended => return Ok(Piece::End),
                _ if read.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(read.split().freeze())),
                State::Length(left) => {
                    let data = split(read, left);
                    if *left == 0 {
                        self.0 = State::Ended;
                    }
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let data = split(read, left);
                    if *left == 0 {
                        self.0 = State::ChunkEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => {
                    if read.len() < 2 && read[0] == b'\r' {
                        return Ok(Piece::More);
                    }
                    if !read.starts_with(b"\r\n") {
                        return Err(Fault::ChunkEnd);
                    }
                    let _ = read.split_to(2);
                    self.0 = State::Size;
                }
                State::Size => {
                    let Some(line) = take_line(read, SIZE_LINE_BYTES_MAX, Fault::ChunkSize)? else {
                        return Ok(Piece::More);
                    };
                    self.0 = match chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Chunk(size),
                    };
                }
                State::Trailers => {
                    let Some(end) = end_of_trailers(read)? else {
                        return Ok(Piece::More);
                    };
                    let fields = read.split_to(end).freeze();
                    self.0 = State::Ended;
                    if end == 2 {
                        return Ok(Piece::End);
                    }
                    return trailers(&fields).map(Piece::Trailers);
                }
            }
        }
    }

    /// What it means for the body that the connection has ended, when all that was read was taken.
    ///
    /// # Errors
    /// [`Fault::Truncated`], unless that is how this one ends.
    pub fn connection_ended(&mut self) -> Result<(), Fault> {
        if matches!(self.0, State::UntilClose | State::Ended) {
            self.0 = State::Ended;
            return Ok(());
        }
        Err(Fault::Truncated)
    }
}

/// As much as is there, and not more than `left`.
fn split(read: &mut BytesMut, left: &mut u64) -> Bytes {
    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= here as u64;
    read.split_to(here).freeze()
}

/// A line without its end, once that has come.
fn take_line(read: &mut BytesMut, max: usize, fault: Fault) -> Result<Option<BytesMut>, Fault> {
    let Some(end) = read.iter().take(max).position(|byte| *byte == b'\n') else {
        return if read.len() < max {
            Ok(None)
        } else {
            Err(fault)
        };
    };
    let mut line = read.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(fault);
    }
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The size of a chunk; what an extension says does not matter.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let end = line.iter().position(|byte| *byte == b';');
    let digits = line[..end.unwrap_or(line.len())].trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) || line.contains(&b'\r') {
        return Err(Fault::ChunkSize);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Fault::ChunkSize)?;
    u64::from_str_radix(text, 16).map_err(|_| Fault::ChunkSize)
}

/// Where the empty line behind the trailers ends.
fn end_of_trailers(read: &[u8]) -> Result<Option<usize>, Fault> {
    let mut line = 0;
    for (at, byte) in read.iter().enumerate().take(TRAILERS_BYTES_MAX) {
        if *byte != b'\n' {
            continue;
        }
        if at == line || read[at - 1] != b'\r' {
            return Err(Fault::Trailers);
        }
        if at == line + 1 {
            return Ok(Some(at + 1));
        }
        line = at + 1;
    }
    if read.len() < TRAILERS_BYTES_MAX {
        Ok(None)
    } else {
        Err(Fault::Trailers)
    }
}

/// The fields of a block that [`end_of_trailers`] found.
fn trailers(block: &Bytes) -> Result<HeaderMap, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(block, &mut fields)
    else {
        return Err(Fault::Trailers);
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Fault::Trailers)?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value))
            .map_err(|_| Fault::Trailers)?;
        map.append(name, value);
    }
    Ok(map)
}

/// Writes a body as its head announced it.
#[derive(Debug)]
pub(crate) struct Encoder {
    framing: Framing,
    /// Which trailers the head has promised; others are not sent.
    trailers: Vec<HeaderName>,
    ended: bool,
}

/// A body that is not what its head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as its head says")]
pub(crate) struct WrongLength;

impl Encoder {
    /// For the body behind a head with these headers.
    pub(crate) fn new(framing: Framing, headers: &HeaderMap) -> Self {
        let trailers = match framing {
            Framing::Chunked => announced(headers),
            _ => Vec::new(),
        };
        Self {
            framing,
            trailers,
            ended: framing == Framing::Length(0),
        }
    }

    /// Whether nothing more is to be written.
    pub(crate) const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Puts a frame behind what is to be written already.
    pub(crate) fn frame(
        &mut self,
        frame: Frame<Bytes>,
        out: &mut Outbound,
    ) -> Result<(), BoxError> {
        match frame.into_data() {
            Ok(data) => self.data(data, out).map_err(Into::into),
            Err(frame) => {
                if let (Framing::Chunked, Ok(fields)) = (self.framing, frame.into_trailers()) {
                    self.end_chunks(Some(&fields), out);
                }
                Ok(())
            }
        }
    }

    fn data(&mut self, data: Bytes, out: &mut Outbound) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::UntilClose => out.push(data),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                self.ended = *left == 0;
                out.push(data);
            }
            Framing::Chunked if self.ended => return Err(WrongLength),
            Framing::Chunked => {
                let text = out.text();
                push_hex(text, data.len());
                text.extend_from_slice(b"\r\n");
                out.push(data);
                out.text().extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// The body has no more frames.
    pub(crate) fn end(&mut self, out: &mut Outbound) -> Result<(), WrongLength> {
        match self.framing {
            Framing::Length(1..) => return Err(WrongLength),
            Framing::Chunked if !self.ended => self.end_chunks(None, out),
            _ => {}
        }
        self.ended = true;
        Ok(())
    }

    fn end_chunks(&mut self, fields: Option<&HeaderMap>, out: &mut Outbound) {
        let text = out.text();
        text.extend_from_slice(b"0\r\n");
        let promised = fields.into_iter().flatten();
        for (name, value) in promised.filter(|(name, _)| self.trailers.contains(name)) {
            super::write::push_field(text, name, value);
        }
        text.extend_from_slice(b"\r\n");
        self.ended = true;
    }
}

/// The fields that a head promises for the end of its body.
fn announced(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(TRAILER).into_iter();
    lists
        .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

fn push_hex(text: &mut Vec<u8>, number: usize) {
    use std::io::Write as _;
    // A vector takes all that is written to it.
    let _ = write!(text, "{number:X}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of a body in whatever pieces it comes: bytes, trailers, and what is left behind it.
    fn read(
        framing: Framing,
        text: &[u8],
        piece: usize,
    ) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let mut decoder = Decoder::new(framing);
        let (mut buffer, mut got, mut fields) = (BytesMut::new(), Vec::new(), 0);
        let mut rest = text.chunks(piece);
        loop {
            match decoder.take(&mut buffer)? {
                Piece::Data(data) => got.extend_from_slice(&data),
                Piece::Trailers(map) => fields = map.len(),
                Piece::End => break,
                Piece::More => match rest.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => decoder.connection_ended()?,
                },
            }
        }
        rest.for_each(|more| buffer.extend_from_slice(more));
        Ok((got, fields, buffer.to_vec()))
    }

    #[test]
    fn bodies_are_found_however_they_are_cut() {
        let chunks =
            b"4\r\nabcd\r\n0a;x=\"y\"\r\n\r\n\n4\r\n0\r\n\r\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\nGET";
        for piece in 1..chunks.len() {
            let (got, fields, left) = read(Framing::Chunked, chunks, piece).unwrap();
            assert_eq!(got, b"abcd\r\n\n4\r\n0\r\n\r");
            assert_eq!((fields, &*left), (2, &b"GET"[..]));
            let length = read(Framing::Length(3), b"abcGET", piece).unwrap();
            assert_eq!(length, (b"abc".to_vec(), 0, b"GET".to_vec()));
            let whole = read(Framing::UntilClose, b"abcGET", piece).unwrap();
            assert_eq!(whole, (b"abcGET".to_vec(), 0, Vec::new()));
        }
    }

    #[test]
    fn what_is_not_framed_properly_is_a_fault_however_it_is_cut() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(SIZE_LINE_BYTES_MAX));
        let fields = format!("0\r\nx: {}\r\n\r\n", "x".repeat(TRAILERS_BYTES_MAX));
        let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(TRAILERS_MAX + 1));
        for (text, fault) in [
            ("5\nabcde\r\n0\r\n\r\n", Fault::ChunkSize),
            ("-5\r\nabcde\r\n0\r\n\r\n", Fault::ChunkSize),
            ("\r\n", Fault::ChunkSize),
            ("5 5\r\nabcde\r\n", Fault::ChunkSize),
            ("10000000000000000\r\n", Fault::ChunkSize),
            (&long, Fault::ChunkSize),
            ("4\r\nabcde\r\n0\r\n\r\n", Fault::ChunkEnd),
            ("4\r\nabcd\n0\r\n\r\n", Fault::ChunkEnd),
            ("0\r\n\n", Fault::Trailers),
            ("0\r\nx: y\n\r\n", Fault::Trailers),
            ("0\r\nx: y\r\n z\r\n\r\n", Fault::Trailers),
            ("0\r\nx y\r\n\r\n", Fault::Trailers),
            (&fields, Fault::Trailers),
            (&many, Fault::Trailers),
            ("4\r\nab", Fault::Truncated),
            ("0\r\n", Fault::Truncated),
        ] {
            for piece in [1, 2, 3, 7, text.len()] {
                let found = read(Framing::Chunked, text.as_bytes(), piece);
                assert_eq!(found.unwrap_err(), fault, "{text:?} by {piece}");
            }
        }
        assert_eq!(
            read(Framing::Length(4), b"abc", 2).unwrap_err(),
            Fault::Truncated
        );
    }

    fn written(
        framing: Framing,
        headers: &HeaderMap,
        frames: Vec<Frame<Bytes>>,
    ) -> Result<String, BoxError> {
        let (mut encoder, mut out) = (Encoder::new(framing, headers), Outbound::default());
        for frame in frames {
            encoder.frame(frame, &mut out)?;
        }
        encoder.end(&mut out)?;
        assert!(encoder.has_ended());
        Ok(String::from_utf8(out.to_vec()).unwrap())
    }

    #[test]
    fn bodies_are_written_as_announced() {
        let mut headers = HeaderMap::new();
        headers.insert(TRAILER, HeaderValue::from_static("x-a, X-B"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-b", HeaderValue::from_static("2"));
        trailers.insert("x-c", HeaderValue::from_static("3"));
        let data = |text: &'static str| Frame::data(Bytes::from(text));
        let large = "z".repeat(70_000);
        let frames = vec![
            data("abc"),
            data(""),
            Frame::data(large.clone().into()),
            Frame::trailers(trailers),
        ];
        assert_eq!(
            written(Framing::Chunked, &headers, frames).unwrap(),
            format!("3\r\nabc\r\n11170\r\n{large}\r\n0\r\nx-b: 2\r\n\r\n")
        );
        let none = HeaderMap::new();
        assert_eq!(
            written(Framing::Chunked, &none, vec![]).unwrap(),
            "0\r\n\r\n"
        );
        assert_eq!(
            written(Framing::Length(3), &none, vec![data("ab"), data("c")]).unwrap(),
            "abc"
        );
        assert_eq!(written(Framing::Length(0), &none, vec![]).unwrap(), "");
        assert!(written(Framing::Length(3), &none, vec![data("ab")]).is_err());
        assert!(written(Framing::Length(3), &none, vec![data("abcd")]).is_err());
    }
}
