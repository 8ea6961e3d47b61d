//! A software HSM key: it seals with AES-256-GCM under a key derived from it.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_types::{Random, SecretBytes, SecretString};

use super::{HSM_ID_BYTES, Hsm, HsmError};
use crate::seal::{open_sealed, seal_with};

/// A software HSM key: `hsm:aes256:` and the base64 of 32 bytes, as MinKMS writes it.
pub struct HsmKey {
    material: SecretBytes,
    id: [u8; HSM_ID_BYTES],
    sealing: LessSafeKey,
}

impl HsmKey {
    const PREFIX: &str = "hsm:aes256:";

    /// Draws a new key.
    pub fn generate(random: &dyn Random) -> Self {
        let mut material = vec![0; 32];
        random.fill(&mut material);
        Self::from_material(SecretBytes::new(material)).expect("32 bytes were drawn")
    }

    /// Parses the text form; white space around it is ignored, as keys come out of files.
    ///
    /// # Errors
    /// `HsmError::KeyForm` if it is anything else.
    pub fn parse(text: &str) -> Result<Self, HsmError> {
        let encoded = text
            .trim()
            .strip_prefix(Self::PREFIX)
            .ok_or(HsmError::KeyForm)?;
        let material = STANDARD.decode(encoded).map_err(|_| HsmError::KeyForm)?;
        Self::from_material(SecretBytes::new(material)).ok_or(HsmError::KeyForm)
    }

    /// The text form, for the file that keeps it.
    pub fn to_text(&self) -> SecretString {
        let encoded = STANDARD.encode(self.material.expose());
        SecretString::new(format!("{}{encoded}", Self::PREFIX))
    }

    fn from_material(material: SecretBytes) -> Option<Self> {
        if material.expose().len() != 32 {
            return None;
        }
        let derive = |label: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, material.expose());
            SecretBytes::new(hmac::sign(&key, label).as_ref().to_vec())
        };
        let sealing = derive(b"moat hsm key v1: seal");
        let sealing = UnboundKey::new(&AES_256_GCM, sealing.expose()).ok()?;
        let mut id = [0; HSM_ID_BYTES];
        id.copy_from_slice(&derive(b"moat hsm key v1: id").expose()[..HSM_ID_BYTES]);
        Some(Self {
            material,
            id,
            sealing: LessSafeKey::new(sealing),
        })
    }
}

impl Hsm for HsmKey {
    fn id(&self) -> [u8; HSM_ID_BYTES] {
        self.id
    }

    fn describe(&self) -> String {
        "software key".to_owned()
    }

    fn seal(
        &self,
        context: &[u8],
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, HsmError> {
        // One seal per enclave and per change of the HSM key: random nonces are far from a limit.
        Ok(seal_with(&self.sealing, context, plaintext, random))
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, HsmError> {
        open_sealed(&self.sealing, context, sealed).ok_or(HsmError::Sealed)
    }
}

impl fmt::Debug for HsmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HsmKey(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn the_text_form_round_trips_and_the_key_is_never_printed() {
        let key = HsmKey::generate(&SystemRandom);
        let again = HsmKey::parse(&format!(" {}\n", key.to_text().expose())).unwrap();
        assert_eq!(again.id(), key.id());
        assert_eq!(format!("{key:?}"), "HsmKey(REDACTED)");
        let sealed = key.seal(b"c", b"secret", &SystemRandom).unwrap();
        assert_eq!(again.open(b"c", &sealed).unwrap().expose(), b"secret");
    }

    #[test]
    fn another_key_or_context_does_not_open() {
        let (key, other) = (
            HsmKey::generate(&SystemRandom),
            HsmKey::generate(&SystemRandom),
        );
        let sealed = key.seal(b"c", b"secret", &SystemRandom).unwrap();
        assert_ne!(key.id(), other.id());
        assert_eq!(other.open(b"c", &sealed), Err(HsmError::Sealed));
        assert_eq!(key.open(b"d", &sealed), Err(HsmError::Sealed));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "hsm:aes256:",
            "hsm:aes256:AAAA",
            "aes256:AAAA",
            "hsm:aes256:!",
        ] {
            assert_eq!(HsmKey::parse(bad).err(), Some(HsmError::KeyForm), "{bad}");
        }
    }
}
