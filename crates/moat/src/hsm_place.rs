//! Where an HSM key is: a file with its text, or a PKCS#11 token.

use std::path::PathBuf;

use moat_kms::{Hsm, HsmError, HsmKey, TokenKey, TokenUri};
use moat_types::{SecretString, SystemRandom};

use crate::files;

/// The variable that may hold the PIN of a token.
const PIN_VARIABLE: &str = "MOAT_HSM_PIN";

/// Where an HSM key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HsmPlace {
    /// A file with `hsm:aes256:...`.
    File(PathBuf),
    /// A key in a token.
    Token(TokenUri),
}

impl HsmPlace {
    /// Reads a path or a `pkcs11:` URI.
    ///
    /// # Errors
    /// What is wrong with a URI.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if TokenUri::is_uri(text) {
            return TokenUri::parse(text)
                .map(Self::Token)
                .map_err(|e| e.to_string());
        }
        match text {
            "" => Err("a file, or pkcs11:...".to_owned()),
            path => Ok(Self::File(PathBuf::from(path))),
        }
    }

    /// The key that is there.
    ///
    /// # Errors
    /// `HsmError`, in a sentence that names the place.
    pub(crate) fn load(&self) -> Result<Box<dyn Hsm>, HsmError> {
        match self {
            Self::File(path) => {
                let text =
                    files::read_secret(path).map_err(|e| HsmError::Source(format!("{e:#}")))?;
                let key = HsmKey::parse(text.expose())
                    .map_err(|e| HsmError::Source(format!("{}: {e}", path.display())))?;
                Ok(Box::new(key))
            }
            Self::Token(uri) => Ok(Box::new(TokenKey::open(uri.clone(), pin(uri)?)?)),
        }
    }

    /// Makes a key where none is.
    ///
    /// # Errors
    /// `HsmError` if there is one, or the place can't be used.
    pub(crate) fn create(&self) -> Result<Box<dyn Hsm>, HsmError> {
        match self {
            Self::File(path) if path.exists() => Err(HsmError::Source(format!(
                "{} exists already; an HSM key is never overwritten",
                path.display()
            ))),
            Self::File(path) => {
                let key = HsmKey::generate(&SystemRandom);
                let text = SecretString::new(format!("{}\n", key.to_text().expose()));
                files::write(path, text.expose().as_bytes(), files::Access::Private)
                    .map_err(|e| HsmError::Source(format!("{e:#}")))?;
                Ok(Box::new(key))
            }
            Self::Token(uri) => {
                let key = TokenKey::create(uri.clone(), pin(uri)?, &SystemRandom)?;
                Ok(Box::new(key))
            }
        }
    }
}

/// The token's PIN: the environment's, else the file's that the URI names.
fn pin(uri: &TokenUri) -> Result<SecretString, HsmError> {
    if let Some(pin) = std::env::var(PIN_VARIABLE)
        .ok()
        .filter(|pin| !pin.is_empty())
    {
        return Ok(SecretString::new(pin));
    }
    let source = uri.pin_source.as_ref().ok_or_else(|| {
        HsmError::Source(format!(
            "the {uri} needs a PIN: name a file with pin-source=FILE in the URI, or set {PIN_VARIABLE}"
        ))
    })?;
    files::read_secret(source).map_err(|e| HsmError::Source(format!("{e:#}")))
}
