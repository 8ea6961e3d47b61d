//! What a KMS key encrypts: data keys, small secrets, epoch keys.
//!
//! ```text
//! offset  0  format, 1
//!         1  key version, u32 big-endian, at least 1
//!         5  salt, 16 random bytes
//!        21  nonce, 12 random bytes
//!        33  ciphertext, as long as the plaintext
//!         -  tag, 16 bytes
//! ```
//!
//! The cipher is that of the key version, AES-256-GCM or ChaCha20-Poly1305, under
//! HMAC-SHA-256(key material, label || salt): each request has a key of its own, so the number of
//! operations under one key version has no practical limit (a repeated salt alone, expected after
//! 2^64 requests, would still meet a random nonce). The items of a batch share salt and key, which
//! makes them a fifth cheaper; they are at most 4,096, and two of so many random nonces are the
//! same once in 2^73 batches. So it shows which data keys were made in one batch.
//!
//! The associated data holds, each behind its length: a label, the purpose, the enclave, the key
//! name, the version and the context. A ciphertext opens only where and for what it was made; in
//! particular one for an epoch is nothing to `decrypt`, so the right to decrypt data keys does
//! not give the right to lease epochs. The format byte keeps it apart from JSON, which clients
//! look for.

mod hchacha;
mod kes;
mod mac;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hmac;
use moat_types::{
    BucketName, EnclaveName, EpochId, KeyName, KeyVersion, Random, SecretBuffer, SecretBytes,
};
use zeroize::Zeroizing;

pub(crate) use kes::decrypt_unversioned;
pub(crate) use kes::fuzz_target as fuzz_unversioned;
pub(crate) use mac::{mac, verify_mac};

use crate::rows::{Algorithm, VersionRow};

const FORMAT: u8 = 1;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + 4 + SALT_BYTES + NONCE_LEN;
/// How much longer a ciphertext is than its plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// What a ciphertext is for and where it belongs. Bound to it as associated data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) enclave: &'a EnclaveName,
    pub(crate) key: &'a KeyName,
    pub(crate) purpose: Purpose<'a>,
}

/// What is encrypted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    /// A data key or small secret, with the caller's context.
    Data { context: &'a [u8] },
    /// An epoch key of a bucket.
    Epoch {
        bucket: &'a BucketName,
        epoch: EpochId,
    },
}

impl Purpose<'_> {
    /// The context as it stands in the associated data, and hashed in the audit.
    pub(crate) fn context(&self) -> Vec<u8> {
        match self {
            Self::Data { context } => context.to_vec(),
            Self::Epoch { bucket, epoch } => {
                let mut out = Vec::new();
                push(&mut out, bucket.as_str().as_bytes());
                push(&mut out, epoch.as_bytes());
                out
            }
        }
    }

    const fn label(&self) -> &'static [u8] {
        match self {
            Self::Data { .. } => b"data",
            Self::Epoch { .. } => b"epoch",
        }
    }
}

impl Binding<'_> {
    fn associated_data(&self, version: KeyVersion) -> Vec<u8> {
        let mut out = Vec::with_capacity(192);
        push(&mut out, b"moat kms ciphertext v1");
        push(&mut out, self.purpose.label());
        push(&mut out, self.enclave.as_str().as_bytes());
        push(&mut out, self.key.as_str().as_bytes());
        push(&mut out, &version.number().to_be_bytes());
        match &self.purpose {
            Purpose::Data { context } => push(&mut out, context),
            epoch @ Purpose::Epoch { .. } => push(&mut out, &epoch.context()),
        }
        out
    }
}

fn push(out: &mut Vec<u8>, field: &[u8]) {
    let len = u32::try_from(field.len()).expect("bodies are limited far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(field);
}

/// The key version that a ciphertext names; `None` if it is not of this format. Says nothing
/// about whether the ciphertext opens: the version is authenticated when it is opened.
pub fn ciphertext_version(ciphertext: &[u8]) -> Option<KeyVersion> {
    if ciphertext.len() < OVERHEAD_BYTES || ciphertext[0] != FORMAT {
        return None;
    }
    let number = ciphertext[1..].first_chunk::<4>()?;
    KeyVersion::new(u32::from_be_bytes(*number))
}

/// The keys of one request's operations under one KMS key, each derived when it is first needed.
/// That of the operation before is kept. Not to be used for another KMS key.
#[derive(Default)]
pub(crate) struct OperationKeys(Option<OperationKey>);

struct OperationKey {
    version: KeyVersion,
    salt: [u8; SALT_BYTES],
    key: LessSafeKey,
}

impl OperationKeys {
    /// Encrypts under one version of a key, whose algorithm must be one that encrypts.
    pub(crate) fn encrypt(
        &mut self,
        version: &VersionRow,
        binding: &Binding<'_>,
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Vec<u8> {
        self.0.take_if(|last| last.version != version.number);
        let operation = self.0.get_or_insert_with(|| {
            let mut salt = [0; SALT_BYTES];
            random.fill(&mut salt);
            OperationKey::derive(version, salt)
        });
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut out = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        out.push(FORMAT);
        out.extend_from_slice(&version.number.number().to_be_bytes());
        out.extend_from_slice(&operation.salt);
        out.extend_from_slice(&nonce);
        // A ciphertext's place holds the plaintext until it is encrypted in place.
        out.extend_from_slice(plaintext);
        let tag = operation
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(binding.associated_data(version.number)),
                &mut out[HEADER_BYTES..],
            )
            .expect("plaintexts are far below the limit of the cipher");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens what `encrypt` gave under the same version and binding; `None` for anything else.
    pub(crate) fn decrypt(
        &mut self,
        version: &VersionRow,
        binding: &Binding<'_>,
        ciphertext: &[u8],
    ) -> Option<SecretBytes> {
        if ciphertext_version(ciphertext)? != version.number || !version.algorithm.encrypts() {
            return None;
        }
        let (header, body) = ciphertext.split_at(HEADER_BYTES);
        let (salt, nonce) = header[5..].split_first_chunk()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.0
            .take_if(|last| last.version != version.number || last.salt != *salt);
        let operation = self
            .0
            .get_or_insert_with(|| OperationKey::derive(version, *salt));
        let mut buffer = SecretBuffer::with_capacity(body.len());
        buffer.push(body);
        let aad = Aad::from(binding.associated_data(version.number));
        let plaintext = operation.key.open_in_place(nonce, aad, &mut buffer).ok()?;
        Some(SecretBytes::new(plaintext.to_vec()))
    }
}

impl OperationKey {
    fn derive(version: &VersionRow, salt: [u8; SALT_BYTES]) -> Self {
        // The label names the cipher, so that material imported for both gives unrelated keys.
        let (cipher, label): (_, &[u8]) = match version.algorithm {
            Algorithm::ChaCha20 => (&CHACHA20_POLY1305, b"moat kms operation key v1 chacha20"),
            Algorithm::Aes256 | Algorithm::HmacSha256 => {
                (&AES_256_GCM, b"moat kms operation key v1")
            }
        };
        let mut derivation = hmac::Context::with_key(&version.material.hmac());
        derivation.update(label);
        derivation.update(&salt);
        let derived = Zeroizing::new(
            <[u8; 32]>::try_from(derivation.sign().as_ref()).expect("SHA-256 gives 32 bytes"),
        );
        let key = UnboundKey::new(cipher, derived.as_slice()).expect("both take 32 bytes");
        Self {
            version: version.number,
            salt,
            key: LessSafeKey::new(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;
    use crate::rows::Material;

    /// Encrypts as a request of its own.
    fn encrypt(version: &VersionRow, binding: &Binding<'_>, plaintext: &[u8]) -> Vec<u8> {
        OperationKeys::default().encrypt(version, binding, plaintext, &SystemRandom)
    }

    fn decrypt(version: &VersionRow, binding: &Binding<'_>, sealed: &[u8]) -> Option<SecretBytes> {
        OperationKeys::default().decrypt(version, binding, sealed)
    }

    const V1: KeyVersion = KeyVersion::FIRST;

    pub(super) fn key(material: u8, number: KeyVersion, algorithm: Algorithm) -> VersionRow {
        VersionRow {
            number,
            algorithm,
            created: crate::rows::Origin {
                at: moat_types::UnixMillis(0),
                by: None,
            },
            imported: false,
            material: Material::new(SecretBytes::new(vec![material; 32])),
            mac_material: None,
        }
    }

    fn check_opens(
        material: u8,
        version: KeyVersion,
        binding: &Binding<'_>,
        sealed: &[u8],
    ) -> bool {
        decrypt(&key(material, version, Algorithm::Aes256), binding, sealed).is_some()
    }

    #[test]
    fn a_wrapped_epoch_opens_only_unchanged_under_its_own_names() {
        let (enclave, other_enclave) = (
            EnclaveName::parse("e").unwrap(),
            EnclaveName::parse("f").unwrap(),
        );
        let (name, other_key) = (KeyName::parse("k").unwrap(), KeyName::parse("l").unwrap());
        let (bucket, other_bucket) = (
            BucketName::parse("abc").unwrap(),
            BucketName::parse("abd").unwrap(),
        );
        let epoch = EpochId::from_bytes([1; 16]);
        let purpose = Purpose::Epoch {
            bucket: &bucket,
            epoch,
        };
        let home = Binding {
            enclave: &enclave,
            key: &name,
            purpose,
        };
        let version = key(9, V1, Algorithm::Aes256);
        let sealed = encrypt(&version, &home, &[7; 32]);
        assert_eq!(sealed.len(), 32 + OVERHEAD_BYTES);
        assert_eq!(decrypt(&version, &home, &sealed).unwrap().expose(), [7; 32]);
        let other_cipher = key(9, V1, Algorithm::ChaCha20);
        assert!(decrypt(&other_cipher, &home, &sealed).is_none());

        let as_data = home.purpose.context();
        for other in [
            Binding {
                enclave: &other_enclave,
                ..home
            },
            Binding {
                key: &other_key,
                ..home
            },
            Binding {
                purpose: Purpose::Epoch {
                    bucket: &other_bucket,
                    epoch,
                },
                ..home
            },
            Binding {
                purpose: Purpose::Epoch {
                    bucket: &bucket,
                    epoch: EpochId::from_bytes([2; 16]),
                },
                ..home
            },
            Binding {
                purpose: Purpose::Data { context: &as_data },
                ..home
            },
        ] {
            assert!(!check_opens(9, V1, &other, &sealed), "{other:?}");
        }
        assert!(!check_opens(8, V1, &home, &sealed));
        assert!(!check_opens(9, V1.next(), &home, &sealed));
        for index in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[index] ^= 1 << bit;
                let version = ciphertext_version(&changed).unwrap_or(V1);
                assert!(!check_opens(9, version, &home, &changed), "{index} {bit}");
            }
        }
        for len in 0..sealed.len() {
            assert!(!check_opens(9, V1, &home, &sealed[..len]), "{len}");
        }
    }

    #[test]
    fn items_of_a_batch_share_a_key_and_each_opens_by_itself() {
        let enclave = EnclaveName::parse("e").unwrap();
        let name = KeyName::parse("k").unwrap();
        let home = Binding {
            enclave: &enclave,
            key: &name,
            purpose: Purpose::Data { context: b"c" },
        };
        let (first, second) = (
            key(9, V1, Algorithm::Aes256),
            key(8, V1.next(), Algorithm::ChaCha20),
        );
        let mut keys = OperationKeys::default();
        let versions = [&first, &first, &second, &first];
        let sealed = versions.map(|version| keys.encrypt(version, &home, b"same", &SystemRandom));
        let salt_of = |at: usize| &sealed[at][5..5 + SALT_BYTES];
        assert_eq!(salt_of(0), salt_of(1));
        assert!(salt_of(1) != salt_of(2) && salt_of(2) != salt_of(3) && salt_of(0) != salt_of(3));
        let nonce_of = |at: usize| &sealed[at][5 + SALT_BYTES..HEADER_BYTES];
        assert_ne!(nonce_of(0), nonce_of(1));

        // By itself, and in a batch in any order.
        let mut keys = OperationKeys::default();
        for at in [3, 0, 1, 2, 0] {
            let alone = decrypt(versions[at], &home, &sealed[at]);
            assert_eq!(alone.unwrap().expose(), b"same");
            let together = keys.decrypt(versions[at], &home, &sealed[at]);
            assert_eq!(together.unwrap().expose(), b"same");
            let other = Binding {
                purpose: Purpose::Data { context: b"d" },
                ..home
            };
            assert!(keys.decrypt(versions[at], &other, &sealed[at]).is_none());
        }
    }

    #[test]
    fn two_encryptions_of_the_same_differ() {
        let enclave = EnclaveName::parse("e").unwrap();
        let name = KeyName::parse("k").unwrap();
        let home = Binding {
            enclave: &enclave,
            key: &name,
            purpose: Purpose::Data { context: b"" },
        };
        for algorithm in [Algorithm::Aes256, Algorithm::ChaCha20] {
            let version = key(9, V1, algorithm);
            let seal = || encrypt(&version, &home, b"");
            assert_ne!(seal(), seal());
            assert_eq!(ciphertext_version(&seal()), Some(V1));
            assert_eq!(
                decrypt(&version, &home, &seal()).unwrap().expose(),
                [0; 0],
                "{algorithm}"
            );
        }
        assert_eq!(ciphertext_version(b"{}"), None);
    }
}
