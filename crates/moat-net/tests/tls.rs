//! Guards identity and certificates: a client is known by the key it proved to hold, on resumed
//! sessions too; certificates change under a running listener; errors name the file and the fix.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use moat_net::tls::{
    ClientAuth, ClientIdentity, ClientTls, ClientTlsConfig, Roots, ServerIdentity, ServerTls,
    ServerTlsConfig, Versions,
};
use moat_net::{
    Body, ClientConfig, ClientErrorKind, ClientKey, Endpoint, HttpClient, Limits, Peer,
};
use moat_types::SecretString;
use rcgen::KeyPair;
use rustls::HandshakeKind;
use rustls_pki_types::ServerName;
use support::{Files, Fn2, SelfSigned, Server, client_tls, self_signed, self_signed_with, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Answers with the peer's key hash, or `none`.
async fn who(peer: Arc<Peer>, _: Request<Body>) -> Response<Body> {
    assert!(peer.tls);
    let who = peer
        .client_key
        .as_ref()
        .map_or("none".into(), |key| hex(&key.spki_sha256));
    Response::new(Body::full(who))
}

fn key_hash(pair: &SelfSigned) -> String {
    hex(&ClientKey::from_certificate(&pair.cert_der)
        .unwrap()
        .spki_sha256)
}

/// One request on a new connection; returns the body and the kind of handshake.
async fn ask(config: &Arc<rustls::ClientConfig>, server: &Server) -> (String, HandshakeKind) {
    let connector = TlsConnector::from(Arc::clone(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = soon(connector.connect(name, server.connect().await))
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let body = answer.split("\r\n\r\n").nth(1).unwrap().to_owned();
    let kind = stream.get_ref().1.handshake_kind().unwrap();
    (body, kind)
}

#[tokio::test]
async fn a_client_is_known_by_its_key_and_stays_known_on_resumption() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::Requested)),
        Limits::default(),
        Fn2(who),
    );
    let client = self_signed(|_| {});
    let with_key = files.client_tls(Some(&client)).current();
    let (first, kind) = ask(&with_key, &server).await;
    assert_eq!(first, key_hash(&client));
    assert_eq!(kind, HandshakeKind::Full);
    let (second, kind) = ask(&with_key, &server).await;
    assert_eq!(second, key_hash(&client));
    assert_eq!(kind, HandshakeKind::Resumed);

    let (nobody, _) = ask(&files.client_tls(None).current(), &server).await;
    assert_eq!(nobody, "none");
}

#[tokio::test]
async fn http_on_the_https_port_is_told_so_in_http() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::None)),
        Limits::default(),
        Fn2(who),
    );
    let mut stream = server.connect().await;
    let answer = support::say(&mut stream, "GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{answer}"
    );
    assert!(body.contains("use https://"), "{answer}");
}

#[tokio::test]
async fn tls12_clients_are_known_too() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::Requested)),
        Limits::default(),
        Fn2(who),
    );
    let client = self_signed(|_| {});
    let mut roots = rustls::RootCertStore::empty();
    roots.add(files.server.cert_der.clone().into()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(moat_net::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![client.cert_der.clone().into()],
            rustls_pki_types::PrivateKeyDer::try_from(client.key.serialize_der()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    assert_eq!(
        ask(&config, &server).await,
        (key_hash(&client), HandshakeKind::Full)
    );
    assert_eq!(
        ask(&config, &server).await,
        (key_hash(&client), HandshakeKind::Resumed)
    );
}

#[tokio::test]
async fn expired_certificates_and_every_common_key_type_identify_a_client() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::Requested)),
        Limits::default(),
        Fn2(who),
    );
    for algorithm in [
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let client = self_signed_with(key, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        });
        let (seen, _) = ask(&files.client_tls(Some(&client)).current(), &server).await;
        assert_eq!(seen, key_hash(&client), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::Requested)),
        Limits::default(),
        Fn2(who),
    );
    let (victim, thief) = (self_signed(|_| {}), self_signed(|_| {}));
    let forged = SelfSigned {
        cert_pem: victim.cert_pem.clone(),
        cert_der: victim.cert_der.clone(),
        key: thief.key,
    };
    let client = HttpClient::new(ClientConfig {
        tls: Some(files.client_tls(Some(&forged))),
        ..ClientConfig::default()
    });
    let endpoint = Endpoint::parse(&format!("https://localhost:{}", server.addr.port())).unwrap();
    // In TLS 1.3 the client has finished before the server judges its certificate: the refusal is
    // seen at the handshake or at the first request, but never an answer.
    let outcome = soon(client.send(&endpoint, Request::new(Body::empty()))).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn clients_are_not_asked_for_a_certificate_unless_told() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::None)),
        Limits::default(),
        Fn2(who),
    );
    let client = self_signed(|_| {});
    let (seen, _) = ask(&files.client_tls(Some(&client)).current(), &server).await;
    assert_eq!(seen, "none");
}

#[tokio::test]
async fn the_hybrid_key_exchange_is_used_between_our_own() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::None)),
        Limits::default(),
        Fn2(who),
    );
    let connector = TlsConnector::from(files.client_tls(None).current());
    let name = ServerName::try_from("localhost").unwrap();
    let stream = soon(connector.connect(name, server.connect().await))
        .await
        .unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(group.name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn an_untrusted_server_is_refused_before_anything_is_sent() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::None)),
        Limits::default(),
        Fn2(who),
    );
    let stranger = self_signed(|_| {});
    let client = HttpClient::new(ClientConfig {
        tls: Some(client_tls(&stranger.cert_pem, None)),
        ..ClientConfig::default()
    });
    let endpoint = Endpoint::parse(&format!("https://localhost:{}", server.addr.port())).unwrap();
    let error = soon(client.send(&endpoint, Request::new(Body::empty())))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Tls);
    assert!(error.nothing_sent());
    assert!(error.into_request().is_some());
}

/// The certificate that a new connection is shown.
async fn shown(server: &Server) -> Vec<u8> {
    let insecure = ClientTls::load(ClientTlsConfig {
        insecure: true,
        ..ClientTlsConfig::default()
    })
    .unwrap();
    let connector = TlsConnector::from(insecure.current());
    let name = ServerName::try_from("localhost").unwrap();
    let stream = soon(connector.connect(name, server.connect().await))
        .await
        .unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn changed_files_are_taken_and_broken_ones_are_not() {
    let files = Files::new();
    let tls = files.server_tls(ClientAuth::None);
    let server = Server::start(Some(tls.clone()), Limits::default(), Fn2(who));
    assert_eq!(shown(&server).await, files.server.cert_der);

    let second = self_signed(|_| {});
    std::fs::write(files.path("server.crt"), &second.cert_pem).unwrap();
    let error = tls.reload().unwrap_err().to_string();
    assert!(
        error.contains("does not belong to the certificate"),
        "{error}"
    );
    assert_eq!(shown(&server).await, files.server.cert_der);

    files.install(&second);
    tls.reload().unwrap();
    assert_eq!(shown(&server).await, second.cert_der);
}

#[tokio::test]
async fn a_running_listener_notices_a_swapped_symlink_by_itself() {
    let files = Files::new();
    for (folder, pair) in [("one", &files.server), ("two", &self_signed(|_| {}))] {
        let folder = files.path(folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("tls.crt"), &pair.cert_pem).unwrap();
        std::fs::write(folder.join("tls.key"), pair.key.serialize_pem()).unwrap();
    }
    let data = files.path("..data");
    symlink(files.path("one"), &data).unwrap();
    let tls =
        ServerTls::load(data.join("tls.crt"), data.join("tls.key"), ClientAuth::None).unwrap();
    let server = Server::start(Some(tls), Limits::default(), Fn2(who));
    assert_eq!(shown(&server).await, files.server.cert_der);

    // As kubelet does it: a new link beside the old one, then a rename over it.
    symlink(files.path("two"), files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), &data).unwrap();
    soon(async {
        while shown(&server).await == files.server.cert_der {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_rotated_trust_bundle_is_taken_for_new_connections() {
    let files = Files::new();
    let server = Server::start(
        Some(files.server_tls(ClientAuth::None)),
        Limits::default(),
        Fn2(who),
    );
    let bundle = files.path("ca.pem");
    std::fs::write(&bundle, self_signed(|_| {}).cert_pem).unwrap();
    let tls = ClientTls::load(ClientTlsConfig {
        roots: Roots {
            files: vec![bundle.clone()],
            ..Roots::default()
        },
        ..ClientTlsConfig::default()
    })
    .unwrap();
    let client = HttpClient::new(ClientConfig {
        tls: Some(tls.clone()),
        ..ClientConfig::default()
    });
    let endpoint = Endpoint::parse(&format!("https://localhost:{}", server.addr.port())).unwrap();
    let request = || Request::new(Body::empty());
    let error = soon(client.send(&endpoint, request())).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Tls);

    std::fs::write(&bundle, &files.server.cert_pem).unwrap();
    tls.reload().unwrap();
    let response = soon(client.send(&endpoint, request())).await.unwrap();
    let body = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, "none");
}

#[test]
fn errors_of_files_name_the_file_and_the_fix() {
    let files = Files::new();
    let load = || {
        ServerTls::load(
            files.path("server.crt"),
            files.path("server.key"),
            ClientAuth::None,
        )
        .map(drop)
        .unwrap_err()
        .to_string()
    };
    let key = files.path("server.key");

    std::fs::write(&key, &files.server.cert_pem).unwrap();
    assert!(load().contains("are the two files swapped?"), "{}", load());

    std::fs::write(
        &key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(load().contains("openssl pkey"), "{}", load());

    std::fs::remove_file(&key).unwrap();
    assert!(load().contains("server.key"), "{}", load());

    std::fs::write(files.path("server.crt"), "nothing").unwrap();
    assert!(
        load().contains("it holds no block BEGIN CERTIFICATE"),
        "{}",
        load()
    );

    // Root reads everything, so the hint can only be seen by another user.
    if !rustix::process::geteuid().is_root() {
        files.install(&files.server);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o000)).unwrap();
        assert!(load().contains("with mode 0000"), "{}", load());
    }
}

#[test]
fn client_identities_may_come_from_files() {
    let files = Files::new();
    let identity = ClientIdentity::Files {
        certificate: files.path("server.crt"),
        key: files.path("missing.key"),
    };
    let error = ClientTls::load(ClientTlsConfig {
        identity: Some(identity),
        ..ClientTlsConfig::default()
    })
    .unwrap_err();
    assert!(error.to_string().contains("missing.key"), "{error}");
}

/// Certificates of these names in files, and the settings of a server that has them all.
fn with_names(files: &Files, names: &[&[&str]]) -> (Vec<SelfSigned>, ServerTlsConfig) {
    let mut pairs = Vec::new();
    let mut certificates = Vec::new();
    for (index, names) in names.iter().enumerate() {
        let pair = self_signed(|params| {
            let dns = |name: &&str| rcgen::SanType::DnsName((*name).try_into().unwrap());
            params.subject_alt_names = names.iter().map(dns).collect();
        });
        let (certificate, key) = (
            files.path(&format!("{index}.crt")),
            files.path(&format!("{index}.key")),
        );
        std::fs::write(&certificate, &pair.cert_pem).unwrap();
        std::fs::write(&key, pair.key.serialize_pem()).unwrap();
        certificates.push(ServerIdentity::Files {
            certificate,
            key,
            password: None,
        });
        pairs.push(pair);
    }
    let settings = ServerTlsConfig {
        certificates,
        client_auth: ClientAuth::None,
        client_ca: Vec::new(),
        versions: Versions::Both,
    };
    (pairs, settings)
}

/// The certificate that a client which asks for `name` is shown.
async fn shown_for(name: &str, server: &Server) -> Vec<u8> {
    let insecure = ClientTls::load(ClientTlsConfig {
        insecure: true,
        ..ClientTlsConfig::default()
    })
    .unwrap();
    let connector = TlsConnector::from(insecure.current());
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = soon(connector.connect(name, server.connect().await)).await;
    let stream = stream.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
    let files = Files::new();
    let names: [&[&str]; 3] = [
        &["a.example"],
        &["b.example", "*.s3.example"],
        &["c.example"],
    ];
    let (pairs, settings) = with_names(&files, &names);
    let tls = ServerTls::with(settings).unwrap();
    let server = Server::start(Some(tls.clone()), Limits::default(), Fn2(who));
    for (name, index) in [
        ("a.example", 0),
        ("B.example", 1),
        ("bucket.s3.example", 1),
        ("c.example", 2),
        ("other.example", 0),
        ("127.0.0.1", 0),
    ] {
        assert_eq!(
            shown_for(name, &server).await,
            pairs[index].cert_der,
            "{name}"
        );
    }
    // The second one is renewed, and the others stay.
    let renewed = self_signed(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("b.example".try_into().unwrap())];
    });
    std::fs::write(files.path("1.crt"), &renewed.cert_pem).unwrap();
    std::fs::write(files.path("1.key"), renewed.key.serialize_pem()).unwrap();
    tls.reload().unwrap();
    assert_eq!(shown_for("b.example", &server).await, renewed.cert_der);
    assert_eq!(shown_for("c.example", &server).await, pairs[2].cert_der);
}

#[tokio::test]
async fn clients_must_show_a_certificate_of_the_named_ca() {
    let files = Files::new();
    let (known, stranger) = (self_signed(|_| {}), self_signed(|_| {}));
    std::fs::write(files.path("clients.crt"), &known.cert_pem).unwrap();
    let (pairs, mut settings) = with_names(&files, &[&["localhost"]]);
    settings.client_ca = vec![files.path("clients.crt")];
    let tls = ServerTls::with(settings).unwrap();
    let server = Server::start(Some(tls.clone()), Limits::default(), Fn2(who));
    let client = |identity: Option<&SelfSigned>| {
        HttpClient::new(ClientConfig {
            tls: Some(client_tls(&pairs[0].cert_pem, identity)),
            ..ClientConfig::default()
        })
    };
    let send = async |client: &HttpClient| {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let endpoint = format!("https://localhost:{}", server.addr.port());
        let endpoint = Endpoint::parse(&endpoint).unwrap();
        soon(client.send(&endpoint, request)).await.map(drop)
    };
    send(&client(Some(&known))).await.unwrap();
    send(&client(Some(&stranger))).await.unwrap_err();
    send(&client(None)).await.unwrap_err();
    // Another CA takes its place, for sessions that were there before as well.
    let regular = client(Some(&known));
    send(&regular).await.unwrap();
    std::fs::write(files.path("clients.crt"), &stranger.cert_pem).unwrap();
    tls.reload().unwrap();
    send(&client(Some(&stranger))).await.unwrap();
    send(&client(Some(&known))).await.unwrap_err();
}

#[tokio::test]
async fn versions_are_kept_to() {
    let files = Files::new();
    let (pairs, settings) = with_names(&files, &[&["localhost"]]);
    for (server, client, agree) in [
        (Versions::Only13, Versions::Only12, false),
        (Versions::Only12, Versions::Only13, false),
        (Versions::Only12, Versions::Both, true),
        (Versions::Both, Versions::Only13, true),
    ] {
        let tls = ServerTls::with(ServerTlsConfig {
            versions: server,
            ..settings.clone()
        })
        .unwrap();
        let listening = Server::start(Some(tls), Limits::default(), Fn2(who));
        let config = ClientTls::load(ClientTlsConfig {
            roots: Roots {
                pem: vec![pairs[0].cert_pem.clone().into()],
                ..Roots::default()
            },
            versions: client,
            ..ClientTlsConfig::default()
        })
        .unwrap();
        let connector = TlsConnector::from(config.current());
        let name = ServerName::try_from("localhost").unwrap();
        let connected = soon(connector.connect(name, listening.connect().await)).await;
        assert_eq!(connected.is_ok(), agree, "{server:?} {client:?}");
    }
}

/// Keys of one pair, made with `openssl pkcs8 -topk8 -v2 aes-256-cbc`, `-scrypt`, `-v2 des3 -v2prf
/// hmacWithSHA1` (the default of OpenSSL 1.0), `openssl ec -aes256`, `-des3` and so on (OpenSSL 3.0),
/// all with the password `correct`.
#[test]
fn encrypted_keys_are_opened_by_their_password_alone() {
    // Of this run: a test may have been built in another clone that shares the target folder.
    let own = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let folder = std::path::Path::new(&own).join("tests/data/keys");
    let load = |key: &str, password: Option<&str>| {
        ServerTls::with(ServerTlsConfig {
            certificates: vec![ServerIdentity::Files {
                certificate: folder.join("leaf.crt"),
                key: folder.join(key),
                password: password.map(|text| SecretString::new(text.to_owned())),
            }],
            client_auth: ClientAuth::None,
            client_ca: Vec::new(),
            versions: Versions::Both,
        })
        .map(drop)
        .map_err(|error| error.to_string())
    };
    load("p8.key", None).unwrap();
    load("p8.key", Some("not needed")).unwrap();
    for key in [
        "pkcs8-aes256.key",
        "pkcs8-aes128.key",
        "pkcs8-scrypt.key",
        "legacy-aes256.key",
        "legacy-aes128.key",
        "legacy-aes192.key",
        "legacy-des3.key",
        "pkcs8-des3-sha1.key",
    ] {
        load(key, Some("correct")).unwrap();
        let wrong = load(key, Some("wr0ng-w0rd")).unwrap_err();
        assert!(wrong.contains("the password does not open it"), "{wrong}");
        assert!(wrong.contains(key) && !wrong.contains("wr0ng"), "{wrong}");
        let none = load(key, None).unwrap_err();
        assert!(none.contains("openssl pkey"), "{none}");
    }
    let other = load("legacy-camellia.key", Some("correct")).unwrap_err();
    assert!(other.contains("convert it"), "{other}");
}
