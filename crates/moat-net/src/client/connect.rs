//! Name lookup, TCP, TLS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::multiplexed::Multiplexed;
use super::wire::Wire;
use super::{ClientConfig, ClientError, ClientErrorKind, Endpoint};
use crate::tls::ClientTls;
use crate::tls::TlsReader;

/// An upstream that works for minutes on a request is fine; one whose machine is gone is not, and
/// only the kernel can tell the two apart: after this silence it asks, and after three unanswered
/// questions, some 30 s in all, the connection ends. (`TCP_USER_TIMEOUT` would cover sent bytes as
/// well, but also ends connections to an upstream that is alive and only pauses reading an upload.)
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES_MAX: u32 = 3;

/// A stream to an upstream.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// Opens connections in the place of the network.
pub type Dialer = Arc<dyn Fn(Endpoint) -> Dialled + Send + Sync>;
/// What [`Dialer`] gives.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A connection, as client and upstream agreed.
pub(super) enum Connected {
    /// HTTP/1.1.
    One(Box<Wire>),
    /// HTTP/2.
    Many(Multiplexed),
}

/// `preface` is sent before all else, TLS included. A connection with one is about one client, and
/// always of HTTP/1.1.
pub(super) async fn connect(
    endpoint: &Endpoint,
    config: &ClientConfig,
    preface: Option<&[u8]>,
) -> Result<Connected, ClientError> {
    let http2 = config.http2 && preface.is_none();
    let tls = config.tls.as_ref();
    let (stream, http2) = match &config.dialer {
        None => {
            let tcp = dial(endpoint).await.map_err(no_connection)?;
            secure(tcp, endpoint, tls, preface, http2).await?
        }
        Some(dialer) => {
            let stream = dialer(endpoint.clone()).await.map_err(no_connection)?;
            secure(stream, endpoint, tls, preface, http2).await?
        }
    };
    if http2 {
        return Multiplexed::begin(stream).await.map(Connected::Many);
    }
    Ok(Connected::One(Box::new(Wire::new(stream))))
}

/// Sends the preface, and shakes hands if the endpoint speaks TLS. Also says whether it is HTTP/2 from
/// here: as the endpoint chose, or without TLS, as it was wanted.
async fn secure<S: Stream + 'static>(
    mut stream: S,
    endpoint: &Endpoint,
    tls: Option<&ClientTls>,
    preface: Option<&[u8]>,
    http2: bool,
) -> Result<(Box<dyn Stream>, bool), ClientError> {
    if let Some(preface) = preface {
        stream.write_all(preface).await.map_err(no_connection)?;
    }
    if !endpoint.is_tls() {
        return Ok((Box::new(stream), http2));
    }
    let Some(tls) = tls else {
        let message = "the client has no tls settings";
        return Err(ClientError::new(ClientErrorKind::Tls, message));
    };
    let protocols: &[&[u8]] = if http2 {
        &[b"h2", b"http/1.1"]
    } else {
        &[b"http/1.1"]
    };
    let protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let connector = TlsConnector::from(tls.current());
    let stream = connector
        .with_alpn(protocols)
        .connect(endpoint.server_name().clone(), TlsReader::new(stream))
        .await
        .map_err(|error| ClientError::new(handshake_kind(&error), error))?;
    let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), chosen))
}

fn no_connection(error: io::Error) -> ClientError {
    ClientError::new(ClientErrorKind::Connect, error)
}

/// A handshake may fail because the peers disagree or because the connection is cut.
fn handshake_kind(error: &io::Error) -> ClientErrorKind {
    match error.kind() {
        io::ErrorKind::InvalidData => ClientErrorKind::Tls,
        _ => ClientErrorKind::Connect,
    }
}

/// Tries the addresses of the host one after the other.
async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup(endpoint).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                set_options(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// What the kernel refuses of these is done without.
fn set_options(stream: &TcpStream) {
    // Requests are written whole, so Nagle's wait for more would only delay them.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, PROBE_AFTER);
    let _ = sockopt::set_tcp_keepintvl(stream, PROBE_EVERY);
    let _ = sockopt::set_tcp_keepcnt(stream, PROBES_MAX);
}

async fn lookup(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = (endpoint.host(), endpoint.port());
    if let Some(ip) = endpoint.address() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}
