//! PEM (RFC 7468): sections of base64 in lines of 64 characters.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::Error;

/// Characters of base64 in a line, as RFC 7468 section 2 asks of generators.
const LINE_CHARS: usize = 64;

/// One PEM section.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = zeroize::Zeroizing::new(STANDARD.encode(der));
    // Reserved at once, so that no reallocation leaves a copy of a private key behind.
    let mut text =
        String::with_capacity(body.len() + body.len() / LINE_CHARS + 2 * label.len() + 40);
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Certificates as PEM sections, in order.
pub fn encode_certificates<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> String {
    certificates
        .into_iter()
        .map(|der| encode("CERTIFICATE", der))
        .collect()
}

/// All certificates of a PEM text, in order; other sections are passed over.
///
/// # Errors
/// [`Error::Pem`] if there is none, or a section is damaged.
pub fn decode_certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    const WANTED: &str = "CERTIFICATE";
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text)
        .map(|section| section.map(|der| der.to_vec()))
        .collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(Error::Pem {
            wanted: WANTED,
            reason: "there is none".into(),
        }),
        Err(e) => Err(Error::Pem {
            wanted: WANTED,
            reason: e.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_round_trip_in_lines_of_64() {
        let der = [7; 100];
        let text = encode_certificates([der.as_slice(), &[1, 2, 3]]);
        assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
        assert_eq!(
            decode_certificates(text.as_bytes()).unwrap(),
            vec![der.to_vec(), vec![1, 2, 3]]
        );
    }

    #[test]
    fn a_text_without_certificates_is_refused() {
        assert!(decode_certificates(b"").is_err());
        assert!(
            decode_certificates(b"-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n")
                .is_err()
        );
        assert!(decode_certificates(encode("PRIVATE KEY", &[1]).as_bytes()).is_err());
    }
}
