//! Key-encryption keys that wrap DEKs: a leased epoch key, or a customer's key (SSE-C).

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use moat_types::{Random, SecretBytes};

use crate::dek::{DEK_BYTES, Dek, WRAPPED_DEK_BYTES, WrappedDek};
use crate::{Error, Place};

/// A key-encryption key. Never written anywhere; its memory is zeroized when it is dropped.
///
/// Nonces of wraps are random 96-bit values, so one key must wrap fewer than 2^32 DEKs: epochs
/// end after a day (`moat-store`), long before that.
pub struct EpochKey {
    key: LessSafeKey,
}

impl EpochKey {
    /// The key made of these 32 bytes; `None` for any other length.
    pub fn new(material: SecretBytes) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, material.expose()).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// The key that stands in for an epoch key under SSE-C: derived from the customer's 32 bytes,
    /// so that the same bytes used elsewhere give nothing away. `None` for any other length.
    pub fn from_customer_key(customer: &SecretBytes) -> Option<Self> {
        if customer.expose().len() != 32 {
            return None;
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, customer.expose());
        let derived = hmac::sign(&key, b"moat sse-c key v1");
        Self::new(SecretBytes::new(derived.as_ref().to_vec()))
    }

    /// Wraps a DEK for one place.
    pub fn wrap(&self, dek: &Dek, place: &Place<'_>, random: &dyn Random) -> WrappedDek {
        let mut out = [0u8; WRAPPED_DEK_BYTES];
        let (nonce_bytes, sealed) = out.split_at_mut(NONCE_LEN);
        random.fill(nonce_bytes);
        let nonce = Nonce::try_assume_unique_for_key(nonce_bytes).expect("12 bytes");
        let (body, tag_bytes) = sealed.split_at_mut(DEK_BYTES);
        body.copy_from_slice(dek.expose());
        let aad = Aad::from(place.associated_data());
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, aad, body)
            .expect("32 bytes can be sealed");
        tag_bytes.copy_from_slice(tag.as_ref());
        WrappedDek(out)
    }

    /// Opens a wrapped DEK.
    ///
    /// # Errors
    /// `Error::Unwrap` if the key, the place or the bytes are not those of the wrap.
    pub fn unwrap(&self, wrapped: &WrappedDek, place: &Place<'_>) -> Result<Dek, Error> {
        let (nonce, sealed) = wrapped.0.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Unwrap)?;
        let mut buffer = zeroize::Zeroizing::new([0u8; DEK_BYTES + 16]);
        buffer.copy_from_slice(sealed);
        let aad = Aad::from(place.associated_data());
        let dek = self
            .key
            .open_in_place(nonce, aad, buffer.as_mut())
            .map_err(|_| Error::Unwrap)?;
        Ok(Dek::from_slice(dek).expect("a wrap holds 32 bytes"))
    }
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(REDACTED)")
    }
}
