//! Ciphertexts of KES, and of a MinIO server with a single key of its own: they name no version
//! and no key, and are bound to the context alone.
//!
//! ```text
//! raw      ciphertext, tag (16), iv (16), nonce (12)
//! 0x95     MessagePack array of 5: algorithm, key id, iv, nonce, ciphertext with tag
//! '{'      JSON: "aead", "id", "iv", "nonce", "bytes"
//! ```
//!
//! The two older forms are told by their first byte; what does not parse as one of them is raw.
//! The cipher is that of the key, whatever the ciphertext says.

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_types::SecretBytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::hchacha::hchacha20;
use crate::rows::{Algorithm, VersionRow};

const IV_BYTES: usize = 16;
const TAG_BYTES: usize = 16;

/// A ciphertext, taken apart.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Parts {
    iv: [u8; IV_BYTES],
    nonce: [u8; NONCE_LEN],
    /// With the tag at its end.
    sealed: Vec<u8>,
}

/// Opens a ciphertext of another key manager under imported material; `None` if it does not open.
pub(crate) fn decrypt_unversioned(
    version: &VersionRow,
    context: &[u8],
    ciphertext: &[u8],
) -> Option<SecretBytes> {
    let old = parse_old(ciphertext).and_then(|parts| open(version, context, parts));
    // A raw ciphertext begins with any byte, so also with that of an older form.
    old.or_else(|| open(version, context, parse_raw(ciphertext)?))
}

fn open(version: &VersionRow, context: &[u8], parts: Parts) -> Option<SecretBytes> {
    let (cipher, key) = match version.algorithm {
        Algorithm::Aes256 => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, version.material.expose());
            let derived = hmac::sign(&key, &parts.iv);
            (
                &AES_256_GCM,
                Zeroizing::new(<[u8; 32]>::try_from(derived.as_ref()).ok()?),
            )
        }
        Algorithm::ChaCha20 => {
            let material = version.material.expose().first_chunk::<32>()?;
            (&CHACHA20_POLY1305, hchacha20(material, &parts.iv))
        }
        Algorithm::HmacSha256 => return None,
    };
    let key = LessSafeKey::new(UnboundKey::new(cipher, key.as_slice()).ok()?);
    let nonce = Nonce::assume_unique_for_key(parts.nonce);
    let mut sealed = Zeroizing::new(parts.sealed);
    let plaintext = key
        .open_in_place(nonce, Aad::from(context), &mut sealed)
        .ok()?;
    Some(SecretBytes::new(plaintext.to_vec()))
}

fn parse_raw(ciphertext: &[u8]) -> Option<Parts> {
    let (rest, nonce) = ciphertext.split_last_chunk::<NONCE_LEN>()?;
    let (sealed, iv) = rest.split_last_chunk::<IV_BYTES>()?;
    (sealed.len() >= TAG_BYTES).then(|| Parts {
        iv: *iv,
        nonce: *nonce,
        sealed: sealed.to_vec(),
    })
}

fn parse_old(ciphertext: &[u8]) -> Option<Parts> {
    match ciphertext.first()? {
        0x95 => parse_message_pack(&ciphertext[1..]),
        b'{' => parse_json(ciphertext),
        _ => None,
    }
}

#[derive(Deserialize)]
struct Json {
    iv: String,
    nonce: String,
    bytes: String,
}

fn parse_json(ciphertext: &[u8]) -> Option<Parts> {
    let json: Json = serde_json::from_slice(ciphertext).ok()?;
    Some(Parts {
        iv: STANDARD.decode(json.iv).ok()?.try_into().ok()?,
        nonce: STANDARD.decode(json.nonce).ok()?.try_into().ok()?,
        sealed: STANDARD.decode(json.bytes).ok()?,
    })
}

/// What follows the head of an array of five.
fn parse_message_pack(mut rest: &[u8]) -> Option<Parts> {
    take_message_pack(&mut rest, Kind::Text)?;
    take_message_pack(&mut rest, Kind::Text)?;
    let iv = take_message_pack(&mut rest, Kind::Binary)?;
    let nonce = take_message_pack(&mut rest, Kind::Binary)?;
    let sealed = take_message_pack(&mut rest, Kind::Binary)?;
    rest.is_empty().then_some(())?;
    Some(Parts {
        iv: iv.try_into().ok()?,
        nonce: nonce.try_into().ok()?,
        sealed: sealed.to_vec(),
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Binary,
}

/// One string or byte string of MessagePack.
fn take_message_pack<'a>(rest: &mut &'a [u8], kind: Kind) -> Option<&'a [u8]> {
    let (head, behind) = rest.split_first()?;
    let length_bytes = match (kind, *head) {
        (Kind::Text, 0xa0..=0xbf) => 0,
        (Kind::Text, 0xd9) | (Kind::Binary, 0xc4) => 1,
        (Kind::Text, 0xda) | (Kind::Binary, 0xc5) => 2,
        (Kind::Text, 0xdb) | (Kind::Binary, 0xc6) => 4,
        _ => return None,
    };
    let (digits, behind) = behind.split_at_checked(length_bytes)?;
    let length = match digits {
        [] => usize::from(*head & 0x1f),
        digits => digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit)),
    };
    let (value, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(value)
}

/// Parses any bytes as each form; see `crate::fuzzing`.
pub(crate) fn fuzz_target(input: &[u8]) {
    if let Some(parts) = parse_old(input) {
        assert!(parts.sealed.len() < input.len());
    }
    if let Some(parts) = parse_raw(input) {
        let again = [parts.sealed.as_slice(), &parts.iv, &parts.nonce].concat();
        assert_eq!(again, input);
    }
}

#[cfg(test)]
mod tests {
    use moat_types::KeyVersion;

    use super::*;
    use crate::rows::Material;

    const CONTEXT: &[u8] = br#"{"bucket":"bucket/object"}"#;
    const AES: &str = "a5092c1487a51041bcca8df77d720fb6b8cbdd6b0d7f1f0c898ac6e33fde184f\
                       9d07f892d29fbb54edaa973696639f7d";
    const CHACHA: &str = "da7b85ce7bcaee9fd7d28a2e06b652db05428512e904f228a0e135323601f3aa\
                          4c34279b62f9092ee2c69ad3e5375f3c";

    fn key(algorithm: Algorithm) -> VersionRow {
        VersionRow {
            material: Material::new(SecretBytes::new((0..32).collect())),
            ..super::super::tests::key(0, KeyVersion::FIRST, algorithm)
        }
    }

    fn iv() -> Vec<u8> {
        (0xa0..=0xaf).collect()
    }

    fn nonce() -> Vec<u8> {
        (0xb0..=0xbb).collect()
    }

    fn forms(sealed: &[u8]) -> [Vec<u8>; 3] {
        let raw = [sealed, &iv(), &nonce()].concat();
        let pack = [
            b"\x95\xb8AES-256-GCM-HMAC-SHA-256\xd9\x03key\xc4\x10".as_slice(),
            &iv(),
            b"\xc4\x0c",
            &nonce(),
            b"\xc5\x00\x30",
            sealed,
        ]
        .concat();
        let json = serde_json::json!({
            "aead": "AES-256-GCM-HMAC-SHA-256",
            "id": "key",
            "iv": STANDARD.encode(iv()),
            "nonce": STANDARD.encode(nonce()),
            "bytes": STANDARD.encode(sealed),
        });
        [raw, pack, json.to_string().into_bytes()]
    }

    #[test]
    fn ciphertexts_of_every_form_open_under_the_key_that_made_them_and_no_other() {
        for (algorithm, other, sealed) in [
            (Algorithm::Aes256, Algorithm::ChaCha20, AES),
            (Algorithm::ChaCha20, Algorithm::Aes256, CHACHA),
        ] {
            let sealed = hex::decode(sealed).unwrap();
            for form in forms(&sealed) {
                let opened = decrypt_unversioned(&key(algorithm), CONTEXT, &form);
                assert_eq!(opened.expect("it opens").expose(), [0x11; 32]);
                assert!(decrypt_unversioned(&key(other), CONTEXT, &form).is_none());
                assert!(decrypt_unversioned(&key(algorithm), b"{}", &form).is_none());
            }
            let [raw, _, _] = forms(&sealed);
            for index in 0..raw.len() {
                let mut changed = raw.clone();
                changed[index] ^= 1;
                assert!(
                    decrypt_unversioned(&key(algorithm), CONTEXT, &changed).is_none(),
                    "{index}"
                );
            }
        }
    }

    #[test]
    fn cut_and_odd_forms_do_not_open() {
        for form in forms(&hex::decode(AES).unwrap()) {
            for len in 0..form.len() {
                let cut = &form[..len];
                assert!(decrypt_unversioned(&key(Algorithm::Aes256), CONTEXT, cut).is_none());
            }
            let longer = [form.as_slice(), b"\0"].concat();
            assert!(decrypt_unversioned(&key(Algorithm::Aes256), CONTEXT, &longer).is_none());
        }
        assert!(decrypt_unversioned(&key(Algorithm::HmacSha256), CONTEXT, &[0; 76]).is_none());
    }
}
