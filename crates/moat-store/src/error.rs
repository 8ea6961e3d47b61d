//! What a request ends with when it does not succeed: the code and sentence that the client gets,
//! and the cause that only the log gets.
//!
//! This is the one place where conditions of the layers below become S3 answers.

use std::borrow::Cow;

use moat_crypto::KeyRingError;
use moat_s3::{ErrorCode, S3Error};

use crate::rows::Damaged;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An S3 error with its private cause.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) public: S3Error,
    /// For the log; empty if the public message says it all.
    pub(crate) cause: String,
    /// Elements of the document beyond the usual ones.
    pub(crate) extra: Vec<(&'static str, String)>,
    /// Headers that go with the answer, such as the ETag of a 304.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Error {
    pub(crate) fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        S3Error::new(code, message).into()
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.cause = cause.to_string();
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((name, value.into()));
        self
    }

    /// Data that is not what was written. Counted, logged with what was found, never retried.
    pub(crate) fn damaged(what: impl std::fmt::Display) -> Self {
        metrics::counter!("moat_store_damage_total").increment(1);
        let error: Self = ErrorCode::ObjectDamaged.into();
        error.because(what)
    }

    pub(crate) fn code(&self) -> ErrorCode {
        self.public.code
    }
}

impl From<S3Error> for Error {
    fn from(public: S3Error) -> Self {
        Self {
            public,
            cause: String::new(),
            extra: Vec::new(),
            headers: Vec::new(),
        }
    }
}

impl From<ErrorCode> for Error {
    fn from(code: ErrorCode) -> Self {
        S3Error::from(code).into()
    }
}

impl From<Damaged> for Error {
    fn from(damaged: Damaged) -> Self {
        Self::damaged(damaged)
    }
}

impl From<moat_crypto::Error> for Error {
    fn from(error: moat_crypto::Error) -> Self {
        Self::damaged(error)
    }
}

impl From<moat_meta::Error> for Error {
    fn from(error: moat_meta::Error) -> Self {
        let code = match &error {
            moat_meta::Error::NoSpace => ErrorCode::StorageFull,
            moat_meta::Error::Corrupt(_) => return Self::damaged(error),
            moat_meta::Error::Closed => ErrorCode::ServiceUnavailable,
            _ => ErrorCode::InternalError,
        };
        Self::from(code).because(error)
    }
}

impl From<moat_blob::Error> for Error {
    fn from(error: moat_blob::Error) -> Self {
        match &error {
            moat_blob::Error::NoSpace => Self::from(ErrorCode::StorageFull).because(error),
            moat_blob::Error::NotFound(_) | moat_blob::Error::Short { .. } => Self::damaged(error),
            _ => Self::from(ErrorCode::InternalError).because(error),
        }
    }
}

impl From<KeyRingError> for Error {
    fn from(error: KeyRingError) -> Self {
        let code = match &error {
            KeyRingError::NotFound { .. } => ErrorCode::KmsNotFound,
            KeyRingError::Disabled { .. } => ErrorCode::KmsDisabled,
            KeyRingError::Denied { .. } => ErrorCode::KmsAccessDenied,
            KeyRingError::Tampered { .. } => return Self::damaged(error),
            KeyRingError::Unavailable { .. } => {
                return Self::from(ErrorCode::KmsUnavailable).because(error);
            }
            _ => return Self::from(ErrorCode::InternalError).because(error),
        };
        // These messages name the key and nothing that is secret.
        Self::new(code, sentence(&error.to_string()))
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first
            .to_uppercase()
            .chain(letters)
            .chain(".".chars())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use moat_types::KeyName;

    use super::*;

    #[test]
    fn key_ring_conditions_name_the_key_and_choose_the_row() {
        let key = KeyName::parse("finance").expect("a good name");
        let rows = [
            (
                KeyRingError::NotFound { key: key.clone() },
                ErrorCode::KmsNotFound,
                true,
            ),
            (
                KeyRingError::Disabled { key: key.clone() },
                ErrorCode::KmsDisabled,
                true,
            ),
            (
                KeyRingError::Denied { key: key.clone() },
                ErrorCode::KmsAccessDenied,
                true,
            ),
            (
                KeyRingError::Tampered { key },
                ErrorCode::ObjectDamaged,
                false,
            ),
            (
                KeyRingError::Unavailable {
                    reason: "10.1.2.3 refused".into(),
                },
                ErrorCode::KmsUnavailable,
                false,
            ),
        ];
        for (condition, code, names_key) in rows {
            let error = Error::from(condition);
            assert_eq!(error.code(), code);
            assert_eq!(
                error.public.message.contains("finance"),
                names_key,
                "{error:?}"
            );
            assert!(
                !error.public.message.contains("10.1.2.3"),
                "addresses stay in the log"
            );
        }
    }

    #[test]
    fn engine_conditions_choose_the_row() {
        let id = moat_types::BlobId::from_bytes([1; 16]);
        let full = Error::from(moat_blob::Error::NoSpace);
        assert_eq!(full.code(), ErrorCode::StorageFull);
        assert_eq!(
            Error::from(moat_meta::Error::NoSpace).code(),
            ErrorCode::StorageFull
        );
        assert_eq!(
            Error::from(moat_blob::Error::NotFound(id)).code(),
            ErrorCode::ObjectDamaged
        );
        assert_eq!(
            Error::from(moat_meta::Error::Closed).code(),
            ErrorCode::ServiceUnavailable
        );
    }
}
