//! Private keys in PEM that are encrypted with a password.
//!
//! PKCS#8 (`BEGIN ENCRYPTED PRIVATE KEY`, RFC 5958 with PBES2 of RFC 8018) is what current tools write.
//! The older form keeps its parameters in PEM headers (RFC 1421 section 4.6); its key is one round of
//! MD5 over password and salt, as OpenSSL has always done it, so the file's mode protects it more than
//! the password does. Triple DES is there because it was the default of `openssl rsa -des3` recipes for
//! twenty years; only decryption is, and nothing else here uses it.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt as _, KeyIvInit as _};
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
    let salt = unhex(salt.trim()).ok_or(damaged)?;
    let cipher = LegacyCipher::named(algorithm)
        .ok_or("its cipher is neither AES nor triple DES; convert it with openssl pkey -aes256")?;
    let (kind, bytes) = legacy_body(text).ok_or(damaged)?;
    let wrong = "the password does not open it";
    let clear = cipher.decrypt(bytes, &salt, password).ok_or(wrong)?;
    // A wrong password passes the padding once in 256 times, but not the DER.
    if clear.first() != Some(&0x30) {
        return Err(wrong);
    }
    Ok(match kind {
        "RSA" => PrivatePkcs1KeyDer::from(clear).into(),
        _ => PrivateSec1KeyDer::from(clear).into(),
    })
}

/// The ciphers that OpenSSL wrote into this form.
enum LegacyCipher {
    Aes(&'static Algorithm, usize),
    TripleDes,
}

impl LegacyCipher {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "AES-128-CBC" => Self::Aes(&AES_128, 16),
            "AES-192-CBC" => Self::Aes(&AES_192, 24),
            "AES-256-CBC" => Self::Aes(&AES_256, 32),
            "DES-EDE3-CBC" => Self::TripleDes,
            _ => return None,
        })
    }

    /// `iv` is the initialisation vector, whose first half is the salt of the password as well.
    /// `None` if the password is another one, or the file damaged: nothing tells the two apart.
    fn decrypt(&self, mut bytes: Vec<u8>, iv: &[u8], password: &SecretString) -> Option<Vec<u8>> {
        let salt = iv.first_chunk()?;
        match self {
            Self::Aes(algorithm, key_bytes) => {
                let context = DecryptionContext::Iv128(FixedLength::from(iv_of::<16>(iv)?));
                let key = legacy_key(password, salt, *key_bytes);
                let key = UnboundCipherKey::new(algorithm, &key).ok()?;
                let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
                Some(key.decrypt(&mut bytes, context).ok()?.to_vec())
            }
            Self::TripleDes => {
                let key = legacy_key(password, salt, 24);
                let cipher =
                    cbc::Decryptor::<des::TdesEde3>::new_from_slices(&key, &iv_of::<8>(iv)?)
                        .ok()?;
                Some(cipher.decrypt_padded::<Pkcs7>(&mut bytes).ok()?.to_vec())
            }
        }
    }
}

fn iv_of<const N: usize>(iv: &[u8]) -> Option<[u8; N]> {
    iv.try_into().ok()
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

/// `EVP_BytesToKey` with MD5 and one round.
fn legacy_key(password: &SecretString, salt: &[u8; 8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last: Option<[u8; 16]> = None;
    while key.len() < length {
        let mut hash = Md5::new();
        if let Some(last) = last {
            hash.update(last);
        }
        hash.update(password.expose().as_bytes());
        hash.update(salt);
        let block: [u8; 16] = hash.finalize().into();
        key.extend_from_slice(&block);
        last = Some(block);
    }
    key.truncate(length);
    key
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}
