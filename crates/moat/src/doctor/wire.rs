//! Connections and requests of the doctor. Unlike a client's, they go on after a certificate that
//! nobody should trust, so that all that is wrong with it can be told at once; what depends on
//! trust (credentials above all) is not sent then.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, ProtocolVersion, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::endpoint::Endpoint;

/// How long each step may take. A healthy server answers in milliseconds; a person is waiting.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The answers looked at are short documents; of anything larger the start is no help either.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// What TLS agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    /// The chain that the server sent, DER.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The version.
    pub(crate) version: ProtocolVersion,
}

/// Why no answer came.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The step took longer than [`STEP_TIMEOUT`].
    Timeout,
    /// The operating system's reason.
    Io(io::Error),
    /// TLS's reason.
    Tls(rustls::Error),
    /// HTTP's reason.
    Http(String),
}

impl Failure {
    fn from_io(error: io::Error) -> Self {
        // tokio-rustls wraps what rustls says.
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(tls) => Self::Tls(tls.clone()),
            None => Self::Io(error),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Timeout => write!(f, "no answer within {} seconds", STEP_TIMEOUT.as_secs()),
            Self::Io(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Http(error) => f.write_str(error),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens a TCP connection.
pub(crate) async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
        Err(_) => Err(Failure::Timeout),
        Ok(connected) => connected.map_err(Failure::Io),
    }
}

/// Makes a handshake and says what it showed. Every certificate is let through.
pub(crate) async fn handshake(endpoint: &Endpoint, address: SocketAddr) -> Result<Tls, Failure> {
    let (tls, _) = tls_stream(endpoint, address).await?;
    Ok(tls)
}

/// Sends a request without a body and reads the answer whole.
pub(crate) async fn send(
    endpoint: &Endpoint,
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(String, String)],
) -> Result<Response<Bytes>, Failure> {
    let stream: Box<dyn Stream> = if endpoint.tls {
        Box::new(tls_stream(endpoint, address).await?.1)
    } else {
        Box::new(connect(address).await?)
    };
    let mut request = Request::builder().method(method).uri(path);
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        request = request.header("host", endpoint.authority());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .map_err(|e| Failure::Http(e.to_string()))?;
    match timeout(STEP_TIMEOUT, exchange(stream, request)).await {
        Err(_) => Err(Failure::Timeout),
        Ok(answer) => answer,
    }
}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Bytes>, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(http_failure)?;
    let driver = tokio::spawn(connection);
    let answer = async {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(http_failure)?
            .into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(|e| Failure::Http(e.to_string()))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
    .await;
    driver.abort();
    answer
}

async fn tls_stream(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<(Tls, tokio_rustls::client::TlsStream<TcpStream>), Failure> {
    let name = ServerName::try_from(endpoint.host.to_string())
        .map_err(|e| Failure::Http(e.to_string()))?;
    let stream = connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config()?));
    let stream = match timeout(STEP_TIMEOUT, connector.connect(name, stream)).await {
        Err(_) => return Err(Failure::Timeout),
        Ok(connected) => connected.map_err(Failure::from_io)?,
    };
    let (_, session) = stream.get_ref();
    let tls = Tls {
        chain: session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|der| der.clone().into_owned())
            .collect(),
        version: session
            .protocol_version()
            .unwrap_or(ProtocolVersion::TLSv1_2),
    };
    Ok((tls, stream))
}

fn config() -> Result<ClientConfig, Failure> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(Failure::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(LetThrough(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn http_failure(error: hyper::Error) -> Failure {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return Failure::Tls(tls.clone());
        }
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && let Some(tls) = io
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return Failure::Tls(tls.clone());
        }
        source = cause.source();
    }
    Failure::Http(error.to_string())
}

/// Trusts any certificate, but still checks that the peer holds its key. The chain is judged
/// afterwards, in [`super::trust`].
#[derive(Debug)]
struct LetThrough(Arc<CryptoProvider>);

impl ServerCertVerifier for LetThrough {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
