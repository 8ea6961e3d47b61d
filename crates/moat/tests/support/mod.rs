//! What the command-line tests share: the real binary in a clean environment, and small servers
//! that answer as they are told.

#![allow(unreachable_pub, reason = "shared by several test crates")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use std::sync::Arc;

use moat_pki::{
    CaRequest, CertificateAuthority, Issued, KeyAlgorithm, LeafRequest, PrivateKey, SubjectName,
    Usage,
};
use moat_types::{Clock, SystemClock, SystemRandom, UnixMillis};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The binary under test, with nothing in its environment that could configure it.
pub fn moat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().into_owned();
        if ["MOAT_", "MINIO_", "AWS_", "SSL_CERT"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(name);
        }
    }
    command
}

/// Standard output and error of a finished run, and its exit code.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub fn run(command: &mut Command) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A clock that stands still.
pub struct At(pub UnixMillis);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }
}

/// Now, moved by some days.
pub fn days_from_now(days: i64) -> At {
    At(UnixMillis(SystemClock.now().0 + days * 86_400_000))
}

pub fn authority() -> CertificateAuthority {
    let request = CaRequest {
        common_name: "test CA".into(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: std::time::Duration::from_secs(3650 * 86_400),
        permitted: Vec::new(),
    };
    CertificateAuthority::create(&request, &days_from_now(-1000), &SystemRandom).unwrap()
}

/// A server certificate with its key, made by `ca` at the time of `clock`.
pub fn certificate(
    ca: &CertificateAuthority,
    names: &[&str],
    clock: &dyn Clock,
) -> (Issued, PrivateKey) {
    let request = LeafRequest {
        common_name: "small server".into(),
        usage: Usage::Server,
        names: names
            .iter()
            .map(|name| SubjectName::parse(name).unwrap())
            .collect(),
        validity: std::time::Duration::from_secs(397 * 86_400),
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let issued = ca.issue(&request, &key, clock, &SystemRandom).unwrap();
    (issued, key)
}

pub fn server_config((issued, key): &(Issued, PrivateKey)) -> Arc<ServerConfig> {
    let chain = issued
        .chain()
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().expose().to_vec()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// The first line and the headers of a request.
pub struct Head(String);

impl Head {
    /// `GET /path`.
    pub fn line(&self) -> &str {
        self.0
            .lines()
            .next()
            .unwrap_or_default()
            .strip_suffix(" HTTP/1.1")
            .unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// An answer: status line without the version, headers, body.
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

pub fn answer(status: &'static str, body: &str) -> Answer {
    Answer {
        status,
        headers: vec![(
            "date",
            moat_s3::time::http_date(SystemClock.now())
                .as_str()
                .to_owned(),
        )],
        body: body.to_owned(),
    }
}

/// An S3 error document.
pub fn error(status: &'static str, code: &str, message: &str) -> Answer {
    answer(
        status,
        &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"),
    )
}

/// A server that answers each connection's one request with what `handler` says. Its threads end
/// with the test process.
pub fn serve(
    tls: Option<Arc<ServerConfig>>,
    handler: impl Fn(&Head) -> Answer + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tls, handler) = (tls.clone(), Arc::clone(&handler));
            std::thread::spawn(move || match tls {
                None => exchange(stream, &*handler),
                Some(config) => exchange(
                    StreamOwned::new(ServerConnection::new(config).unwrap(), stream),
                    &*handler,
                ),
            });
        }
    });
    address
}

fn exchange(mut stream: impl Read + Write, handler: &dyn Fn(&Head) -> Answer) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return,
        }
        // Something that is not HTTP (a TLS hello) gets the answer that servers give to it.
        if bytes.len() == 1 && !byte[0].is_ascii_uppercase() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            return;
        }
    }
    let head = Head(String::from_utf8_lossy(&bytes).into_owned());
    let answer = handler(&head);
    let is_head = head.line().starts_with("HEAD ");
    let mut text = format!(
        "HTTP/1.1 {}\r\ncontent-length: {}\r\nconnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    if !is_head {
        text.push_str(&answer.body);
    }
    let _ = stream.write_all(text.as_bytes());
    let _ = stream.flush();
}
