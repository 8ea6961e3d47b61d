//! What a certificate says about itself, for the doctor and for renewals. Nothing here verifies a
//! signature: that is the TLS library's job.

use std::net::IpAddr;

use moat_types::UnixMillis;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::private_key::sha256;
use crate::{Error, SubjectName, pem};

/// The facts of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whom it names, as `CN=..., O=...`.
    pub subject: String,
    /// Who signed it, in the same form.
    pub issuer: String,
    /// The serial number, lower-case hex.
    pub serial: String,
    /// Valid from this instant,
    pub not_before: UnixMillis,
    /// up to and including this one.
    pub not_after: UnixMillis,
    /// The hosts that it vouches for.
    pub names: Vec<SubjectName>,
    /// Whether it may sign other certificates.
    pub is_ca: bool,
    /// Whether a server may present it (no extended key usage at all counts as yes).
    pub server_auth: bool,
    /// Whether a client may present it (likewise).
    pub client_auth: bool,
    /// The public key's kind and size, as `ECDSA 256` or `RSA 2048`.
    pub public_key: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER).
    pub public_key_sha256: [u8; 32],
    /// SHA-256 of the whole certificate, as browsers and keytool show it.
    pub fingerprint_sha256: [u8; 32],
}

impl CertificateInfo {
    /// Reads one DER certificate.
    ///
    /// # Errors
    /// [`Error::Certificate`] if it is not X.509, or bytes follow it.
    pub fn parse(der: &[u8]) -> Result<Self, Error> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|e| malformed(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow the certificate"));
        }
        let usage = certificate
            .extended_key_usage()
            .map_err(|e| malformed(&e.to_string()))?;
        let allows = |test: fn(&x509_parser::extensions::ExtendedKeyUsage<'_>) -> bool| {
            usage.as_ref().is_none_or(|u| u.value.any || test(u.value))
        };
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: hex::encode(certificate.raw_serial()),
            not_before: UnixMillis(validity.not_before.timestamp() * 1000),
            not_after: UnixMillis(validity.not_after.timestamp() * 1000),
            names: names(&certificate),
            is_ca: certificate.is_ca(),
            server_auth: allows(|u| u.server_auth),
            client_auth: allows(|u| u.client_auth),
            public_key: describe_key(&certificate),
            public_key_sha256: sha256(certificate.public_key().raw),
            fingerprint_sha256: sha256(der),
        })
    }

    /// Reads every certificate of a PEM text, in order.
    ///
    /// # Errors
    /// [`Error::Pem`] if there is none; [`Error::Certificate`] if one is malformed.
    pub fn parse_pem(text: &[u8]) -> Result<Vec<Self>, Error> {
        pem::decode_certificates(text)?
            .iter()
            .map(|der| Self::parse(der))
            .collect()
    }

    /// Whether `now` lies in the validity.
    pub fn is_valid_at(&self, now: UnixMillis) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Whether a client that connects to `host` may accept it. The subject's common name does not
    /// count (RFC 6125 section 6.4.4; Java and Go dropped it long ago).
    pub fn covers(&self, host: &SubjectName) -> bool {
        self.names.iter().any(|name| name.matches(host))
    }
}

/// Whether two thirds of the certificate's life are over (the point at which ACME clients renew as
/// well), which leaves the last third to notice a renewal that fails.
pub fn needs_renewal(certificate: &CertificateInfo, now: UnixMillis) -> bool {
    let life = certificate.not_after.0 - certificate.not_before.0;
    now.0 >= certificate.not_before.0 + life / 3 * 2
}

fn malformed(reason: &str) -> Error {
    Error::Certificate {
        reason: reason.to_owned(),
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<SubjectName> {
    certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(list) => Some(&list.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(dns) => Some(SubjectName::Dns(dns.to_ascii_lowercase())),
            GeneralName::IPAddress(bytes) => address(bytes).map(SubjectName::Ip),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn describe_key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("ECDSA {}", point.key_size()),
        Ok(_) | Err(_) => certificate.public_key().algorithm.algorithm.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_after_two_thirds() {
        let mut info = CertificateInfo {
            subject: String::new(),
            issuer: String::new(),
            serial: String::new(),
            not_before: UnixMillis(0),
            not_after: UnixMillis(300),
            names: Vec::new(),
            is_ca: false,
            server_auth: true,
            client_auth: true,
            public_key: String::new(),
            public_key_sha256: [0; 32],
            fingerprint_sha256: [0; 32],
        };
        assert!(!needs_renewal(&info, UnixMillis(199)));
        assert!(needs_renewal(&info, UnixMillis(200)));
        assert!(info.is_valid_at(UnixMillis(300)));
        assert!(!info.is_valid_at(UnixMillis(301)));
        info.not_before = UnixMillis(10);
        assert!(!info.is_valid_at(UnixMillis(9)));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(CertificateInfo::parse(b"").is_err());
        assert!(CertificateInfo::parse(&[0x30, 0x03, 1, 2, 3]).is_err());
    }
}
