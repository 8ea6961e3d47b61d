//! Certificates in a temporary folder, and servers on free ports.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of this"
)]

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use moat_net::tls::{ClientAuth, ClientIdentity, ClientTls, ClientTlsConfig, Roots, ServerTls};
use moat_net::{Body, Drain, Limits, Listener, ListenerConfig, Peer, Service};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Long enough for any machine, short enough to tell a hang.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it should not take this long")
}

/// A self-signed certificate and its key.
pub struct SelfSigned {
    pub cert_pem: String,
    pub cert_der: Vec<u8>,
    pub key: KeyPair,
}

pub fn self_signed(adjust: impl FnOnce(&mut CertificateParams)) -> SelfSigned {
    self_signed_with(KeyPair::generate().unwrap(), adjust)
}

pub fn self_signed_with(key: KeyPair, adjust: impl FnOnce(&mut CertificateParams)) -> SelfSigned {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    adjust(&mut params);
    let cert = params.self_signed(&key).unwrap();
    SelfSigned {
        cert_pem: cert.pem(),
        cert_der: cert.der().to_vec(),
        key,
    }
}

/// A folder with `server.crt`, `server.key`.
pub struct Files {
    pub dir: TempDir,
    pub server: SelfSigned,
}

impl Files {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let server = self_signed(|_| {});
        let files = Self { dir, server };
        files.install(&files.server);
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn install(&self, pair: &SelfSigned) {
        std::fs::write(self.path("server.crt"), &pair.cert_pem).unwrap();
        std::fs::write(self.path("server.key"), pair.key.serialize_pem()).unwrap();
    }

    pub fn server_tls(&self, auth: ClientAuth) -> ServerTls {
        ServerTls::load(self.path("server.crt"), self.path("server.key"), auth).unwrap()
    }

    pub fn client_tls(&self, identity: Option<&SelfSigned>) -> ClientTls {
        client_tls(&self.server.cert_pem, identity)
    }
}

pub fn client_tls(trusted_pem: &str, identity: Option<&SelfSigned>) -> ClientTls {
    ClientTls::load(ClientTlsConfig {
        roots: Roots {
            pem: vec![trusted_pem.as_bytes().to_vec().into()],
            ..Roots::default()
        },
        identity: identity.map(|pair| ClientIdentity::Der {
            chain: vec![pair.cert_der.clone().into()],
            key_pkcs8: zeroize::Zeroizing::new(pair.key.serialize_der()),
        }),
        insecure: false,
        ..ClientTlsConfig::default()
    })
    .unwrap()
}

/// A service made of a closure.
pub struct Fn2<F>(pub F);

impl<F, R> Service for Fn2<F>
where
    F: Fn(Arc<Peer>, Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    async fn call(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        (self.0)(Arc::clone(peer), request).await
    }
}

pub struct Server {
    pub addr: SocketAddr,
    pub drain: Drain,
    pub task: JoinHandle<()>,
}

impl Server {
    pub fn start<S: Service>(tls: Option<ServerTls>, limits: Limits, service: S) -> Self {
        Self::start_with(tls, limits, service, |listener| listener)
    }

    pub fn start_with<S: Service>(
        tls: Option<ServerTls>,
        limits: Limits,
        service: S,
        change: impl FnOnce(Listener) -> Listener,
    ) -> Self {
        let config = ListenerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            tls,
            limits,
        };
        let listener = change(Listener::bind(config).unwrap());
        let addr = listener.local_addr();
        let drain = Drain::new();
        let task = tokio::spawn(listener.serve(Arc::new(service), drain.clone()));
        Self { addr, drain, task }
    }

    pub async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.addr)).await.unwrap()
    }
}

/// Sends `request` and returns everything until the server closes.
pub async fn say(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    read_to_end(stream).await
}

pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer is as good an end as any.
    let _ = soon(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `marker` has come.
pub async fn read_until(stream: &mut TcpStream, marker: &str) -> String {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(marker) {
        let mut piece = [0; 1024];
        let n = soon(stream.read(&mut piece)).await.unwrap();
        assert!(n > 0, "closed before {marker:?}: {answer:?}");
        answer.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
