//! The envelope: a blob and a wrap are sealed, changed as the input says, and opened. Whatever
//! the change, no wrong byte comes out.
//!
//! Input: 3 bytes of length, 3 of the start and 3 of the end of the read, 1 of the chunks at once,
//! then edits of 4 bytes: 3 of the place, and what is XORed there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use moat_crypto::{
    BlobLayout, BlobSealer, Dek, EpochKey, HEADER_BYTES, Place, WRAPPED_DEK_BYTES, WrappedDek,
    Wrapping, check_header, open_run,
};
use moat_fuzz::Zeros;
use moat_types::{BlobId, BucketName, ObjectKey, SecretBytes, VersionId};

/// Three chunks and a bit, so that first, middle and last chunks are met.
const PLAIN_BYTES_MAX: u64 = 200_000;

fuzz_target!(|input: &[u8]| {
    let Some((head, edits)) = input.split_first_chunk::<10>() else {
        return;
    };
    let edits: Vec<(u64, u8)> = edits
        .chunks_exact(4)
        .map(|edit| (number(&edit[..3]), edit[3]))
        .collect();
    wrap(&edits);
    blob(head, &edits);
});

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, b| sum << 8 | u64::from(*b))
}

fn blob(head: &[u8; 10], edits: &[(u64, u8)]) {
    let length = number(&head[..3]) % PLAIN_BYTES_MAX + 1;
    let start = number(&head[3..6]) % length;
    let end = start + 1 + number(&head[6..9]) % (length - start);
    let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
    let (dek, id) = (Dek::random(&Zeros), BlobId::random(&Zeros));
    let mut sealed = seal(&dek, id, &plain);
    let layout = BlobLayout::new(length);
    assert_eq!(sealed.len() as u64, layout.sealed_bytes());
    let intact = !edit(&mut sealed, edits);

    let header = check_header(id, &sealed[..HEADER_BYTES as usize]);
    let mut at = start;
    while at < end {
        let run = layout.run(at, end, u64::from(head[9] % 4) + 1);
        let range = run.sealed.start as usize..run.sealed.end as usize;
        let mut buffer = sealed[range].to_vec();
        let mut pieces = Vec::new();
        let result = open_run(&dek, id, layout, &run, &mut buffer, |piece| {
            pieces.push(piece)
        });
        for piece in pieces {
            let expected = &plain[at as usize..at as usize + piece.len()];
            assert_eq!(&buffer[piece.clone()], expected, "a wrong byte came out");
            at += piece.len() as u64;
        }
        if result.is_err() {
            assert!(!intact);
            return;
        }
    }
    assert_eq!(at, end);
    assert!(!intact || header.is_ok());
}

fn seal(dek: &Dek, id: BlobId, plain: &[u8]) -> Vec<u8> {
    let mut sealer = BlobSealer::new(dek, id, 1 << 17, 1 << 18);
    let mut sealed = Vec::new();
    let mut rest = plain;
    while !rest.is_empty() {
        rest = &rest[sealer.push(rest)..];
        if sealer.is_ready() {
            sealed.extend_from_slice(sealer.sealed());
            sealer.clear_sealed();
        }
    }
    sealed.append(&mut sealer.finish());
    sealed
}

fn wrap(edits: &[(u64, u8)]) {
    let key = EpochKey::new(SecretBytes::new(vec![7; 32])).expect("32 bytes");
    let place = Place {
        wrapping: Wrapping::Customer,
        bucket: &BucketName::parse("bucket").expect("a valid name"),
        object: &ObjectKey::parse("key").expect("a valid key"),
        version: VersionId::from_bytes([0; 16]),
        part: 0,
        blob: BlobId::random(&Zeros),
        context: b"",
    };
    let WrappedDek(mut bytes) = key.wrap(&Dek::random(&Zeros), &place, &Zeros);
    let changed = edit(&mut bytes, edits);
    assert_eq!(bytes.len(), WRAPPED_DEK_BYTES);
    assert_eq!(key.unwrap(&WrappedDek(bytes), &place).is_err(), changed);
}

/// Whether anything is other than before.
fn edit(bytes: &mut [u8], edits: &[(u64, u8)]) -> bool {
    let before = bytes.to_vec();
    for (place, xor) in edits {
        let length = bytes.len() as u64;
        bytes[(place % length) as usize] ^= xor;
    }
    bytes != before
}
