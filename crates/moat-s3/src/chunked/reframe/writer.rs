//! The output: puts the framing on that the receiver wants.

use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::super::{ChunkedEncoder, ChunkedError, Framing, Trailers, encoded_length};
use super::reader::Piece;
use crate::checksum::ChecksumAlgorithm;
use crate::error::S3Error;
use crate::sigv4::PayloadHash;

/// Payload bytes in each chunk of the output but the last. The data of a signed chunk is kept until
/// its signature is known, so this is also what one upload may hold in memory; clients use 64 to 128
/// KiB themselves.
pub const CHUNK_BYTES: u64 = 128 * 1024;

/// How the output is framed.
#[derive(Clone, Debug)]
pub enum Target {
    /// The payload as it is.
    Plain,
    /// `aws-chunked`.
    Chunked(Framing),
}

/// Writes the output.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: plain; taken away by the end.
    encoder: Option<ChunkedEncoder>,
    /// Payload bytes that are still to come.
    left: u64,
    chunk_bytes: u64,
    chunk: Chunk,
}

/// The chunk that is being written.
struct Chunk {
    /// Bytes that it still lacks; 0 between chunks.
    lacks: u64,
    /// Its data, if it must be signed first.
    pieces: Vec<Bytes>,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes left)", self.lacks)
    }
}

impl Writer {
    pub(super) fn new(target: Target, length: Option<u64>, chunk_bytes: u64) -> Self {
        let encoder = match target {
            Target::Plain => None,
            Target::Chunked(framing) => Some(ChunkedEncoder::new(framing)),
        };
        Self {
            encoder,
            left: length.unwrap_or(0),
            chunk_bytes,
            chunk: Chunk {
                lacks: 0,
                pieces: Vec::new(),
            },
        }
    }

    pub(super) fn push(&mut self, piece: Piece, out: &mut VecDeque<Bytes>) {
        let mut rest = piece.data;
        let Some(encoder) = &mut self.encoder else {
            out.push_back(rest);
            return;
        };
        let chunk = &mut self.chunk;
        while !rest.is_empty() {
            if chunk.lacks == 0 {
                chunk.lacks = self.chunk_bytes.min(self.left).max(1);
                if !encoder.signs_chunks() {
                    out.push_back(encoder.chunk_header(chunk.lacks, None));
                }
            }
            let room = usize::try_from(chunk.lacks).unwrap_or(usize::MAX);
            let data = rest.split_to(rest.len().min(room));
            chunk.lacks -= data.len() as u64;
            self.left = self.left.saturating_sub(data.len() as u64);
            if encoder.signs_chunks() {
                chunk.pieces.push(data);
            } else {
                out.push_back(data);
            }
            if chunk.lacks == 0 {
                let ended = piece.ended_chunk.filter(|_| rest.is_empty());
                chunk.close(encoder, ended, out);
            }
        }
    }

    pub(super) fn finish(
        &mut self,
        trailers: &Trailers,
        out: &mut VecDeque<Bytes>,
    ) -> Result<(), S3Error> {
        let Some(encoder) = self.encoder.take() else {
            return Ok(());
        };
        let list: Vec<_> = trailers.iter().collect();
        // The length of the output was announced with the lengths that these values have by their
        // kind.
        let of_known_length = |(name, value): &(&str, &str)| {
            trailer_length(name).is_some_and(|length| value.len() == length)
        };
        if !list.iter().all(of_known_length) {
            let problem = "a checksum has not the length of its kind.";
            return Err(ChunkedError::MalformedTrailer(problem).into());
        }
        out.push_back(encoder.finish(&list));
        Ok(())
    }
}

impl Chunk {
    /// Ends the chunk. `ended`: the chunk of the input that ended with the same byte. If it has the same
    /// size, it is the same data, whose hash is known then.
    fn close(
        &mut self,
        encoder: &mut ChunkedEncoder,
        ended: Option<(u64, [u8; 32])>,
        out: &mut VecDeque<Bytes>,
    ) {
        if encoder.signs_chunks() {
            let size = self.pieces.iter().map(|piece| piece.len() as u64).sum();
            let sha256 = match ended {
                Some((same, sha256)) if same == size => sha256,
                _ => self.hash(),
            };
            out.push_back(encoder.chunk_header(size, Some(&sha256)));
            out.extend(self.pieces.drain(..));
        }
        out.push_back(ChunkedEncoder::chunk_end());
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Context::new(&SHA256);
        self.pieces.iter().for_each(|piece| hash.update(piece));
        let digest = hash.finish();
        digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Finds the size of the client's chunks, if they are all of one usual size, by the length of the whole
/// framed body; else [`CHUNK_BYTES`]. A wrong guess costs a second hash and nothing else.
pub fn chunk_bytes_of(
    form: PayloadHash,
    length: u64,
    framed: u64,
    trailers: &[(&str, usize)],
) -> u64 {
    /// What SDKs use, the most usual ones first; the largest bounds what is kept in memory.
    const USUAL: [u64; 6] = [64, 128, 256, 512, 1024, 8];
    USUAL
        .into_iter()
        .map(|kib| kib * 1024)
        .find(|size| encoded_length(form, length, *size, trailers) == framed)
        .unwrap_or(CHUNK_BYTES)
}

/// The length of a trailer's value; `None` for what is no checksum.
pub fn trailer_length(name: &str) -> Option<usize> {
    let bytes = ChecksumAlgorithm::from_header_name(name)?.value_bytes();
    Some(bytes.div_ceil(3) * 4)
}
