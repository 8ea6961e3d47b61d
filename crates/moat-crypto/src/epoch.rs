//! Key-encryption keys that wrap DEKs: a leased epoch key, or a customer's key (SSE-C).

use std::fmt;

use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::hmac;
use moat_types::{Random, SecretBytes};
use zeroize::Zeroizing;

use crate::dek::{AttributesKey, DEK_BYTES, Dek, WrappedDek, aes, open, seal, unwrap, wrap};
use crate::{Error, Place};

/// A key-encryption key. Never written anywhere; its memory is zeroized when it is dropped.
///
/// Nonces of wraps are random 96-bit values, so one key must wrap fewer than 2^32 DEKs: epochs
/// end after a day (`moat-store`), long before that.
pub struct EpochKey {
    wrap_key: LessSafeKey,
    context_key: LessSafeKey,
}

impl EpochKey {
    /// The key made of these 32 bytes; `None` for any other length.
    pub fn new(material: SecretBytes) -> Option<Self> {
        let material: &[u8; DEK_BYTES] = material.expose().try_into().ok()?;
        Some(Self {
            wrap_key: aes(material),
            context_key: aes(&*derive(material, b"moat context v1")),
        })
    }

    /// The key that stands in for an epoch key under SSE-C: derived from the customer's 32 bytes,
    /// so that the same bytes used elsewhere give nothing away. `None` for any other length.
    pub fn from_customer_key(customer: &SecretBytes) -> Option<Self> {
        let customer: &[u8; DEK_BYTES] = customer.expose().try_into().ok()?;
        Self::new(SecretBytes::new(
            derive(customer, b"moat sse-c key v1").to_vec(),
        ))
    }

    /// Wraps a DEK for one place.
    pub fn wrap(&self, dek: &Dek, place: &Place<'_>, random: &dyn Random) -> WrappedDek {
        wrap(
            &self.wrap_key,
            dek.expose(),
            &place.associated_data(),
            random,
        )
    }

    /// Opens a wrapped DEK.
    ///
    /// # Errors
    /// `Error::Unwrap` if the key, the place or the bytes are not those of the wrap.
    pub fn unwrap(&self, wrapped: &WrappedDek, place: &Place<'_>) -> Result<Dek, Error> {
        let secret = unwrap(&self.wrap_key, wrapped, &place.associated_data())?;
        Ok(Dek::from_slice(&*secret).expect("a wrap holds 32 bytes"))
    }

    /// Wraps the attributes key of an upload whose DEK is under a customer's key, for the time
    /// until it is completed.
    pub fn wrap_attributes_key(
        &self,
        key: &AttributesKey,
        place: &Place<'_>,
        random: &dyn Random,
    ) -> WrappedDek {
        wrap(&self.wrap_key, key.expose(), &held(place), random)
    }

    /// Opens what `wrap_attributes_key` gave.
    ///
    /// # Errors
    /// `Error::Unwrap` if the key, the place or the bytes are not those of the wrap.
    pub fn unwrap_attributes_key(
        &self,
        wrapped: &WrappedDek,
        place: &Place<'_>,
    ) -> Result<AttributesKey, Error> {
        unwrap(&self.wrap_key, wrapped, &held(place)).map(AttributesKey::from_secret)
    }

    /// Seals a client's encryption context, which is needed before the DEK can be opened.
    /// `place` is that of the DEK with an empty context.
    pub fn seal_context(&self, context: &[u8], place: &Place<'_>, random: &dyn Random) -> Vec<u8> {
        seal(&self.context_key, context, &place.associated_data(), random)
    }

    /// Opens what `seal_context` gave.
    ///
    /// # Errors
    /// `Error::Attributes` if the key, the place or the bytes are not those of the seal.
    pub fn open_context(&self, sealed: &[u8], place: &Place<'_>) -> Result<Vec<u8>, Error> {
        open(&self.context_key, sealed, &place.associated_data())
    }
}

fn held(place: &Place<'_>) -> Vec<u8> {
    let mut associated = b"moat held attributes key v1\0".to_vec();
    associated.extend_from_slice(&place.associated_data());
    associated
}

fn derive(key: &[u8; DEK_BYTES], label: &[u8]) -> Zeroizing<[u8; DEK_BYTES]> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut out = Zeroizing::new([0; DEK_BYTES]);
    out.copy_from_slice(hmac::sign(&key, label).as_ref());
    out
}

impl fmt::Debug for EpochKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochKey(REDACTED)")
    }
}
