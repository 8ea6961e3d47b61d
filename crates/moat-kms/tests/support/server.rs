//! A key manager behind a listener on loopback, its client, and one that sends what the real client
//! would not.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "not every test file uses all of it, and a failed unwrap fails the test"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moat_kms::audit::AuditConfig;
use moat_kms::{Core, CoreConfig, HsmKey, KmsServer, ServerInfo};
use moat_kms_client::wire::PolicyDocument;
use moat_kms_client::{ApiKey, Client, ClientConfig, Code, Credential, Error, Privilege};
use moat_meta::{Embedded, Options};
use moat_net::tls::{ClientAuth, Roots, ServerTls};
use moat_net::{Drain, Limits, Listener, ListenerConfig};
use moat_pki::{CaRequest, CertificateAuthority, KeyAlgorithm, LeafRequest, PrivateKey};
use moat_pki::{SubjectName, Usage};
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};

pub const DAY: Duration = Duration::from_secs(24 * 3600);
/// A key manager on a free port, and what its clients need.
pub struct Server {
    pub folder: tempfile::TempDir,
    pub root: ApiKey,
    hsm: String,
    pub ca_pem: String,
    pub lease_ttl: Duration,
    pub address: SocketAddr,
    pub running: Option<Running>,
}

pub struct Running {
    pub core: Arc<Core<Embedded>>,
    drain: Drain,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(lease_ttl: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
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
        std::fs::write(folder.path().join("tls.crt"), issued.chain_pem()).unwrap();
        std::fs::write(folder.path().join("tls.key"), key.to_pem().expose()).unwrap();
        let mut server = Self {
            folder,
            root: ApiKey::generate(&SystemRandom),
            hsm: HsmKey::generate(&SystemRandom)
                .to_text()
                .expose()
                .to_owned(),
            ca_pem: ca.certificate_pem(),
            lease_ttl,
            address: "127.0.0.1:0".parse().unwrap(),
            running: None,
        };
        server.run().await;
        server
    }

    /// Starts, on the same port as before if there was one.
    pub async fn run(&mut self) {
        let store = Embedded::open(self.path("state"), Options::default()).unwrap();
        let config = CoreConfig {
            hsm: Box::new(HsmKey::parse(&self.hsm).unwrap()),
            root: Some(self.root.identity()),
            lease_ttl: self.lease_ttl,
            audit: AuditConfig::new(self.path("audit")),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let core = Core::open(store, config).await.unwrap();
        let tls = ServerTls::load(
            self.path("tls.crt"),
            self.path("tls.key"),
            ClientAuth::Requested,
        );
        let listener = Listener::bind(ListenerConfig {
            address: self.address,
            tls: Some(tls.unwrap()),
            limits: Limits::default(),
        })
        .unwrap();
        self.address = listener.local_addr();
        let info = ServerInfo {
            version: "test".into(),
            commit: String::new(),
            host: self.address.to_string(),
        };
        let service = Arc::new(KmsServer::new(core.clone(), info, Arc::new(SystemRandom)));
        let drain = Drain::new();
        let serving = tokio::spawn(listener.serve(service, drain.clone()));
        self.running = Some(Running {
            core,
            drain,
            serving,
        });
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.drain.start(Duration::ZERO);
        running.serving.await.unwrap();
        running.core.close().await.unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn client(&self, credential: Credential) -> Arc<Client> {
        let roots = Roots {
            pem: vec![self.ca_pem.clone().into()],
            ..Roots::default()
        };
        let config = ClientConfig::new(self.address.to_string(), roots, credential);
        Arc::new(Client::new(config, &SystemClock, &SystemRandom).unwrap())
    }

    pub fn root_client(&self) -> Arc<Client> {
        self.client(Credential::ApiKey(self.root.clone()))
    }

    /// Enclave `lake` with key `k`, and a store that may lease under it.
    pub async fn with_store(&self) -> Arc<Client> {
        let root = self.root_client();
        root.create_enclave(&enclave()).await.unwrap();
        root.create_key(&enclave(), &key("k")).await.unwrap();
        let policy: PolicyDocument = serde_json::from_str(
            r#"{"allow":{"EPOCH:GENERATE":"k*","EPOCH:OPEN":"k*","KEY:STATUS":"k*"}}"#,
        )
        .unwrap();
        let lake = enclave();
        root.set_policy(Some(&lake), &key("store"), &policy)
            .await
            .unwrap();
        let store = ApiKey::generate(&SystemRandom);
        let policy = key("store");
        root.create_identity(
            Some(&lake),
            store.identity(),
            Privilege::User,
            Some(&policy),
        )
        .await
        .unwrap();
        self.client(Credential::ApiKey(store))
    }
}

pub fn enclave() -> EnclaveName {
    EnclaveName::parse("lake").unwrap()
}

pub fn key(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> Code {
    result.unwrap_err().code().unwrap()
}

/// Sends what the real client would not.
pub struct RawClient {
    http: moat_net::HttpClient,
    base: String,
}

impl RawClient {
    pub fn new(server: &Server) -> Self {
        Self::of(server, &server.root)
    }

    pub fn of(server: &Server, api_key: &ApiKey) -> Self {
        let (certificate, private) = api_key.to_certificate(&SystemClock, &SystemRandom).unwrap();
        let tls = moat_net::tls::ClientTls::load(moat_net::tls::ClientTlsConfig {
            roots: Roots {
                pem: vec![server.ca_pem.clone().into()],
                ..Roots::default()
            },
            identity: Some(moat_net::tls::ClientIdentity::Der {
                chain: vec![bytes::Bytes::copy_from_slice(&certificate)],
                key_pkcs8: zeroize::Zeroizing::new(private.secret_der().to_vec()),
            }),
            insecure: false,
            ..moat_net::tls::ClientTlsConfig::default()
        });
        let config = moat_net::ClientConfig {
            tls: Some(tls.unwrap()),
            ..Default::default()
        };
        Self {
            http: moat_net::HttpClient::new(config),
            base: format!("https://{}", server.address),
        }
    }

    pub async fn send(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        use http_body_util::BodyExt;
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(moat_net::Body::full(body.to_owned()))
            .unwrap();
        let answer = self.http.request(request).await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let status = answer.status().as_u16();
        let kind = if status < 300 {
            "application/json"
        } else {
            "application/problem+json"
        };
        assert_eq!(answer.headers()["content-type"], kind, "{method} {path}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }
}
