//! Private keys in PEM that are encrypted with a password.
//!
//! PKCS#8 (`BEGIN ENCRYPTED PRIVATE KEY`, RFC 5958 with PBES2 of RFC 8018) is what current tools write.
//! The older form keeps its parameters in PEM headers (RFC 1421 section 4.6); its key is one round of
//! MD5 over password and salt, as OpenSSL has always done it, so the file's mode protects it more than
//! the password does.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use md5::{Digest as _, Md5};
use moat_types::SecretString;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use zeroize::Zeroizing;

const PKCS8_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const PKCS8_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";
const LEGACY_MARK: &str = "Proc-Type: 4,ENCRYPTED";

/// Whether the file holds an encrypted key.
pub(super) fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains(PKCS8_BEGIN) || text.contains(LEGACY_MARK)
}

/// The key in the clear. `Err` says what is wrong, without anything of key or password.
pub(super) fn decrypt(
    pem: &[u8],
    password: &SecretString,
) -> Result<PrivateKeyDer<'static>, &'static str> {
    let text = std::str::from_utf8(pem).map_err(|_| "it is not text")?;
    if text.contains(PKCS8_BEGIN) {
        decrypt_pkcs8(text, password)
    } else {
        decrypt_legacy(text, password)
    }
}

fn decrypt_pkcs8(
    text: &str,
    password: &SecretString,
) -> Result<PrivateKeyDer<'static>, &'static str> {
    let begin = text.find(PKCS8_BEGIN).ok_or("its PEM block is damaged")?;
    let end = text.find(PKCS8_END).ok_or("its PEM block is damaged")? + PKCS8_END.len();
    let block = text.get(begin..end).ok_or("its PEM block is damaged")?;
    let (_, document) =
        pkcs8::SecretDocument::from_pem(block).map_err(|_| "its PEM block is damaged")?;
    let encrypted = pkcs8::EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|_| "it is no encrypted PKCS#8 key of a kind that is understood")?;
    let clear = encrypted
        .decrypt(password.expose())
        .map_err(|_| "the password does not open it")?;
    Ok(PrivatePkcs8KeyDer::from(clear.as_bytes().to_vec()).into())
}

fn decrypt_legacy(
    text: &str,
    password: &SecretString,
) -> Result<PrivateKeyDer<'static>, &'static str> {
    let damaged = "its PEM block is damaged";
    let (algorithm, salt) = text
        .lines()
        .find_map(|line| line.strip_prefix("DEK-Info:"))
        .and_then(|info| info.trim().split_once(','))
        .ok_or(damaged)?;
    let (algorithm, key_bytes): (&'static Algorithm, _) = match algorithm {
        "AES-128-CBC" => (&AES_128, 16),
        "AES-192-CBC" => (&AES_192, 24),
        "AES-256-CBC" => (&AES_256, 32),
        _ => {
            return Err(
                "it is encrypted with a cipher other than AES; convert it with openssl pkey -aes256",
            );
        }
    };
    let iv: [u8; 16] = unhex(salt.trim()).ok_or(damaged)?;
    let (kind, mut bytes) = legacy_body(text).ok_or(damaged)?;
    let key = legacy_key(password, &iv, key_bytes);
    let key = UnboundCipherKey::new(algorithm, &key).map_err(|_| damaged)?;
    let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).map_err(|_| damaged)?;
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    let wrong = "the password does not open it";
    let clear = key
        .decrypt(&mut bytes, context)
        .map_err(|_| wrong)?
        .to_vec();
    // A wrong password passes the padding once in 256 times, but not the DER.
    if clear.first() != Some(&0x30) {
        return Err(wrong);
    }
    Ok(match kind {
        "RSA" => PrivatePkcs1KeyDer::from(clear).into(),
        _ => PrivateSec1KeyDer::from(clear).into(),
    })
}

/// What kind of key it is, and its bytes as they are in the file.
fn legacy_body(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (kind, rest) = rest.split_once(" PRIVATE KEY-----")?;
    let (inside, _) = rest.split_once("-----END ")?;
    // Headers end with an empty line.
    let body = inside.replace('\r', "");
    let (_, base64) = body.split_once("\n\n")?;
    // Read as a block of another label, so that the one decoder of this crate does the work.
    let block = format!("-----BEGIN PRIVATE KEY-----\n{base64}-----END PRIVATE KEY-----\n");
    let der = PrivatePkcs8KeyDer::from_pem_slice(block.as_bytes()).ok()?;
    Some((kind, der.secret_pkcs8_der().to_vec()))
}

/// `EVP_BytesToKey` with MD5 and one round; the salt is the first half of the initialisation vector.
fn legacy_key(password: &SecretString, iv: &[u8; 16], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last: Option<[u8; 16]> = None;
    while key.len() < length {
        let mut hash = Md5::new();
        if let Some(last) = last {
            hash.update(last);
        }
        hash.update(password.expose().as_bytes());
        hash.update(&iv[..8]);
        let block: [u8; 16] = hash.finalize().into();
        key.extend_from_slice(&block);
        last = Some(block);
    }
    key.truncate(length);
    key
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}
