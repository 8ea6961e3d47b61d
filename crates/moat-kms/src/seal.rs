//! How rows are sealed at rest.
//!
//! Sealed form: format byte 1, nonce (12), ciphertext, tag (16). AES-256-GCM; the associated data
//! is a label, the format byte and the context (for a row: its key), so a row can't be moved to
//! another place. Nonces are random: a sealing key writes one row per administrative change,
//! which stays far below the 2^32 at which that would matter.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use moat_types::{Random, SecretBytes};
use zeroize::Zeroizing;

pub(crate) const FORMAT: u8 = 1;
pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = NONCE_LEN;

/// Seals the rows of one enclave (or of the system) under its enclave key.
pub(crate) struct Sealer(LessSafeKey);

impl Sealer {
    /// The sealer of an enclave key; `None` unless it has 32 bytes.
    pub(crate) fn new(enclave_key: &SecretBytes) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, enclave_key.expose()).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(&self, meta_key: &[u8], plaintext: &[u8], random: &dyn Random) -> Vec<u8> {
        seal_with(&self.0, meta_key, plaintext, random)
    }

    /// `None` if the row is damaged, or not the row that was sealed under `meta_key`.
    pub(crate) fn open(&self, meta_key: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
        open_sealed(&self.0, meta_key, sealed)
    }
}

pub(crate) fn seal_with(
    key: &LessSafeKey,
    context: &[u8],
    plaintext: &[u8],
    random: &dyn Random,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + NONCE_LEN + plaintext.len() + TAG_BYTES);
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce);
    out.push(FORMAT);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plaintext);
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(associated_data(context)),
            &mut out[1 + NONCE_LEN..],
        )
        .expect("rows are far below the limit of the cipher");
    out.extend_from_slice(tag.as_ref());
    out
}

pub(crate) fn open_sealed(key: &LessSafeKey, context: &[u8], sealed: &[u8]) -> Option<SecretBytes> {
    let (&format, rest) = sealed.split_first()?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>()?;
    if format != FORMAT {
        return None;
    }
    let mut buffer = Zeroizing::new(body.to_vec());
    let plaintext = key
        .open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(associated_data(context)),
            &mut buffer,
        )
        .ok()?;
    Some(SecretBytes::new(plaintext.to_vec()))
}

/// What tells a sealed row from every other one: its nonce, which is drawn for it, and its tag, which
/// depends on all of it.
pub(crate) type Mark = [u8; NONCE_LEN + TAG_BYTES];

/// The mark of a sealed row; `None` of what is too short to be one.
pub(crate) fn mark(sealed: &[u8]) -> Option<Mark> {
    let (nonce, rest) = sealed.get(1..)?.split_first_chunk::<NONCE_LEN>()?;
    let tag = rest.last_chunk::<TAG_BYTES>()?;
    let mut mark = [0; NONCE_LEN + TAG_BYTES];
    mark[..NONCE_LEN].copy_from_slice(nonce);
    mark[NONCE_LEN..].copy_from_slice(tag);
    Some(mark)
}

pub(crate) fn associated_data(context: &[u8]) -> Vec<u8> {
    [b"moat kms row\0".as_slice(), &[FORMAT], context].concat()
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn each_sealing_has_a_mark_of_its_own() {
        let sealer = Sealer::new(&SecretBytes::new(vec![1; 32])).unwrap();
        let seal = || sealer.seal(b"kms/k/e/a", b"material", &SystemRandom);
        let (one, other) = (seal(), seal());
        assert_eq!(mark(&one), mark(&one.clone()));
        assert_ne!(mark(&one), mark(&other));
        assert!(mark(&sealer.seal(b"a", b"", &SystemRandom)).is_some());
        for len in 0..=NONCE_LEN + TAG_BYTES {
            assert_eq!(mark(&one[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_row_opens_only_unchanged_and_in_its_place() {
        let sealer = Sealer::new(&SecretBytes::new(vec![1; 32])).unwrap();
        let sealed = sealer.seal(b"kms/k/e/a", b"material", &SystemRandom);
        assert_eq!(
            sealer.open(b"kms/k/e/a", &sealed).unwrap().expose(),
            b"material"
        );
        assert!(sealer.open(b"kms/k/e/b", &sealed).is_none());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open(b"kms/k/e/a", &changed).is_none(), "{index}");
        }
        for len in 0..sealed.len() {
            assert!(sealer.open(b"kms/k/e/a", &sealed[..len]).is_none(), "{len}");
        }
    }
}
