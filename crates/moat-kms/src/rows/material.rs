//! The secret of a key version, ready for use.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use moat_types::SecretBytes;

/// The secret of a key version.
#[derive(Clone)]
pub(crate) struct Material {
    bytes: SecretBytes,
    /// Made at the first use: half of what deriving the key of an operation costs is the same each
    /// time.
    hmac: OnceLock<hmac::Key>,
}

impl Material {
    pub(crate) const fn new(bytes: SecretBytes) -> Self {
        Self {
            bytes,
            hmac: OnceLock::new(),
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
    pub(crate) fn hmac(&self) -> &hmac::Key {
        self.hmac
            .get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, self.expose()))
    }
}
