//! What a wrapped DEK is bound to: every field of its place, its key, and its own bytes.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use moat_crypto::{Dek, EpochKey, Error, Place, WrappedDek, Wrapping};
use moat_types::{
    BlobId, BucketName, EnclaveName, EpochId, KeyName, ObjectKey, SecretBytes, SystemRandom,
    VersionId,
};

struct Names {
    enclaves: [EnclaveName; 2],
    keys: [KeyName; 2],
    buckets: [BucketName; 2],
    objects: [ObjectKey; 2],
}

fn names() -> Names {
    Names {
        enclaves: ["e1", "e2"].map(|name| EnclaveName::parse(name).unwrap()),
        keys: ["k1", "k2"].map(|name| KeyName::parse(name).unwrap()),
        buckets: ["bucket-1", "bucket-2"].map(|name| BucketName::parse(name).unwrap()),
        objects: ["a", "b"].map(|name| ObjectKey::parse(name).unwrap()),
    }
}

fn epoch_key(byte: u8) -> EpochKey {
    EpochKey::new(SecretBytes::new(vec![byte; 32])).unwrap()
}

#[test]
fn a_wrap_opens_only_at_its_own_place() {
    let names = names();
    let epoch = |byte| EpochId::from_bytes([byte; 16]);
    let wrapping = |enclave: usize, key: usize, byte| Wrapping::Epoch {
        enclave: &names.enclaves[enclave],
        key: &names.keys[key],
        epoch: epoch(byte),
    };
    let place = Place {
        wrapping: wrapping(0, 0, 1),
        bucket: &names.buckets[0],
        object: &names.objects[0],
        version: VersionId::from_bytes([1; 16]),
        part: 0,
        blob: BlobId::from_bytes([1; 16]),
        context: b"{\"a\":\"b\"}",
    };
    let key = epoch_key(7);
    let dek = Dek::random(&SystemRandom);
    let wrapped = key.wrap(&dek, &place, &SystemRandom);
    assert!(key.unwrap(&wrapped, &place).is_ok());

    let others = [
        Place {
            wrapping: wrapping(1, 0, 1),
            ..place
        },
        Place {
            wrapping: wrapping(0, 1, 1),
            ..place
        },
        Place {
            wrapping: wrapping(0, 0, 2),
            ..place
        },
        Place {
            wrapping: Wrapping::Customer,
            ..place
        },
        Place {
            bucket: &names.buckets[1],
            ..place
        },
        Place {
            object: &names.objects[1],
            ..place
        },
        Place {
            version: VersionId::from_bytes([2; 16]),
            ..place
        },
        Place { part: 1, ..place },
        Place {
            blob: BlobId::from_bytes([2; 16]),
            ..place
        },
        Place {
            context: b"",
            ..place
        },
    ];
    for (index, other) in others.iter().enumerate() {
        assert_eq!(
            key.unwrap(&wrapped, other).err(),
            Some(Error::Unwrap),
            "place {index}"
        );
    }
    assert_eq!(
        epoch_key(8).unwrap(&wrapped, &place).err(),
        Some(Error::Unwrap)
    );
    for at in 0..wrapped.0.len() {
        let mut bytes = wrapped.0;
        bytes[at] ^= 0x10;
        assert_eq!(
            key.unwrap(&WrappedDek(bytes), &place).err(),
            Some(Error::Unwrap),
            "byte {at}"
        );
    }
}

#[test]
fn attributes_open_only_under_their_dek_and_place() {
    let dek = Dek::random(&SystemRandom);
    let sealed = dek
        .attributes_key()
        .seal(b"secret name", b"place", &SystemRandom);
    assert_eq!(
        dek.attributes_key().open(&sealed, b"place").as_deref(),
        Ok(&b"secret name"[..])
    );
    assert_eq!(
        dek.attributes_key().open(&sealed, b"other"),
        Err(Error::Attributes)
    );
    let other = Dek::random(&SystemRandom).attributes_key();
    assert_eq!(other.open(&sealed, b"place"), Err(Error::Attributes));
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        assert_eq!(
            dek.attributes_key().open(&bytes, b"place"),
            Err(Error::Attributes)
        );
        assert_eq!(
            dek.attributes_key().open(&sealed[..at], b"place"),
            Err(Error::Attributes)
        );
    }
}

#[test]
fn a_part_key_opens_only_for_its_blob_and_object() {
    let (object, part) = (Dek::random(&SystemRandom), Dek::random(&SystemRandom));
    let (blob, other) = (BlobId::from_bytes([1; 16]), BlobId::from_bytes([2; 16]));
    let wrapped = object.wrap_part(&part, blob, &SystemRandom);
    assert!(object.unwrap_part(&wrapped, blob).is_ok());
    assert_eq!(
        object.unwrap_part(&wrapped, other).err(),
        Some(Error::Unwrap)
    );
    assert_eq!(part.unwrap_part(&wrapped, blob).err(), Some(Error::Unwrap));
}
