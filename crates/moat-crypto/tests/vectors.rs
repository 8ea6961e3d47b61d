//! Vectors of the envelope format: data at rest must stay readable. A change that breaks one of
//! these is a new format version, not a fix. Drawn in `docs/design/0001-envelope.md`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU8, Ordering};

use moat_crypto::{BlobLayout, BlobSealer, Dek, EpochKey, Place, Wrapping, open_run};
use moat_types::{
    BlobId, BucketName, EnclaveName, EpochId, KeyName, ObjectKey, Random, SecretBytes, VersionId,
};

/// Counts up, so that nonces are known.
struct Counting(AtomicU8);

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn dek() -> Dek {
    Dek::from_slice(&(0..32).collect::<Vec<u8>>()).unwrap()
}

fn sealed_blob(plain: &[u8]) -> Vec<u8> {
    let mut sealer = BlobSealer::new(&dek(), BlobId::from_bytes([0xB1; 16]), 1 << 20, 1 << 20);
    assert_eq!(sealer.push(plain), plain.len());
    sealer.finish()
}

#[test]
fn a_small_blob() {
    let expected = include_str!("vectors/blob-hello.hex").trim();
    assert_eq!(hex::encode(sealed_blob(b"hello world")), expected);
}

#[test]
fn a_blob_of_two_chunks_reads_back() {
    let plain: Vec<u8> = (0..65_537u32).map(|i| (i % 251) as u8).collect();
    let sealed = sealed_blob(&plain);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &sealed);
    let expected = include_str!("vectors/blob-two-chunks.sha256").trim();
    assert_eq!(hex::encode(digest), expected);

    let layout = BlobLayout::new(plain.len() as u64);
    let run = layout.run(65_535, 65_537, 2);
    let mut buffer = sealed[run.sealed.start as usize..run.sealed.end as usize].to_vec();
    let mut read = Vec::new();
    let mut pieces = Vec::new();
    let id = BlobId::from_bytes([0xB1; 16]);
    open_run(&dek(), id, layout, &run, &mut buffer, |piece| {
        pieces.push(piece)
    })
    .unwrap();
    for piece in pieces {
        read.extend_from_slice(&buffer[piece]);
    }
    assert_eq!(read, &plain[65_535..]);
}

#[test]
fn wrapped_keys() {
    let random = Counting(AtomicU8::new(0xA0));
    let key = EpochKey::new(SecretBytes::new(vec![0x11; 32])).unwrap();
    let (enclave, name) = (
        EnclaveName::parse("moat").unwrap(),
        KeyName::parse("key-1").unwrap(),
    );
    let (bucket, object) = (
        BucketName::parse("lake").unwrap(),
        ObjectKey::parse("a/b").unwrap(),
    );
    let place = Place {
        wrapping: Wrapping::Epoch {
            enclave: &enclave,
            key: &name,
            epoch: EpochId::from_bytes([0xE1; 16]),
        },
        bucket: &bucket,
        object: &object,
        version: VersionId::from_bytes([0x55; 16]),
        part: 0,
        blob: BlobId::from_bytes([0xB1; 16]),
        context: b"eyJhIjoiYiJ9",
    };
    let customer = EpochKey::from_customer_key(&SecretBytes::new(vec![0x22; 32])).unwrap();
    let under_customer = Place {
        wrapping: Wrapping::Customer,
        context: b"",
        ..place
    };
    let part = Dek::from_slice(&[0x33; 32]).unwrap();
    let found = [
        ("epoch", hex::encode(key.wrap(&dek(), &place, &random).0)),
        (
            "customer",
            hex::encode(customer.wrap(&dek(), &under_customer, &random).0),
        ),
        (
            "part",
            hex::encode(dek().wrap_part(&part, place.blob, &random).0),
        ),
        (
            "context",
            hex::encode(key.seal_context(b"eyJhIjoiYiJ9", &place, &random)),
        ),
        (
            "attributes",
            hex::encode(
                dek()
                    .attributes_key()
                    .seal(b"attributes", b"place", &random),
            ),
        ),
    ];
    let found: String = found
        .iter()
        .map(|(name, value)| format!("{name} {value}\n"))
        .collect();
    assert_eq!(found, include_str!("vectors/wrapped.txt"));
}
