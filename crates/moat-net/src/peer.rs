//! The facts of a connection that a service may decide by.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Who is at the other end, and through which door it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer's address.
    pub addr: SocketAddr,
    /// Our address as the peer dialled it.
    pub local: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The key that the peer proved to hold, if it showed a certificate. Neither chain nor expiry
    /// were checked: what the key may do is the service's decision.
    pub client_key: Option<ClientKey>,
    /// The text of `addr`, which every request's log lines hold.
    addr_text: Arc<str>,
}

impl Peer {
    /// A peer on a plain connection.
    pub fn plain(addr: SocketAddr, local: SocketAddr) -> Self {
        Self {
            addr,
            local,
            tls: false,
            client_key: None,
            addr_text: addr.to_string().into(),
        }
    }

    /// The text of the peer's address.
    pub const fn addr_text(&self) -> &Arc<str> {
        &self.addr_text
    }

    /// The scheme of URLs that reach the listener: `https` or `http`.
    pub const fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

/// The public key of a client certificate whose private half the client proved to hold.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// SHA-256 of the DER `SubjectPublicKeyInfo`. This is the identity: it survives a renewal of
    /// the certificate under the same key.
    pub spki_sha256: [u8; 32],
    /// The end-entity certificate, DER.
    pub cert_der: Bytes,
}

impl ClientKey {
    /// Reads the public key out of a certificate.
    ///
    /// `None` if `der` is not an X.509 certificate.
    pub fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let spki = certificate.tbs_certificate.subject_pki.raw;
        let hash = digest::digest(&digest::SHA256, spki);
        Some(Self {
            spki_sha256: hash
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest has 32 bytes"),
            cert_der: Bytes::copy_from_slice(der),
        })
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey(")?;
        for byte in self.spki_sha256 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
