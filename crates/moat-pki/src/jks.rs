//! JKS, the keystore format of Java up to version 8. Still asked for by name in many guides.
//!
//! There is no specification; the layout below is what the JDK's own reader accepts, and the tests
//! drive `keytool` both ways. All numbers are big endian; `text` is a 16-bit length and modified
//! UTF-8, as `DataOutputStream.writeUTF` writes it.
//!
//! ```text
//! u32 magic 0xFEEDFEED | u32 version 2 | u32 count | entry ... | 20 bytes SHA-1
//!
//! trusted entry: u32 2 | text alias | u64 created (ms since 1970)
//!                      | text "X.509" | u32 length | DER certificate
//! key entry:     u32 1 | text alias | u64 created | u32 length | EncryptedPrivateKeyInfo
//!                      | u32 chain length | (text "X.509" | u32 length | DER certificate) ...
//!
//! SHA-1 over: password as UTF-16 BE | "Mighty Aphrodite" | everything before the digest
//!
//! EncryptedPrivateKeyInfo: SEQUENCE { SEQUENCE { OID 1.3.6.1.4.1.42.2.17.1.1, NULL }, OCTET STRING }
//! octets: 20 bytes salt | PKCS#8 xor key stream | SHA-1(password | PKCS#8)
//! key stream: s1 = SHA-1(password | salt), s2 = SHA-1(password | s1), ...
//! ```
//!
//! The protection of keys is weak (one SHA-1 per guess): prefer PKCS#12, and guard the file by its
//! mode. A truststore holds nothing secret.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use moat_types::{Clock, Random, SecretBytes, SecretString};
use zeroize::Zeroizing;

use crate::{Error, KeyEntry, Keystore, TrustedEntry};

const FORMAT: &str = "JKS";
const MAGIC: u32 = 0xfeed_feed;
/// Version 1 (before Java 1.2) has no certificate type and is not read.
const VERSION: u32 = 2;
const TAG_KEY: u32 = 1;
const TAG_TRUSTED: u32 = 2;
const CERTIFICATE_TYPE: &str = "X.509";
const DIGEST_BYTES: usize = 20;
const SALT_BYTES: usize = 20;
/// Mixed into the digest by every JDK since the first.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// `SEQUENCE { OID 1.3.6.1.4.1.42.2.17.1.1, NULL }`: Sun's key protector.
const PROTECTOR: [u8; 16] = [
    0x30, 0x0e, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00,
];
const DER_SEQUENCE: u8 = 0x30;
const DER_OCTET_STRING: u8 = 0x04;

/// Writes a keystore. Keys are protected with the same password as the file, as keytool does by
/// default; aliases are written in lower case, as the JDK looks them up.
///
/// # Errors
/// [`Error::Keystore`] if an alias or an entry is too long for the format.
pub fn write(
    keystore: &Keystore,
    password: &SecretString,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Vec<u8>, Error> {
    let password = utf16(password);
    let created = clock.now().0.max(0).unsigned_abs();
    let mut out = Vec::new();
    put_u32(&mut out, MAGIC);
    put_u32(&mut out, VERSION);
    put_len(&mut out, keystore.keys.len() + keystore.trusted.len())?;
    for entry in &keystore.keys {
        put_u32(&mut out, TAG_KEY);
        put_text(&mut out, &entry.alias.to_lowercase())?;
        out.extend_from_slice(&created.to_be_bytes());
        put_block(&mut out, &protect(&entry.private_key, &password, random))?;
        put_len(&mut out, entry.chain.len())?;
        for certificate in &entry.chain {
            put_certificate(&mut out, certificate)?;
        }
    }
    for entry in &keystore.trusted {
        put_u32(&mut out, TAG_TRUSTED);
        put_text(&mut out, &entry.alias.to_lowercase())?;
        out.extend_from_slice(&created.to_be_bytes());
        put_certificate(&mut out, &entry.certificate)?;
    }
    let digest = file_digest(&password, &out);
    out.extend_from_slice(&digest);
    Ok(out)
}

/// Reads a keystore: ours or Java's. Keys must be protected with the password of the file.
///
/// # Errors
/// [`Error::WrongPassword`] if the digest does not fit, [`Error::Keystore`] if the layout is broken.
pub fn read(bytes: &[u8], password: &SecretString) -> Result<Keystore, Error> {
    let password = utf16(password);
    let body_len = bytes
        .len()
        .checked_sub(DIGEST_BYTES)
        .ok_or_else(|| malformed("it is shorter than its digest"))?;
    let (body, digest) = bytes.split_at(body_len);
    let mut reader = Reader(body);
    if reader.u32()? != MAGIC {
        return Err(malformed("it does not begin with the JKS magic number"));
    }
    if reader.u32()? != VERSION {
        return Err(malformed("only version 2 of the format is read"));
    }
    verify_slices_are_equal(&file_digest(&password, body), digest)
        .map_err(|_| Error::WrongPassword { format: FORMAT })?;
    let mut keystore = Keystore::default();
    for _ in 0..reader.u32()? {
        reader.entry(&password, &mut keystore)?;
    }
    if reader.0.is_empty() {
        Ok(keystore)
    } else {
        Err(malformed("bytes follow the last entry"))
    }
}

/// Seals a PKCS#8 key into an `EncryptedPrivateKeyInfo`.
fn protect(key: &SecretBytes, password: &[u8], random: &dyn Random) -> Vec<u8> {
    let plain = key.expose();
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt);
    let mut octets = salt.to_vec();
    octets.extend(
        plain
            .iter()
            .zip(key_stream(password, &salt))
            .map(|(p, k)| p ^ k),
    );
    octets.extend_from_slice(&sha1(&[password, plain]));
    let mut inner = PROTECTOR.to_vec();
    put_der(&mut inner, DER_OCTET_STRING, &octets);
    let mut out = Vec::new();
    put_der(&mut out, DER_SEQUENCE, &inner);
    out
}

/// Opens what [`protect`] made.
fn unprotect(info: &[u8], password: &[u8]) -> Result<SecretBytes, Error> {
    let octets = take_der(info, DER_SEQUENCE)
        .and_then(|inner| inner.strip_prefix(&PROTECTOR))
        .and_then(|rest| take_der(rest, DER_OCTET_STRING))
        .ok_or_else(|| malformed("a private key is not protected as JKS does"))?;
    if octets.len() < SALT_BYTES + DIGEST_BYTES {
        return Err(malformed("a private key is cut short"));
    }
    let (salt, rest) = octets.split_at(SALT_BYTES);
    let (sealed, check) = rest.split_at(rest.len() - DIGEST_BYTES);
    let plain: Vec<u8> = sealed
        .iter()
        .zip(key_stream(password, salt))
        .map(|(c, k)| c ^ k)
        .collect();
    let plain = SecretBytes::new(plain);
    verify_slices_are_equal(&sha1(&[password, plain.expose()]), check)
        .map_err(|_| Error::WrongPassword { format: FORMAT })?;
    Ok(plain)
}

fn key_stream(password: &[u8], salt: &[u8]) -> impl Iterator<Item = u8> {
    let first = sha1(&[password, salt]);
    std::iter::successors(Some(first), move |last| Some(sha1(&[password, last]))).flatten()
}

fn file_digest(password: &[u8], body: &[u8]) -> [u8; DIGEST_BYTES] {
    sha1(&[password, WHITENER, body])
}

fn sha1(parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; DIGEST_BYTES];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn utf16(password: &SecretString) -> Zeroizing<Vec<u8>> {
    let units = password.expose().encode_utf16();
    Zeroizing::new(units.flat_map(u16::to_be_bytes).collect())
}

fn malformed(reason: &str) -> Error {
    Error::Keystore {
        format: FORMAT,
        reason: reason.to_owned(),
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn put_len(out: &mut Vec<u8>, len: usize) -> Result<(), Error> {
    let len = u32::try_from(len).map_err(|_| malformed("an entry is over 4 GiB"))?;
    put_u32(out, len);
    Ok(())
}

fn put_block(out: &mut Vec<u8>, block: &[u8]) -> Result<(), Error> {
    put_len(out, block.len())?;
    out.extend_from_slice(block);
    Ok(())
}

fn put_certificate(out: &mut Vec<u8>, certificate: &[u8]) -> Result<(), Error> {
    put_text(out, CERTIFICATE_TYPE)?;
    put_block(out, certificate)
}

/// Modified UTF-8: UTF-16 units, each in one to three bytes, with NUL in two.
fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    let mut bytes = Vec::new();
    for unit in text.encode_utf16() {
        let [low, middle, high] = [
            (unit & 0x3f) as u8 | 0x80,
            (unit >> 6 & 0x3f) as u8,
            (unit >> 12) as u8,
        ];
        match unit {
            0x01..=0x7f => bytes.push(unit as u8),
            0 | 0x80..=0x7ff => bytes.extend([0xc0 | middle, low]),
            _ => bytes.extend([0xe0 | high, 0x80 | middle, low]),
        }
    }
    let len = u16::try_from(bytes.len()).map_err(|_| malformed("an alias is over 64 KiB"))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&bytes);
    Ok(())
}

fn text_from(bytes: &[u8]) -> Option<String> {
    let tail = |byte: Option<&u8>| match byte {
        Some(&b) if b & 0xc0 == 0x80 => Some(u16::from(b & 0x3f)),
        _ => None,
    };
    let mut units = Vec::new();
    let mut rest = bytes.iter();
    while let Some(&first) = rest.next() {
        units.push(match first {
            0x01..=0x7f => u16::from(first),
            0xc0..=0xdf => u16::from(first & 0x1f) << 6 | tail(rest.next())?,
            0xe0..=0xef => {
                u16::from(first & 0x0f) << 12 | tail(rest.next())? << 6 | tail(rest.next())?
            }
            _ => return None,
        });
    }
    String::from_utf16(&units).ok()
}

fn put_der(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    let len = content.len().to_be_bytes();
    let significant = &len[len.iter().position(|b| *b != 0).unwrap_or(len.len() - 1)..];
    if content.len() >= 0x80 {
        out.push(0x80 | significant.len() as u8);
    }
    out.extend_from_slice(significant);
    out.extend_from_slice(content);
}

/// The content of the one DER element that `bytes` are.
fn take_der(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, content) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        let len = digits.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        (len, content)
    };
    (found == tag && content.len() == len).then_some(content)
}

/// The bytes that are not read yet. Nothing is allocated before it was seen to be there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn entry(&mut self, password: &[u8], keystore: &mut Keystore) -> Result<(), Error> {
        let tag = self.u32()?;
        let alias = self.text()?;
        self.take(8)?; // The creation date has no use here.
        match tag {
            TAG_TRUSTED => {
                let certificate = self.certificate()?;
                keystore.trusted.push(TrustedEntry { alias, certificate });
            }
            TAG_KEY => {
                let private_key = unprotect(self.block()?, password)?;
                let mut chain = Vec::new();
                for _ in 0..self.u32()? {
                    chain.push(self.certificate()?);
                }
                keystore.keys.push(KeyEntry {
                    alias,
                    private_key,
                    chain,
                });
            }
            _ => return Err(malformed("an entry is neither a key nor a certificate")),
        }
        Ok(())
    }

    fn certificate(&mut self) -> Result<Vec<u8>, Error> {
        if self.text()? != CERTIFICATE_TYPE {
            return Err(malformed("a certificate is not of type X.509"));
        }
        self.block().map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Result<String, Error> {
        let len = self.take(2)?;
        let bytes = self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))?;
        text_from(bytes).ok_or_else(|| malformed("a text is not modified UTF-8"))
    }

    fn block(&mut self) -> Result<&'a [u8], Error> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use moat_types::{SystemClock, SystemRandom};

    use super::*;

    fn password() -> SecretString {
        SecretString::new("pässword".into())
    }

    fn sample() -> Keystore {
        Keystore {
            trusted: vec![TrustedEntry {
                alias: "ca 😀 é".into(),
                certificate: vec![1; 300],
            }],
            keys: vec![KeyEntry {
                alias: "key".into(),
                private_key: SecretBytes::new((0..=255).collect()),
                chain: vec![vec![2; 10], vec![3; 20]],
            }],
        }
    }

    fn written() -> Vec<u8> {
        write(&sample(), &password(), &SystemClock, &SystemRandom).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(read(&written(), &password()).unwrap(), sample());
    }

    #[test]
    fn a_wrong_password_and_any_changed_byte_are_refused() {
        let bytes = written();
        let other = SecretString::new("other".into());
        assert!(matches!(
            read(&bytes, &other),
            Err(Error::WrongPassword { .. })
        ));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(read(&changed, &password()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn any_cut_is_refused() {
        let bytes = written();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len], &password()).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocating() {
        let sealed = |body: &[u8]| {
            let mut bytes = body.to_vec();
            bytes.extend(file_digest(&utf16(&password()), body));
            read(&bytes, &password())
        };
        let head = [MAGIC.to_be_bytes(), VERSION.to_be_bytes()].concat();
        let mut count_lies = head.clone();
        count_lies.extend(u32::MAX.to_be_bytes());
        assert!(sealed(&count_lies).is_err());
        let mut block_lies = head.clone();
        block_lies.extend([
            0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff,
        ]);
        assert!(sealed(&block_lies).is_err());
        let mut empty = head;
        empty.extend([0; 4]);
        assert_eq!(sealed(&empty).unwrap(), Keystore::default());
    }

    #[test]
    fn der_lengths_of_each_form_round_trip() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let mut out = Vec::new();
            put_der(&mut out, DER_OCTET_STRING, &vec![9; len]);
            assert_eq!(take_der(&out, DER_OCTET_STRING).unwrap().len(), len);
            assert!(take_der(&out, DER_SEQUENCE).is_none());
        }
    }
}
