//! The listener's side of TLS.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::TlsReader;
use super::any_client::AnyClientCertificate;
use super::files::{Watched, load_pair};
use super::reload::{self, Reload, ReloadGuard, lock};
use crate::Error;
use crate::socket::Socket;

/// Sessions kept for resumption. An entry is about 1 KiB, more with a client certificate; S3
/// clients open connections in bursts of some hundred.
const SESSIONS_MAX: usize = 8192;

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

/// A listener's certificate and TLS parameters. Clones share them.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    pair: Arc<PairFromFiles>,
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
        let provider = super::provider();
        let pair = Arc::new(PairFromFiles::load(
            certificate.into(),
            key.into(),
            Arc::clone(&provider),
        )?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?;
        let builder = match client_auth {
            ClientAuth::None => builder.with_no_client_auth(),
            ClientAuth::Requested => {
                builder.with_client_cert_verifier(AnyClientCertificate::new(provider))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&pair) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Kept here rather than in tickets: the client's certificate stays with its session.
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(Self {
            config: Arc::new(config),
            pair,
        })
    }

    /// Offers HTTP/1.1 only. For protocols whose clients break on HTTP/2.
    #[must_use]
    pub fn without_http2(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![b"http/1.1".to_vec()];
        self
    }

    /// Reads the files again, now. New connections use what is read; running ones stay.
    ///
    /// # Errors
    /// As [`Self::load`]; the old pair stays in use.
    pub fn reload(&self) -> Result<(), Error> {
        self.pair.reload()
    }

    /// Watches the files until the guard is dropped. A [`crate::Listener`] does this by itself.
    pub fn watch(&self) -> ReloadGuard {
        reload::watch(&self.pair)
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
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
        match acceptor.accept(socket).await {
            Ok(stream) => Handshake::Done(Box::new(stream)),
            Err(error) => Handshake::Failed(error),
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls")
            .field(&self.pair.certificate)
            .finish()
    }
}

/// The pair in use and the files that it came from.
struct PairFromFiles {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    watched: Mutex<Watched>,
}

impl PairFromFiles {
    fn load(
        certificate: PathBuf,
        key: PathBuf,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, Error> {
        let watched = Watched::new(vec![certificate.clone(), key.clone()]);
        let pair = load_pair(&certificate, &key, &provider)?;
        Ok(Self {
            certificate,
            key,
            provider,
            current: ArcSwap::from_pointee(pair),
            watched: Mutex::new(watched),
        })
    }

    fn paths(&self) -> (&Path, &Path) {
        (&self.certificate, &self.key)
    }
}

impl Reload for PairFromFiles {
    fn files_changed(&self) -> bool {
        lock(&self.watched).changed()
    }

    fn reload(&self) -> Result<(), Error> {
        let (certificate, key) = self.paths();
        let pair = load_pair(certificate, key, &self.provider)?;
        self.current.store(Arc::new(pair));
        Ok(())
    }
}

impl ResolvesServerCert for PairFromFiles {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for PairFromFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PairFromFiles").field(&self.paths()).finish()
    }
}
