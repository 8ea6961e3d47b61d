//! The key above all keys: it seals the key manager's state and never leaves its keeper. A
//! software key ([`HsmKey`]) or a key in a PKCS#11 token ([`TokenKey`]), behind one trait.
//!
//! Sealed form of both: format byte 1, nonce (12), ciphertext, tag (16); AES-256-GCM with the
//! format and the caller's context as associated data.

mod ring;
mod software;
mod token;
mod uri;

use moat_types::{Random, SecretBytes};

pub(crate) use ring::Hsms;
pub use software::HsmKey;
pub use token::TokenKey;
pub use uri::{TokenUri, UriError};

/// Bytes of an HSM key's id, which stands in front of what it sealed.
pub(crate) const HSM_ID_BYTES: usize = 8;

/// Why the HSM refused. One sentence each, with what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HsmError {
    /// The text is no HSM key.
    #[error("an HSM key is hsm:aes256: and the base64 of 32 bytes")]
    KeyForm,
    /// What was to be opened is damaged, or was sealed for something else.
    #[error("the sealed state does not open under this HSM key")]
    Sealed,
    /// The state is sealed under a key that this process does not have.
    #[error(
        "the state is sealed under the HSM key {id}, which this key manager does not have; name it in kms.hsm_key or kms.hsm_keys_old and restart"
    )]
    Unknown {
        /// The key's id, in hex.
        id: String,
    },
    /// Where the key should come from can't be read.
    #[error("{0}")]
    Source(String),
    /// The PKCS#11 module can't be loaded.
    #[error("the PKCS#11 module {path} can't be loaded: {reason}")]
    Module {
        /// The module's path.
        path: String,
        /// What the loader or the module says.
        reason: String,
    },
    /// No such token.
    #[error(
        "no token is labelled {wanted:?} (there is {found}); plug it in, or correct kms.hsm_key"
    )]
    NoToken {
        /// The label in the URI.
        wanted: String,
        /// The labels that there are.
        found: String,
    },
    /// The token refuses the PIN. It is not tried again, because tokens lock after some tries.
    #[error("the token {token:?} refuses the PIN ({reason}); correct the PIN and restart")]
    Pin {
        /// The token's label.
        token: String,
        /// What it says.
        reason: String,
    },
    /// The token holds no such key.
    #[error("the token {token:?} holds no AES key labelled {key:?}; `moat kms hsm init` makes one")]
    NoKey {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
    },
    /// The token holds several keys of this label.
    #[error(
        "the token {token:?} holds {count} AES keys labelled {key:?}; add id=... to the URI, or rename all but one"
    )]
    ManyKeys {
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
        /// How many.
        count: usize,
    },
    /// The token does not answer, or answers with an error. A retry may help.
    #[error("the token {token:?} failed: {reason}; check that it is connected")]
    Token {
        /// The token's label.
        token: String,
        /// What it says.
        reason: String,
    },
}

/// Seals and opens the enclave keys. Calls may block for as long as a device needs.
pub trait Hsm: Send + Sync {
    /// Tells one HSM key from another; no secret. It stands beside what the key sealed.
    fn id(&self) -> [u8; HSM_ID_BYTES];

    /// What it is, for people: its kind and where it is.
    fn describe(&self) -> String;

    /// Seals `plaintext` for `context`.
    ///
    /// # Errors
    /// `HsmError` if the keeper of the key can't do it.
    fn seal(
        &self,
        context: &[u8],
        plaintext: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, HsmError>;

    /// Opens what `seal` gave for the same `context`.
    ///
    /// # Errors
    /// `HsmError::Sealed` if it is damaged or was sealed for another context or by another key.
    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<SecretBytes, HsmError>;
}
