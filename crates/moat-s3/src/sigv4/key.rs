//! The signing key of one (secret, date, region, service), and the seed of chunk signatures.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use moat_types::SecretString;
use subtle::ConstantTimeEq;

use super::{ALGORITHM, push_hex, sha256};
use crate::time::AmzDate;

/// A signature: 32 bytes, shown as 64 lower-case hex digits.
#[derive(Clone, Copy)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Parses 64 lower-case hex digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The hex digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// Appends the hex digits.
    pub(crate) fn push_to(&self, out: &mut Vec<u8>) {
        push_hex(out, &self.0);
    }
}

/// Compares in constant time.
impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for Signature {}

/// Signatures of requests that are still valid must not stand in logs.
impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(REDACTED)")
    }
}

/// The derived key. Cheap to clone; good for its scope's day, so worth keeping in a cache.
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    key: hmac::Key,
    /// `20130524/us-east-1/s3/aws4_request`.
    scope: Box<str>,
}

impl SigningKey {
    /// Derives the key. `date` is `YYYYMMDD`.
    pub fn derive(secret: &SecretString, date: &str, region: &str, service: &str) -> Self {
        let mut first = zeroizing_prefix(secret);
        let mut tag = mac(&hmac::Key::new(HMAC_SHA256, &first), date.as_bytes());
        first.fill(0);
        for step in [region, service, "aws4_request"] {
            tag = mac(&hmac::Key::new(HMAC_SHA256, tag.as_ref()), step.as_bytes());
        }
        Self(Arc::new(Inner {
            key: hmac::Key::new(HMAC_SHA256, tag.as_ref()),
            scope: [date, "/", region, "/", service, "/aws4_request"]
                .concat()
                .into(),
        }))
    }

    /// The scope: `20130524/us-east-1/s3/aws4_request`.
    pub fn scope(&self) -> &str {
        &self.0.scope
    }

    /// Signs a string to sign.
    pub(crate) fn sign(&self, string_to_sign: &[u8]) -> Signature {
        let tag = mac(&self.0.key, string_to_sign);
        Signature(tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes"))
    }

    /// Signs a canonical request.
    pub(crate) fn sign_canonical(&self, at: &AmzDate, canonical_request: &[u8]) -> Signature {
        let mut text = self.string_to_sign_head(ALGORITHM, at);
        push_hex(&mut text, &sha256(canonical_request));
        self.sign(&text)
    }

    /// `label`, time and scope, each with its line feed.
    pub(crate) fn string_to_sign_head(&self, label: &str, at: &AmzDate) -> Vec<u8> {
        let mut text = Vec::with_capacity(320);
        for line in [label.as_bytes(), at.as_bytes(), self.scope().as_bytes()] {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.scope())
    }
}

fn mac(key: &hmac::Key, data: &[u8]) -> hmac::Tag {
    hmac::sign(key, data)
}

/// `AWS4` and the secret; the caller overwrites it after use.
fn zeroizing_prefix(secret: &SecretString) -> Vec<u8> {
    let secret = secret.expose().as_bytes();
    let mut text = Vec::with_capacity(4 + secret.len());
    text.extend_from_slice(b"AWS4");
    text.extend_from_slice(secret);
    text
}

/// Where the chain of chunk signatures begins: the signature of the request's headers.
#[derive(Clone, Debug)]
pub struct ChunkSeed {
    /// The key that signs the chunks.
    pub key: SigningKey,
    /// The time of the request.
    pub at: AmzDate,
    /// The signature of the headers.
    pub signature: Signature,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_follows_the_documented_example() {
        // AWS General Reference, "Examples of how to derive a signing key for Signature Version 4".
        let key = SigningKey::derive(
            &SecretString::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
            "20120215",
            "us-east-1",
            "iam",
        );
        assert_eq!(key.scope(), "20120215/us-east-1/iam/aws4_request");
        let expected =
            hex::decode("f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d")
                .unwrap();
        let expected = mac(&hmac::Key::new(HMAC_SHA256, &expected), b"text");
        assert_eq!(key.sign(b"text").to_hex(), hex::encode(expected.as_ref()));
    }

    #[test]
    fn signatures_are_lower_case_hex_and_redacted() {
        assert!(Signature::parse(&[b'a'; 64]).is_some());
        assert!(Signature::parse(&[b'A'; 64]).is_none());
        assert!(Signature::parse(&[b'a'; 63]).is_none());
        let signature = Signature::parse(&[b'a'; 64]).unwrap();
        assert_eq!(format!("{signature:?}"), "Signature(REDACTED)");
    }
}
