//! A key manager on a free port, and a KES client written from the protocol's description.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moat_kms::audit::AuditConfig;
use moat_kms::{Caller, Core, CoreConfig, HsmKey, KmsServer, PathPolicy, Scope, ServerInfo};
use moat_kms_client::{ApiKey, Identity, Privilege};
use moat_meta::{Embedded, Options};
use moat_net::tls::{ClientAuth, ServerTls};
use moat_net::{Drain, Limits, Listener, ListenerConfig};
use moat_pki::{CaRequest, CertificateAuthority, KeyAlgorithm, LeafRequest, PrivateKey};
use moat_pki::{SubjectName, Usage};
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A key manager with two enclaves: `lake`, where KES clients land, and `other`.
pub(crate) struct Rig {
    pub(crate) core: Arc<Core<Embedded>>,
    pub(crate) root: ApiKey,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
    ca: CertificateDer<'static>,
    drain: Drain,
    serving: tokio::task::JoinHandle<()>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, tls) = certificates(folder.path());
        let root = ApiKey::generate(&SystemRandom);
        let config = CoreConfig {
            hsm: Box::new(HsmKey::generate(&SystemRandom)),
            root: Some(root.identity()),
            lease_ttl: CoreConfig::LEASE_TTL,
            audit: AuditConfig::new(folder.path().join("audit")),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let store = Embedded::open(folder.path().join("state"), Options::default()).unwrap();
        let core = Core::open(store, config).await.unwrap();
        let listener = Listener::bind(ListenerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: Some(tls),
            limits: Limits::default(),
        })
        .unwrap();
        let address = listener.local_addr();
        let info = ServerInfo {
            version: "test".into(),
            commit: String::new(),
            host: address.to_string(),
        };
        let (random, place) = (Arc::new(SystemRandom), enclave("lake"));
        let server = KmsServer::with_kes_enclave(core.clone(), info, random, place);
        let service = Arc::new(server);
        let drain = Drain::new();
        let serving = tokio::spawn(listener.serve(service, drain.clone()));
        let rig = Self {
            core,
            root,
            address,
            _folder: folder,
            ca,
            drain,
            serving,
        };
        for name in ["lake", "other"] {
            let caller = rig.operator();
            rig.core
                .create_enclave(&caller, &enclave(name))
                .await
                .unwrap();
        }
        rig
    }

    pub(crate) async fn stop(self) {
        self.drain.start(Duration::ZERO);
        self.serving.await.unwrap();
        self.core.close().await.unwrap();
    }

    pub(crate) fn operator(&self) -> Caller {
        Caller::local(self.root.identity())
    }

    /// Makes an identity known in an enclave, with a policy of paths.
    pub(crate) async fn admit(&self, place: &str, identity: Identity, allow: &[&str]) {
        let (caller, scope) = (self.operator(), Scope::Enclave(enclave(place)));
        let paths = PathPolicy {
            allow: allow.iter().map(|path| (*path).to_owned()).collect(),
            deny: Vec::new(),
        };
        let text = identity.to_kes_text();
        let policy = KeyName::parse(&format!("policy-{}", &text[..8])).unwrap();
        self.core
            .set_policy(&caller, &scope, &policy, &paths.to_document().unwrap())
            .await
            .unwrap();
        self.core
            .create_identity(&caller, &scope, &identity, Privilege::User, Some(&policy))
            .await
            .unwrap();
    }

    /// A user of `lake` with a policy, connected.
    pub(crate) async fn user(&self, place: &str, allow: &[&str]) -> Client {
        let key = ApiKey::generate(&SystemRandom);
        self.admit(place, key.identity(), allow).await;
        self.connect(&Credential::of(&key), Http::One).await
    }

    pub(crate) async fn root_client(&self) -> Client {
        self.connect(&Credential::of(&self.root), Http::One).await
    }

    pub(crate) async fn connect(&self, credential: &Credential, http: Http) -> Client {
        self.connect_with(Some(credential), http, rustls::DEFAULT_VERSIONS)
            .await
    }

    pub(crate) async fn connect_with(
        &self,
        credential: Option<&Credential>,
        http: Http,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Client {
        let config = self.tls(credential, http, versions);
        self.connect_by(config, http).await.0
    }

    /// How a client does TLS. Connections by the same value resume each other's sessions.
    pub(crate) fn tls(
        &self,
        credential: Option<&Credential>,
        http: Http,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match credential {
            Some(credential) => builder
                .with_client_auth_cert(
                    vec![credential.certificate.clone()],
                    credential.key.clone_key(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![match http {
            Http::One => b"http/1.1".to_vec(),
            Http::Two => b"h2".to_vec(),
        }];
        Arc::new(config)
    }

    /// A connection, and whether it resumed a session.
    pub(crate) async fn connect_by(
        &self,
        config: Arc<rustls::ClientConfig>,
        http: Http,
    ) -> (Client, bool) {
        let socket = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(config);
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        let resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let stream = TokioIo::new(stream);
        let sender = match http {
            Http::One => {
                let (sender, connection) =
                    hyper::client::conn::http1::handshake(stream).await.unwrap();
                tokio::spawn(connection);
                Sender::One(sender)
            }
            Http::Two => {
                let executor = TokioExecutor::new();
                let (sender, connection) = hyper::client::conn::http2::handshake(executor, stream)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                Sender::Two(sender)
            }
        };
        let client = Client {
            sender,
            enclave: None,
        };
        (client, resumed)
    }
}

/// A CA, and a certificate of the server by it.
fn certificates(folder: &Path) -> (CertificateDer<'static>, ServerTls) {
    let request = CaRequest {
        common_name: "test CA".into(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: DAY,
        permitted: Vec::new(),
    };
    let ca = CertificateAuthority::create(&request, &SystemClock, &SystemRandom).unwrap();
    let leaf = LeafRequest {
        common_name: "kms".into(),
        usage: Usage::Server,
        names: vec![SubjectName::parse("127.0.0.1").unwrap()],
        validity: DAY,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issued = ca.issue(&leaf, &key, &SystemClock, &SystemRandom).unwrap();
    let (certificate, private) = (folder.join("tls.crt"), folder.join("tls.key"));
    std::fs::write(&certificate, issued.chain_pem()).unwrap();
    std::fs::write(&private, key.to_pem().expose()).unwrap();
    let tls = ServerTls::load(certificate, private, ClientAuth::Requested).unwrap();
    let ca = CertificateDer::from_pem_slice(ca.certificate_pem().as_bytes()).unwrap();
    (ca, tls)
}

pub(crate) fn enclave(name: &str) -> EnclaveName {
    EnclaveName::parse(name).unwrap()
}

/// A client certificate and its key.
pub(crate) struct Credential {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pub(crate) identity: Identity,
}

impl Credential {
    pub(crate) fn of(key: &ApiKey) -> Self {
        let identity = key.identity();
        let (certificate, key) = key.to_certificate(&SystemClock, &SystemRandom).unwrap();
        Self {
            certificate,
            key,
            identity,
        }
    }

    /// A self-signed certificate of a fresh key that expired long ago.
    pub(crate) fn expired(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let seen = moat_net::ClientKey::from_certificate(&certificate).unwrap();
        Self {
            certificate,
            identity: Identity::from_spki_sha256(seen.spki_sha256),
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Http {
    One,
    Two,
}

pub(crate) type RequestBody = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

enum Sender {
    One(hyper::client::conn::http1::SendRequest<RequestBody>),
    Two(hyper::client::conn::http2::SendRequest<RequestBody>),
}

/// A connection of a KES client.
pub(crate) struct Client {
    sender: Sender,
    /// What it sends as `Kes-Enclave`.
    pub(crate) enclave: Option<&'static str>,
}

/// An answer: status and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The JSON of a success.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and message of an error, as clients compare them.
    pub(crate) fn error(&self) -> (u16, String) {
        let body: Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"));
        (self.status, body["message"].as_str().unwrap().to_owned())
    }

    pub(crate) fn ok(&self) {
        assert_eq!(self.status, 200, "{self:?}");
    }
}

impl Client {
    /// As KES clients send: POST for whatever writes, bodies without a length.
    pub(crate) async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| Bytes::from(serde_json::to_vec(&body).unwrap()));
        self.send(method, path, body).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some(body)).await
    }

    pub(crate) async fn send(&mut self, method: &str, path: &str, body: Option<Bytes>) -> Answer {
        let body: RequestBody = match body {
            Some(bytes) => {
                let frames = [Ok(Frame::data(bytes))];
                StreamBody::new(futures_util::stream::iter(frames)).boxed()
            }
            None => Full::new(Bytes::new()).boxed(),
        };
        let response = self.open(method, path, body).await;
        let status = response.status().as_u16();
        let length = response.headers().get(header::CONTENT_LENGTH).cloned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(length.unwrap(), body.len().to_string().as_str(), "{path}");
        Answer { status, body }
    }

    /// Opens a stream of lines; returns once its head is there.
    pub(crate) async fn stream(&mut self, path: &str) -> Lines {
        let body = Full::new(Bytes::new()).boxed();
        let response = self.open("GET", path, body).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/x-ndjson"
        );
        Lines {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    pub(crate) async fn open(
        &mut self,
        method: &str,
        path: &str,
        body: RequestBody,
    ) -> Response<Incoming> {
        let uri = match self.sender {
            Sender::One(_) => path.to_owned(),
            Sender::Two(_) => format!("https://127.0.0.1{path}"),
        };
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(uri);
        if matches!(self.sender, Sender::One(_)) {
            request = request.header(header::HOST, "127.0.0.1");
        }
        if let Some(enclave) = self.enclave {
            request = request.header("Kes-Enclave", enclave);
        }
        let request = request.body(body).unwrap();
        match &mut self.sender {
            Sender::One(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Sender::Two(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
        }
    }
}

/// A log stream.
pub(crate) struct Lines {
    body: Incoming,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.frame().await?.unwrap();
            self.rest.extend_from_slice(&frame.into_data().unwrap());
        }
    }
}
