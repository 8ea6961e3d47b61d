//! A pooled client to a few upstreams: HTTP/1.1, and HTTP/2 if wanted.
//!
//! It sends requests as they are: the `Host` header need not match the endpoint that is dialled
//! (signatures cover it), and path and query are not touched. What it adds to hyper's client
//! connection is a pool, and connections without tasks of their own: whoever waits for an answer or
//! reads its body also drives the connection below it (see [`wire`]). A proxied request is thereby
//! one task from socket to socket, with no wake-ups between threads, and a body that nobody reads
//! stops the upstream by itself.

mod connect;
mod endpoint;
mod error;
mod multiplexed;
mod pool;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};

pub use connect::{Dialer, Dialled, Stream};
pub use endpoint::Endpoint;
pub use error::{ClientError, ClientErrorKind};

use crate::Body;
use crate::tls::{ClientTls, ReloadGuard};
use connect::Connected;
use pool::Pools;

/// Covers name lookup, TCP and TLS. Beyond it an upstream is better called down than waited for.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Unused connections are closed before the upstream does it, which is after 60 s or more with the
/// servers we know; a connection closed under a request is the one thing that may make it fail.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(25);
/// Unused connections kept per endpoint, by each of [`crate::Workers`]. A busy sidecar has some hundred requests in flight.
pub const IDLE_MAX: usize = 1024;

/// Bytes that open a connection, before TLS: put into a request's extensions, they give that request
/// a connection of its own, which no other request uses after it. For PROXY headers, which are about
/// one client.
#[derive(Clone, Debug)]
pub struct Preface(pub Bytes);

/// Told of `100 Continue`, when put into a request's extensions.
#[derive(Clone)]
pub struct OnContinue(Arc<dyn Fn() + Send + Sync>);

impl OnContinue {
    /// Calls this for each.
    pub fn new(listener: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    fn call(&self) {
        (self.0)();
    }
}

/// How a client connects.
#[derive(Clone)]
pub struct ClientConfig {
    /// Trust and identity for https endpoints; without it they are refused.
    pub tls: Option<ClientTls>,
    /// For name lookup, TCP and TLS together.
    pub connect_timeout: Duration,
    /// From the request being given to the head of the answer. `None`: as long as it takes.
    pub response_timeout: Option<Duration>,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How many unused connections are kept per endpoint.
    pub idle_max: usize,
    /// Speak HTTP/2: with https endpoints that choose it, with http endpoints always.
    pub http2: bool,
    /// Opens connections in the place of TCP. `None` but in simulations.
    pub dialer: Option<Dialer>,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("response_timeout", &self.response_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("idle_max", &self.idle_max)
            .field("http2", &self.http2)
            .finish_non_exhaustive()
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            tls: None,
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: None,
            idle_timeout: IDLE_TIMEOUT,
            idle_max: IDLE_MAX,
            http2: false,
            dialer: None,
        }
    }
}

/// The client. Clones share pool and settings.
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    config: ClientConfig,
    pools: Arc<Pools>,
    _reload: Option<ReloadGuard>,
    _sweep: pool::SweepGuard,
}

impl HttpClient {
    /// A client without connections. Must be called inside a tokio runtime: it watches the
    /// certificate files and closes unused connections in the background.
    pub fn new(config: ClientConfig) -> Self {
        let pools = Arc::new(Pools::new(config.idle_max, config.idle_timeout));
        Self(Arc::new(Inner {
            _reload: config.tls.as_ref().map(ClientTls::watch),
            _sweep: pool::sweep(&pools),
            config,
            pools,
        }))
    }

    /// Sends a request whose URI names the endpoint: `https://host:port/path`.
    ///
    /// # Errors
    /// [`ClientError`]; its kind says whether anything was sent.
    pub async fn request(&self, request: Request<Body>) -> Result<Response<Body>, ClientError> {
        match Endpoint::of_uri(request.uri()) {
            Ok(endpoint) => self.send(&endpoint, request).await,
            Err(error) => Err(ClientError::new(ClientErrorKind::Request, error).returning(request)),
        }
    }

    /// Sends a request to `endpoint`. `Host` is set only if it is missing; scheme and authority of the
    /// request's URI are ignored, its path and query are sent as they are.
    ///
    /// The request's body is read while the answer is waited for and while its body is read. If the
    /// future is dropped, the connection is closed.
    ///
    /// # Errors
    /// [`ClientError`]; its kind says whether anything was sent. What was not sent is given back by
    /// [`ClientError::into_request`].
    pub async fn send(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        prepare(endpoint, &mut request);
        match self.0.config.response_timeout {
            None => self.exchange(endpoint, request).await,
            Some(limit) => tokio::time::timeout(limit, self.exchange(endpoint, request))
                .await
                .unwrap_or_else(|elapsed| {
                    Err(ClientError::new(ClientErrorKind::ResponseTimeout, elapsed))
                }),
        }
    }

    /// Closes the unused connections to `endpoint`: for an endpoint that went away, and may come back
    /// knowing nothing of them.
    pub fn close_idle(&self, endpoint: &Endpoint) {
        self.0.pools.clear(endpoint);
    }

    async fn exchange(
        &self,
        endpoint: &Endpoint,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ClientError> {
        let preface = request.extensions_mut().remove::<Preface>();
        loop {
            let kept = match &preface {
                None => self.kept(endpoint),
                Some(_) => None,
            };
            let connection = match kept {
                Some(connection) => connection,
                None => match self.connect(endpoint, preface.as_ref()).await {
                    Ok(connection) => connection,
                    Err(error) => return Err(error.returning(request)),
                },
            };
            let outcome = match connection {
                Connected::One(wire) => wire.exchange(request, &self.0.pools, endpoint).await,
                Connected::Many(shared) => shared.exchange(request, endpoint).await,
            };
            match outcome {
                Ok(response) => return Ok(response),
                // A kept connection that had ended unnoticed; nothing of the request left us.
                Err(mut error) if error.kind() == ClientErrorKind::NotSent && error.reused() => {
                    match error.take_request() {
                        Some(unsent) => request = unsent,
                        None => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn kept(&self, endpoint: &Endpoint) -> Option<Connected> {
        let pools = &self.0.pools;
        let shared = || pools.share(endpoint).map(Connected::Many);
        let shared = self.0.config.http2.then(shared).flatten();
        shared.or_else(|| pools.take(endpoint).map(Connected::One))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        preface: Option<&Preface>,
    ) -> Result<Connected, ClientError> {
        let config = &self.0.config;
        let bytes = preface.map(|preface| &*preface.0);
        // Boxed, since every request would have room for a handshake that few need.
        let connecting = Box::pin(connect::connect(endpoint, config, bytes));
        let mut connected = tokio::time::timeout(config.connect_timeout, connecting)
            .await
            .unwrap_or_else(|elapsed| {
                Err(ClientError::new(ClientErrorKind::ConnectTimeout, elapsed))
            })?;
        match &mut connected {
            Connected::One(wire) if preface.is_some() => wire.use_once(),
            Connected::One(_) => {}
            Connected::Many(shared) => self.0.pools.keep(endpoint, shared),
        }
        Ok(connected)
    }
}

impl std::fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HttpClient").field(&self.0.config).finish()
    }
}

/// Origin form, HTTP/1.1, and a `Host`.
fn prepare(endpoint: &Endpoint, request: &mut Request<Body>) {
    if !request.headers().contains_key(HOST) {
        let host = request
            .uri()
            .authority()
            .and_then(|authority| HeaderValue::from_str(host_of(authority.as_str())).ok())
            .unwrap_or_else(|| endpoint.host_header().clone());
        request.headers_mut().insert(HOST, host);
    }
    if request.uri().scheme().is_some() || request.uri().authority().is_some() {
        let origin = request
            .uri()
            .path_and_query()
            .map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        *request.uri_mut() = origin;
    }
    *request.version_mut() = Version::HTTP_11;
}

/// An authority without user information, which never belongs into `Host`.
fn host_of(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}
