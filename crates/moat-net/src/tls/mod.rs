//! TLS of both sides on rustls with aws-lc-rs: versions 1.2 and 1.3, the hybrid key exchange
//! X25519MLKEM768 first, certificates from PEM files that are watched and reloaded.
//!
//! [`ServerTls`] is a listener's side; with [`ClientAuth::Requested`] it asks for a client certificate
//! and proves possession of its key, nothing more: identities of the key manager are public keys,
//! not names vouched for by a CA. [`ClientTls`] is the dialling side.

mod any_client;
mod by_name;
mod client;
mod encrypted_key;
mod files;
mod reader;
mod reload;
mod server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::{ClientIdentity, ClientTls, ClientTlsConfig, Roots};
pub(crate) use reader::TlsReader;
pub use reload::ReloadGuard;
pub(crate) use server::Handshake;
pub use server::{ClientAuth, ServerIdentity, ServerTls, ServerTlsConfig};

/// TLS versions that may be spoken. Older ones are not implemented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.3, and 1.2 with whom it must be.
    #[default]
    Both,
    /// For inspection devices that read no 1.3.
    Only12,
    /// For where everybody speaks it.
    Only13,
}

impl Versions {
    fn list(self) -> &'static [&'static rustls::SupportedProtocolVersion] {
        use rustls::SupportedProtocolVersion as Version;
        static ONLY_12: [&Version; 1] = [&rustls::version::TLS12];
        static ONLY_13: [&Version; 1] = [&rustls::version::TLS13];
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Only12 => &ONLY_12,
            Self::Only13 => &ONLY_13,
        }
    }
}

/// The one crypto provider, with the post-quantum hybrid preferred.
///
/// A client that prefers it sends its share in the first flight, so that a server which knows it
/// needs no second round trip; a server that doesn't takes the X25519 share beside it.
pub fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group;
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        kx_group::X25519MLKEM768,
        kx_group::X25519,
        kx_group::SECP256R1,
        kx_group::SECP384R1,
    ];
    Arc::new(provider)
}
