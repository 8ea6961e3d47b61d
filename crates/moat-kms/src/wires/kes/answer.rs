//! Answers as KES gives them. The one place that turns an error of the core into one of KES.
//!
//! KES clients compare status and message for equality, so the texts of [`text`] are constants of
//! the protocol.

use std::borrow::Cow;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use moat_net::Body;
use serde::Serialize;

use crate::audit::AuditError;
use crate::error::Error;
use crate::wires::REQUEST_ID;

/// The messages that clients know.
pub(super) mod text {
    pub(in super::super) const NOT_ALLOWED: &str = "not authorized: insufficient permissions";
    pub(in super::super) const NO_CERTIFICATE: &str = "tls: client certificate is required";
    pub(in super::super) const KEY_NOT_FOUND: &str = "key does not exist";
    pub(in super::super) const KEY_EXISTS: &str = "key already exists";
    pub(in super::super) const NOT_AUTHENTIC: &str =
        "decryption failed: ciphertext is not authentic";
    pub(in super::super) const POLICY_NOT_FOUND: &str = "policy does not exist";
    pub(in super::super) const IDENTITY_NOT_FOUND: &str = "identity does not exist";
    pub(in super::super) const IDENTITY_EXISTS: &str = "identity already exists";
    pub(in super::super) const ENCLAVE_NOT_FOUND: &str = "enclave does not exist";
    pub(in super::super) const ENCLAVE_EXISTS: &str = "enclave already exists";
    pub(in super::super) const INVALID_BODY: &str = "invalid request body";
}

/// Why a request is refused: what the caller is told, and what the log says beside it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: Cow<'static, str>,
    allow: Option<&'static str>,
    /// For the log only.
    cause: Option<Box<Error>>,
}

pub(super) type Answer = Result<Response<Body>, Refusal>;

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            allow: None,
            cause: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn method(received: &Method, known: &'static str) -> Self {
        let message = format!("received method '{received}' expected '{known}'");
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, message);
        refusal.allow = Some(if known == "PUT" { "PUT, POST" } else { known });
        refusal
    }

    #[cfg(test)]
    pub(super) fn parts(&self) -> (u16, &str) {
        (self.status.as_u16(), &self.message)
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

/// The status that an error of the core is answered with, and what its caller is told.
pub(super) fn describe(error: &Error) -> (StatusCode, Cow<'static, str>) {
    let (status, message) = match error {
        // A disabled key is refused as an identity without the right is: KES knows no disabled
        // keys, and this is the one answer that its clients do not try again. The audit says why.
        Error::Denied { .. } | Error::KeyDisabled { .. } | Error::KeyNotExportable { .. } => {
            (StatusCode::FORBIDDEN, text::NOT_ALLOWED)
        }
        Error::EnclaveNotFound { .. } => (StatusCode::NOT_FOUND, text::ENCLAVE_NOT_FOUND),
        Error::EnclaveExists { .. } => (StatusCode::BAD_REQUEST, text::ENCLAVE_EXISTS),
        // A key that is being deleted is gone, as far as a client goes.
        Error::KeyNotFound { .. }
        | Error::KeyDeleting { .. }
        | Error::KeyVersionNotFound { .. } => (StatusCode::NOT_FOUND, text::KEY_NOT_FOUND),
        Error::KeyExists { .. } => (StatusCode::BAD_REQUEST, text::KEY_EXISTS),
        Error::InvalidCiphertext { .. } => (StatusCode::BAD_REQUEST, text::NOT_AUTHENTIC),
        Error::IdentityNotFound { .. } => (StatusCode::NOT_FOUND, text::IDENTITY_NOT_FOUND),
        Error::IdentityExists { .. } => (StatusCode::BAD_REQUEST, text::IDENTITY_EXISTS),
        Error::PolicyNotFound { .. } => (StatusCode::NOT_FOUND, text::POLICY_NOT_FOUND),
        Error::Length { .. }
        | Error::IdentityForm(_)
        | Error::PolicyForm(_)
        // These two only where nothing is forced; KES can't even ask for it.
        | Error::PolicyInUse { .. }
        | Error::KeyLastVersion { .. }
        | Error::Rotation
        | Error::Grace
        | Error::Count { .. }
        | Error::KeyVersionLimit { .. } => {
            return (StatusCode::BAD_REQUEST, error.to_string().into());
        }
        Error::KeyMaterial { algorithm, .. } => {
            let message = format!("invalid key size for '{algorithm}'");
            return (StatusCode::NOT_ACCEPTABLE, message.into());
        }
        Error::KeyUsage { .. } => return (StatusCode::CONFLICT, error.to_string().into()),
        Error::RateLimited { .. } => {
            return (StatusCode::TOO_MANY_REQUESTS, error.to_string().into());
        }
        // The client tries this one again by itself, which is right here and nowhere else.
        Error::Contended => {
            return (StatusCode::SERVICE_UNAVAILABLE, error.to_string().into());
        }
        Error::Hsm(_) | Error::Backup(_) => (StatusCode::BAD_GATEWAY, "the HSM can't be used"),
        Error::Damaged { .. } | Error::Store(moat_meta::Error::Corrupt(_)) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the key manager's state is damaged",
        ),
        Error::Store(moat_meta::Error::NoSpace) | Error::Audit(AuditError::NoSpace { .. }) => (
            StatusCode::INSUFFICIENT_STORAGE,
            "there is no space left on the key manager",
        ),
        Error::Store(_) => (StatusCode::BAD_GATEWAY, "the state can't be reached"),
        Error::Audit(_) => (StatusCode::BAD_GATEWAY, "the audit can't be written"),
    };
    (status, message.into())
}

pub(super) fn json(body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).map_err(|_| {
        let message = "the answer can't be encoded";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    Ok(json_text(text))
}

/// An answer that holds keys: binary values by their names.
pub(super) fn object(values: &[(&str, &[u8])]) -> Response<Body> {
    json_text(crate::json::object(None, values))
}

fn json_text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(super) fn empty() -> Response<Body> {
    Response::new(Body::empty())
}

/// The answer as it is sent. Nothing here may be kept by anyone: answers hold keys.
pub(super) fn respond(result: Answer, request_id: &str) -> Response<Body> {
    let mut response = result.unwrap_or_else(|refusal| refuse(refusal, request_id));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

fn refuse(refusal: Refusal, request_id: &str) -> Response<Body> {
    #[derive(Serialize)]
    struct Message<'a> {
        message: &'a str,
    }
    if let Some(cause) = &refusal.cause {
        tracing::error!(request_id, error = %cause, "a request failed");
    }
    let text = serde_json::to_vec(&Message {
        message: &refusal.message,
    })
    .expect("a text is JSON");
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(methods) = refusal.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
