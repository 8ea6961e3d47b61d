//! Writes those parts of the corpus that have to be made: signed requests, framed bodies,
//! keystores and certificates. `cargo run --bin seeds FOLDER`; text is committed as it is.

use std::error::Error;
use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri};
use moat_fuzz::{NOW, SECRET, secret};
use moat_pki::{
    CA_VALIDITY, CaRequest, CertificateAuthority, KeyAlgorithm, KeyEntry, Keystore, LEAF_VALIDITY,
    LeafRequest, PrivateKey, SubjectName, Usage, jks, pkcs12,
};
use moat_s3::chunked::{ChunkedEncoder, Framing};
use moat_s3::sigv4::{ChunkSeed, Credentials, PayloadHash, Signature, Signer, SigningKey};
use moat_s3::time::amz_date;
use moat_s3::uri::{Slash, encode};
use moat_types::{SecretString, SystemClock, SystemRandom};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("name the corpus folder")?;
    let folder = Path::new(&folder);
    framed_bodies(folder)?;
    signed_requests(folder)?;
    keystores(folder)
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

/// Bodies as the target reads them: the framing and three times the length, how it is split, the
/// body. So payloads have at most 84 bytes.
fn framed_bodies(folder: &Path) -> Result<()> {
    let payload = b"a payload of some length";
    let seed = ChunkSeed {
        key: SigningKey::derive(&secret(), "20130524", "us-east-1", "s3"),
        at: amz_date(NOW),
        signature: Signature::parse(&[b'0'; 64]).ok_or("64 digits")?,
    };
    let trailer: &[_] = &[("x-amz-checksum-crc32", "AAAAAA==")];
    let framings = [
        ("signed", Framing::Signed(seed.clone()), &[][..]),
        ("signed-trailer", Framing::SignedTrailer(seed), trailer),
        ("unsigned-trailer", Framing::UnsignedTrailer, trailer),
    ];
    for (number, (name, framing, trailers)) in framings.into_iter().enumerate() {
        let mut encoder = ChunkedEncoder::new(framing);
        let mut body = vec![u8::try_from(payload.len() * 3 + number)?, 7];
        for piece in encoder.chunk(Bytes::from_static(payload)) {
            body.extend_from_slice(&piece);
        }
        body.extend_from_slice(&encoder.finish(trailers));
        write(folder, "chunked", name, &body)?;
    }
    Ok(())
}

/// Requests as [`moat_fuzz::Request`] reads them, signed in each way.
fn signed_requests(folder: &Path) -> Result<()> {
    let uri = Uri::from_static("/bucket/a%20key?versionId=1&x-id=GetObject");
    let credentials = Credentials {
        access_key_id: "AK".to_owned(),
        secret_access_key: secret(),
        session_token: None,
    };
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("s3.local:9000"));
    let mut signed = headers.clone();
    let signer = Signer::new(credentials, "us-east-1", "s3");
    signer.sign(&Method::GET, &uri, &mut signed, PayloadHash::Unsigned, NOW)?;
    write(
        folder,
        "signature",
        "header",
        &text(&Method::GET, &uri.to_string(), &signed),
    )?;

    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK%2F20130524%2Fus-east-1%2Fs3\
                 %2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400\
                 &X-Amz-SignedHeaders=host&x-amz-meta-a=1";
    let canonical =
        format!("GET\n/bucket/k\n{query}\nhost:s3.local:9000\n\nhost\nUNSIGNED-PAYLOAD");
    let hash = hex(digest(&SHA256, canonical.as_bytes()).as_ref());
    let scope = ["20130524", "us-east-1", "s3", "aws4_request"];
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n20130524T000000Z\n{}\n{hash}",
        scope.join("/")
    );
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for part in scope.into_iter().chain([&*to_sign]) {
        let tag = hmac::sign(&Key::new(HMAC_SHA256, &key), part.as_bytes());
        key = tag.as_ref().to_vec();
    }
    let target = format!("/bucket/k?{query}&X-Amz-Signature={}", hex(&key));
    write(
        folder,
        "signature",
        "presigned",
        &text(&Method::GET, &target, &headers),
    )?;

    let to_sign = "PUT\n\ntext/plain\n1369440000\nx-amz-meta-a:1\n/bucket/k?uploadId=u";
    let key = Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, to_sign.as_bytes()));
    let signature = encode(signature.as_bytes(), Slash::Encode);
    let target = format!(
        "/k?uploadId=u&content-type=text/plain&x-amz-meta-a=1&AWSAccessKeyId=AK&Expires=1369440000\
         &Signature={signature}"
    );
    headers.insert("host", HeaderValue::from_static("bucket.s3.local"));
    write(
        folder,
        "signature",
        "version-2",
        &text(&Method::PUT, &target, &headers),
    )
}

fn text(method: &Method, target: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut text = format!("{method} {target}").into_bytes();
    for (name, value) in headers {
        text.extend_from_slice(format!("\n{name}: ").as_bytes());
        text.extend_from_slice(value.as_bytes());
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A truststore and a keystore in both formats, and what is in them.
fn keystores(folder: &Path) -> Result<()> {
    let request = CaRequest {
        common_name: "corpus".to_owned(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: CA_VALIDITY,
        permitted: Vec::new(),
    };
    let authority = CertificateAuthority::create(&request, &SystemClock, &SystemRandom)?;
    let request = LeafRequest {
        common_name: "corpus".to_owned(),
        usage: Usage::Both,
        names: vec![SubjectName::parse("localhost")?, SubjectName::parse("::1")?],
        validity: LEAF_VALIDITY,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let issued = authority.issue(&request, &key, &SystemClock, &SystemRandom)?;
    write(folder, "certificates", "leaf.der", &issued.certificate)?;
    write(folder, "certificates", "key.der", key.to_pkcs8().expose())?;
    write(
        folder,
        "certificates",
        "ca.pem",
        authority.certificate_pem().as_bytes(),
    )?;

    let password = SecretString::new("changeit".to_owned());
    let trust = Keystore::truststore("ca", authority.certificate());
    let own = Keystore {
        trusted: Vec::new(),
        keys: vec![KeyEntry {
            alias: "own".to_owned(),
            private_key: key.to_pkcs8(),
            chain: vec![issued.certificate],
        }],
    };
    for (name, keystore) in [("trust", &trust), ("own", &own)] {
        let file = jks::write(keystore, &password, &SystemClock, &SystemRandom)?;
        write(folder, "jks", name, &file)?;
        write(folder, "pkcs12", name, &pkcs12::write(keystore, &password)?)?;
    }
    Ok(())
}
