//! Keys as KES keeps them in a file, a Vault or a secret manager, for whoever moves from there:
//! one value per key, its name the name of the file or secret.
//!
//! ```text
//! base64 of a protobuf message
//!   1: SecretKey { 1: key (32 bytes), 2: cipher (1 AES256, 2 ChaCha20) }
//!   2: HMACKey   { 1: key (32 bytes), 2: hash (1 SHA-256) }
//!   3: created at, 4: created by: not taken over, the audit says who brought the key when
//! or, older, JSON
//!   {"bytes": base64, "algorithm": name, ...}
//! ```
//!
//! A MinIO server with a single key of its own has it as `NAME:BASE64` in its environment
//! (`MINIO_KMS_SECRET_KEY`); it encrypts as KES does with AES256.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_kms_client::wire::SecretBase64;
use moat_types::{KeyName, SecretBytes};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::core::Import;
use crate::rows::Algorithm;

/// Why a value is no key of KES. Says nothing of what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredKeyError {
    /// Neither of the two forms.
    #[error("it is no key as KES stores one: neither base64 of its message nor its JSON")]
    Form,
    /// A cipher that KES does not have.
    #[error("its cipher is not known: KES has AES256 and ChaCha20")]
    Cipher,
    /// A key of a wrong length.
    #[error("its key does not have 32 bytes")]
    Length,
    /// Not `NAME:BASE64`.
    #[error("it is not NAME:BASE64 with a key name and 32 bytes, as MINIO_KMS_SECRET_KEY has it")]
    MinioForm,
}

const KEY_BYTES: usize = 32;

/// Reads the value of a key out of KES's store.
///
/// # Errors
/// `StoredKeyError` says what is wrong with it.
pub fn parse_stored_key(value: &[u8]) -> Result<Import, StoredKeyError> {
    let value = value.trim_ascii();
    let stored = if value.first() == Some(&b'{') {
        parse_json(value)?
    } else {
        let message = STANDARD.decode(value).map(Zeroizing::new);
        parse_message(&message.map_err(|_| StoredKeyError::Form)?)?
    };
    let fits = |key: &SecretBytes| key.expose().len() == KEY_BYTES;
    if fits(&stored.material) && stored.mac_material.as_ref().is_none_or(fits) {
        Ok(stored)
    } else {
        Err(StoredKeyError::Length)
    }
}

/// Reads the key of a MinIO server that has none but its own, and its name.
///
/// # Errors
/// `StoredKeyError::MinioForm`.
pub fn parse_minio_secret_key(text: &str) -> Result<(KeyName, Import), StoredKeyError> {
    let parse = || {
        let (name, encoded) = text.trim().split_once(':')?;
        let name = KeyName::parse(name).ok()?;
        let material = SecretBytes::new(STANDARD.decode(encoded).ok()?);
        (material.expose().len() == KEY_BYTES)
            .then(|| (name, import(Algorithm::Aes256, material, None)))
    };
    parse().ok_or(StoredKeyError::MinioForm)
}

const fn import(
    algorithm: Algorithm,
    material: SecretBytes,
    mac_material: Option<SecretBytes>,
) -> Import {
    Import {
        algorithm,
        material,
        mac_material,
        exportable: false,
        add_version: false,
    }
}

fn parse_json(value: &[u8]) -> Result<Import, StoredKeyError> {
    #[derive(Deserialize)]
    struct Stored {
        bytes: SecretBase64,
        #[serde(default)]
        algorithm: String,
    }
    let stored: Stored = serde_json::from_slice(value).map_err(|_| StoredKeyError::Form)?;
    let algorithm = match &*stored.algorithm {
        "" => Some(Algorithm::Aes256),
        named => Algorithm::parse(named).filter(|found| found.encrypts()),
    };
    let algorithm = algorithm.ok_or(StoredKeyError::Cipher)?;
    Ok(import(algorithm, stored.bytes.0, None))
}

fn parse_message(message: &[u8]) -> Result<Import, StoredKeyError> {
    const SECRET_KEY: u64 = 1;
    const MAC_KEY: u64 = 2;
    const SHA256: u64 = 1;
    let (mut secret, mut mac) = (None, None);
    for field in (Fields { rest: message }) {
        match field? {
            (SECRET_KEY, Value::Bytes(bytes)) => secret = Some(parse_typed(bytes)?),
            (MAC_KEY, Value::Bytes(bytes)) => mac = Some(parse_typed(bytes)?),
            _ => {}
        }
    }
    let (material, cipher) = secret.ok_or(StoredKeyError::Form)?;
    let algorithm = match cipher {
        1 => Algorithm::Aes256,
        2 => Algorithm::ChaCha20,
        _ => return Err(StoredKeyError::Cipher),
    };
    let mac_material = match mac {
        None => None,
        Some((material, SHA256)) => Some(material),
        Some(_) => return Err(StoredKeyError::Cipher),
    };
    Ok(import(algorithm, material, mac_material))
}

/// A key and the number of what it is for.
fn parse_typed(message: &[u8]) -> Result<(SecretBytes, u64), StoredKeyError> {
    let (mut key, mut kind) = (Vec::new(), 0);
    for field in (Fields { rest: message }) {
        match field? {
            (1, Value::Bytes(bytes)) => key = bytes.to_vec(),
            (2, Value::Number(number)) => kind = number,
            _ => {}
        }
    }
    Ok((SecretBytes::new(key), kind))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no field of ours has.
    Other,
}

/// The fields of a protobuf message. Ends with an error where it is malformed.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(first & 0x7f).checked_shl(shift)?;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.number()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let len = self.number()?;
                Value::Bytes(self.take(len)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), StoredKeyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(StoredKeyError::Form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the description of the format has it, written out by hand.
    fn message(cipher: u8, key: &[u8], mac: Option<&[u8]>) -> String {
        let typed = |number: u8, key: &[u8], kind: u8| {
            let inner = [&[0x0a, key.len() as u8], key, &[0x10, kind]].concat();
            [&[number << 3 | 2, inner.len() as u8], &*inner].concat()
        };
        let mut out = typed(1, key, cipher);
        if let Some(mac) = mac {
            out.extend(typed(2, mac, 1));
        }
        // A time and a name.
        out.extend([
            0x1a, 6, 0x08, 0x80, 0xa0, 0xba, 0xb1, 0x06, 0x22, 2, b'm', b'e',
        ]);
        STANDARD.encode(out)
    }

    fn check(value: &str, expected: Result<(Algorithm, bool), StoredKeyError>) {
        let found = parse_stored_key(value.as_bytes());
        if let Ok(import) = &found {
            assert_eq!(import.material.expose(), [7; 32]);
        }
        let found = found.map(|import| (import.algorithm, import.mac_material.is_some()));
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn both_forms_of_kes_are_read() {
        check(
            &message(1, &[7; 32], Some(&[8; 32])),
            Ok((Algorithm::Aes256, true)),
        );
        check(
            &format!("{}\n", message(2, &[7; 32], None)),
            Ok((Algorithm::ChaCha20, false)),
        );
        let key = STANDARD.encode([7; 32]);
        for (algorithm, expected) in [
            ("", Algorithm::Aes256),
            (r#""algorithm":"AES256-GCM_SHA256","#, Algorithm::Aes256),
            (r#""algorithm":"XCHACHA20-POLY1305","#, Algorithm::ChaCha20),
        ] {
            let json = format!(r#"{{"bytes":"{key}",{algorithm}"created_by":"x"}}"#);
            check(&json, Ok((expected, false)));
        }
    }

    #[test]
    fn other_values_are_refused() {
        check("", Err(StoredKeyError::Form));
        check("%", Err(StoredKeyError::Form));
        check("{}", Err(StoredKeyError::Form));
        check("Cg==", Err(StoredKeyError::Form));
        check(&message(3, &[7; 32], None), Err(StoredKeyError::Cipher));
        check(&message(1, &[7; 31], None), Err(StoredKeyError::Length));
        check(
            &message(1, &[7; 32], Some(&[1; 5])),
            Err(StoredKeyError::Length),
        );
        let odd = format!(
            r#"{{"bytes":"{}","algorithm":"HMAC-SHA256"}}"#,
            STANDARD.encode([7; 32])
        );
        check(&odd, Err(StoredKeyError::Cipher));
        let whole = STANDARD
            .decode(message(1, &[7; 32], Some(&[8; 32])))
            .unwrap();
        for len in 0..36 {
            assert!(parse_message(&whole[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn the_key_of_a_minio_server_is_read_with_its_name() {
        let text = format!("my-key:{}\n", STANDARD.encode([7; 32]));
        let (name, import) = parse_minio_secret_key(&text).unwrap();
        assert_eq!(
            (name.as_str(), import.algorithm),
            ("my-key", Algorithm::Aes256)
        );
        for bad in [
            "",
            "my-key",
            "my-key:AAAA",
            ":AAAA",
            &text.replace("my-key", "a/b"),
        ] {
            let refused = parse_minio_secret_key(bad).map(drop);
            assert_eq!(refused, Err(StoredKeyError::MinioForm), "{bad}");
        }
    }
}
