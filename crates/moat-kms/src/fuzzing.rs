//! Every parser of this crate, for the fuzz targets: takes any bytes, must not panic, and checks
//! what parsing promises. Not for other use.

use moat_kms_client::wire::PolicyDocument;

use crate::audit::fuzz_line;
use crate::codec::Malformed;
use crate::envelope::{ciphertext_version, fuzz_unversioned};
use crate::hsm::HsmKey;
use crate::policy::{PathPolicy, Policy};
use crate::rows::{
    AnchorRow, AuditKeyRow, EnclaveRow, HomeRow, IdentityRow, KeyRow, PolicyRow, Row,
};

/// The text of an HSM key.
pub fn hsm_key(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input)
        && let Ok(key) = HsmKey::parse(text)
    {
        assert!(HsmKey::parse(key.to_text().expose()).is_ok());
    }
}

/// A policy document in JSON: what compiles, compiles again from its normal form to the same.
pub fn policy(input: &[u8]) {
    if let Ok(document) = serde_json::from_slice::<PolicyDocument>(input)
        && let Ok(policy) = Policy::compile(&document)
    {
        assert_eq!(Policy::compile(&policy.to_document()), Ok(policy));
    }
}

/// Path and query of a request, separated by a `?`.
pub fn request_target(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        crate::http::fuzz_target(text);
    }
}

/// A ciphertext's header.
pub fn ciphertext(input: &[u8]) {
    if let Some(version) = ciphertext_version(input) {
        assert!(version.number() > 0);
    }
}

/// A ciphertext of another key manager.
pub fn unversioned_ciphertext(input: &[u8]) {
    fuzz_unversioned(input);
}

/// A KES policy's path pattern: what compiles is a policy.
pub fn policy_path(input: &[u8]) {
    if let Ok(path) = std::str::from_utf8(input) {
        let paths = PathPolicy {
            allow: vec![path.to_owned()],
            deny: Vec::new(),
        };
        if let Ok(document) = paths.to_document() {
            let policy = Policy::compile(&document);
            assert!(policy.is_ok() || path.len() > 256, "{path}");
        }
    }
}

/// Path and body of a KES request, with a NUL between them.
pub fn kes_request(input: &[u8]) {
    let end = input.iter().position(|b| *b == 0).unwrap_or(input.len());
    if let Ok(path) = std::str::from_utf8(&input[..end]) {
        crate::wires::kes::fuzz(path, input.get(end + 1..).unwrap_or_default());
    }
}

/// A key as KES stores it, and as MinIO's environment has it.
pub fn kes_stored_key(input: &[u8]) {
    let _ = crate::parse_stored_key(input);
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = crate::parse_minio_secret_key(text);
    }
}

/// The body of a MinKMS request: frames, and messages in them.
pub fn minkms_request(input: &[u8]) {
    crate::wires::minkms::fuzz(input);
}

/// A line of the audit.
pub fn audit_line(input: &[u8]) {
    fuzz_line(input);
}

/// An opened row of any kind: what decodes, encodes to the same bytes.
pub fn row(input: &[u8]) {
    fn check<R: Row>(input: &[u8]) -> Result<(), Malformed> {
        let row = R::decode(input)?;
        let encoded = row.encode();
        let again = R::decode(encoded.as_slice())?;
        assert_eq!(again.encode().as_slice(), encoded.as_slice());
        Ok(())
    }
    let _ = check::<EnclaveRow>(input);
    let _ = check::<KeyRow>(input);
    let _ = check::<IdentityRow>(input);
    let _ = check::<HomeRow>(input);
    let _ = check::<PolicyRow>(input);
    let _ = check::<AuditKeyRow>(input);
    let _ = check::<AnchorRow>(input);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_parser(input: &[u8]) {
        hsm_key(input);
        policy(input);
        request_target(input);
        ciphertext(input);
        unversioned_ciphertext(input);
        policy_path(input);
        kes_request(input);
        minkms_request(input);
        kes_stored_key(input);
        audit_line(input);
        row(input);
    }

    proptest! {
        #[test]
        fn every_parser_meets_any_bytes(input in prop::collection::vec(any::<u8>(), 0..300)) {
            every_parser(&input);
        }

        #[test]
        fn every_parser_meets_almost_rows(
            mut input in prop::collection::vec(prop::sample::select(vec![0u8, 1, 2, 3, 32, 65]), 0..120),
        ) {
            input.insert(0, 1);
            every_parser(&input);
        }

        #[test]
        fn every_parser_meets_almost_paths(
            input in "(/v1|/metrics)?(/(enclaves|e|keys|k|epochs|open|identities|h1:|policies|%2F|%)){0,6}(\\?(prefix|limit|from)=(%|1|x|&)*)?",
        ) {
            every_parser(input.as_bytes());
        }

        #[test]
        fn every_parser_meets_almost_kes_requests(
            input in "/v1/(key|policy|identity)(/(create|list|describe|import)){0,2}/?[a*|%-]{0,5}\\x00?\\{?(\"(context|ciphertext|key)\":(\"A{0,4}\"|null|\\{)){0,2}\\}?",
        ) {
            kes_request(input.as_bytes());
        }
    }
}
