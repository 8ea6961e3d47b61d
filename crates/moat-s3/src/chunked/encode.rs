//! Frames a payload as `aws-chunked`: for the loader, the re-signing gateway and tests.

use bytes::Bytes;

use super::{Chain, Framing, Trailers};
use crate::sigv4::{EMPTY_SHA256, PayloadHash, sha256};

const LINE_END: &[u8] = b"\r\n";

/// An encoder for one body.
#[derive(Debug)]
pub struct ChunkedEncoder {
    chain: Option<Chain>,
    trailers_allowed: bool,
}

impl ChunkedEncoder {
    /// An encoder. For signed framings the seed is what [`crate::sigv4::Signer::sign`] returned.
    pub fn new(framing: Framing) -> Self {
        Self {
            chain: framing.chain(),
            trailers_allowed: !matches!(framing, Framing::Signed(_)),
        }
    }

    /// Frames one chunk: header, data, line end, to be sent in this order. The data is not
    /// copied. Signed chunks must hold 8 KiB or more unless they are the last; empty data is
    /// no chunk and gives empty pieces, as it would end the body.
    pub fn chunk(&mut self, data: Bytes) -> [Bytes; 3] {
        if data.is_empty() {
            return Default::default();
        }
        let digest = self.signs_chunks().then(|| sha256(&data));
        let header = self.chunk_header(data.len() as u64, digest.as_ref());
        [header, data, Self::chunk_end()]
    }

    /// The header of a chunk whose data is sent in pieces after it, and then [`Self::chunk_end`].
    /// For chunks that are signed, `sha256` is of all the data, which is never empty.
    ///
    /// # Panics
    /// If chunks are signed and `sha256` is not given.
    pub fn chunk_header(&mut self, size: u64, sha256: Option<&[u8; 32]>) -> Bytes {
        match &mut self.chain {
            None => format!("{size:x}\r\n").into(),
            Some(chain) => {
                let sha256 = sha256.expect("a signed chunk has a digest");
                signed_header(size, &chain.next_chunk(sha256).to_hex()).into()
            }
        }
    }

    /// What stands behind a chunk's data.
    pub const fn chunk_end() -> Bytes {
        Bytes::from_static(LINE_END)
    }

    /// Whether [`Self::chunk_header`] needs a digest.
    pub const fn signs_chunks(&self) -> bool {
        self.chain.is_some()
    }

    /// Ends the body with the last chunk and the trailers, which must be those that
    /// `x-amz-trailer` announces. A framing without trailers leaves them out.
    pub fn finish(mut self, trailers: &[(&str, &str)]) -> Bytes {
        let mut out = match &mut self.chain {
            None => "0\r\n".to_owned(),
            Some(chain) => signed_header(0, &chain.next_chunk(&EMPTY_SHA256).to_hex()),
        };
        if self.trailers_allowed {
            self.push_trailers(&mut out, trailers);
        }
        out.push_str("\r\n");
        out.into()
    }

    fn push_trailers(&mut self, out: &mut String, list: &[(&str, &str)]) {
        let mut trailers = Trailers::default();
        for (name, value) in list {
            let value = value.trim();
            if trailers.push(name, value).is_ok() {
                out.push_str(&format!("{}:{value}\r\n", name.to_ascii_lowercase()));
            }
        }
        if let (Some(chain), false) = (&mut self.chain, trailers.is_empty()) {
            let signature = chain.trailers(&sha256(&trailers.canonical()));
            out.push_str(&format!(
                "x-amz-trailer-signature:{}\r\n",
                signature.to_hex()
            ));
        }
    }
}

fn signed_header(size: u64, signature: &str) -> String {
    format!("{size:x};chunk-signature={signature}\r\n")
}

/// The length of the framed body: `Content-Length` for a payload of `length` bytes that is cut
/// into chunks of `chunk_bytes`, the last one smaller. `trailers` are names and lengths of values.
/// For plain payload forms it is `length`.
pub fn encoded_length(
    payload: PayloadHash,
    length: u64,
    chunk_bytes: u64,
    trailers: &[(&str, usize)],
) -> u64 {
    const SIGNATURE: u64 = ";chunk-signature=".len() as u64 + 64;
    let (signed, with_trailers) = match payload {
        PayloadHash::Sha256(_) | PayloadHash::Unsigned => return length,
        PayloadHash::StreamingSigned => (SIGNATURE, false),
        PayloadHash::StreamingSignedTrailer => (SIGNATURE, true),
        PayloadHash::StreamingUnsignedTrailer => (0, true),
    };
    let framed = |size: u64| hex_digits(size) + signed + 4 + size;
    let chunk_bytes = chunk_bytes.max(1);
    let rest = length % chunk_bytes;
    let mut total = length / chunk_bytes * framed(chunk_bytes);
    if rest > 0 {
        total += framed(rest);
    }
    // The last chunk has a header; its second line end closes the body.
    total += framed(0);
    if with_trailers && !trailers.is_empty() {
        total += trailers
            .iter()
            .map(|(name, value)| name.len() as u64 + 1 + *value as u64 + 2)
            .sum::<u64>();
        if signed > 0 {
            total += "x-amz-trailer-signature:".len() as u64 + 64 + 2;
        }
    }
    total
}

fn hex_digits(size: u64) -> u64 {
    u64::from(size.max(1).ilog2() / 4 + 1)
}
