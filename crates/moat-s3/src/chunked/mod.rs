//! `aws-chunked` bodies: signed, signed with trailers, unsigned with trailers (S3 API reference,
//! "Signature Calculations ... Multiple Chunks" and "... Including Trailing Headers").
//!
//! ```text
//! signed:    HEX-SIZE ";chunk-signature=" 64-HEX CRLF  data CRLF  ...  0;chunk-signature=... CRLF
//! unsigned:  HEX-SIZE CRLF                             data CRLF  ...  0 CRLF
//! then:      { name ":" value CRLF } [ "x-amz-trailer-signature:" 64-HEX CRLF ] CRLF
//! ```
//!
//! Neither side buffers a chunk: payload bytes pass as slices of what came in, and a chunk's
//! signature is checked when its last byte has been hashed. Whoever stores the payload must
//! therefore commit only after [`ChunkedDecoder::finish`].

mod decode;
mod encode;
mod reframe;
mod trailer;

pub use decode::ChunkedDecoder;
pub use encode::{ChunkedEncoder, encoded_length};
pub use reframe::{CHUNK_BYTES, Reframe, Source, Target, chunk_bytes_of, trailer_length};
pub use trailer::{AnnouncedTrailers, TRAILER_BYTES_MAX, TRAILER_COUNT_MAX, Trailers};

use crate::error::{ErrorCode, S3Error};
use crate::sigv4::{ChunkSeed, EMPTY_SHA256, PayloadHash, Signature, push_hex};

/// The longest chunk header, its extensions included. A signed one has about 90 bytes.
pub const CHUNK_HEADER_BYTES_MAX: usize = 1024;

/// The largest chunk: that of a PUT in one piece.
pub const CHUNK_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// S3 refuses smaller signed chunks, the last one excepted: each costs a signature.
pub const SIGNED_CHUNK_BYTES_MIN: u64 = 8192;

/// How the body is framed, with what its signatures begin.
#[derive(Clone, Debug)]
pub enum Framing {
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`.
    Signed(ChunkSeed),
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`.
    SignedTrailer(ChunkSeed),
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    UnsignedTrailer,
}

impl Framing {
    /// The framing of a payload form; `None` for plain bodies, and for signed chunks if the
    /// request is not signed.
    pub fn new(payload: PayloadHash, seed: Option<&ChunkSeed>) -> Option<Self> {
        match payload {
            PayloadHash::StreamingSigned => seed.cloned().map(Self::Signed),
            PayloadHash::StreamingSignedTrailer => seed.cloned().map(Self::SignedTrailer),
            PayloadHash::StreamingUnsignedTrailer => Some(Self::UnsignedTrailer),
            PayloadHash::Sha256(_) | PayloadHash::Unsigned => None,
        }
    }

    /// The signature chain, if chunks are signed.
    fn chain(&self) -> Option<Chain> {
        match self {
            Self::Signed(seed) | Self::SignedTrailer(seed) => Some(Chain(seed.clone())),
            Self::UnsignedTrailer => None,
        }
    }
}

/// Each signature covers the one before it, so that chunks can't be reordered or dropped.
#[derive(Debug)]
struct Chain(ChunkSeed);

impl Chain {
    /// The signature of the next chunk; `sha256` is of its data.
    fn next_chunk(&mut self, sha256: &[u8; 32]) -> Signature {
        let mut text = self.head("AWS4-HMAC-SHA256-PAYLOAD");
        push_hex(&mut text, &EMPTY_SHA256);
        text.push(b'\n');
        self.advance(text, sha256)
    }

    /// The signature of the trailers; `sha256` is of their canonical form.
    fn trailers(&mut self, sha256: &[u8; 32]) -> Signature {
        let text = self.head("AWS4-HMAC-SHA256-TRAILER");
        self.advance(text, sha256)
    }

    fn head(&self, label: &str) -> Vec<u8> {
        let mut text = self.0.key.string_to_sign_head(label, &self.0.at);
        self.0.signature.push_to(&mut text);
        text.push(b'\n');
        text
    }

    fn advance(&mut self, mut text: Vec<u8>, sha256: &[u8; 32]) -> Signature {
        push_hex(&mut text, sha256);
        self.0.signature = self.0.key.sign(&text);
        self.0.signature
    }
}

/// Why a body was refused. The display text is the message for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChunkedError {
    /// The framing is wrong, or the payload is shorter or longer than announced.
    #[error("The request body terminated unexpectedly or is not framed as aws-chunked: {0}")]
    IncompleteBody(&'static str),
    /// A signed chunk that is not the last one is too small.
    #[error("Only the last chunk is allowed to have a size less than 8192 bytes")]
    InvalidChunkSize,
    /// The signature of a chunk or of the trailers is wrong.
    #[error(
        "The chunk or trailer signature we calculated does not match the signature you provided."
    )]
    SignatureMismatch,
    /// The trailers are not well formed, or not those that were announced.
    #[error("The request contained trailing data that was not well-formed: {0}")]
    MalformedTrailer(&'static str),
}

impl ChunkedError {
    /// The S3 code.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::IncompleteBody(_) => ErrorCode::IncompleteBody,
            Self::InvalidChunkSize => ErrorCode::InvalidChunkSizeError,
            Self::SignatureMismatch => ErrorCode::SignatureDoesNotMatch,
            Self::MalformedTrailer(_) => ErrorCode::MalformedTrailerError,
        }
    }
}

impl From<ChunkedError> for S3Error {
    fn from(error: ChunkedError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
