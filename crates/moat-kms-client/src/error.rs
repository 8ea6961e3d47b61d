//! Why the client could not do what was asked.

use moat_crypto::KeyRingError;
use moat_types::KeyName;

use crate::problem::Code;

/// The error of a call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key manager refused, or failed.
    #[error("{detail} (request {request_id})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The code; none if the server is newer than this client.
        code: Option<Code>,
        /// What the server says.
        detail: String,
        /// The id under which the server's log and audit know the request.
        request_id: String,
    },
    /// No key manager answered. A retry is safe if the call may be repeated.
    #[error("{reason}")]
    Unreachable {
        /// Which endpoint, and why.
        reason: String,
    },
    /// The answer is not one of a key manager.
    #[error("the key manager's answer is not understood: {reason}")]
    Answer {
        /// What was found.
        reason: String,
    },
}

impl Error {
    /// The code of a refusal.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }

    /// Whether another key manager, or this one later, may do better.
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status, 502..=504),
            Self::Answer { .. } => false,
        }
    }

    /// The same in the words of a store that asked for `key`.
    pub(crate) fn into_key_ring_error(self, key: &KeyName) -> KeyRingError {
        let key = key.clone();
        match self.code() {
            Some(Code::KeyNotFound) => KeyRingError::NotFound { key },
            Some(Code::KeyDisabled | Code::KeyDeleting) => KeyRingError::Disabled { key },
            Some(Code::Denied | Code::Unauthenticated) => KeyRingError::Denied { key },
            Some(Code::InvalidCiphertext) => KeyRingError::Tampered { key },
            _ => KeyRingError::Unavailable {
                reason: self.to_string(),
            },
        }
    }
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// No endpoint is given.
    #[error("no key manager endpoint is given")]
    NoEndpoint,
    /// The endpoint is not one of https.
    #[error("the key manager endpoint {0} must be https")]
    NotTls(String),
    /// The endpoint or the certificates are no good.
    #[error(transparent)]
    Net(#[from] moat_net::Error),
    /// The API key is no good.
    #[error(transparent)]
    Credential(#[from] crate::CredentialError),
}
