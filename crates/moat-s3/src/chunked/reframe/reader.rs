//! The input: takes the framing off and checks what protects it.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::super::{AnnouncedTrailers, ChunkedDecoder, Framing, Trailers};
use crate::error::{ErrorCode, S3Error};

/// A piece of the payload. If it ends a chunk whose signature was right: the chunk's size and hash,
/// with which the output may be signed where its chunks are the same.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) data: Bytes,
    pub(super) ended_chunk: Option<(u64, [u8; 32])>,
}

impl From<Bytes> for Piece {
    fn from(data: Bytes) -> Self {
        Self {
            data,
            ended_chunk: None,
        }
    }
}

/// How the input is framed and protected.
#[derive(Clone, Debug)]
pub enum Source {
    /// Plain, with nothing to check.
    Plain,
    /// Plain, with this SHA-256.
    Hashed([u8; 32]),
    /// `aws-chunked`.
    Chunked(Framing, AnnouncedTrailers),
}

/// Reads the input.
#[derive(Debug)]
pub(super) struct Reader {
    kind: Kind,
    /// Payload bytes that are still to come, if that is known.
    left: Option<u64>,
    /// The end of the payload, until all is checked.
    held: Option<Piece>,
}

enum Kind {
    Plain,
    Hashed(Context, [u8; 32]),
    /// `None` after its end.
    Chunked(Option<Box<ChunkedDecoder>>),
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Hashed(..) => "Hashed",
            Self::Chunked(_) => "Chunked",
        })
    }
}

impl Reader {
    pub(super) fn new(source: Source, length: Option<u64>) -> Self {
        let kind = match source {
            Source::Plain => Kind::Plain,
            Source::Hashed(hash) => Kind::Hashed(Context::new(&SHA256), hash),
            Source::Chunked(framing, announced) => {
                let decoder = ChunkedDecoder::new(framing, length.unwrap_or(0), announced);
                Kind::Chunked(Some(Box::new(decoder)))
            }
        };
        Self {
            kind,
            left: length,
            held: None,
        }
    }

    /// Takes input and gives the payload that may be sent on.
    pub(super) fn take(
        &mut self,
        mut input: Bytes,
        give: &mut dyn FnMut(Piece),
    ) -> Result<(), S3Error> {
        match &mut self.kind {
            Kind::Plain => {
                if !input.is_empty() {
                    give(input.into());
                }
            }
            Kind::Hashed(hash, _) => {
                hash.update(&input);
                self.give_but_the_end(input.into(), give);
            }
            Kind::Chunked(decoder) => {
                let Some(mut decoder) = decoder.take() else {
                    return Err(ErrorCode::IncompleteBody.into());
                };
                while let Some(data) = decoder.decode(&mut input)? {
                    let ended_chunk = decoder.ended_chunk();
                    self.give_but_the_end(Piece { data, ended_chunk }, give);
                }
                self.kind = Kind::Chunked(Some(decoder));
            }
        }
        Ok(())
    }

    /// Ends the input: checks all, gives the rest, and returns the trailers.
    pub(super) fn end(&mut self, give: &mut dyn FnMut(Piece)) -> Result<Trailers, S3Error> {
        let trailers = match std::mem::replace(&mut self.kind, Kind::Chunked(None)) {
            Kind::Plain => Trailers::default(),
            Kind::Hashed(hash, expected) => {
                if hash.finish().as_ref() != expected {
                    return Err(ErrorCode::XAmzContentSHA256Mismatch.into());
                }
                Trailers::default()
            }
            Kind::Chunked(Some(decoder)) => decoder.finish()?,
            Kind::Chunked(None) => return Err(ErrorCode::IncompleteBody.into()),
        };
        if let Some(held) = self.held.take() {
            give(held);
        }
        Ok(trailers)
    }

    /// Whoever is told a length takes the body for whole with its last byte. Where the length is not
    /// known, any piece may be the last one.
    fn give_but_the_end(&mut self, piece: Piece, give: &mut dyn FnMut(Piece)) {
        if piece.data.is_empty() {
            return;
        }
        let is_end = match &mut self.left {
            Some(left) => {
                *left = left.saturating_sub(piece.data.len() as u64);
                *left == 0
            }
            None => true,
        };
        let before = if is_end {
            self.held.replace(piece)
        } else {
            Some(piece)
        };
        if let Some(before) = before {
            give(before);
        }
    }
}
