//! The secret of a key version, ready for use.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use moat_types::SecretBytes;

/// Secrets that are kept ready at once: at a kilobyte each, those of a thousand keys in use cost
/// nothing that matters, and those of ten thousand would be a third of the whole memory.
const PREPARED_MAX: usize = 1000;
static PREPARED: AtomicUsize = AtomicUsize::new(0);

/// The secret of a key version.
pub(crate) struct Material {
    bytes: SecretBytes,
    /// Made at the first use: half of what deriving the key of an operation costs is the same each
    /// time.
    prepared: OnceLock<Box<Prepared>>,
}

impl Material {
    pub(crate) const fn new(bytes: SecretBytes) -> Self {
        Self {
            bytes,
            prepared: OnceLock::new(),
        }
    }

    /// The secret itself.
    pub(crate) fn expose(&self) -> &[u8] {
        self.bytes.expose()
    }

    /// The secret, to be handed on.
    pub(crate) const fn secret(&self) -> &SecretBytes {
        &self.bytes
    }

    /// The secret as a key of HMAC-SHA-256.
    pub(crate) fn hmac(&self) -> Cow<'_, hmac::Key> {
        if let Some(prepared) = self.prepared.get() {
            return Cow::Borrowed(&prepared.0);
        }
        if PREPARED.load(Ordering::Relaxed) >= PREPARED_MAX {
            return Cow::Owned(self.hmac_key());
        }
        let prepare = || Box::new(Prepared::new(self.hmac_key()));
        Cow::Borrowed(&self.prepared.get_or_init(prepare).0)
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.expose())
    }
}

impl Clone for Material {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone())
    }
}

/// A key that is kept ready, counted as long as it lives.
struct Prepared(hmac::Key);

impl Prepared {
    fn new(key: hmac::Key) -> Self {
        PREPARED.fetch_add(1, Ordering::Relaxed);
        Self(key)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        PREPARED.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_secrets_works_and_few_are_kept_ready() {
        let sign = |material: &Material| hmac::sign(&material.hmac(), b"x").as_ref().to_vec();
        let materials: Vec<_> = (0..PREPARED_MAX as u32 * 2)
            .map(|number| Material::new(SecretBytes::new(number.to_be_bytes().to_vec())))
            .collect();
        for material in &materials {
            let first = sign(material);
            assert_eq!(
                (sign(material), sign(&material.clone())),
                (first.clone(), first)
            );
        }
        let ready = materials.iter().filter(|m| m.prepared.get().is_some());
        assert!(ready.count() <= PREPARED_MAX);
    }
}
