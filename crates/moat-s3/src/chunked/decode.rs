//! Decodes an `aws-chunked` body as it comes in.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Buf, Bytes};

use super::trailer::parse_line;
use super::{
    AnnouncedTrailers, CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES_MAX, Chain, ChunkedError, Framing,
    SIGNED_CHUNK_BYTES_MIN, TRAILER_BYTES_MAX, Trailers,
};
use crate::sigv4::{EMPTY_SHA256, Signature, sha256};
use crate::uri::hex_digit;

/// A decoder for one body. Feed it with [`ChunkedDecoder::decode`] until the input is used up,
/// for each piece of the body; then call [`ChunkedDecoder::finish`].
///
/// After an error the decoder must not be fed again; the payload is void.
#[derive(Debug)]
pub struct ChunkedDecoder {
    chain: Option<Chain>,
    trailers_allowed: bool,
    announced: AnnouncedTrailers,
    /// `x-amz-decoded-content-length`.
    length: u64,
    /// Payload bytes that chunk headers have announced so far.
    promised: u64,
    state: State,
    /// A line of which the end has not come yet.
    partial_line: Vec<u8>,
    /// The size of the chunk before, for the rule about small chunks.
    previous_size: Option<u64>,
    trailers: Trailers,
    trailer_bytes: usize,
    /// Of the chunk that ended with the last piece, if it was signed: its size and hash.
    ended_chunk: Option<(u64, [u8; 32])>,
}

enum State {
    /// Before or in a chunk header.
    Header,
    /// In the data of a chunk.
    Data {
        remaining: u64,
        /// What the data is checked with, in signed framings.
        check: Option<ChunkCheck>,
    },
    /// After the data of a chunk; the next byte must be this one.
    DataEnd { next: u8 },
    /// After the last chunk header.
    Trailers { blank_seen: bool, signed: bool },
    /// After the end.
    Done { spare_line_end: &'static [u8] },
}

struct ChunkCheck {
    hash: Context,
    signature: Signature,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Header => "Header",
            Self::Data { .. } => "Data",
            Self::DataEnd { .. } => "DataEnd",
            Self::Trailers { .. } => "Trailers",
            Self::Done { .. } => "Done",
        })
    }
}

const fn incomplete<T>(reason: &'static str) -> Result<T, ChunkedError> {
    Err(ChunkedError::IncompleteBody(reason))
}

impl ChunkedDecoder {
    /// A decoder for a body of `length` payload bytes (`x-amz-decoded-content-length`).
    pub fn new(framing: Framing, length: u64, announced: AnnouncedTrailers) -> Self {
        Self {
            chain: framing.chain(),
            trailers_allowed: !matches!(framing, Framing::Signed(_)),
            announced,
            length,
            promised: 0,
            state: State::Header,
            partial_line: Vec::new(),
            previous_size: None,
            trailers: Trailers::default(),
            trailer_bytes: 0,
            ended_chunk: None,
        }
    }

    /// Takes bytes off the front of `input` and returns the next piece of payload, a slice of
    /// it. `None` means that `input` is empty and more of the body is needed.
    ///
    /// A piece may be handed out before the signature of its chunk is known.
    ///
    /// # Errors
    /// `ChunkedError`; the body must then be given up.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, ChunkedError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Header => {
                    if let Some(line) = self.take_line(input, CHUNK_HEADER_BYTES_MAX)? {
                        self.begin_chunk(&line)?;
                    }
                }
                State::Data { .. } => return self.take_data(input).map(Some),
                State::DataEnd { next } => {
                    if input.get_u8() != *next {
                        return incomplete("chunk data must end with CRLF.");
                    }
                    self.state = match *next {
                        b'\r' => State::DataEnd { next: b'\n' },
                        _ => State::Header,
                    };
                }
                State::Trailers { .. } => {
                    let limit = TRAILER_BYTES_MAX - self.trailer_bytes;
                    if let Some(line) = self.take_line(input, limit)? {
                        self.trailer_line(&line)?;
                    }
                }
                State::Done { spare_line_end } => match spare_line_end.split_first() {
                    Some((expected, rest)) if *expected == input[0] => {
                        *spare_line_end = rest;
                        input.advance(1);
                    }
                    _ => return incomplete("there is data after the last chunk."),
                },
            }
        }
        Ok(None)
    }

    /// If the piece that [`Self::decode`] returned last ended a signed chunk: the chunk's size, and the
    /// SHA-256 of its data, which the signature has confirmed.
    pub const fn ended_chunk(&self) -> Option<(u64, [u8; 32])> {
        self.ended_chunk
    }

    /// Whether the last chunk and the trailers have been read and found right.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Ends the body and returns the trailers.
    ///
    /// # Errors
    /// `IncompleteBody` if the body ended before its last chunk and trailers.
    pub fn finish(self) -> Result<Trailers, ChunkedError> {
        if self.is_done() {
            Ok(self.trailers)
        } else {
            incomplete("it ended before its last chunk.")
        }
    }

    /// Takes a line with its line feed; `None` if its end has not come yet. A line that lies
    /// within `input` is not copied.
    fn take_line(
        &mut self,
        input: &mut Bytes,
        limit: usize,
    ) -> Result<Option<Bytes>, ChunkedError> {
        let end = input.iter().take(limit + 1).position(|b| *b == b'\n');
        let taken = end.map_or(input.len(), |at| at + 1);
        if self.partial_line.len() + taken > limit {
            return match self.state {
                State::Header => incomplete("a chunk header is too long."),
                _ => Err(ChunkedError::MalformedTrailer("the trailers are too long.")),
            };
        }
        let piece = input.split_to(taken);
        if end.is_some() && self.partial_line.is_empty() {
            return Ok(Some(piece));
        }
        self.partial_line.extend_from_slice(&piece);
        Ok(end.map(|_| Bytes::from(std::mem::take(&mut self.partial_line))))
    }

    /// Reads a chunk header.
    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return incomplete("a chunk header must end with CRLF.");
        };
        let mut parts = line.split(|b| *b == b';');
        let size = parse_size(parts.next().unwrap_or_default())?;
        if self.chain.is_some()
            && size > 0
            && self
                .previous_size
                .is_some_and(|s| s < SIGNED_CHUNK_BYTES_MIN)
        {
            return Err(ChunkedError::InvalidChunkSize);
        }
        if size > self.length - self.promised {
            return incomplete("it is longer than x-amz-decoded-content-length.");
        }
        self.promised += size;
        self.previous_size = Some(size);
        let signature = match &self.chain {
            None => None,
            Some(_) => match parts.find_map(chunk_signature) {
                Some(signature) => Some(signature),
                None => return incomplete("a chunk has no chunk-signature."),
            },
        };
        if size == 0 {
            return self.end_chunks(signature);
        }
        self.state = State::Data {
            remaining: size,
            check: signature.map(|signature| ChunkCheck {
                hash: Context::new(&SHA256),
                signature,
            }),
        };
        Ok(())
    }

    /// The last chunk, of size 0.
    fn end_chunks(&mut self, signature: Option<Signature>) -> Result<(), ChunkedError> {
        if self.promised < self.length {
            return incomplete("it is shorter than x-amz-decoded-content-length.");
        }
        if let (Some(chain), Some(signature)) = (&mut self.chain, signature)
            && chain.next_chunk(&EMPTY_SHA256) != signature
        {
            return Err(ChunkedError::SignatureMismatch);
        }
        self.state = State::Trailers {
            blank_seen: false,
            signed: false,
        };
        Ok(())
    }

    /// Takes a piece of chunk data, hashes it, and checks the signature at the chunk's end.
    fn take_data(&mut self, input: &mut Bytes) -> Result<Bytes, ChunkedError> {
        let State::Data { remaining, check } = &mut self.state else {
            unreachable!("only called in a chunk's data");
        };
        self.ended_chunk = None;
        let wanted = usize::try_from(*remaining).unwrap_or(usize::MAX);
        let piece = input.split_to(wanted.min(input.len()));
        *remaining -= piece.len() as u64;
        if let Some(check) = check {
            check.hash.update(&piece);
        }
        if *remaining > 0 {
            return Ok(piece);
        }
        if let (Some(check), Some(chain)) = (check.take(), &mut self.chain) {
            let digest = check.hash.finish();
            let sha256 = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
            if chain.next_chunk(sha256) != check.signature {
                return Err(ChunkedError::SignatureMismatch);
            }
            self.ended_chunk = self.previous_size.map(|size| (size, *sha256));
        }
        self.state = State::DataEnd { next: b'\r' };
        Ok(piece)
    }

    /// Reads a line after the last chunk. minio-go ends trailers with a bare line feed, writes
    /// an empty line before the trailer signature, and one too many at the end.
    fn trailer_line(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        self.trailer_bytes += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let State::Trailers { blank_seen, signed } = self.state else {
            unreachable!("only called after the last chunk");
        };
        if line.is_empty() {
            let signature_may_follow = self.trailers_allowed
                && self.chain.is_some()
                && !self.trailers.is_empty()
                && !signed
                && !blank_seen;
            if signature_may_follow {
                self.state = State::Trailers {
                    blank_seen: true,
                    signed,
                };
                return Ok(());
            }
            return self.end_trailers(signed);
        }
        if !self.trailers_allowed {
            return incomplete("there is data after the last chunk.");
        }
        if signed {
            return Err(ChunkedError::MalformedTrailer(
                "the trailer signature must be last.",
            ));
        }
        let (name, value) = parse_line(line)?;
        if self.chain.is_some() && name.eq_ignore_ascii_case("x-amz-trailer-signature") {
            return self.check_trailer_signature(value);
        }
        if blank_seen {
            return Err(ChunkedError::MalformedTrailer(
                "a trailer follows the empty line.",
            ));
        }
        self.trailers.push(name, value)
    }

    fn check_trailer_signature(&mut self, value: &str) -> Result<(), ChunkedError> {
        let given = Signature::parse(value.as_bytes()).ok_or(ChunkedError::SignatureMismatch)?;
        let canonical = sha256(&self.trailers.canonical());
        let expected = self.chain.as_mut().map(|chain| chain.trailers(&canonical));
        if expected != Some(given) {
            return Err(ChunkedError::SignatureMismatch);
        }
        self.state = State::Trailers {
            blank_seen: false,
            signed: true,
        };
        Ok(())
    }

    fn end_trailers(&mut self, signed: bool) -> Result<(), ChunkedError> {
        if self.trailers_allowed {
            let must_be_signed = self.chain.is_some() && !self.trailers.is_empty();
            if must_be_signed && !signed {
                return Err(ChunkedError::MalformedTrailer(
                    "the trailers are not signed.",
                ));
            }
            self.announced.check(&self.trailers)?;
        }
        self.state = State::Done {
            spare_line_end: if self.trailers_allowed { b"\r\n" } else { b"" },
        };
        Ok(())
    }
}

/// The size of a chunk, in hex.
fn parse_size(digits: &[u8]) -> Result<u64, ChunkedError> {
    if digits.is_empty() || digits.len() > 16 {
        return incomplete("a chunk header must begin with the size in hex.");
    }
    let size = digits
        .iter()
        .try_fold(0u64, |size, b| Some(size << 4 | u64::from(hex_digit(*b)?)));
    match size {
        Some(size) if size <= CHUNK_BYTES_MAX => Ok(size),
        Some(_) => incomplete("a chunk is too large."),
        None => incomplete("a chunk header must begin with the size in hex."),
    }
}

/// The value of the extension `chunk-signature=...`.
fn chunk_signature(extension: &[u8]) -> Option<Signature> {
    let value = extension.trim_ascii().strip_prefix(b"chunk-signature=")?;
    Signature::parse(value)
}
