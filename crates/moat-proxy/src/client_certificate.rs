//! Who a client is by its certificate, told to the store in a header.
//!
//! TLS ends at the proxy, so the store sees nothing of the client's certificate unless it is told.
//! Servers behind a proxy believe such headers, so those that a client sent itself are removed always,
//! also where nothing is passed on and from trusted proxies too.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use moat_net::{CertificateFacts, Peer};

use crate::config::PassCertificate;

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Removes what the client claims, and says what it proved if that is wanted.
pub(crate) fn pass_on(headers: &mut HeaderMap, peer: &Peer, form: Option<PassCertificate>) {
    for name in [XFCC, CLIENT_CERT, CLIENT_CERT_CHAIN] {
        headers.remove(name);
    }
    let (Some(form), Some(key)) = (form, &peer.client_key) else {
        return;
    };
    let (name, value) = match form {
        PassCertificate::Xfcc => (XFCC, CertificateFacts::of(&key.cert_der).map(xfcc)),
        PassCertificate::ClientCert => {
            // A byte sequence of structured fields, RFC 9440 section 2.1.
            let value = format!(":{}:", STANDARD.encode(&key.cert_der));
            (CLIENT_CERT, Some(value))
        }
    };
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        headers.insert(name, value);
    }
}

/// `Hash=...;Subject="...";URI=...;DNS=...`, as service meshes write it.
fn xfcc(facts: CertificateFacts) -> String {
    let mut text = "Hash=".to_owned();
    for byte in facts.sha256 {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, ";Subject={}", quoted(&facts.subject));
    for uri in &facts.uris {
        let _ = write!(text, ";URI={}", quoted_if_needed(uri));
    }
    for name in &facts.dns_names {
        let _ = write!(text, ";DNS={}", quoted_if_needed(name));
    }
    text
}

/// What would end a value early is quoted, or a certificate could name another subject in its own name.
fn quoted_if_needed(value: &str) -> String {
    if value.contains([',', ';', '=', '"', '\\']) {
        quoted(value)
    } else {
        value.to_owned()
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_before_its_end() {
        let facts = CertificateFacts {
            sha256: [0xab; 32],
            subject: r#"CN=a\"\,b"#.into(),
            uris: vec!["spiffe://lake/etl".into(), "x:\";Subject=\"CN=admin".into()],
            dns_names: vec!["etl.lake".into()],
        };
        assert_eq!(
            xfcc(facts),
            format!(
                r#"Hash={};Subject="CN=a\\\"\\,b";URI=spiffe://lake/etl;URI="x:\";Subject=\"CN=admin";DNS=etl.lake"#,
                "ab".repeat(32)
            )
        );
    }

    #[test]
    fn what_a_client_claims_is_removed_even_if_nothing_is_passed_on() {
        let mut headers = HeaderMap::new();
        for name in [XFCC, CLIENT_CERT, CLIENT_CERT_CHAIN] {
            headers.append(&name, HeaderValue::from_static("Subject=\"CN=admin\""));
            headers.append(&name, HeaderValue::from_static("again"));
        }
        let peer = Peer::plain("10.0.0.9:5".parse().unwrap(), "10.0.0.1:1".parse().unwrap());
        pass_on(&mut headers, &peer, Some(PassCertificate::Xfcc));
        assert!(headers.is_empty());
    }
}
