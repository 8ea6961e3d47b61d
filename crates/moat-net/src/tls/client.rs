//! The dialling side of TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use zeroize::Zeroizing;

use super::Versions;
use super::files::{Watched, load_bundle, load_pair, pair_from_der};
use super::reload::{self, Reload, ReloadGuard, lock};
use crate::Error;

/// Where distributions keep the bundle of public CAs.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Upstreams whose sessions are kept for resumption.
const SESSIONS_MAX: usize = 256;

/// Which CAs vouch for a server.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The CAs of the operating system.
    pub system: bool,
    /// PEM bundles, reloaded when they change.
    pub files: Vec<PathBuf>,
    /// A PEM bundle at hand.
    pub pem: Vec<Bytes>,
}

/// The certificate that a client shows.
#[derive(Clone)]
pub enum ClientIdentity {
    /// PEM files, reloaded when they change.
    Files {
        /// Certificate chain, leaf first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Values at hand.
    Der {
        /// Certificate chain, leaf first.
        chain: Vec<Bytes>,
        /// Its private key, PKCS#8.
        key_pkcs8: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, .. } => f.debug_tuple("Files").field(certificate).finish(),
            Self::Der { .. } => f.write_str("Der(REDACTED)"),
        }
    }
}

/// What [`ClientTls`] is made of.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsConfig {
    /// Trusted CAs. With none at all every server is refused.
    pub roots: Roots,
    /// The certificate to show when a server asks.
    pub identity: Option<ClientIdentity>,
    /// Accept any server certificate. For labs only; warns at every load.
    pub insecure: bool,
    /// TLS versions.
    pub versions: Versions,
}

/// A client's trust and identity. Clones share them.
#[derive(Clone)]
pub struct ClientTls(Arc<Inner>);

struct Inner {
    settings: ClientTlsConfig,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<ClientConfig>,
    watched: Mutex<Watched>,
}

impl ClientTls {
    /// Reads all files that `settings` name.
    ///
    /// # Errors
    /// The file that is unreadable or unfit, and what to do about it.
    pub fn load(settings: ClientTlsConfig) -> Result<Self, Error> {
        let provider = super::provider();
        let watched = Watched::new(files_of(&settings));
        let config = build(&settings, &provider)?;
        Ok(Self(Arc::new(Inner {
            settings,
            provider,
            current: ArcSwap::from_pointee(config),
            watched: Mutex::new(watched),
        })))
    }

    /// Reads the files again, now. New connections use what is read.
    ///
    /// # Errors
    /// As [`Self::load`]; what was in use stays.
    pub fn reload(&self) -> Result<(), Error> {
        self.0.reload()
    }

    /// Watches the files until the guard is dropped. A [`crate::HttpClient`] does this by itself.
    pub fn watch(&self) -> ReloadGuard {
        reload::watch(&self.0)
    }

    /// Whether any server certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.0.settings.insecure
    }

    /// The rustls configuration for the next connection.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.0.current.load_full()
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.0.settings).finish()
    }
}

impl Reload for Inner {
    fn files_changed(&self) -> bool {
        lock(&self.watched).changed()
    }

    fn reload(&self) -> Result<(), Error> {
        self.current
            .store(Arc::new(build(&self.settings, &self.provider)?));
        Ok(())
    }
}

fn system_bundle() -> Option<&'static Path> {
    SYSTEM_BUNDLES
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
}

fn files_of(settings: &ClientTlsConfig) -> Vec<PathBuf> {
    let mut files = settings.roots.files.clone();
    if settings.roots.system {
        files.extend(system_bundle().map(PathBuf::from));
    }
    if let Some(ClientIdentity::Files { certificate, key }) = &settings.identity {
        files.extend([certificate.clone(), key.clone()]);
    }
    files
}

fn build(
    settings: &ClientTlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(settings.versions.list())
        .map_err(|error| Error::Tls(error.to_string()))?;
    let builder = if settings.insecure {
        tracing::warn!("server certificates are not verified (insecure); use this in labs only");
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(Arc::clone(provider))))
    } else {
        builder.with_root_certificates(load_roots(&settings.roots)?)
    };
    let mut config = match load_identity(settings.identity.as_ref(), provider)? {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(OneCertificate(pair))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
    Ok(config)
}

fn load_roots(roots: &Roots) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    if roots.system {
        match system_bundle() {
            // Public bundles may hold a certificate that the parser refuses: skip it, as all do.
            Some(bundle) => drop(store.add_parsable_certificates(load_bundle(bundle)?)),
            None => tracing::warn!(
                "this system has no bundle of public CAs; install ca-certificates or name a bundle"
            ),
        }
    }
    store.extend(load_root_files(&roots.files)?.roots);
    for pem in &roots.pem {
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| Error::Tls(error.to_string()))?;
            store
                .add(certificate)
                .map_err(|error| Error::Tls(error.to_string()))?;
        }
    }
    Ok(store)
}

/// The certificates of PEM bundles, as CAs.
pub(super) fn load_root_files(files: &[PathBuf]) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for file in files {
        for certificate in load_bundle(file)? {
            store.add(certificate).map_err(|error| Error::BadPem {
                what: "certificate bundle",
                path: file.clone(),
                problem: error.to_string(),
            })?;
        }
    }
    Ok(store)
}

fn load_identity(
    identity: Option<&ClientIdentity>,
    provider: &CryptoProvider,
) -> Result<Option<Arc<CertifiedKey>>, Error> {
    Ok(match identity {
        None => None,
        Some(ClientIdentity::Files { certificate, key }) => {
            Some(Arc::new(load_pair(certificate, key, provider)?))
        }
        Some(ClientIdentity::Der { chain, key_pkcs8 }) => {
            Some(pair_from_der(chain, key_pkcs8, provider)?)
        }
    })
}

/// Shows its certificate to every server that asks, whichever issuers the server names: our own
/// servers name none, and identify clients by key.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes)?;
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Accepts every server.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
