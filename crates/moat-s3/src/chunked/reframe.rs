//! Takes a body as one side framed and protected it, and gives it as the other side wants it, piece
//! by piece: what a re-signing gateway does with uploads.
//!
//! The promise is that of a lock: **no output is complete before all of the input was found right**.
//! The last byte of the payload is held back until the hash, the signatures and the trailers of the
//! input have been checked, so whoever receives the output never takes a bad body for a whole one.

mod reader;
mod writer;

use std::collections::VecDeque;

use bytes::Bytes;

pub use reader::Source;
pub use writer::{CHUNK_BYTES, Target, chunk_bytes_of, trailer_length};

use super::Trailers;
use crate::error::S3Error;
use reader::Reader;
use writer::Writer;

/// One body on its way from one framing to another.
#[derive(Debug)]
pub struct Reframe {
    reader: Reader,
    writer: Writer,
}

impl Reframe {
    /// A body of `length` payload bytes, if that is known. Chunks of the output have `chunk_bytes`:
    /// [`CHUNK_BYTES`], or what [`chunk_bytes_of`] found, so that a hash may do for both sides.
    pub fn new(source: Source, length: Option<u64>, target: Target, chunk_bytes: u64) -> Self {
        Self {
            reader: Reader::new(source, length),
            writer: Writer::new(target, length, chunk_bytes),
        }
    }

    /// Takes a piece of the input and appends to `out` what can be sent of the output.
    ///
    /// # Errors
    /// The S3 error for what is wrong with the input; the output must then be cut.
    pub fn take(&mut self, input: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), S3Error> {
        let writer = &mut self.writer;
        self.reader
            .take(input, &mut |piece| writer.push(piece, out))
    }

    /// Ends the input and appends the rest of the output.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn end(&mut self, out: &mut VecDeque<Bytes>) -> Result<(), S3Error> {
        let writer = &mut self.writer;
        let trailers = self.reader.end(&mut |piece| writer.push(piece, out))?;
        writer.finish(&trailers, out)
    }

    /// Reads a body that is at hand: its payload and trailers.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn read_whole(
        source: Source,
        length: Option<u64>,
        input: Bytes,
    ) -> Result<(Bytes, Trailers), S3Error> {
        let mut reader = Reader::new(source, length);
        let mut pieces: Vec<Bytes> = Vec::new();
        reader.take(input, &mut |piece| pieces.push(piece.data))?;
        let trailers = reader.end(&mut |piece| pieces.push(piece.data))?;
        let payload = match <[Bytes; 1]>::try_from(pieces) {
            Ok([one]) => one,
            Err(pieces) => pieces.concat().into(),
        };
        Ok((payload, trailers))
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};
    use moat_types::{SecretString, UnixMillis};
    use proptest::prelude::*;

    use super::*;
    use crate::chunked::{
        AnnouncedTrailers, ChunkedDecoder, ChunkedEncoder, Framing, encoded_length,
    };
    use crate::error::ErrorCode;
    use crate::sigv4::{ChunkSeed, Credentials, PayloadHash, Signer, sha256};

    const TRAILER: (&str, &str) = ("x-amz-checksum-crc32", "AAAAAA==");

    fn seed(secret: &str) -> ChunkSeed {
        let credentials = Credentials {
            access_key_id: "ak".to_owned(),
            secret_access_key: SecretString::new(secret.to_owned()),
            session_token: None,
        };
        let uri = Uri::from_static("http://h/b/k");
        Signer::new(credentials, "r", "s3")
            .sign(
                &Method::PUT,
                &uri,
                &mut HeaderMap::new(),
                PayloadHash::StreamingSigned,
                UnixMillis(1_700_000_000_000),
            )
            .unwrap()
    }

    fn announced(trailing: bool) -> AnnouncedTrailers {
        let mut headers = HeaderMap::new();
        if trailing {
            headers.insert("x-amz-trailer", TRAILER.0.parse().unwrap());
        }
        AnnouncedTrailers::from_headers(&headers).unwrap()
    }

    fn framing(payload: PayloadHash, secret: &str) -> Framing {
        Framing::new(payload, Some(&seed(secret))).unwrap()
    }

    /// What a client with `secret` sends.
    fn sent(payload: PayloadHash, data: &[u8], chunk: usize) -> Vec<u8> {
        if !payload.is_chunked() {
            return data.to_vec();
        }
        let mut encoder = ChunkedEncoder::new(framing(payload, "client"));
        let mut out = Vec::new();
        for chunk in data.chunks(chunk) {
            for piece in encoder.chunk(Bytes::copy_from_slice(chunk)) {
                out.extend_from_slice(&piece);
            }
        }
        out.extend_from_slice(&encoder.finish(&[TRAILER]));
        out
    }

    fn source(payload: PayloadHash, trailing: bool) -> Source {
        match payload {
            PayloadHash::Sha256(hash) => Source::Hashed(hash),
            PayloadHash::Unsigned => Source::Plain,
            _ => Source::Chunked(framing(payload, "client"), announced(trailing)),
        }
    }

    fn target(payload: PayloadHash) -> Target {
        if payload.is_chunked() {
            Target::Chunked(framing(payload, "gateway"))
        } else {
            Target::Plain
        }
    }

    fn run(reframe: &mut Reframe, input: &[u8], piece: usize) -> (Vec<u8>, Result<(), S3Error>) {
        let mut out = VecDeque::new();
        let outcome = input
            .chunks(piece)
            .try_for_each(|data| reframe.take(Bytes::copy_from_slice(data), &mut out))
            .and_then(|()| reframe.end(&mut out));
        let out: Vec<Bytes> = out.into();
        (out.concat(), outcome)
    }

    /// Reads what a store gets.
    fn received(payload: PayloadHash, length: u64, framed: &[u8], trailing: bool) -> Vec<u8> {
        if !payload.is_chunked() {
            return framed.to_vec();
        }
        let mut decoder =
            ChunkedDecoder::new(framing(payload, "gateway"), length, announced(trailing));
        let mut input = Bytes::copy_from_slice(framed);
        let mut data = Vec::new();
        while let Some(piece) = decoder.decode(&mut input).unwrap() {
            data.extend_from_slice(&piece);
        }
        let trailers = decoder.finish().unwrap();
        if trailing {
            assert_eq!(trailers.get(TRAILER.0), Some(TRAILER.1));
        }
        data
    }

    const WAYS: [(PayloadHash, PayloadHash); 6] = [
        (PayloadHash::StreamingSigned, PayloadHash::Unsigned),
        (PayloadHash::StreamingSigned, PayloadHash::StreamingSigned),
        (PayloadHash::Unsigned, PayloadHash::StreamingSigned),
        (
            PayloadHash::StreamingSignedTrailer,
            PayloadHash::StreamingUnsignedTrailer,
        ),
        (
            PayloadHash::StreamingSignedTrailer,
            PayloadHash::StreamingSignedTrailer,
        ),
        (
            PayloadHash::StreamingUnsignedTrailer,
            PayloadHash::StreamingSignedTrailer,
        ),
    ];

    fn is_trailing(payload: PayloadHash) -> bool {
        !matches!(
            payload,
            PayloadHash::StreamingSigned | PayloadHash::Unsigned | PayloadHash::Sha256(_)
        )
    }

    proptest! {
        #[test]
        fn every_way_keeps_the_payload_and_has_the_length_that_was_announced(
            way in 0..WAYS.len(),
            length in prop_oneof![0..40_000usize, (CHUNK_BYTES as usize - 2..CHUNK_BYTES as usize * 2 + 2)],
            chunk in 8192..20_000usize,
            same in any::<bool>(),
            piece in 1..70_000usize,
        ) {
            let (from, to) = WAYS[way];
            let trailing = is_trailing(from);
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let input = sent(from, &data, chunk);
            let size = if same { chunk as u64 } else { CHUNK_BYTES };
            let mut reframe = Reframe::new(source(from, trailing), Some(length as u64), target(to), size);
            let (framed, outcome) = run(&mut reframe, &input, piece);
            prop_assert_eq!(outcome, Ok(()));
            let trailers = [(TRAILER.0, TRAILER.1.len())];
            let expected = encoded_length(to, length as u64, size, if trailing { &trailers } else { &[] });
            prop_assert_eq!(framed.len() as u64, expected);
            prop_assert_eq!(received(to, length as u64, &framed, trailing), data);
        }

        #[test]
        fn a_changed_byte_never_gives_a_whole_body(
            way in 0..2usize,
            length in 1..30_000usize,
            at in any::<prop::sample::Index>(),
            same in any::<bool>(),
            piece in 1..70_000usize,
        ) {
            let (from, to) = WAYS[way];
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut input = sent(from, &data, 9000);
            let at = at.index(input.len());
            input[at] ^= 1;
            let size = if same { 9000 } else { CHUNK_BYTES };
            let mut reframe = Reframe::new(source(from, false), Some(length as u64), target(to), size);
            let (framed, outcome) = run(&mut reframe, &input, piece);
            let whole = encoded_length(to, length as u64, size, &[]);
            prop_assert!(outcome.is_err());
            prop_assert!((framed.len() as u64) < whole, "{} of {whole}", framed.len());
        }
    }

    #[test]
    fn the_client_s_chunks_are_found_by_the_length_of_all() {
        let form = PayloadHash::StreamingSigned;
        for (chunk, found) in [
            (64 * 1024, 64 * 1024),
            (128 * 1024, 128 * 1024),
            (70_000, CHUNK_BYTES),
        ] {
            let framed = encoded_length(form, 1_000_000, chunk, &[]);
            assert_eq!(chunk_bytes_of(form, 1_000_000, framed, &[]), found);
        }
        assert_eq!(chunk_bytes_of(form, 1_000_000, 0, &[]), CHUNK_BYTES);
    }

    #[test]
    fn the_end_of_a_body_waits_for_its_hash() {
        let data = vec![7; 100_000];
        for length in [Some(data.len() as u64), None] {
            let hash = sha256(&data);
            let mut good = Reframe::new(Source::Hashed(hash), length, Target::Plain, CHUNK_BYTES);
            let (out, outcome) = run(&mut good, &data, 30_000);
            assert_eq!((out.len(), outcome), (data.len(), Ok(())));
            let mut bad = Reframe::new(Source::Hashed([0; 32]), length, Target::Plain, CHUNK_BYTES);
            let (out, outcome) = run(&mut bad, &data, 30_000);
            assert!(out.len() < data.len());
            let code = outcome.unwrap_err().code;
            assert_eq!(code, ErrorCode::XAmzContentSHA256Mismatch);
        }
    }

    #[test]
    fn a_trailer_of_another_length_than_announced_ends_nothing() {
        let input = b"1\r\nx\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let payload = PayloadHash::StreamingUnsignedTrailer;
        let mut reframe = Reframe::new(
            source(payload, true),
            Some(1),
            target(PayloadHash::StreamingSignedTrailer),
            CHUNK_BYTES,
        );
        let (_, outcome) = run(&mut reframe, input, 1000);
        assert_eq!(outcome.unwrap_err().code, ErrorCode::MalformedTrailerError);
    }
}
