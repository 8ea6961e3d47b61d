//! The example signatures that AWS publishes in the S3 API reference ("Signature Calculations for
//! the Authorization Header", single chunk and multiple chunks; "Using Query Parameters"), and
//! the derived forms that real clients send. If one of these fails, no client can log in.
#![allow(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test may"
)]

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use moat_s3::chunked::{
    AnnouncedTrailers, ChunkedDecoder, ChunkedEncoder, Framing, encoded_length,
};
use moat_s3::sigv4::{
    AuthError, Authentication, Credentials, PayloadHash, RequestParts, SignedHeaders, Signer,
    SigningKey, Verified,
};
use moat_s3::time::parse_amz_date;
use moat_types::{SecretString, UnixMillis};

const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const HOST: &str = "examplebucket.s3.amazonaws.com";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const CREDENTIAL: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";

fn now() -> UnixMillis {
    parse_amz_date("20130524T000000Z").unwrap()
}

fn secret() -> SecretString {
    SecretString::new(SECRET.to_owned())
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    headers
}

fn verify_at(
    method: &Method,
    uri: &str,
    headers: &HeaderMap,
    now: UnixMillis,
) -> Result<Verified, AuthError> {
    let uri: Uri = uri.parse().unwrap();
    let request = RequestParts::new(method, &uri, headers);
    let claim = match Authentication::parse(&request)? {
        Authentication::Header(claim) | Authentication::Presigned(claim) => claim,
        Authentication::Anonymous | Authentication::PresignedV2(_) => panic!("not version 4"),
    };
    assert_eq!(claim.access_key_id, ACCESS_KEY_ID);
    let key = SigningKey::derive(&secret(), &claim.date, &claim.region, &claim.service);
    claim.verify(&request, &key, now)
}

fn verify(method: &Method, uri: &str, headers: &HeaderMap) -> Result<Verified, AuthError> {
    verify_at(method, uri, headers, now())
}

/// A published example: its request, the signed headers and the signature.
fn check_example(
    method: Method,
    uri: &str,
    extra: &[(&str, &str)],
    signed_headers: &str,
    payload: &str,
    signature: &str,
) -> Verified {
    let mut sent = headers(&[
        ("host", HOST),
        ("x-amz-content-sha256", payload),
        ("x-amz-date", "20130524T000000Z"),
    ]);
    sent.extend(headers(extra));
    // The documents show both forms: with and without spaces after the commas.
    for separator in [",", ", ", " , "] {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={CREDENTIAL}{separator}SignedHeaders={signed_headers}\
             {separator}Signature={signature}"
        );
        sent.insert(
            "authorization",
            HeaderValue::from_str(&authorization).unwrap(),
        );
        verify(&method, uri, &sent).unwrap();
    }
    verify(&method, uri, &sent).unwrap()
}

#[test]
fn get_object() {
    check_example(
        Method::GET,
        "/test.txt",
        &[("range", "bytes=0-9")],
        "host;range;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    );
}

#[test]
fn put_object() {
    let verified = check_example(
        Method::PUT,
        "/test$file.text",
        &[
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    assert!(matches!(verified.payload, PayloadHash::Sha256(_)));
}

#[test]
fn get_bucket_lifecycle() {
    check_example(
        Method::GET,
        "/?lifecycle",
        &[],
        "host;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    );
}

#[test]
fn list_objects() {
    check_example(
        Method::GET,
        "/?max-keys=2&prefix=J",
        &[],
        "host;x-amz-content-sha256;x-amz-date",
        EMPTY,
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    );
}

fn presigned_uri() -> String {
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
     &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
     &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
     &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        .to_owned()
}

#[test]
fn presigned_get() {
    let host = headers(&[("host", HOST)]);
    let verified = verify(&Method::GET, &presigned_uri(), &host).unwrap();
    assert_eq!(verified.payload, PayloadHash::Unsigned);
}

#[test]
fn presigned_urls_have_a_begin_and_an_end() {
    let host = headers(&[("host", HOST)]);
    let at = |millis: i64| {
        let now = UnixMillis(now().0 + millis);
        verify_at(&Method::GET, &presigned_uri(), &host, now).map(|_| ())
    };
    assert_eq!(at(86_400_000), Ok(()));
    assert_eq!(at(86_400_001), Err(AuthError::Expired));
    assert_eq!(at(-900_000), Ok(()));
    assert_eq!(at(-900_001), Err(AuthError::NotYetValid));
}

#[test]
fn presigned_parameters_are_checked() {
    let host = headers(&[("host", HOST)]);
    let code = |from: &str, to: &str| {
        let uri = presigned_uri().replace(from, to);
        verify(&Method::GET, &uri, &host)
            .unwrap_err()
            .code()
            .as_str()
    };
    let bad = "AuthorizationQueryParametersError";
    assert_eq!(code("X-Amz-Expires=86400", "X-Amz-Expires=604801"), bad);
    assert_eq!(code("X-Amz-Expires=86400", "X-Amz-Expires=0"), bad);
    assert_eq!(code("X-Amz-Expires=86400", "X-Amz-Expires=-1"), bad);
    assert_eq!(code("X-Amz-Expires=86400", "X-Amz-Expires=x"), bad);
    assert_eq!(code("&X-Amz-Expires=86400", ""), bad);
    assert_eq!(code("&X-Amz-SignedHeaders=host", ""), bad);
    assert_eq!(code("SignedHeaders=host", "SignedHeaders=range"), bad);
    assert_eq!(code("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1"), bad);
    assert_eq!(code("Date=20130524T", "Date=20130525T"), bad);
    assert_eq!(code("Date=20130524T000000Z", "Date=now"), bad);
    assert_eq!(code("%2Faws4_request", "%2Faws5_request"), bad);
    assert_eq!(
        code("X-Amz-Expires=86400", "X-Amz-Expires=86401"),
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        code("Signature=aeeed9", "Signature=beeed9"),
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        code("Signature=aeeed9", "Signature=ae"),
        "SignatureDoesNotMatch"
    );
    assert_eq!(code("/test.txt", "/test.txu"), "SignatureDoesNotMatch");
}

#[test]
fn the_signer_makes_the_published_presigned_url() {
    let uri: Uri = format!("https://{HOST}/test.txt").parse().unwrap();
    let url = signer().presign(&Method::GET, &uri, &HeaderMap::new(), 86_400, now());
    assert_eq!(url.unwrap(), format!("https://{HOST}{}", presigned_uri()));
}

fn signer() -> Signer {
    Signer::new(
        Credentials {
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: secret(),
            session_token: None,
        },
        "us-east-1",
        "s3",
    )
}

#[test]
fn the_signer_makes_the_published_header() {
    let uri: Uri = format!("https://{HOST}/test.txt").parse().unwrap();
    let mut sent = headers(&[("range", "bytes=0-9")]);
    let payload = PayloadHash::parse(EMPTY).unwrap();
    signer()
        .sign(&Method::GET, &uri, &mut sent, payload, now())
        .unwrap();
    assert_eq!(
        sent["authorization"].to_str().unwrap(),
        format!(
            "AWS4-HMAC-SHA256 Credential={CREDENTIAL}, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        )
    );
}

const CHUNKED_LENGTH: usize = 66_560;

/// The headers of the published upload in chunks, signed by us; their signature is checked to be
/// the published one.
fn chunked_request() -> (HeaderMap, Verified) {
    let uri: Uri = "https://s3.amazonaws.com/examplebucket/chunkObject.txt"
        .parse()
        .unwrap();
    let mut sent = headers(&[
        ("content-encoding", "aws-chunked"),
        ("content-length", "66824"),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ]);
    signer()
        .with_signed_headers(SignedHeaders::All)
        .sign(
            &Method::PUT,
            &uri,
            &mut sent,
            PayloadHash::StreamingSigned,
            now(),
        )
        .unwrap();
    let authorization = sent["authorization"].to_str().unwrap();
    assert!(
        authorization.ends_with(
            "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
        ),
        "{authorization}"
    );
    let verified = verify(&Method::PUT, "/examplebucket/chunkObject.txt", &sent).unwrap();
    (sent, verified)
}

/// The published body: 64 KiB, 1 KiB, and the last chunk.
fn chunked_body() -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [
        (
            65_536,
            "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        ),
        (
            1024,
            "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        ),
        (
            0,
            "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
        ),
    ] {
        body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        body.extend_from_slice(b"\r\n");
    }
    body
}

fn decode(framing: Framing, body: &[u8], piece: usize) -> Result<Vec<u8>, &'static str> {
    let length = CHUNKED_LENGTH as u64;
    let mut decoder = ChunkedDecoder::new(framing, length, AnnouncedTrailers::default());
    let mut payload = Vec::new();
    for part in body.chunks(piece) {
        let mut input = Bytes::copy_from_slice(part);
        while let Some(slice) = decoder.decode(&mut input).map_err(|e| e.code().as_str())? {
            payload.extend_from_slice(&slice);
        }
    }
    decoder.finish().map_err(|e| e.code().as_str())?;
    Ok(payload)
}

#[test]
fn upload_in_signed_chunks() {
    let (_, verified) = chunked_request();
    let framing = Framing::new(verified.payload, Some(&verified.chunk_seed)).unwrap();
    let body = chunked_body();
    assert_eq!(body.len(), 66_824);
    for piece in [1, 7, 4096, 65_536, body.len()] {
        assert_eq!(
            decode(framing.clone(), &body, piece).unwrap(),
            vec![b'a'; CHUNKED_LENGTH]
        );
    }
}

#[test]
fn a_changed_byte_of_a_signed_chunk_is_found() {
    let (_, verified) = chunked_request();
    let framing = Framing::new(verified.payload, Some(&verified.chunk_seed)).unwrap();
    for at in [100, 60_000, 65_800] {
        let mut body = chunked_body();
        body[at] = b'b';
        assert_eq!(
            decode(framing.clone(), &body, 8192),
            Err("SignatureDoesNotMatch"),
            "{at}"
        );
    }
}

#[test]
fn the_encoder_makes_the_published_body() {
    let (_, verified) = chunked_request();
    let framing = Framing::new(verified.payload, Some(&verified.chunk_seed)).unwrap();
    let mut encoder = ChunkedEncoder::new(framing);
    let mut body = Vec::new();
    for size in [65_536, 1024] {
        for piece in encoder.chunk(Bytes::from(vec![b'a'; size])) {
            body.extend_from_slice(&piece);
        }
    }
    body.extend_from_slice(&encoder.finish(&[]));
    assert_eq!(body, chunked_body());
    let length = encoded_length(PayloadHash::StreamingSigned, 66_560, 65_536, &[]);
    assert_eq!(length, 66_824);
}

/// The published example of signed chunks with a trailer.
#[test]
fn upload_in_signed_chunks_with_trailer() {
    let uri: Uri = "https://s3.amazonaws.com/examplebucket/chunkObject.txt"
        .parse()
        .unwrap();
    let mut sent = headers(&[
        ("content-encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-trailer", "x-amz-checksum-crc32c"),
    ]);
    let seed = signer()
        .with_signed_headers(SignedHeaders::All)
        .sign(
            &Method::PUT,
            &uri,
            &mut sent,
            PayloadHash::StreamingSignedTrailer,
            now(),
        )
        .unwrap();
    assert_eq!(
        seed.signature.to_hex(),
        "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
    );
    let mut encoder = ChunkedEncoder::new(Framing::SignedTrailer(seed.clone()));
    let mut body = Vec::new();
    for size in [65_536, 1024] {
        for piece in encoder.chunk(Bytes::from(vec![b'a'; size])) {
            body.extend_from_slice(&piece);
        }
    }
    body.extend_from_slice(&encoder.finish(&[("x-amz-checksum-crc32c", "sOO8/Q==")]));
    let text = String::from_utf8(body.clone()).unwrap();
    for signature in [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
        "x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    ] {
        assert!(text.contains(signature), "{signature}");
    }
    let announced = AnnouncedTrailers::from_headers(&sent).unwrap();
    let mut decoder = ChunkedDecoder::new(Framing::SignedTrailer(seed), 66_560, announced);
    let mut input = Bytes::from(body);
    while decoder.decode(&mut input).unwrap().is_some() {}
    let trailers = decoder.finish().unwrap();
    assert_eq!(trailers.get("x-amz-checksum-crc32c"), Some("sOO8/Q=="));
}

#[test]
fn time_may_be_off_by_fifteen_minutes() {
    let uri: Uri = format!("https://{HOST}/test.txt").parse().unwrap();
    let mut sent = HeaderMap::new();
    signer()
        .sign(&Method::GET, &uri, &mut sent, PayloadHash::Unsigned, now())
        .unwrap();
    let at = |millis: i64| {
        verify_at(
            &Method::GET,
            "/test.txt",
            &sent,
            UnixMillis(now().0 + millis),
        )
        .map(|_| ())
    };
    assert_eq!(at(900_000), Ok(()));
    assert_eq!(at(-900_000), Ok(()));
    assert_eq!(at(900_001), Err(AuthError::TimeTooSkewed));
    assert_eq!(at(-900_001), Err(AuthError::TimeTooSkewed));
}

#[test]
fn a_date_header_may_replace_x_amz_date() {
    // Signed by hand: the Date header is signed instead of x-amz-date.
    let mut sent = headers(&[
        ("host", HOST),
        ("x-amz-content-sha256", EMPTY),
        ("date", "Fri, 24 May 2013 00:00:00 GMT"),
        (
            "authorization",
            &format!(
                "AWS4-HMAC-SHA256 Credential={CREDENTIAL},SignedHeaders=date;host;x-amz-content-sha256,Signature={}",
                "0".repeat(64)
            ),
        ),
    ]);
    assert_eq!(
        verify(&Method::GET, "/", &sent).unwrap_err(),
        AuthError::SignatureMismatch
    );
    sent.remove("date");
    assert_eq!(
        verify(&Method::GET, "/", &sent).unwrap_err(),
        AuthError::MissingDate
    );
}

#[test]
fn malformed_headers_have_their_codes() {
    let code = |authorization: &str, drop: &str| {
        let mut sent = headers(&[
            ("host", HOST),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
            ("authorization", authorization),
        ]);
        sent.remove(drop);
        let uri: Uri = "/".parse().unwrap();
        let request = RequestParts::new(&Method::GET, &uri, &sent);
        Authentication::parse(&request).unwrap_err().code().as_str()
    };
    let sig = "a".repeat(64);
    let bad = "AuthorizationHeaderMalformed";
    let with = |credential: &str, signed: &str, signature: &str| {
        format!(
            "AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed},Signature={signature}"
        )
    };
    assert_eq!(code("AWS4-HMAC-SHA256", ""), bad);
    assert_eq!(code("AWS4-HMAC-SHA256 ", ""), bad);
    assert_eq!(code("AWS4-HMAC-SHA256 Credential", ""), bad);
    assert_eq!(code(&with("a/20130524/r/s3", "host", &sig), ""), bad);
    assert_eq!(
        code(&with("/20130524/r/s3/aws4_request", "host", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130525/r/s3/aws4_request", "host", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/2013052/r/s3/aws4_request", "host", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130524/r/s3/aws4_request", "", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130524/r/s3/aws4_request", "Host", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130524/r/s3/aws4_request", "date", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130524/r/s3/aws4_request", "host;;x", &sig), ""),
        bad
    );
    assert_eq!(
        code(&with("a/20130524/r/s3/aws4_request", "host", "abc"), ""),
        bad
    );
    assert_eq!(
        code(
            &(with("a/20130524/r/s3/aws4_request", "host", &sig) + ",x=y"),
            ""
        ),
        bad
    );
    let good = with("a/20130524/r/s3/aws4_request", "host", &sig);
    assert_eq!(code(&good, "x-amz-content-sha256"), "InvalidRequest");
    assert_eq!(code(&good, "x-amz-date"), "AccessDenied");
    assert_eq!(code("AWS a:b", ""), "InvalidRequest");
    assert_eq!(code("AWS4-ECDSA-P256-SHA256 x", ""), "InvalidRequest");
    assert_eq!(code("Bearer x", ""), "InvalidArgument");
    assert_eq!(code("", ""), "InvalidArgument");
}

#[test]
fn two_mechanisms_are_refused() {
    let sent = headers(&[("host", HOST), ("authorization", "AWS4-HMAC-SHA256 x")]);
    assert_eq!(
        verify(&Method::GET, &presigned_uri(), &sent).unwrap_err(),
        AuthError::SeveralMechanisms
    );
    let none = HeaderMap::new();
    let uri: Uri = format!("{}&Signature=b", presigned_uri()).parse().unwrap();
    let both = Authentication::parse(&RequestParts::new(&Method::GET, &uri, &none));
    assert_eq!(both.unwrap_err(), AuthError::SeveralMechanisms);
}

#[test]
fn requests_without_authentication_are_anonymous() {
    let uri: Uri = "/k?prefix=Signature".parse().unwrap();
    let none = HeaderMap::new();
    let parsed = Authentication::parse(&RequestParts::new(&Method::GET, &uri, &none));
    assert!(matches!(parsed, Ok(Authentication::Anonymous)));
}

#[test]
fn an_empty_region_is_a_region() {
    // As madmin signs MinIO's admin calls.
    let uri: Uri = "http://h:9000/minio/admin/v3/info".parse().unwrap();
    let credentials = Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: secret(),
        session_token: Some("SESSION".to_owned()),
    };
    let mut sent = HeaderMap::new();
    let payload = PayloadHash::parse(EMPTY).unwrap();
    Signer::new(credentials, "", "s3")
        .sign(&Method::GET, &uri, &mut sent, payload, now())
        .unwrap();
    let request = RequestParts::new(&Method::GET, &uri, &sent);
    let Authentication::Header(claim) = Authentication::parse(&request).unwrap() else {
        panic!("not a header");
    };
    assert!(!format!("{claim:?}").contains("SESSION"), "{claim:?}");
    assert_eq!(
        (&*claim.region, claim.security_token.as_deref()),
        ("", Some("SESSION"))
    );
    let key = SigningKey::derive(&secret(), &claim.date, "", "s3");
    assert!(claim.verify(&request, &key, now()).is_ok());
    let elsewhere = SigningKey::derive(&secret(), &claim.date, "us-east-1", "s3");
    assert!(claim.verify(&request, &elsewhere, now()).is_err());
}

#[test]
fn sts_requests_sign_the_hash_of_their_body() {
    let uri: Uri = "http://h:9000/".parse().unwrap();
    let credentials = Credentials {
        access_key_id: ACCESS_KEY_ID.to_owned(),
        secret_access_key: secret(),
        session_token: None,
    };
    let hash = [0x42; 32];
    let mut sent = HeaderMap::new();
    Signer::new(credentials, "us-east-1", "sts")
        .sign(
            &Method::POST,
            &uri,
            &mut sent,
            PayloadHash::Sha256(hash),
            now(),
        )
        .unwrap();
    let request = RequestParts::new(&Method::POST, &uri, &sent);
    let Authentication::Header(mut claim) = Authentication::parse(&request).unwrap() else {
        panic!("not a header");
    };
    let key = SigningKey::derive(&secret(), &claim.date, "us-east-1", "sts");
    assert!(claim.verify(&request, &key, now()).is_ok());
    claim.set_body_hash([0x43; 32]);
    assert!(claim.verify(&request, &key, now()).is_err());
    claim.set_body_hash(hash);
    assert!(claim.verify(&request, &key, now()).is_ok());
}
