//! The framing of `aws-chunked` bodies: what the SDKs really send is decoded, whatever the
//! pieces it arrives in, and nothing malformed, short, long or changed is ever taken for whole.
#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test may"
)]

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use moat_s3::chunked::{
    AnnouncedTrailers, CHUNK_HEADER_BYTES_MAX, ChunkedDecoder, ChunkedEncoder, Framing,
    TRAILER_BYTES_MAX, encoded_length,
};
use moat_s3::sigv4::{ChunkSeed, PayloadHash, Signature, SigningKey};
use moat_s3::time::amz_date;
use moat_types::{SecretString, UnixMillis};
use proptest::prelude::*;

const CRC: &str = "x-amz-checksum-crc32";

/// Payload and trailers.
type Decoded = (Vec<u8>, Vec<(String, String)>);

fn seed() -> ChunkSeed {
    let secret = SecretString::new("secret".to_owned());
    ChunkSeed {
        key: SigningKey::derive(&secret, "20231114", "r", "s3"),
        at: amz_date(UnixMillis(1_700_000_000_000)),
        signature: Signature::parse(&[b'5'; 64]).expect("64 hex digits"),
    }
}

fn announced(names: &str) -> AnnouncedTrailers {
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-amz-trailer",
        HeaderValue::from_str(names).expect("ASCII"),
    );
    AnnouncedTrailers::from_headers(&headers).expect("names are well formed")
}

/// Decodes a body that arrives in pieces of `piece` bytes: payload and trailers, or the code.
fn decode_in(
    framing: Framing,
    length: u64,
    names: &str,
    body: &[u8],
    piece: usize,
) -> Result<Decoded, &'static str> {
    let mut decoder = ChunkedDecoder::new(framing, length, announced(names));
    let mut payload = Vec::new();
    for part in body.chunks(piece) {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(slice) = decoder.decode(&mut input).map_err(|e| e.code().as_str())? {
            assert!(!slice.is_empty(), "an empty piece would end a body stream");
            payload.extend_from_slice(&slice);
        }
        assert!(input.is_empty(), "all input is taken");
    }
    let trailers = decoder.finish().map_err(|e| e.code().as_str())?;
    let trailers = trailers.iter().map(|(n, v)| (n.to_owned(), v.to_owned()));
    Ok((payload, trailers.collect()))
}

/// Decodes whole and byte by byte, which must agree.
fn decode(
    framing: Framing,
    length: u64,
    names: &str,
    body: &[u8],
) -> Result<Decoded, &'static str> {
    let whole = decode_in(framing.clone(), length, names, body, usize::MAX);
    assert_eq!(decode_in(framing, length, names, body, 1), whole);
    whole
}

fn encode(framing: Framing, chunks: &[&[u8]], trailers: &[(&str, &str)]) -> Vec<u8> {
    let mut encoder = ChunkedEncoder::new(framing);
    let mut body = Vec::new();
    for chunk in chunks {
        for piece in encoder.chunk(Bytes::copy_from_slice(chunk)) {
            body.extend_from_slice(&piece);
        }
    }
    body.extend_from_slice(&encoder.finish(trailers));
    body
}

fn unsigned(length: u64, names: &str, body: &str) -> Result<String, &'static str> {
    let (payload, _) = decode(Framing::UnsignedTrailer, length, names, body.as_bytes())?;
    Ok(String::from_utf8(payload).expect("ASCII"))
}

#[test]
fn unsigned_bodies_as_the_sdks_send_them() {
    // boto3, Java, JS; with a chunk extension; upper-case hex.
    let body = "5\r\nhello\r\nA;x=y\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    assert_eq!(unsigned(15, CRC, body).unwrap(), "hello0123456789");
    // minio-go: a bare line feed after the trailer, one line end too many.
    let body = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\n\r\n\r\n";
    assert_eq!(unsigned(5, CRC, body).unwrap(), "hello");
    // No trailer; no data.
    assert_eq!(unsigned(5, "", "5\r\nhello\r\n0\r\n\r\n").unwrap(), "hello");
    assert_eq!(unsigned(0, "", "0\r\n\r\n").unwrap(), "");
    // Names have no case, values may be padded.
    let body = "0\r\nX-Amz-Checksum-CRC32:  AAAAAA== \r\n\r\n";
    let (_, trailers) = decode(Framing::UnsignedTrailer, 0, CRC, body.as_bytes()).unwrap();
    assert_eq!(trailers, [(CRC.to_owned(), "AAAAAA==".to_owned())]);
}

#[test]
fn small_unsigned_chunks_are_taken() {
    // The Go SDK frames whatever its reader returns.
    let body = "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n";
    assert_eq!(unsigned(3, "", body).unwrap(), "abc");
}

#[test]
fn an_empty_signed_body_is_86_bytes() {
    // SDK v1, measured: a PUT of nothing over http.
    let body = encode(Framing::Signed(seed()), &[], &[]);
    assert_eq!(body.len(), 86);
    assert_eq!(
        decode(Framing::Signed(seed()), 0, "", &body).unwrap().0,
        b""
    );
    assert_eq!(
        encoded_length(PayloadHash::StreamingSigned, 0, 65_536, &[]),
        86
    );
}

#[test]
fn a_signed_trailer_as_minio_go_sends_it() {
    let body = encode(
        Framing::SignedTrailer(seed()),
        &[b"hello"],
        &[(CRC, "AAAAAA==")],
    );
    let text = String::from_utf8(body).unwrap();
    let theirs = text.replace("AAAAAA==\r\n", "AAAAAA==\n\r\n");
    assert_ne!(theirs, text);
    for body in [text, theirs] {
        let got = decode(Framing::SignedTrailer(seed()), 5, CRC, body.as_bytes()).unwrap();
        assert_eq!(got.0, b"hello");
        assert_eq!(got.1, [(CRC.to_owned(), "AAAAAA==".to_owned())]);
    }
}

#[test]
fn malformed_framing_is_an_incomplete_body() {
    for body in [
        "",
        "5",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\n0\r\n\r",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        ";a=b\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        // Shorter and longer than announced.
        "4\r\nhell\r\n0\r\n\r\n",
        "6\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        // Data after the end.
        "5\r\nhello\r\n0\r\n\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n\r\n\r\n",
        "5\r\nhello\r\n0\r\n\r\n\r\nx",
    ] {
        assert_eq!(unsigned(5, "", body), Err("IncompleteBody"), "{body:?}");
    }
}

#[test]
fn trailers_must_be_those_announced() {
    let end = |trailers: &str| format!("0\r\n{trailers}\r\n");
    let bad = Err("MalformedTrailerError");
    assert_eq!(unsigned(0, CRC, &end("")), bad);
    assert_eq!(
        unsigned(0, "", &end("x-amz-checksum-crc32:AAAAAA==\r\n")),
        bad
    );
    assert_eq!(
        unsigned(0, CRC, &end("x-amz-checksum-sha1:AAAAAA==\r\n")),
        bad
    );
    let twice = "x-amz-checksum-crc32:AAAAAA==\r\n".repeat(2);
    assert_eq!(unsigned(0, CRC, &end(&twice)), bad);
    assert_eq!(unsigned(0, CRC, &end("x-amz-checksum-crc32\r\n")), bad);
    assert_eq!(unsigned(0, CRC, &end(":x\r\n")), bad);
    let (_, trailers) = decode(
        Framing::UnsignedTrailer,
        0,
        "a, B",
        end("b:2\r\na:1\r\n").as_bytes(),
    )
    .unwrap();
    assert_eq!(trailers.len(), 2);
}

#[test]
fn lines_and_trailers_have_limits() {
    let header = |bytes: usize| {
        let extension = "x".repeat(bytes - "0;\r\n".len());
        format!("0;{extension}\r\n\r\n")
    };
    assert!(unsigned(0, "", &header(CHUNK_HEADER_BYTES_MAX)).is_ok());
    assert_eq!(
        unsigned(0, "", &header(CHUNK_HEADER_BYTES_MAX + 1)),
        Err("IncompleteBody")
    );
    // A line that never ends is refused as soon as it is too long.
    assert_eq!(
        unsigned(0, "", &"1".repeat(CHUNK_HEADER_BYTES_MAX + 1)),
        Err("IncompleteBody")
    );
    let long = format!("0\r\na:{}\r\n\r\n", "x".repeat(TRAILER_BYTES_MAX));
    assert_eq!(unsigned(0, "a", &long), Err("MalformedTrailerError"));
    let many: String = (0..101).map(|n| format!("t{n}:1\r\n")).collect();
    assert_eq!(
        unsigned(0, "", &format!("0\r\n{many}\r\n")),
        Err("MalformedTrailerError")
    );
}

#[test]
fn small_signed_chunks_must_be_last() {
    let big = vec![7; 8192];
    let small = vec![7; 8191];
    let read = |chunks: &[&[u8]]| {
        let length = chunks.iter().map(|c| c.len() as u64).sum();
        let body = encode(Framing::Signed(seed()), chunks, &[]);
        decode_in(Framing::Signed(seed()), length, "", &body, 1000).map(|_| ())
    };
    assert_eq!(read(&[&big, &small]), Ok(()));
    assert_eq!(read(&[&small]), Ok(()));
    assert_eq!(read(&[&small, &big]), Err("InvalidChunkSizeError"));
}

#[test]
fn signatures_are_required_and_bind_the_chunks() {
    let (a, b) = (vec![b'a'; 8192], vec![b'b'; 8192]);
    let body = encode(Framing::Signed(seed()), &[&a, &b], &[]);
    let read = |body: &[u8], length: u64| {
        decode_in(Framing::Signed(seed()), length, "", body, 5000).map(|_| ())
    };
    assert_eq!(read(&body, 16_384), Ok(()));
    let chunk = body.len() / 2 - 43;
    let (first, rest) = body.split_at(chunk);
    let (second, last) = rest.split_at(chunk);
    let bad = Err("SignatureDoesNotMatch");
    assert_eq!(
        read(&[second, first, last].concat(), 16_384),
        bad,
        "swapped"
    );
    assert_eq!(read(&[first, last].concat(), 8192), bad, "dropped");
    assert_eq!(
        read(&[first, first, last].concat(), 16_384),
        bad,
        "repeated"
    );
    assert_eq!(read(&[second, last].concat(), 8192), bad, "beheaded");
    let text = String::from_utf8(body.clone()).unwrap();
    let unsigned = text.replacen(";chunk-signature=", ";chunk-signatura=", 1);
    assert_eq!(read(unsigned.as_bytes(), 16_384), Err("IncompleteBody"));
    let mut other = seed();
    other.signature = Signature::parse(&[b'6'; 64]).unwrap();
    let got = decode_in(Framing::Signed(other), 16_384, "", &body, 5000);
    assert_eq!(
        got,
        Err("SignatureDoesNotMatch"),
        "another request's chunks"
    );
}

#[test]
fn trailers_of_signed_bodies_must_be_signed() {
    let body = encode(
        Framing::SignedTrailer(seed()),
        &[b"hello"],
        &[(CRC, "AAAAAA==")],
    );
    let text = String::from_utf8(body).unwrap();
    let read =
        |text: &str| decode(Framing::SignedTrailer(seed()), 5, CRC, text.as_bytes()).map(|_| ());
    assert_eq!(read(&text), Ok(()));
    let at = text.find("x-amz-trailer-signature").unwrap();
    let unsigned = format!("{}\r\n", &text[..at]);
    assert_eq!(
        read(&unsigned),
        Err("IncompleteBody"),
        "waits for the signature"
    );
    assert_eq!(
        read(&format!("{unsigned}\r\n")),
        Err("MalformedTrailerError")
    );
    let other = text.replace("AAAAAA==", "BAAAAA==");
    assert_eq!(read(&other), Err("SignatureDoesNotMatch"));
    let after = text.replace("\r\n\r\n", "\r\nx-more:1\r\n\r\n");
    assert_eq!(read(&after), Err("MalformedTrailerError"));
    // A framing without trailers has none.
    let plain = encode(Framing::Signed(seed()), &[], &[]);
    let mut with_trailer = plain[..84].to_vec();
    with_trailer.extend_from_slice(b"x:1\r\n\r\n");
    assert_eq!(
        decode(Framing::Signed(seed()), 0, "", &with_trailer).map(|_| ()),
        Err("IncompleteBody")
    );
}

fn framings() -> impl Strategy<Value = PayloadHash> {
    prop_oneof![
        Just(PayloadHash::StreamingSigned),
        Just(PayloadHash::StreamingSignedTrailer),
        Just(PayloadHash::StreamingUnsignedTrailer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_encoded_is_decoded_in_any_pieces(
        kind in framings(),
        payload in proptest::collection::vec(any::<u8>(), 0..40_000),
        chunk_bytes in 8192usize..20_000,
        piece in 1usize..30_000,
    ) {
        let framing = Framing::new(kind, Some(&seed())).expect("a framed form");
        let chunks: Vec<&[u8]> = payload.chunks(chunk_bytes).collect();
        let with_trailer = kind != PayloadHash::StreamingSigned;
        let trailers: &[(&str, &str)] = if with_trailer { &[(CRC, "AAAAAA==")] } else { &[] };
        let names = if with_trailer { CRC } else { "" };
        let body = encode(framing.clone(), &chunks, trailers);
        let lengths: Vec<(&str, usize)> = trailers.iter().map(|(n, v)| (*n, v.len())).collect();
        let computed = encoded_length(kind, payload.len() as u64, chunk_bytes as u64, &lengths);
        prop_assert_eq!(body.len() as u64, computed);
        let (decoded, got) = decode_in(framing, payload.len() as u64, names, &body, piece)
            .expect("the body is right");
        prop_assert_eq!(decoded, payload);
        prop_assert_eq!(got.len(), trailers.len());
    }

    #[test]
    fn a_changed_or_cut_signed_body_is_never_whole(
        payload in proptest::collection::vec(any::<u8>(), 1..20_000),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let framing = Framing::SignedTrailer(seed());
        let chunks: Vec<&[u8]> = payload.chunks(8192).collect();
        let body = encode(framing.clone(), &chunks, &[(CRC, "AAAAAA==")]);
        let length = payload.len() as u64;
        let at = at.index(body.len());
        let cut = decode_in(framing.clone(), length, CRC, &body[..at], 4096);
        prop_assert!(cut.is_err(), "cut at {}", at);
        let mut changed = body;
        changed[at] ^= 1 << bit;
        // Some changes are no change: the case of a hex size, of a trailer's name, a tolerated
        // line end. The payload is the same then.
        if let Ok((decoded, _)) = decode_in(framing, length, CRC, &changed, 4096) {
            prop_assert_eq!(decoded, payload);
        }
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(
        kind in framings(),
        body in proptest::collection::vec(prop_oneof![Just(b'0'), Just(b'\r'), Just(b'\n'), Just(b';'), Just(b'a'), Just(b':'), any::<u8>()], 0..200),
        length in 0u64..64,
        piece in 1usize..20,
    ) {
        let framing = Framing::new(kind, Some(&seed())).expect("a framed form");
        let _ = decode_in(framing, length, "a", &body, piece);
    }
}
