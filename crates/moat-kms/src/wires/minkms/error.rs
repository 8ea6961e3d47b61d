//! What a refused request is answered: a status, and a protobuf message with a text in field 1.
//!
//! Clients compare status and text for equality, so the texts of the first table are constants of
//! the protocol; with any other a MinIO server answers its own clients 500 instead of 403 or 404.

use http::header::ALLOW;
use http::{HeaderValue, Response, StatusCode};
use moat_net::Body;

use super::frame::FrameError;
use super::proto::{Malformed, Writer};
use crate::audit::AuditError;
use crate::error::Error;
use crate::wires::body::BodyError;

/// Status and text that clients know.
type Known = (StatusCode, &'static str);

pub(super) const DENIED: Known = (
    StatusCode::FORBIDDEN,
    "access denied: insufficient permissions",
);
pub(super) const NO_ENCLAVE: Known = (StatusCode::NOT_FOUND, "enclave does not exist");
const ENCLAVE_EXISTS: Known = (StatusCode::CONFLICT, "enclave already exists");
pub(super) const NO_KEY: Known = (StatusCode::NOT_FOUND, "key does not exist");
const KEY_EXISTS: Known = (StatusCode::CONFLICT, "key already exists");
pub(super) const NO_POLICY: Known = (StatusCode::NOT_FOUND, "policy does not exist");
pub(super) const NO_IDENTITY: Known = (StatusCode::NOT_FOUND, "identity does not exist");
const IDENTITY_EXISTS: Known = (StatusCode::CONFLICT, "identity already exists");
const BAD_CIPHERTEXT: Known = (StatusCode::BAD_REQUEST, "invalid ciphertext");

/// Why a request is refused: what the caller is told, and what the log says beside it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    /// For the log only.
    cause: Option<Box<Error>>,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            cause: None,
            allow: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A path that does not know the method.
    pub(super) fn method(allow: &'static str) -> Self {
        let mut refusal = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("this path knows {allow}"),
        );
        refusal.allow = Some(allow);
        refusal
    }

    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn into_response(self, request_id: &str) -> Response<Body> {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, error = %cause, "a request failed");
        }
        let mut out = Writer::default();
        out.bytes(1, &self.message);
        let mut response = super::respond(out);
        *response.status_mut() = self.status;
        if let Some(methods) = self.allow {
            let methods = HeaderValue::from_static(methods);
            response.headers_mut().insert(ALLOW, methods);
        }
        response
    }
}

impl From<Known> for Refusal {
    fn from((status, message): Known) -> Self {
        Self::new(status, message)
    }
}

impl From<Malformed> for Refusal {
    fn from(e: Malformed) -> Self {
        Self::bad_request(e.to_string())
    }
}

impl From<FrameError> for Refusal {
    fn from(e: FrameError) -> Self {
        Self::bad_request(e.to_string())
    }
}

impl From<BodyError> for Refusal {
    fn from(e: BodyError) -> Self {
        match e {
            BodyError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a request may have at most {} bytes", super::BODY_BYTES_MAX),
            ),
            BodyError::Busy => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many bytes of requests of this identity are under way",
            ),
            BodyError::Broken => Self::bad_request("the request broke off"),
            BodyError::Timeout => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request did not come in time",
            ),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (status, message) = describe(&error);
        let mut refusal = Self::new(status, message);
        refusal.cause = status.is_server_error().then(|| Box::new(error));
        refusal
    }
}

/// What the caller is told of each error.
fn describe(error: &Error) -> (StatusCode, String) {
    let (status, message) = match error {
        // The protocol has no disabled keys. As a permission that is missing, a MinIO server passes
        // it on as 403, which clients do not try again; the audit says what it was.
        Error::Denied { .. } | Error::KeyDisabled { .. } => DENIED,
        Error::EnclaveNotFound { .. } => NO_ENCLAVE,
        Error::EnclaveExists { .. } => ENCLAVE_EXISTS,
        Error::KeyNotFound { .. }
        | Error::KeyVersionNotFound { .. }
        | Error::KeyDeleting { .. } => NO_KEY,
        Error::KeyExists { .. } => KEY_EXISTS,
        Error::PolicyNotFound { .. } => NO_POLICY,
        Error::IdentityNotFound { .. } => NO_IDENTITY,
        Error::IdentityExists { .. } => IDENTITY_EXISTS,
        Error::InvalidCiphertext { .. } => BAD_CIPHERTEXT,
        Error::Length { .. }
        | Error::IdentityForm(_)
        | Error::PolicyForm(_)
        // These two only where nothing is forced, as it is here.
        | Error::PolicyInUse { .. }
        | Error::KeyLastVersion { .. }
        | Error::KeyUsage { .. }
        | Error::KeyMaterial { .. }
        | Error::Rotation
        | Error::Grace
        | Error::Count { .. }
        | Error::KeyVersionLimit { .. } => return (StatusCode::BAD_REQUEST, error.to_string()),
        Error::KeyNotExportable { .. } => return (StatusCode::FORBIDDEN, error.to_string()),
        Error::RateLimited { .. } => return (StatusCode::TOO_MANY_REQUESTS, error.to_string()),
        Error::Contended => return (StatusCode::CONFLICT, error.to_string()),
        Error::Store(moat_meta::Error::NoSpace) | Error::Audit(AuditError::NoSpace { .. }) => (
            StatusCode::INSUFFICIENT_STORAGE,
            "the key manager has no space left",
        ),
        Error::Damaged { .. }
        | Error::Hsm(_)
        | Error::Backup(_)
        | Error::Store(moat_meta::Error::Corrupt(_)) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the key manager's state is damaged",
        ),
        Error::Store(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the key manager's state can't be reached",
        ),
        Error::Audit(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the key manager's audit can't be written",
        ),
    };
    (status, message.to_owned())
}
