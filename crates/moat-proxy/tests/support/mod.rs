//! Upstreams that do as they are told, a proxy in front of them, and clients of it.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of this"
)]

pub mod gateway;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use moat_net::tls::{ClientAuth, ClientTls, ClientTlsConfig, Roots, ServerTls};
use moat_net::{
    Body, ClientConfig, Drain, Endpoint, HttpClient, Limits, Listener, ListenerConfig, Peer,
    Service,
};
use moat_proxy::status::EndpointStatus;
use moat_proxy::{Config, Proxy, Upstream};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Long enough for any machine, short enough to tell a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it should not take this long")
}

/// One certificate for localhost, and whoever trusts it.
pub struct Pki {
    dir: TempDir,
    pem: String,
}

impl Pki {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A certificate whose time is over.
    pub fn expired() -> Self {
        Self::with(|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let dir = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("crt"), cert.pem()).unwrap();
        std::fs::write(dir.path().join("key"), key.serialize_pem()).unwrap();
        Self {
            dir,
            pem: cert.pem(),
        }
    }

    /// Puts certificate and key in the place of others.
    pub fn copy_to(&self, certificate: &std::path::Path, key: &std::path::Path) {
        for (from, to) in [("crt", certificate), ("key", key)] {
            std::fs::copy(self.dir.path().join(from), to).unwrap();
        }
    }

    pub fn server(&self) -> ServerTls {
        let file = |name| self.dir.path().join(name);
        ServerTls::load(file("crt"), file("key"), ClientAuth::None).unwrap()
    }

    pub fn client(&self) -> ClientTls {
        self.client_trusting(&[])
    }

    /// Trusts this and others.
    pub fn client_trusting(&self, others: &[&Self]) -> ClientTls {
        let all = others.iter().copied().chain([self]);
        ClientTls::load(ClientTlsConfig {
            roots: Roots {
                pem: all.map(|one| Bytes::from(one.pem.clone())).collect(),
                ..Roots::default()
            },
            ..ClientTlsConfig::default()
        })
        .unwrap()
    }
}

/// A service made of a closure. Health checks are answered 200 and not shown to it.
pub struct Handler<F>(pub F);

impl<F, R> Service for Handler<F>
where
    F: Fn(Request<Body>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    async fn call(&self, _: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        if request.uri().path().starts_with("/minio/health/") {
            return Response::new(Body::empty());
        }
        (self.0)(request).await
    }
}

/// A listener with its drain signal.
pub struct Server {
    pub addr: SocketAddr,
    pub drain: Drain,
    pub task: JoinHandle<()>,
}

impl Server {
    pub fn start<S: Service>(address: SocketAddr, tls: Option<ServerTls>, service: Arc<S>) -> Self {
        let config = ListenerConfig {
            address,
            tls,
            limits: Limits::default(),
        };
        let listener = Listener::bind(config).unwrap();
        let addr = listener.local_addr();
        let drain = Drain::new();
        let task = tokio::spawn(listener.serve(service, drain.clone()));
        Self { addr, drain, task }
    }

    /// An upstream on a free port.
    pub fn upstream<F, R>(tls: Option<ServerTls>, handler: F) -> Self
    where
        F: Fn(Request<Body>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start(any_port(), tls, Arc::new(Handler(handler)))
    }

    pub fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.addr.port())
    }
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A port that nobody listens on.
pub async fn dead_port() -> u16 {
    let listener = TcpListener::bind(any_port()).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A proxy with a plain listener and, if told, a TLS one.
pub struct Front {
    pub plain: Server,
    pub tls: Option<Server>,
    pub proxy: Arc<Proxy>,
}

pub fn config(upstreams: &[String]) -> Config {
    let upstreams = upstreams.iter().map(|url| Upstream::parse(url).unwrap());
    let mut config = Config::new(upstreams.collect());
    // Quick enough for a test that waits for a change, slow enough not to be the load.
    config.sites[0].health.interval = Duration::from_millis(100);
    config.sites[0].health.interval_down = Duration::from_millis(50);
    config
}

impl Front {
    pub fn start(config: Config, pki: Option<&Pki>) -> Self {
        let proxy = Arc::new(Proxy::new(config).unwrap());
        Self {
            plain: Server::start(any_port(), None, Arc::clone(&proxy)),
            tls: pki.map(|pki| Server::start(any_port(), Some(pki.server()), Arc::clone(&proxy))),
            proxy,
        }
    }

    pub fn to(upstreams: &[&Server]) -> Self {
        let urls: Vec<_> = upstreams.iter().map(|one| one.url("http")).collect();
        Self::start(config(&urls), None)
    }

    pub fn plain_endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.plain.url("http")).unwrap()
    }

    pub fn tls_endpoint(&self) -> Endpoint {
        Endpoint::parse(&self.tls.as_ref().unwrap().url("https")).unwrap()
    }

    pub async fn connect(&self) -> TcpStream {
        soon(TcpStream::connect(self.plain.addr)).await.unwrap()
    }

    /// What is known of all endpoints, site after site.
    pub fn endpoints(&self) -> Vec<EndpointStatus> {
        let sites = self.proxy.status().sites;
        sites.into_iter().flat_map(|site| site.endpoints).collect()
    }

    pub fn in_flight(&self) -> usize {
        self.endpoints().iter().map(EndpointStatus::in_flight).sum()
    }

    /// Waits until the endpoints' states are these.
    pub async fn until_up(&self, states: &[bool]) {
        self.until(|front| {
            let up = front.endpoints().into_iter().map(|one| one.is_up());
            up.eq(states.iter().copied())
        })
        .await;
    }

    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        soon(async {
            while !holds(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

pub fn client(pki: Option<&Pki>) -> HttpClient {
    HttpClient::new(ClientConfig {
        tls: pki.map(Pki::client),
        ..ClientConfig::default()
    })
}

pub fn get(path: &str) -> Request<Body> {
    request("GET", path, Body::empty())
}

pub fn request(method: &str, path: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .unwrap()
}

pub async fn text(response: Response<Body>) -> String {
    let bytes = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// An upstream on bare TCP: health checks are answered, of every other connection's first request
/// the head is reported, and `act` does the rest.
pub async fn raw_upstream<F, R>(act: F) -> (String, mpsc::UnboundedReceiver<String>)
where
    F: Fn(TcpStream) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heads, seen) = mpsc::unbounded_channel();
    let act = Arc::new(act);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (heads, act) = (heads.clone(), Arc::clone(&act));
            tokio::spawn(async move {
                let Some(head) = read_head(&mut stream).await else {
                    return;
                };
                if head.contains("/minio/health/") {
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    return;
                }
                let _ = heads.send(head);
                act(stream).await;
            });
        }
    });
    (url, seen)
}

/// Everything up to and with the empty line, one byte at a time so that no body byte is taken.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A list that handlers write to.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
