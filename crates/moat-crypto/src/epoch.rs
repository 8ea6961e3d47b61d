//! The epoch key: wraps DEKs.

use moat_types::SecretBytes;

/// A leased key-encryption key. Never written anywhere; zeroized when dropped.
#[derive(Debug)]
pub struct EpochKey {
    #[allow(dead_code)]
    material: SecretBytes,
}

impl EpochKey {
    /// The key made of these 32 bytes; `None` for any other length.
    pub fn new(material: SecretBytes) -> Option<Self> {
        (material.expose().len() == 32).then_some(Self { material })
    }
}
