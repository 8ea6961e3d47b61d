//! Answers: JSON, or a problem. The one place that turns an error of the core into a code.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use moat_kms_client::{Code, PROBLEM_JSON, Problem};
use moat_net::Body;
use moat_types::SecretBuffer;
use serde::Serialize;

use crate::audit::AuditError;
use crate::error::Error;
use crate::hsm::HsmError;
use crate::json::OBJECT_BYTES;
use crate::wires::REQUEST_ID;

/// Why a request is refused: what the caller is told, and what the log says beside it.
#[derive(Debug)]
pub(super) struct Refusal {
    code: Code,
    detail: String,
    /// For the log only.
    cause: Option<Box<Error>>,
    allow: Option<HeaderValue>,
    /// For the header that says when to ask again, in whole seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            cause: None,
            allow: None,
            retry_after: None,
        }
    }

    pub(super) fn allow(mut self, methods: HeaderValue) -> Self {
        self.allow = Some(methods);
        self
    }

    /// The problem that the caller gets to see.
    pub(super) fn problem(&self, request_id: &str) -> Problem {
        Problem::new(self.code, &*self.detail, request_id)
    }

    #[cfg(test)]
    pub(super) const fn code(&self) -> Code {
        self.code
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let (code, detail) = describe(&error);
        let mut refusal = Self::new(code, detail);
        if let Error::RateLimited { retry_after, .. } = &error {
            refusal.retry_after = Some(retry_after.as_secs() + 1);
        }
        refusal.cause = (code.status() >= 500).then(|| Box::new(error));
        refusal
    }
}

/// The code of each error, and what its caller is told.
fn describe(error: &Error) -> (Code, String) {
    let code = match error {
        Error::Denied {
            identity, command, ..
        } => {
            // Not why: that would tell a stranger what exists.
            let detail = format!("{identity} may not use {command} here");
            return (Code::Denied, detail);
        }
        Error::EnclaveNotFound { .. } => Code::EnclaveNotFound,
        Error::EnclaveExists { .. } => Code::EnclaveExists,
        Error::KeyNotFound { .. } => Code::KeyNotFound,
        Error::KeyExists { .. } => Code::KeyExists,
        Error::KeyDisabled { .. } => Code::KeyDisabled,
        Error::KeyDeleting { .. } => Code::KeyDeleting,
        Error::KeyVersionNotFound { .. } => Code::KeyVersionNotFound,
        Error::KeyUsage { .. } => Code::KeyUsage,
        Error::KeyNotExportable { .. } => Code::KeyNotExportable,
        Error::KeyVersionLimit { .. } => Code::KeyVersionLimit,
        Error::RateLimited { .. } => Code::RateLimited,
        Error::KeyMaterial { .. } | Error::Rotation | Error::Grace | Error::Count { .. } => {
            Code::BadRequest
        }
        Error::InvalidCiphertext { .. } => Code::InvalidCiphertext,
        Error::Length { .. } | Error::IdentityForm(_) | Error::PolicyForm(_) => Code::BadRequest,
        Error::IdentityNotFound { .. } => Code::IdentityNotFound,
        Error::IdentityExists { .. } => Code::IdentityExists,
        Error::PolicyNotFound { .. } => Code::PolicyNotFound,
        Error::PolicyInUse { .. } => Code::PolicyInUse,
        Error::KeyLastVersion { .. } => Code::KeyLastVersion,
        Error::Contended => Code::Contended,
        // Only an administrator's operations need the HSM, so the whole sentence is for the caller.
        Error::Hsm(HsmError::Unknown { .. } | HsmError::Token { .. }) | Error::Backup(_) => {
            Code::Unavailable
        }
        Error::Hsm(HsmError::Sealed)
        | Error::Damaged { .. }
        | Error::Store(moat_meta::Error::Corrupt(_)) => {
            return (Code::Internal, "the key manager's state is damaged".into());
        }
        Error::Hsm(_) => Code::BadRequest,
        Error::Store(moat_meta::Error::NoSpace) => {
            return (Code::NoSpace, "there is no space left for the state".into());
        }
        Error::Store(_) => {
            return (Code::Unavailable, "the state can't be reached".into());
        }
        Error::Audit(AuditError::NoSpace { .. }) => {
            return (Code::NoSpace, "there is no space left for the audit".into());
        }
        Error::Audit(_) => {
            return (Code::Unavailable, "the audit can't be written".into());
        }
    };
    (code, error.to_string())
}

pub(super) fn json(body: &impl Serialize) -> Result<Response<Body>, Refusal> {
    /// What most answers fit into, so that they are written without growing.
    const BYTES: usize = 512;
    let mut text = Vec::with_capacity(BYTES);
    serde_json::to_writer(&mut text, body)
        .map_err(|_| Refusal::new(Code::Internal, "the answer can't be encoded"))?;
    Ok(json_text(text))
}

/// An answer that holds keys.
pub(super) fn written(write: impl FnOnce(&mut SecretBuffer)) -> Response<Body> {
    let mut text = SecretBuffer::with_capacity(OBJECT_BYTES);
    write(&mut text);
    json_text(bytes::Bytes::from_owner(text))
}

/// JSON that is text already.
pub(super) fn json_text(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

pub(super) fn created(body: &impl Serialize) -> Result<Response<Body>, Refusal> {
    let mut response = json(body)?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// The answer as it is sent. Nothing here may be kept by anyone: answers hold keys.
pub(super) fn respond(result: Result<Response<Body>, Refusal>, request_id: &str) -> Response<Body> {
    let mut response = result.unwrap_or_else(|refusal| refuse(refusal, request_id));
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

fn refuse(refusal: Refusal, request_id: &str) -> Response<Body> {
    if let Some(cause) = &refusal.cause {
        tracing::error!(request_id, error = %cause, "a request failed");
    }
    let problem = refusal.problem(request_id);
    let text = serde_json::to_vec(&problem).expect("a problem is made of texts and a number");
    let mut response = Response::new(Body::full(text));
    *response.status_mut() =
        StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
    if let Some(methods) = refusal.allow {
        headers.insert(ALLOW, methods);
    }
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use moat_kms_client::Identity;
    use moat_types::{EnclaveName, KeyName, KeyVersion};

    use super::*;
    use crate::error::DenyReason;
    use crate::policy::{Command, PolicyError};
    use crate::rows::Algorithm;

    #[test]
    fn every_error_has_its_code_and_tells_no_more_than_it_may() {
        let key = || KeyName::parse("k").unwrap();
        let enclave = || EnclaveName::parse("e").unwrap();
        let identity = Identity::from_spki_sha256([0; 32]);
        let denied = Error::Denied {
            identity,
            command: Command::KeyCreate,
            reason: DenyReason::UnknownIdentity,
        };
        for (error, code) in [
            (denied, Code::Denied),
            (
                Error::EnclaveNotFound { enclave: enclave() },
                Code::EnclaveNotFound,
            ),
            (
                Error::EnclaveExists { enclave: enclave() },
                Code::EnclaveExists,
            ),
            (Error::KeyNotFound { key: key() }, Code::KeyNotFound),
            (Error::KeyExists { key: key() }, Code::KeyExists),
            (Error::KeyDisabled { key: key() }, Code::KeyDisabled),
            (Error::KeyDeleting { key: key() }, Code::KeyDeleting),
            (
                Error::KeyVersionNotFound {
                    key: key(),
                    version: KeyVersion::FIRST,
                },
                Code::KeyVersionNotFound,
            ),
            (
                Error::KeyUsage {
                    key: key(),
                    algorithm: Algorithm::HmacSha256,
                },
                Code::KeyUsage,
            ),
            (
                Error::KeyNotExportable { key: key() },
                Code::KeyNotExportable,
            ),
            (
                Error::KeyMaterial {
                    algorithm: Algorithm::Aes256,
                    length: 31,
                },
                Code::BadRequest,
            ),
            (Error::Rotation, Code::BadRequest),
            (Error::Grace, Code::BadRequest),
            (
                Error::Count {
                    what: "items",
                    max: 1,
                },
                Code::BadRequest,
            ),
            (
                Error::RateLimited {
                    identity,
                    retry_after: std::time::Duration::from_secs(1),
                },
                Code::RateLimited,
            ),
            (
                Error::KeyVersionLimit {
                    key: key(),
                    limit: 1,
                },
                Code::KeyVersionLimit,
            ),
            (
                Error::InvalidCiphertext {
                    key: key(),
                    version: None,
                },
                Code::InvalidCiphertext,
            ),
            (
                Error::Length {
                    what: "x",
                    min: 0,
                    max: 1,
                },
                Code::BadRequest,
            ),
            (Error::IdentityForm("x"), Code::BadRequest),
            (Error::PolicyForm(PolicyError::TooLarge), Code::BadRequest),
            (Error::IdentityNotFound { identity }, Code::IdentityNotFound),
            (Error::IdentityExists { identity }, Code::IdentityExists),
            (
                Error::PolicyNotFound { policy: key() },
                Code::PolicyNotFound,
            ),
            (
                Error::PolicyInUse {
                    policy: key(),
                    count: 1,
                    some: Vec::new(),
                },
                Code::PolicyInUse,
            ),
            (
                Error::KeyLastVersion {
                    key: key(),
                    version: KeyVersion::new(1).unwrap(),
                },
                Code::KeyLastVersion,
            ),
            (Error::Contended, Code::Contended),
            (Error::Damaged { row: "r".into() }, Code::Internal),
            (Error::Store(moat_meta::Error::NoSpace), Code::NoSpace),
            (Error::Store(moat_meta::Error::Closed), Code::Unavailable),
            (
                Error::Store(moat_meta::Error::Corrupt("r".into())),
                Code::Internal,
            ),
            (Error::Audit(AuditError::Poisoned), Code::Unavailable),
            (
                Error::Audit(AuditError::NoSpace { folder: "f".into() }),
                Code::NoSpace,
            ),
        ] {
            let (found, detail) = describe(&error);
            assert_eq!(found, code, "{error}");
            assert!(!detail.contains("not known"), "{detail}");
        }
    }
}
