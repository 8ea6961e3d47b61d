//! The data encryption key of one object or part, and what it guards besides a blob: the
//! object's attributes and manifest, and the DEKs of its parts.
//!
//! Three keys come from one DEK, each by HMAC-SHA256 over a label, so that counted nonces of
//! chunks and random nonces of the rest never meet under one key:
//!
//! | key | label | guards |
//! | --- | --- | --- |
//! | the DEK itself | | chunks of its blob, nonces counted |
//! | [`AttributesKey`] | `moat attributes v1` | attributes and manifest, random nonces |
//! | part wrapping key | `moat part wrap v1` | DEKs of parts, random nonces |
//!
//! A multipart upload's DEK is made when it begins. Under SSE-C the customer's key comes with
//! each part but not with Complete; the store then holds the attributes key alone, which seals
//! the result and opens no content.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use moat_types::{BlobId, Random};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Error;

pub(crate) const DEK_BYTES: usize = 32;
const TAG: usize = 16;

/// Nonce, sealed DEK, tag.
pub const WRAPPED_DEK_BYTES: usize = NONCE_LEN + DEK_BYTES + TAG;

/// A DEK as it stands in a row: 12 bytes nonce, 32 bytes sealed DEK, 16 bytes tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrappedDek(pub [u8; WRAPPED_DEK_BYTES]);

/// A data encryption key: random, for one object or part only.
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

    pub(crate) fn chunk_key(&self) -> LessSafeKey {
        aes(&self.0)
    }

    /// The key that seals the attributes and the manifest of this DEK's object.
    pub fn attributes_key(&self) -> AttributesKey {
        AttributesKey(self.derive(b"moat attributes v1"))
    }

    /// Wraps the DEK of a part's blob.
    pub fn wrap_part(&self, part: &Self, blob: BlobId, random: &dyn Random) -> WrappedDek {
        wrap(
            &aes(&*self.derive(PART_LABEL)),
            &part.0,
            blob.as_bytes(),
            random,
        )
    }

    /// Opens the wrapped DEK of a part's blob.
    ///
    /// # Errors
    /// `Error::Unwrap` if it was not wrapped by this DEK for this blob.
    pub fn unwrap_part(&self, wrapped: &WrappedDek, blob: BlobId) -> Result<Self, Error> {
        unwrap(&aes(&*self.derive(PART_LABEL)), wrapped, blob.as_bytes()).map(|dek| Self(*dek))
    }

    pub(crate) const fn expose(&self) -> &[u8; DEK_BYTES] {
        &self.0
    }

    fn derive(&self, label: &[u8]) -> Zeroizing<[u8; DEK_BYTES]> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut out = Zeroizing::new([0; DEK_BYTES]);
        out.copy_from_slice(hmac::sign(&key, label).as_ref());
        out
    }
}

const PART_LABEL: &[u8] = b"moat part wrap v1";

/// Seals what an object says of itself. Opens no content.
#[derive(Clone)]
pub struct AttributesKey(Zeroizing<[u8; DEK_BYTES]>);

impl AttributesKey {
    /// Seals `plain`: nonce, ciphertext, tag. `associated` must be given again to open it.
    pub fn seal(&self, plain: &[u8], associated: &[u8], random: &dyn Random) -> Vec<u8> {
        seal(&aes(&*self.0), plain, associated, random)
    }

    /// Opens what `seal` gave.
    ///
    /// # Errors
    /// `Error::Attributes` if it was changed, or belongs to another place or key.
    pub fn open(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
        open(&aes(&*self.0), sealed, associated)
    }

    pub(crate) fn expose(&self) -> &[u8; DEK_BYTES] {
        &self.0
    }

    pub(crate) const fn from_secret(secret: Zeroizing<[u8; DEK_BYTES]>) -> Self {
        Self(secret)
    }
}

pub(crate) fn aes(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("keys here have 32 bytes"))
}

pub(crate) fn wrap(
    key: &LessSafeKey,
    secret: &[u8; DEK_BYTES],
    associated: &[u8],
    random: &dyn Random,
) -> WrappedDek {
    let mut out = [0u8; WRAPPED_DEK_BYTES];
    let (nonce_bytes, sealed) = out.split_at_mut(NONCE_LEN);
    random.fill(nonce_bytes);
    let nonce = Nonce::try_assume_unique_for_key(nonce_bytes).expect("12 bytes");
    let (body, tag_bytes) = sealed.split_at_mut(DEK_BYTES);
    body.copy_from_slice(secret);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(associated), body)
        .expect("32 bytes can be sealed");
    tag_bytes.copy_from_slice(tag.as_ref());
    WrappedDek(out)
}

pub(crate) fn unwrap(
    key: &LessSafeKey,
    wrapped: &WrappedDek,
    associated: &[u8],
) -> Result<Zeroizing<[u8; DEK_BYTES]>, Error> {
    let (nonce, sealed) = wrapped.0.split_at(NONCE_LEN);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Unwrap)?;
    let mut buffer = Zeroizing::new([0u8; DEK_BYTES + TAG]);
    buffer.copy_from_slice(sealed);
    let secret = key
        .open_in_place(nonce, Aad::from(associated), buffer.as_mut())
        .map_err(|_| Error::Unwrap)?;
    let mut out = Zeroizing::new([0; DEK_BYTES]);
    out.copy_from_slice(secret);
    Ok(out)
}

pub(crate) fn seal(
    key: &LessSafeKey,
    plain: &[u8],
    associated: &[u8],
    random: &dyn Random,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(NONCE_LEN + plain.len() + TAG);
    out.resize(NONCE_LEN, 0);
    random.fill(&mut out);
    let nonce = Nonce::try_assume_unique_for_key(&out).expect("12 bytes");
    out.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(associated), &mut out[NONCE_LEN..])
        .expect("attributes are far below the limit of the cipher");
    out.extend_from_slice(tag.as_ref());
    out
}

pub(crate) fn open(key: &LessSafeKey, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, Error> {
    let (nonce, body) = sealed
        .split_at_checked(NONCE_LEN)
        .ok_or(Error::Attributes)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Error::Attributes)?;
    let mut buffer = body.to_vec();
    let length = key
        .open_in_place(nonce, Aad::from(associated), &mut buffer)
        .map_err(|_| Error::Attributes)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(REDACTED)")
    }
}

impl fmt::Debug for AttributesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttributesKey(REDACTED)")
    }
}
