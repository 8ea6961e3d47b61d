//! Which of a listener's certificates a client gets.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ServerIdentity;
use crate::Error;

/// Certificates in the order of their preference.
#[derive(Debug)]
pub(super) struct ByName(Vec<Named>);

#[derive(Debug)]
struct Named {
    pair: Arc<CertifiedKey>,
    /// DNS names in lower case; a wildcard begins with `*.`.
    names: Vec<String>,
}

impl ByName {
    /// Reads all of them.
    pub(super) fn load(
        identities: &[ServerIdentity],
        provider: &CryptoProvider,
    ) -> Result<Self, Error> {
        if identities.is_empty() {
            return Err(Error::Tls("a listener needs a certificate".into()));
        }
        let load = |identity: &ServerIdentity| {
            let pair = identity.load(provider)?;
            let names = pair
                .cert
                .first()
                .map_or_else(Vec::new, |leaf| dns_names(leaf));
            Ok(Named { pair, names })
        };
        identities
            .iter()
            .map(load)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first that covers the name and that the client can verify, else the first it can verify at
    /// all, else the first: then the handshake says what is wrong.
    fn choose(&self, name: Option<&str>, usable: impl Fn(&CertifiedKey) -> bool) -> &Named {
        let name = name.map(str::to_ascii_lowercase);
        let covering = self.0.iter().filter(|one| {
            let name = name.as_deref();
            name.is_some_and(|name| one.names.iter().any(|pattern| covers(pattern, name)))
        });
        let mut usable_of_name = covering.filter(|one| usable(&one.pair));
        usable_of_name
            .next()
            .or_else(|| self.0.iter().find(|one| usable(&one.pair)))
            .unwrap_or(&self.0[0])
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &*self.0 {
            return Some(Arc::clone(&only.pair));
        }
        let schemes = hello.signature_schemes();
        let usable = |pair: &CertifiedKey| pair.key.choose_scheme(schemes).is_some();
        let chosen = self.choose(hello.server_name(), usable);
        Some(Arc::clone(&chosen.pair))
    }
}

fn dns_names(leaf: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

/// A wildcard stands for exactly one label (RFC 6125 section 6.4.3).
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        assert!(covers("a.example", "a.example"));
        assert!(covers("*.example", "a.example"));
        assert!(!covers("*.example", "example"));
        assert!(!covers("*.example", "a.b.example"));
        assert!(!covers("*.example", ".example"));
    }
}
