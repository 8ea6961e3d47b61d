//! `aws-chunked` bodies in all framings: the first byte chooses the framing, the second how the
//! body is split on its way. Splits must not change anything. The rest of the input is also taken
//! as a payload: encoded, it must come back.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use moat_fuzz::{NOW, secret};
use moat_s3::chunked::{
    AnnouncedTrailers, ChunkedDecoder, ChunkedEncoder, ChunkedError, Framing, Trailers,
};
use moat_s3::sigv4::{ChunkSeed, Signature, SigningKey};
use moat_s3::time::amz_date;

const TRAILER: (&str, &str) = ("x-amz-checksum-crc32", "AAAAAA==");

fuzz_target!(|input: &[u8]| {
    let [which, split, rest @ ..] = input else {
        return;
    };
    let (framing, split) = (framing(which % 3), usize::from(*split) + 1);
    let length = u64::from(which / 3);
    let whole = decode(framing.clone(), length, rest, usize::MAX);
    let pieces = decode(framing.clone(), length, rest, split);
    match (&whole, &pieces) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(a.code(), b.code()),
        _ => panic!("a split changed the result: {whole:?}, {pieces:?}"),
    }

    let encoded = encode(framing.clone(), rest);
    let decoded = decode(framing, rest.len() as u64, &encoded, split);
    assert_eq!(decoded.expect("what was encoded decodes").0, rest);
});

fn framing(which: u8) -> Framing {
    let seed = ChunkSeed {
        key: SigningKey::derive(&secret(), "20130524", "us-east-1", "s3"),
        at: amz_date(NOW),
        signature: Signature::parse(&[b'0'; 64]).expect("64 digits"),
    };
    match which {
        0 => Framing::Signed(seed),
        1 => Framing::SignedTrailer(seed),
        _ => Framing::UnsignedTrailer,
    }
}

fn announced(framing: &Framing) -> AnnouncedTrailers {
    let mut headers = http::HeaderMap::new();
    if !matches!(framing, Framing::Signed(_)) {
        headers.insert("x-amz-trailer", http::HeaderValue::from_static(TRAILER.0));
    }
    AnnouncedTrailers::from_headers(&headers).expect("one known trailer")
}

fn decode(
    framing: Framing,
    length: u64,
    body: &[u8],
    split: usize,
) -> Result<(Vec<u8>, Vec<(String, String)>), ChunkedError> {
    let announced = announced(&framing);
    let mut decoder = ChunkedDecoder::new(framing, length, announced);
    let mut payload = Vec::new();
    for piece in body.chunks(split) {
        let mut piece = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.decode(&mut piece)? {
            assert!(!data.is_empty());
            payload.extend_from_slice(&data);
            assert!(payload.len() as u64 <= length);
        }
        assert!(piece.is_empty());
    }
    let trailers = decoder.finish()?;
    assert_eq!(payload.len() as u64, length);
    Ok((payload, pairs(&trailers)))
}

fn pairs(trailers: &Trailers) -> Vec<(String, String)> {
    let pairs = trailers.iter();
    pairs.map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

fn encode(framing: Framing, payload: &[u8]) -> Vec<u8> {
    let trailers: &[_] = match framing {
        Framing::Signed(_) => &[],
        _ => &[TRAILER],
    };
    let mut encoder = ChunkedEncoder::new(framing);
    let mut out = Vec::new();
    // Smaller chunks are refused where chunks are signed.
    for chunk in payload.chunks(8192) {
        for piece in encoder.chunk(Bytes::copy_from_slice(chunk)) {
            out.extend_from_slice(&piece);
        }
    }
    out.extend_from_slice(&encoder.finish(trailers));
    out
}
