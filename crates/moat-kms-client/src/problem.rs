//! How the native API says that something went wrong: RFC 9457 problem details with a stable code.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $text:literal, $title:literal;)*) => {
        /// What went wrong, for programs. Codes are never renamed.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// What it says to people, the same in each case.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request is malformed.
    BadRequest = 400, "bad-request", "The request is malformed";
    /// A ciphertext does not open.
    InvalidCiphertext = 400, "invalid-ciphertext", "The ciphertext does not open";
    /// No client certificate was shown.
    Unauthenticated = 401, "unauthenticated", "A client certificate is needed";
    /// The caller may not do this.
    Denied = 403, "denied", "The identity may not do this";
    /// The key is disabled.
    KeyDisabled = 403, "key-disabled", "The key is disabled";
    /// The key waits out the grace period before its deletion.
    KeyDeleting = 403, "key-deleting", "The key is being deleted";
    /// The key's material never leaves the key manager.
    KeyNotExportable = 403, "key-not-exportable", "The key was not made exportable";
    /// No such path.
    NotFound = 404, "not-found", "There is nothing at this path";
    /// No such enclave.
    EnclaveNotFound = 404, "enclave-not-found", "The enclave does not exist";
    /// No such key.
    KeyNotFound = 404, "key-not-found", "The key does not exist";
    /// The key has no such version.
    KeyVersionNotFound = 404, "key-version-not-found", "The key has no such version";
    /// No such identity.
    IdentityNotFound = 404, "identity-not-found", "The identity does not exist";
    /// No such policy.
    PolicyNotFound = 404, "policy-not-found", "The policy does not exist";
    /// The path exists, the method does not.
    MethodNotAllowed = 405, "method-not-allowed", "The path does not know this method";
    /// The body did not come in time.
    Timeout = 408, "timeout", "The request did not come in time";
    /// The enclave is there already.
    EnclaveExists = 409, "enclave-exists", "The enclave already exists";
    /// The key is there already.
    KeyExists = 409, "key-exists", "The key already exists";
    /// The identity is known already.
    IdentityExists = 409, "identity-exists", "The identity already exists";
    /// The key is for something else.
    KeyUsage = 409, "key-usage", "The key can't be used for this";
    /// It is the only version of its key.
    KeyLastVersion = 409, "key-last-version", "The version is the only one of its key";
    /// Identities have the policy.
    PolicyInUse = 409, "policy-in-use", "Identities have the policy";
    /// The key has as many versions as one may have.
    KeyVersionLimit = 409, "key-version-limit", "The key has too many versions";
    /// Others changed the same thing at the same time.
    Contended = 409, "contended", "Others changed the same thing at the same time";
    /// The body is too large.
    TooLarge = 413, "too-large", "The request is too large";
    /// The caller asks too often.
    RateLimited = 429, "rate-limited", "The identity asks too often";
    /// A fault of the server.
    Internal = 500, "internal", "The key manager failed";
    /// The server can't do it now; a retry is safe.
    Unavailable = 503, "unavailable", "The key manager can't do this now";
    /// The state or the audit has no room.
    NoSpace = 507, "no-space", "The key manager has no space left";
}

impl Code {
    /// The code of a text; `None` for one of a newer server.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The content type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem, as it stands in the body of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:moat:kms:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of a code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened in this case.
    pub detail: String,
    /// The code.
    pub code: String,
    /// The id of the request, to be found in log and audit.
    pub request_id: String,
}

impl Problem {
    /// A problem of a code.
    pub fn new(code: Code, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:moat:kms:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code: code.as_str().to_owned(),
            request_id: request_id.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_their_text_and_differ() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(Code::parse("tea-pot"), None);
    }

    #[test]
    fn a_problem_is_rfc_9457() {
        let problem = Problem::new(Code::KeyDisabled, "KMS key k is disabled", "R1");
        let text = serde_json::to_string(&problem).unwrap();
        assert_eq!(
            text,
            r#"{"type":"urn:moat:kms:key-disabled","title":"The key is disabled","status":403,"detail":"KMS key k is disabled","code":"key-disabled","request_id":"R1"}"#
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }
}
