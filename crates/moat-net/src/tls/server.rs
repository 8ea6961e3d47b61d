//! The listener's side of TLS.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use bytes::Bytes;
use moat_types::SecretString;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use super::any_client::AnyClientCertificate;
use super::by_name::ByName;
use super::client::load_root_files;
use super::files::{Watched, load_pair_with_password, pair_from_der};
use super::reload::{self, Reload, ReloadGuard, lock};
use super::{TlsReader, Versions};
use crate::Error;
use crate::socket::Socket;

/// Sessions kept for resumption. An entry is about 1 KiB, more with a client certificate; S3
/// clients open connections in bursts of some hundred.
const SESSIONS_MAX: usize = 8192;

/// Sessions that a new connection of TLS 1.3 gives its client to resume.
const TICKETS: usize = 1;

/// The first byte of every TLS connection: the content type of its ClientHello (RFC 8446 section
/// 5.1). No HTTP method begins with it.
const HANDSHAKE_RECORD: u8 = 22;
/// For people and clients who took the wrong scheme, instead of an alert that they can't read.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n\
    content-length: 63\r\nconnection: close\r\n\r\n\
    This port speaks https, and the request was http: use https://\n";

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// Never asked.
    None,
    /// Asked; any or none is fine, and possession of the key is proved. See
    /// [`crate::Peer::client_key`].
    Requested,
}

/// What [`ServerTls`] is made of.
#[derive(Clone, Debug)]
pub struct ServerTlsConfig {
    /// At least one. A client gets the first that covers the name it asks for and that its algorithms
    /// can verify; one that names no other, or no name, gets the first of all.
    pub certificates: Vec<ServerIdentity>,
    /// Whether clients are asked for a certificate; [`Self::client_ca`] goes before it.
    pub client_auth: ClientAuth,
    /// PEM bundles of the CAs that every client must show a certificate of. Reloaded when they change.
    pub client_ca: Vec<PathBuf>,
    /// TLS versions.
    pub versions: Versions,
}

/// A certificate that a server shows, and its key.
#[derive(Clone)]
pub enum ServerIdentity {
    /// PEM files, reloaded when they change.
    Files {
        /// Certificate chain, leaf first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
        /// The password of an encrypted key.
        password: Option<SecretString>,
    },
    /// Values at hand.
    Der {
        /// Certificate chain, leaf first.
        chain: Vec<Bytes>,
        /// Its private key, PKCS#8.
        key_pkcs8: Zeroizing<Vec<u8>>,
    },
}

impl ServerIdentity {
    pub(super) fn load(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
        match self {
            Self::Files {
                certificate,
                key,
                password,
            } => {
                let pair = load_pair_with_password(certificate, key, password.as_ref(), provider)?;
                Ok(Arc::new(pair))
            }
            Self::Der { chain, key_pkcs8 } => pair_from_der(chain, key_pkcs8, provider),
        }
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { certificate, .. } => f.debug_tuple("Files").field(certificate).finish(),
            Self::Der { .. } => f.write_str("Der(REDACTED)"),
        }
    }
}

/// A listener's certificates and TLS parameters. Clones share them.
#[derive(Clone)]
pub struct ServerTls(Arc<Inner>);

struct Inner {
    settings: ServerTlsConfig,
    provider: Arc<CryptoProvider>,
    /// Kept over reloads, so that sessions are.
    sessions: Arc<ServerSessionMemoryCache>,
    http2: bool,
    current: ArcSwap<ServerConfig>,
    watched: Mutex<Watched>,
}

pub(crate) enum Handshake {
    Done(Box<TlsStream<TlsReader<Socket>>>),
    Failed(io::Error),
}

impl ServerTls {
    /// Reads the certificate chain and key from PEM files.
    ///
    /// # Errors
    /// The file that is unreadable or unfit, and what to do about it.
    pub fn load(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
        client_auth: ClientAuth,
    ) -> Result<Self, Error> {
        Self::with(ServerTlsConfig {
            certificates: vec![ServerIdentity::Files {
                certificate: certificate.into(),
                key: key.into(),
                password: None,
            }],
            client_auth,
            client_ca: Vec::new(),
            versions: Versions::default(),
        })
    }

    /// Reads all files that `settings` name.
    ///
    /// # Errors
    /// The file that is unreadable or unfit, and what to do about it.
    pub fn with(settings: ServerTlsConfig) -> Result<Self, Error> {
        Self::build(settings, true)
    }

    fn build(settings: ServerTlsConfig, http2: bool) -> Result<Self, Error> {
        let provider = super::provider();
        let watched = Watched::new(files_of(&settings));
        // Kept here rather than in tickets: the client's certificate stays with its session.
        let sessions = ServerSessionMemoryCache::new(SESSIONS_MAX);
        let config = server_config(&settings, &provider, Arc::clone(&sessions), http2)?;
        Ok(Self(Arc::new(Inner {
            settings,
            provider,
            sessions,
            http2,
            current: ArcSwap::from_pointee(config),
            watched: Mutex::new(watched),
        })))
    }

    /// Offers HTTP/1.1 only. For protocols whose clients break on HTTP/2.
    #[must_use]
    pub fn without_http2(self) -> Self {
        let inner = &self.0;
        let mut config = (*inner.current.load_full()).clone();
        config.alpn_protocols = alpn(false);
        Self(Arc::new(Inner {
            settings: inner.settings.clone(),
            provider: Arc::clone(&inner.provider),
            sessions: Arc::clone(&inner.sessions),
            http2: false,
            current: ArcSwap::from_pointee(config),
            watched: Mutex::new(Watched::new(files_of(&inner.settings))),
        }))
    }

    /// Reads the files again, now. New connections use what is read; running ones stay.
    ///
    /// # Errors
    /// As [`Self::load`]; what was in use stays.
    pub fn reload(&self) -> Result<(), Error> {
        self.0.reload()
    }

    /// Watches the files until the guard is dropped. A [`crate::Listener`] does this by itself.
    pub fn watch(&self) -> ReloadGuard {
        reload::watch(&self.0)
    }

    pub(crate) async fn accept(&self, socket: Socket) -> Handshake {
        let mut socket = TlsReader::new(socket);
        match socket.peek().await {
            Ok(Some(HANDSHAKE_RECORD)) => {}
            Ok(Some(_)) => {
                let _ = socket.write_all(NOT_TLS).await;
                let _ = socket.shutdown().await;
                return Handshake::Failed(io::Error::other("the peer does not speak tls"));
            }
            Ok(None) => return Handshake::Failed(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Handshake::Failed(error),
        }
        let acceptor = TlsAcceptor::from(self.0.current.load_full());
        match acceptor.accept(socket).await {
            Ok(stream) => Handshake::Done(Box::new(stream)),
            Err(error) => Handshake::Failed(error),
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls")
            .field(&self.0.settings.certificates)
            .finish()
    }
}

impl Reload for Inner {
    fn files_changed(&self) -> bool {
        lock(&self.watched).changed()
    }

    fn reload(&self) -> Result<(), Error> {
        // Who was let in by a CA that is no longer trusted must not come back by an old session.
        let sessions = if self.settings.client_ca.is_empty() {
            Arc::clone(&self.sessions)
        } else {
            ServerSessionMemoryCache::new(SESSIONS_MAX)
        };
        let config = server_config(&self.settings, &self.provider, sessions, self.http2)?;
        self.current.store(Arc::new(config));
        Ok(())
    }
}

fn files_of(settings: &ServerTlsConfig) -> Vec<PathBuf> {
    let mut files = settings.client_ca.clone();
    for identity in &settings.certificates {
        if let ServerIdentity::Files {
            certificate, key, ..
        } = identity
        {
            files.extend([certificate.clone(), key.clone()]);
        }
    }
    files
}

fn server_config(
    settings: &ServerTlsConfig,
    provider: &Arc<CryptoProvider>,
    sessions: Arc<ServerSessionMemoryCache>,
    http2: bool,
) -> Result<ServerConfig, Error> {
    let unusable = |error: rustls::Error| Error::Tls(error.to_string());
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(settings.versions.list())
        .map_err(unusable)?;
    let builder = if settings.client_ca.is_empty() {
        match settings.client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Requested => {
                builder.with_client_cert_verifier(AnyClientCertificate::new(Arc::clone(provider)))
            }
        }
    } else {
        builder.with_client_cert_verifier(verifier(&settings.client_ca, provider)?)
    };
    let certificates = ByName::load(&settings.certificates, provider)?;
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = alpn(http2);
    config.session_storage = sessions;
    // Each resumption brings a new one, and an unused ticket is a session that is kept in vain.
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}

fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let all: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    all.iter().map(|protocol| protocol.to_vec()).collect()
}

/// Demands a certificate of one of these CAs, valid now.
fn verifier(
    files: &[PathBuf],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = load_root_files(files)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::Tls(format!("client CAs: {error}")))
}
