//! What a client's certificate says of its holder, as text that may stand in a header.

use std::fmt::Write as _;

use aws_lc_rs::digest;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate, X509Name};

/// Names that are taken from one certificate. A header must have an end.
const NAMES_MAX: usize = 16;

/// The facts of a certificate that servers behind a proxy decide by. All text is visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the whole certificate, DER.
    pub sha256: [u8; 32],
    /// The subject as RFC 4514 writes it, the most specific part first: `CN=etl,O=Lake`.
    pub subject: String,
    /// Its alternative names that are URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Those that are DNS names.
    pub dns_names: Vec<String>,
}

impl CertificateFacts {
    /// Reads a certificate. `None` if `der` is none.
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let hash = digest::digest(&digest::SHA256, der);
        let mut facts = Self {
            sha256: hash
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest has 32 bytes"),
            subject: subject_of(certificate.subject()),
            uris: Vec::new(),
            dns_names: Vec::new(),
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            let (list, text) = match name {
                GeneralName::URI(text) => (&mut facts.uris, text),
                GeneralName::DNSName(text) => (&mut facts.dns_names, text),
                _ => continue,
            };
            // Neither kind of name has other characters; one that has is not what it claims to be.
            if list.len() < NAMES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic()) {
                list.push((*text).to_owned());
            }
        }
        Some(facts)
    }
}

fn subject_of(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    // A certificate begins with the most general part, text with the most specific one.
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, part) in parts.into_iter().rev().enumerate() {
        for (nth, attribute) in part.iter().enumerate() {
            if index + nth > 0 {
                text.push(if nth == 0 { ',' } else { '+' });
            }
            let oid = attribute.attr_type();
            match oid2abbrev(oid, oid_registry()) {
                Ok(short) => text.push_str(short),
                Err(_) => text.push_str(&oid.to_id_string()),
            }
            text.push('=');
            push_escaped(&mut text, attribute.attr_value().data);
        }
    }
    text
}

/// RFC 4514 section 2.4; whatever is not visible ASCII is written as its bytes in hexadecimal.
fn push_escaped(text: &mut String, value: &[u8]) {
    for (index, byte) in value.iter().enumerate() {
        let edge = index == 0 || index + 1 == value.len();
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' | b'=' => {
                text.push('\\');
                text.push(char::from(*byte));
            }
            b'#' if index == 0 => text.push_str("\\#"),
            b' ' if edge => text.push_str("\\ "),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => {
                // Writing to a string can't fail.
                let _ = write!(text, "\\{other:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn names_and_subject_are_visible_ascii_whatever_they_hold() {
        let mut params = CertificateParams::new(vec!["etl.lake".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "Lake, \"Inc\"");
        name.push(DnType::CommonName, " ütl\r\nX: y");
        let uri = "spiffe://lake/etl;By=\"x\"".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(uri));
        let hidden = "spiffe://a\r\nb".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(hidden));
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let facts = CertificateFacts::of(&der).unwrap();
        assert_eq!(facts.subject, r#"CN=\ \C3\BCtl\0D\0AX: y,O=Lake\, \"Inc\""#);
        assert_eq!(facts.dns_names, ["etl.lake"]);
        assert_eq!(facts.uris, ["spiffe://lake/etl;By=\"x\""]);
        assert_eq!(CertificateFacts::of(b"no certificate"), None);
    }
}
