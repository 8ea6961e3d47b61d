//! The server to drive, and signed requests for it as bytes that can be sent again and again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use md5::{Digest, Md5};
use moat_s3::sigv4::{Credentials, PayloadHash, Signer};
use moat_types::{Clock, SecretString, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::wire::{Answer, Connection, Keep};

/// One server, one bucket, one access key.
#[derive(Debug)]
pub(crate) struct Target {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    bucket: String,
    signer: Signer,
}

impl Target {
    /// A server whose certificate comes from the CA in the file `ca`.
    ///
    /// # Errors
    /// If the file can't be read or holds no certificate.
    pub(crate) fn new(
        address: SocketAddr,
        ca: &Path,
        bucket: &str,
        region: &str,
        access_key_id: &str,
        secret_access_key: SecretString,
    ) -> Result<Self> {
        let credentials = Credentials {
            access_key_id: access_key_id.to_owned(),
            secret_access_key,
            session_token: None,
        };
        Ok(Self {
            address,
            tls: Arc::new(tls_config(ca)?),
            bucket: bucket.to_owned(),
            signer: Signer::new(credentials, region, "s3"),
        })
    }

    /// A new connection.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address, Arc::clone(&self.tls)).await
    }

    /// The bucket's name, for copy sources.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Signs a request now. Its bytes stay valid for the quarter of an hour that S3 allows.
    ///
    /// # Errors
    /// If path or headers are not what HTTP allows.
    pub(crate) fn sign(&self, request: Request) -> Result<Signed> {
        let path = ["/", &self.bucket, &request.path].concat();
        let uri: Uri = path.parse().with_context(|| format!("the path {path}"))?;
        let mut headers = HeaderMap::with_capacity(8 + request.headers.len());
        headers.insert(
            http::header::HOST,
            HeaderValue::try_from(self.address.to_string()).context("the host header")?,
        );
        for (name, value) in &request.headers {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::try_from(value).with_context(|| format!("the header {name}"))?,
            );
        }
        let (payload, now) = (PayloadHash::Unsigned, SystemClock.now());
        self.signer
            .sign(&request.method, &uri, &mut headers, payload, now)
            .context("signing a request")?;
        Ok(Signed {
            head: serialise(&request, &path, &headers),
            body: request.body,
            expect: request.expect,
        })
    }

    /// Signs and sends, for requests outside of measurements. The answer is kept whole.
    ///
    /// # Errors
    /// As [`Signed::send`].
    pub(crate) async fn ask(
        &self,
        connection: &mut Connection,
        request: Request,
    ) -> Result<Answer> {
        self.sign(request)?.send(connection, Keep::All).await
    }
}

fn tls_config(ca: &Path) -> Result<rustls::ClientConfig> {
    Ok(tls_builder(roots(ca)?)?.with_no_client_auth())
}

/// The certificates in the file `ca`.
///
/// # Errors
/// If the file can't be read or holds no certificate.
pub(crate) fn roots(ca: &Path) -> Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca)
        .with_context(|| format!("reading the CA {}", ca.display()))?;
    for certificate in certificates {
        let certificate =
            certificate.with_context(|| format!("reading the CA {}", ca.display()))?;
        roots.add(certificate).context("the CA is not usable")?;
    }
    ensure!(!roots.is_empty(), "no certificate in {}", ca.display());
    Ok(roots)
}

/// TLS 1.3 with a server whose certificate comes from `roots`.
///
/// # Errors
/// If the crypto library has no TLS 1.3.
pub(crate) fn tls_builder(
    roots: rustls::RootCertStore,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("TLS 1.3")?
        .with_root_certificates(roots))
}

fn serialise(request: &Request, path: &str, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(768);
    for part in [request.method.as_str(), " ", path, " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    let length = request.body.bytes().len();
    if length > 0 || request.method == Method::PUT || request.method == Method::POST {
        head.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What a request carries.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Nothing.
    Empty,
    /// Part of the shared content.
    Shared(&'static [u8]),
    /// A document.
    Own(Vec<u8>),
}

impl Body {
    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Empty => &[],
            Self::Shared(bytes) => bytes,
            Self::Own(bytes) => bytes,
        }
    }
}

/// What makes an answer the right one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expect {
    /// The status.
    pub(crate) status: u16,
    /// The length of the body, where the request decides it.
    pub(crate) body_bytes: Option<u64>,
    /// A text that the body must hold: some answers say 200 before they know of an error.
    pub(crate) holds: Option<&'static str>,
}

/// A request before it is signed. The path begins behind the bucket's name and is encoded already.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
    pub(crate) expect: Expect,
}

impl Request {
    /// A request without a body that 200 answers.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Body::Empty,
            expect: Expect {
                status: 200,
                body_bytes: None,
                holds: None,
            },
        }
    }

    /// Adds a header, named in lower case.
    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub(crate) fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Sets the body to a document, with the digest that S3 wants for it.
    #[must_use]
    pub(crate) fn document(self, document: String) -> Self {
        self.header("content-md5", STANDARD.encode(Md5::digest(&document)))
            .header("content-type", "application/xml")
            .body(Body::Own(document.into_bytes()))
    }

    /// Another status is the right one.
    #[must_use]
    pub(crate) const fn answers(mut self, status: u16) -> Self {
        self.expect.status = status;
        self
    }

    /// The answer's body has exactly so many bytes.
    #[must_use]
    pub(crate) const fn with_length(mut self, bytes: u64) -> Self {
        self.expect.body_bytes = Some(bytes);
        self
    }

    /// The answer's body holds this text.
    #[must_use]
    pub(crate) const fn holding(mut self, text: &'static str) -> Self {
        self.expect.holds = Some(text);
        self
    }
}

/// A request that is ready to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    head: Vec<u8>,
    body: Body,
    expect: Expect,
}

impl Signed {
    /// Sends it and checks the answer.
    ///
    /// # Errors
    /// If the connection breaks or the answer is not the expected one; the error quotes it.
    pub(crate) async fn send(&self, connection: &mut Connection, keep: Keep) -> Result<Answer> {
        let keep = if self.expect.holds.is_some() {
            Keep::All
        } else {
            keep
        };
        let answer = connection
            .exchange(&self.head, self.body.bytes(), keep)
            .await
            .with_context(|| self.line())?;
        self.check(&answer).with_context(|| self.line())?;
        Ok(answer)
    }

    /// Sends it and takes whatever the answer is.
    ///
    /// # Errors
    /// If the connection breaks.
    pub(crate) async fn try_out(&self, connection: &mut Connection) -> Result<Answer> {
        connection
            .exchange(&self.head, self.body.bytes(), Keep::All)
            .await
            .with_context(|| self.line())
    }

    fn check(&self, answer: &Answer) -> Result<()> {
        let (got, wanted) = (answer.status, self.expect.status);
        ensure!(
            got == wanted,
            "answered with {got} instead of {wanted}: {}",
            excerpt(answer)
        );
        if let Some(bytes) = self.expect.body_bytes {
            ensure!(
                answer.body_bytes == bytes,
                "answered with {} bytes instead of {bytes}",
                answer.body_bytes
            );
        }
        if let Some(text) = self.expect.holds {
            let found = answer
                .body
                .windows(text.len())
                .any(|window| window == text.as_bytes());
            ensure!(found, "answered without {text}: {}", excerpt(answer));
        }
        Ok(())
    }

    /// Method and path, for messages.
    fn line(&self) -> String {
        let end = self.head.iter().position(|&b| b == b'\r').unwrap_or(0);
        String::from_utf8_lossy(&self.head[..end]).into_owned()
    }
}

/// The beginning of an error document.
fn excerpt(answer: &Answer) -> String {
    answer.text().chars().take(300).collect()
}
