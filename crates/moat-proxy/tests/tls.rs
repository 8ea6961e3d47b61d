//! Guards what the proxy does at the ends of TLS: who a client is by its certificate reaches the store
//! as it was proved and never as it was claimed; sessions are resumed on both sides.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use moat_net::tls::{
    ClientAuth, ClientIdentity, ClientTls, ClientTlsConfig, Roots, ServerIdentity, ServerTls,
    ServerTlsConfig, Versions,
};
use moat_net::{Body, ClientConfig, Endpoint, HttpClient};
use moat_proxy::Proxy;
use moat_proxy::config::PassCertificate;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use support::{Front, Notes, Server, any_port, client, config, soon};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, NamedGroup, ServerConfig};

/// A CA, a server certificate and a client certificate of it, as files.
struct Authority {
    dir: TempDir,
    ca: String,
}

impl Authority {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.crt"), &ca).unwrap();
        let issuer = Issuer::new(params, key);
        let this = Self { dir, ca };
        this.issue("server", &["localhost", "127.0.0.1"], &issuer);
        this.issue("etl", &["etl.lake"], &issuer);
        this
    }

    fn issue(&self, name: &str, hosts: &[&str], issuer: &Issuer<'_, KeyPair>) {
        let hosts = hosts
            .iter()
            .map(|host| (*host).to_owned())
            .collect::<Vec<_>>();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, issuer).unwrap();
        std::fs::write(self.file(&format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self) -> ServerTls {
        ServerTls::with(ServerTlsConfig {
            certificates: vec![ServerIdentity::Files {
                certificate: self.file("server.crt"),
                key: self.file("server.key"),
                password: None,
            }],
            client_auth: ClientAuth::None,
            client_ca: vec![self.file("ca.crt")],
            versions: Versions::Both,
        })
        .unwrap()
    }

    /// What an upstream has that is not ours.
    fn acceptor(&self) -> TlsAcceptor {
        let chain = CertificateDer::pem_file_iter(self.file("server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(moat_net::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    fn client(&self) -> HttpClient {
        HttpClient::new(ClientConfig {
            tls: Some(self.client_tls()),
            ..ClientConfig::default()
        })
    }

    fn client_tls(&self) -> ClientTls {
        let tls = ClientTls::load(ClientTlsConfig {
            roots: Roots {
                pem: vec![Bytes::from(self.ca.clone())],
                ..Roots::default()
            },
            identity: Some(ClientIdentity::Files {
                certificate: self.file("etl.crt"),
                key: self.file("etl.key"),
            }),
            ..ClientTlsConfig::default()
        });
        tls.unwrap()
    }
}

/// An upstream that notes the headers about certificates.
fn noting() -> (Server, Notes) {
    let notes = Notes::default();
    let upstream = Server::upstream(None, {
        let notes = notes.clone();
        move |request: Request<Body>| {
            for name in [
                "x-forwarded-client-cert",
                "client-cert",
                "client-cert-chain",
            ] {
                for value in request.headers().get_all(name) {
                    notes.add(format!("{name}: {}", value.to_str().unwrap()));
                }
            }
            async { Response::new(Body::empty()) }
        }
    });
    (upstream, notes)
}

fn claiming() -> Request<Body> {
    Request::builder()
        .uri("/b/k")
        .header("x-forwarded-client-cert", "Subject=\"CN=admin\"")
        .header("client-cert", ":AAAA:")
        .header("client-cert-chain", ":AAAA:")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn the_store_learns_what_a_client_proved_and_never_what_it_claimed() {
    let authority = Authority::new();
    let (upstream, notes) = noting();
    let mut seen = Vec::new();
    for form in [
        None,
        Some(PassCertificate::Xfcc),
        Some(PassCertificate::ClientCert),
    ] {
        let mut config = config(&[upstream.url("http")]);
        config.pass_certificate = form;
        let proxy = Arc::new(Proxy::new(config).unwrap());
        let tls = Server::start(any_port(), Some(authority.server()), Arc::clone(&proxy));
        let plain = Server::start(any_port(), None, proxy);
        for (client, url) in [
            (authority.client(), tls.url("https")),
            (client(None), plain.url("http")),
        ] {
            let endpoint = Endpoint::parse(&url).unwrap();
            let answer = soon(client.send(&endpoint, claiming())).await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        seen.push(notes.all());
    }
    assert_eq!(seen[0], [""; 0]);
    let [xfcc] = &seen[1][..] else {
        panic!("{seen:?}")
    };
    assert!(xfcc.starts_with("x-forwarded-client-cert: Hash="), "{xfcc}");
    assert!(xfcc.ends_with(";Subject=\"CN=etl\";DNS=etl.lake"), "{xfcc}");
    let [_, client_cert] = &seen[2][..] else {
        panic!("{seen:?}")
    };
    // The DER of a certificate begins with a long sequence.
    assert!(
        client_cert.starts_with("client-cert: :MII"),
        "{client_cert}"
    );
    assert!(client_cert.ends_with(':'), "{client_cert}");
}

/// Probes open a connection each, so they would be the dear ones without it.
#[tokio::test]
async fn sessions_with_stores_are_hybrid_and_resumed() {
    let authority = Authority::new();
    let acceptor = authority.acceptor();
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (tell, mut handshakes) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(stream).await.unwrap();
            let session = stream.get_ref().1;
            let group = session.negotiated_key_exchange_group();
            let hybrid = group.map(|group| group.name() == NamedGroup::X25519MLKEM768);
            let _ = tell.send((session.handshake_kind().unwrap(), hybrid));
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let mut config = config(&[url]);
    config.sites[0].tls = Some(authority.client_tls());
    let front = Front::start(config, None);
    let first = soon(handshakes.recv()).await.unwrap();
    assert_eq!(first, (HandshakeKind::Full, Some(true)));
    let second = soon(handshakes.recv()).await.unwrap();
    assert_eq!(second.0, HandshakeKind::Resumed);
    front.until_up(&[true]).await;
}
