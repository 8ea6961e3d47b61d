//! The data encryption key of one blob, and what else is sealed with it: the object's attributes.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use moat_types::Random;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Error, Place};

pub(crate) const DEK_BYTES: usize = 32;

/// Nonce, sealed DEK, tag.
pub const WRAPPED_DEK_BYTES: usize = NONCE_LEN + DEK_BYTES + 16;

/// A DEK as it stands in a row: 12 bytes nonce, 32 bytes sealed DEK, 16 bytes tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrappedDek(pub [u8; WRAPPED_DEK_BYTES]);

/// A data encryption key: random, for one blob only.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Dek([u8; DEK_BYTES]);

impl Dek {
    /// Draws a new key.
    pub fn random(random: &dyn Random) -> Self {
        let mut bytes = [0; DEK_BYTES];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// The key made of these 32 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// The key itself: for a sealed manifest that lists the keys of parts.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn chunk_key(&self) -> LessSafeKey {
        aes(&self.0)
    }

    /// Seals an object's attributes for one place: nonce, ciphertext, tag.
    pub fn seal_attributes(&self, plain: &[u8], place: &Place<'_>, random: &dyn Random) -> Vec<u8> {
        let mut out = vec![0; NONCE_LEN];
        random.fill(&mut out);
        let nonce = Nonce::try_assume_unique_for_key(&out).expect("12 bytes");
        out.extend_from_slice(plain);
        let aad = Aad::from(place.associated_data());
        let key = self.attributes_key();
        let tag = key
            .seal_in_place_separate_tag(nonce, aad, &mut out[NONCE_LEN..])
            .expect("attributes are far below the limit of the cipher");
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens an object's attributes.
    ///
    /// # Errors
    /// `Error::Attributes` if they were changed, or belong to another place or key.
    pub fn open_attributes(&self, sealed: &[u8], place: &Place<'_>) -> Result<Vec<u8>, Error> {
        let (nonce, body) = sealed
            .split_at_checked(NONCE_LEN)
            .ok_or(Error::Attributes)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Attributes)?;
        let mut buffer = body.to_vec();
        let aad = Aad::from(place.associated_data());
        let length = self
            .attributes_key()
            .open_in_place(nonce, aad, &mut buffer)
            .map_err(|_| Error::Attributes)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// Attributes have a key of their own, so that their random nonces never meet the counted
    /// nonces of chunks.
    fn attributes_key(&self) -> LessSafeKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        aes(hmac::sign(&key, b"moat attributes v1").as_ref())
    }
}

fn aes(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("a DEK has 32 bytes"))
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(REDACTED)")
    }
}
