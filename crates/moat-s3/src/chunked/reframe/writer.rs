//! The output: puts the framing on that the receiver wants.

use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::super::{ChunkedEncoder, ChunkedError, Framing, Trailers};
use crate::checksum::ChecksumAlgorithm;
use crate::error::S3Error;

/// Payload bytes in each chunk of the output but the last. The data of a signed chunk is kept until
/// its signature is known, so this is also what one upload may hold in memory; clients use 64 to 128
/// KiB themselves.
pub const CHUNK_BYTES: u64 = 128 * 1024;

/// How the output is framed.
#[derive(Clone, Debug)]
pub enum Target {
    /// The payload as it is.
    Plain,
    /// `aws-chunked`, in chunks of [`CHUNK_BYTES`].
    Chunked(Framing),
}

/// Writes the output.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None`: plain; taken away by the end.
    encoder: Option<ChunkedEncoder>,
    /// Payload bytes that are still to come.
    left: u64,
    chunk: Chunk,
}

/// The chunk that is being written.
struct Chunk {
    /// Bytes that it still lacks; 0 between chunks.
    lacks: u64,
    /// Its data, if it must be signed first.
    pieces: Vec<Bytes>,
    hash: Option<Context>,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({} bytes left)", self.lacks)
    }
}

impl Writer {
    pub(super) fn new(target: Target, length: Option<u64>) -> Self {
        let encoder = match target {
            Target::Plain => None,
            Target::Chunked(framing) => Some(ChunkedEncoder::new(framing)),
        };
        Self {
            encoder,
            left: length.unwrap_or(0),
            chunk: Chunk {
                lacks: 0,
                pieces: Vec::new(),
                hash: None,
            },
        }
    }

    pub(super) fn push(&mut self, mut piece: Bytes, out: &mut VecDeque<Bytes>) {
        let Some(encoder) = &mut self.encoder else {
            out.push_back(piece);
            return;
        };
        let chunk = &mut self.chunk;
        while !piece.is_empty() {
            if chunk.lacks == 0 {
                chunk.lacks = CHUNK_BYTES.min(self.left).max(1);
                if encoder.signs_chunks() {
                    chunk.hash = Some(Context::new(&SHA256));
                } else {
                    out.push_back(encoder.chunk_header(chunk.lacks, None));
                }
            }
            let room = usize::try_from(chunk.lacks).unwrap_or(usize::MAX);
            let data = piece.split_to(piece.len().min(room));
            chunk.lacks -= data.len() as u64;
            self.left = self.left.saturating_sub(data.len() as u64);
            match &mut chunk.hash {
                Some(hash) => {
                    hash.update(&data);
                    chunk.pieces.push(data);
                }
                None => out.push_back(data),
            }
            if chunk.lacks == 0 {
                chunk.close(encoder, out);
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
    fn close(&mut self, encoder: &mut ChunkedEncoder, out: &mut VecDeque<Bytes>) {
        if let Some(hash) = self.hash.take() {
            let digest = hash.finish();
            let sha256 = digest.as_ref().try_into().expect("SHA-256 has 32 bytes");
            let size = self.pieces.iter().map(|piece| piece.len() as u64).sum();
            out.push_back(encoder.chunk_header(size, Some(sha256)));
            out.extend(self.pieces.drain(..));
        }
        out.push_back(ChunkedEncoder::chunk_end());
    }
}

/// The length of a trailer's value; `None` for what is no checksum.
pub fn trailer_length(name: &str) -> Option<usize> {
    let bytes = ChecksumAlgorithm::from_header_name(name)?.value_bytes();
    Some(bytes.div_ceil(3) * 4)
}
