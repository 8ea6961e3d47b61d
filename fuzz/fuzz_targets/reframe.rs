//! Bodies on their way through the gateway: the first byte chooses both framings, the second how the
//! input is split, the third the length that the client announces. Whatever comes in, splits change
//! nothing, and the output is whole only if the input was found right to its end. The rest of the
//! input is also taken as a payload: framed by a client, it must arrive at the store.

#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use moat_fuzz::{NOW, secret};
use moat_s3::chunked::{
    AnnouncedTrailers, CHUNK_BYTES, ChunkedEncoder, Framing, Reframe, Source, Target,
    encoded_length,
};
use moat_s3::sigv4::{ChunkSeed, PayloadHash, Signature, SigningKey};
use moat_s3::time::amz_date;

const TRAILER: (&str, &str) = ("x-amz-checksum-crc32", "AAAAAA==");

fuzz_target!(|input: &[u8]| {
    let [which, split, length, rest @ ..] = input else {
        return;
    };
    let way = Way::of(*which);
    let split = usize::from(*split) + 1;
    let length = u64::from(*length);
    let (whole, outcome) = way.run(length, rest, usize::MAX);
    let (pieces, again) = way.run(length, rest, split);
    assert_eq!(outcome.is_ok(), again.is_ok());
    if outcome.is_ok() {
        assert_eq!(whole, pieces);
        assert_eq!(whole.len() as u64, way.length_out(length));
    } else if length > 0 {
        assert!((whole.len() as u64) < way.length_out(length));
        assert!((pieces.len() as u64) < way.length_out(length));
    }

    let framed = way.client(rest);
    let length = rest.len() as u64;
    let (arrived, outcome) = way.run(length, &framed, split);
    outcome.expect("what a client framed is taken");
    assert_eq!(arrived.len() as u64, way.length_out(length));
    assert_eq!(way.store(length, &arrived), rest);
});

/// From one framing to another.
struct Way {
    from: PayloadHash,
    to: PayloadHash,
}

impl Way {
    fn of(which: u8) -> Self {
        use PayloadHash::{
            StreamingSigned, StreamingSignedTrailer, StreamingUnsignedTrailer, Unsigned,
        };
        let ways = [
            (StreamingSigned, Unsigned),
            (StreamingSigned, StreamingSigned),
            (StreamingSignedTrailer, StreamingUnsignedTrailer),
            (StreamingSignedTrailer, StreamingSignedTrailer),
            (StreamingUnsignedTrailer, StreamingSignedTrailer),
        ];
        let (from, to) = ways[usize::from(which) % ways.len()];
        Self { from, to }
    }

    fn trailing(&self) -> bool {
        self.from != PayloadHash::StreamingSigned
    }

    fn announced(&self) -> AnnouncedTrailers {
        let mut headers = http::HeaderMap::new();
        if self.trailing() {
            headers.insert("x-amz-trailer", http::HeaderValue::from_static(TRAILER.0));
        }
        AnnouncedTrailers::from_headers(&headers).expect("one known trailer")
    }

    fn length_out(&self, length: u64) -> u64 {
        let trailers: &[_] = if self.trailing() {
            &[(TRAILER.0, TRAILER.1.len())]
        } else {
            &[]
        };
        encoded_length(self.to, length, CHUNK_BYTES, trailers)
    }

    fn run(&self, length: u64, input: &[u8], split: usize) -> (Vec<u8>, Result<(), String>) {
        let source = Source::Chunked(framing(self.from, b'0').expect("framed"), self.announced());
        let target = framing(self.to, b'1').map_or(Target::Plain, Target::Chunked);
        let mut reframe = Reframe::new(source, Some(length), target, CHUNK_BYTES);
        let mut out = VecDeque::new();
        let outcome = input
            .chunks(split.min(input.len().max(1)))
            .try_for_each(|piece| reframe.take(Bytes::copy_from_slice(piece), &mut out))
            .and_then(|()| reframe.end(&mut out));
        let out: Vec<Bytes> = out.into();
        (out.concat(), outcome.map_err(|error| error.to_string()))
    }

    /// What a client sends.
    fn client(&self, payload: &[u8]) -> Vec<u8> {
        let mut encoder = ChunkedEncoder::new(framing(self.from, b'0').expect("framed"));
        let mut out = Vec::new();
        // Smaller chunks are refused where chunks are signed.
        for chunk in payload.chunks(8192) {
            for piece in encoder.chunk(Bytes::copy_from_slice(chunk)) {
                out.extend_from_slice(&piece);
            }
        }
        out.extend_from_slice(&encoder.finish(if self.trailing() { &[TRAILER] } else { &[] }));
        out
    }

    /// What a store reads.
    fn store(&self, length: u64, framed: &[u8]) -> Vec<u8> {
        let source = framing(self.to, b'1').map_or(Source::Plain, |framing| {
            Source::Chunked(framing, self.announced())
        });
        let input = Bytes::copy_from_slice(framed);
        let (payload, _) = Reframe::read_whole(source, Some(length), input).expect("it is right");
        payload.to_vec()
    }
}

fn framing(form: PayloadHash, digit: u8) -> Option<Framing> {
    let seed = ChunkSeed {
        key: SigningKey::derive(&secret(), "20130524", "us-east-1", "s3"),
        at: amz_date(NOW),
        signature: Signature::parse(&[digit; 64]).expect("64 digits"),
    };
    Framing::new(form, Some(&seed))
}
