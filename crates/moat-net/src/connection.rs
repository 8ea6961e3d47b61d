//! One accepted connection from its handshake to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::counter;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::activity::{Activity, Verdict};
use crate::limits::HEADERS_MAX;
use crate::listener::ProxyProtocolFrom;
use crate::socket::Socket;
use crate::strict::Strict;
use crate::tls::{Handshake, ServerTls};
use crate::tunnel::Tunnel;
use crate::{Body, BoxError, ClientKey, Drain, Limits, Offer, Peer, Service, proxy_protocol};

/// What hyper may hold per connection of unread or unsent bytes; also how much it asks of a read.
const BUFFER_BYTES: usize = 256 * 1024;
/// How a connection that is HTTP/2 from its beginning starts (RFC 9113 section 3.4), as far as no
/// method of HTTP/1.1 does.
const HTTP2_BEGINS: &[u8; 4] = b"PRI ";
/// HTTP/2 flow control: what a client may send before the service has read it, per stream and per
/// connection. 1 MiB keeps a 10 Gbit/s link busy at 1 ms round trip.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// HTTP/2 peers that answer no ping are gone; TCP alone would notice after minutes.
const PING_EVERY: std::time::Duration = std::time::Duration::from_secs(30);

/// What all connections of one listener share.
pub(crate) struct Shared<S> {
    pub(crate) service: Arc<S>,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) limits: Limits,
    pub(crate) drain: Drain,
    pub(crate) proxy_protocol: Option<ProxyProtocolFrom>,
    /// Whether plain connections may be HTTP/2.
    pub(crate) h2c: bool,
}

/// Serves `stream` until it ends, by itself or because of a limit or the drain.
///
/// What a connection needs only in one of its states is boxed, since it would be held in all of them.
pub(crate) async fn serve<S: Service>(
    shared: &Arc<Shared<S>>,
    mut stream: TcpStream,
    addr: SocketAddr,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let (mut addr, mut local) = (addr, local);
    if let Some(from) = &shared.proxy_protocol
        && from(addr.ip())
    {
        let header = read_proxy_header(&mut stream);
        match tokio::time::timeout(shared.limits.handshake_timeout, header).await {
            Ok(Ok(Some(addresses))) => (addr, local) = addresses,
            Ok(Ok(None)) => {}
            refused => {
                let problem = refused.map_or_else(
                    |_| "it took too long".into(),
                    |header| {
                        header
                            .err()
                            .map_or_else(String::new, |error| error.to_string())
                    },
                );
                counter!("moat_net_connections_cut_total", "reason" => "proxy_header").increment(1);
                tracing::debug!(peer = %addr, problem, "no PROXY header");
                return;
            }
        }
    }
    // Answers are written whole, so Nagle's wait for more would only delay them.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::new());
    let mut peer = Peer::plain(addr, local);
    let Some(tls) = &shared.tls else {
        let http2 = shared.h2c && begins_as_http2(shared, &stream).await;
        let socket = Socket::new(stream, Arc::clone(&activity));
        if http2 {
            Box::pin(serve_http2(shared, socket, peer, activity)).await;
        } else {
            Box::pin(serve_http1(shared, socket, peer, activity)).await;
        }
        return;
    };
    let socket = Socket::new(stream, Arc::clone(&activity));
    let handshake = tokio::time::timeout(shared.limits.handshake_timeout, tls.accept(socket));
    let stream = match handshake.await {
        Ok(Handshake::Done(stream)) => stream,
        Ok(Handshake::Failed(error)) => {
            counter!("moat_net_handshakes_failed_total").increment(1);
            tracing::debug!(peer = %addr, %error, "tls handshake failed");
            return;
        }
        Err(_) => {
            counter!("moat_net_handshakes_failed_total").increment(1);
            return;
        }
    };
    activity.request_head_may_begin();
    let session = stream.get_ref().1;
    peer.tls = true;
    peer.client_key = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| ClientKey::from_certificate(certificate));
    if session.alpn_protocol() == Some(b"h2") {
        Box::pin(serve_http2(shared, *stream, peer, activity)).await;
    } else {
        Box::pin(serve_http1(shared, *stream, peer, activity)).await;
    }
}

/// Whether a client's first bytes are those of HTTP/2's preface. They stay to be read. Clients write
/// it at once; one that dribbles it is taken for HTTP/1.1, and refused.
async fn begins_as_http2<S>(shared: &Shared<S>, stream: &TcpStream) -> bool {
    let mut first = [0; HTTP2_BEGINS.len()];
    tokio::select! {
        peeked = stream.peek(&mut first) => peeked.is_ok() && first == *HTTP2_BEGINS,
        // Whoever serves it finds out why.
        () = shared.drain.started() => false,
        () = tokio::time::sleep(shared.limits.idle_timeout) => false,
    }
}

/// Takes the PROXY header from a connection's beginning, and no byte more. `None`: the sender speaks
/// for itself.
async fn read_proxy_header(stream: &mut TcpStream) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    let mut taken = Vec::new();
    let mut piece = [0; proxy_protocol::HEADER_BYTES_MAX];
    loop {
        let present = stream.peek(&mut piece).await?;
        if present == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = taken.len();
        taken.extend_from_slice(&piece[..present]);
        let (complete, bytes) = match proxy_protocol::parse(&taken) {
            Ok(header) => (Some(header.addresses), header.bytes - before),
            // All that is there belongs to the header.
            Err(proxy_protocol::ParseError::Incomplete) => (None, present),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        stream.read_exact(&mut piece[..bytes]).await?;
        if let Some(addresses) = complete {
            return Ok(addresses);
        }
    }
}

async fn serve_http1<S: Service>(
    shared: &Arc<Shared<S>>,
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    activity: Arc<Activity>,
) {
    let limits = &shared.limits;
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(BUFFER_BYTES.max(limits.header_bytes_max))
        .max_header_size(limits.header_bytes_max)
        // Our own activity check replaces hyper's timer: that one also counts the idle time between
        // requests, for which we want another limit, and arms a timer for each request.
        .header_read_timeout(None);
    // Hyper's own limit is the same, and it is told so by being told nothing: see `HEADERS_MAX`.
    if limits.headers_max != HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    let switch = Switch::default();
    let service = service_of(shared, peer, &activity, Some(switch.clone()));
    let io = TokioIo::new(Strict::new(io, &activity));
    let connection = builder.serve_connection(io, service_fn(service));
    drive(shared, connection.with_upgrades(), &activity, false).await;
    if let Some((client, tunnel)) = switch.take()
        && let Ok(client) = client.await
    {
        Box::pin(tunnel.join(client)).await;
    }
}

async fn serve_http2<S: Service>(
    shared: &Arc<Shared<S>>,
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    peer: Peer,
    activity: Arc<Activity>,
) {
    let limits = &shared.limits;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(BUFFER_BYTES)
        .keep_alive_interval(PING_EVERY);
    let service = service_of(shared, peer, &activity, None);
    let connection = builder.serve_connection(TokioIo::new(io), service_fn(service));
    drive(shared, connection, &activity, true).await;
}

/// Both ends of a tunnel, from the answer of 101 until the connection has ended as HTTP.
#[derive(Clone, Default)]
struct Switch(Arc<Mutex<Option<(OnUpgrade, Tunnel)>>>);

impl Switch {
    fn take(&self) -> Option<(OnUpgrade, Tunnel)> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.take()
    }

    /// Takes the tunnel that an answer offers; one of 101 without is no answer.
    fn prepare(&self, client: Option<OnUpgrade>, response: &mut Response<Body>) -> bool {
        let offer = response.extensions_mut().remove::<Offer>();
        let ends = client.zip(offer.and_then(|offer| offer.take()));
        let both = ends.is_some();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = ends;
        both
    }
}

/// Turns the service into hyper's form, with requests and response frames counted. With `switch`,
/// it may answer 101.
fn service_of<S: Service>(
    shared: &Arc<Shared<S>>,
    peer: Peer,
    activity: &Arc<Activity>,
    switch: Option<Switch>,
) -> impl Fn(Request<Incoming>) -> ServiceFuture + Send + 'static {
    let (service, peer) = (Arc::clone(&shared.service), Arc::new(peer));
    let activity = Arc::clone(activity);
    move |mut request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        let running = Running::begin(&activity, !request.body().is_end_stream());
        let switch = switch.clone();
        let client = request.extensions_mut().remove::<OnUpgrade>();
        Box::pin(async move {
            let mut response = service.call(&peer, request.map(Body::from)).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                if switch.is_some_and(|switch| switch.prepare(client, &mut response)) {
                    running.0.becomes_tunnel();
                } else {
                    tracing::error!("a service answers 101 where there is nothing to switch");
                    response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
            }
            Ok(response.map(|body| TrackedBody {
                body,
                running,
                frame_given: false,
            }))
        })
    }
}

type ServiceFuture =
    Pin<Box<dyn Future<Output = Result<Response<TrackedBody>, Infallible>> + Send>>;

/// A connection of either protocol that can be told to end after what runs.
trait Graceful: Future<Output = hyper::Result<()>> {
    fn shut_down(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::UpgradeableConnection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, B, E> Graceful for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<BoxError>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn shut_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Runs a connection to its end, with one timer for all its time limits.
async fn drive<S>(
    shared: &Shared<S>,
    connection: impl Graceful,
    activity: &Activity,
    multiplexed: bool,
) {
    tokio::pin!(connection);
    let timer = tokio::time::sleep(shared.limits.header_timeout);
    tokio::pin!(timer);
    let drained = shared.drain.started();
    tokio::pin!(drained);
    let mut closing = false;
    loop {
        tokio::select! {
            // In this order, since what happens on a connection is nearly always about a request.
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            () = &mut drained, if !closing => {
                closing = true;
                activity.will_close();
                connection.as_mut().shut_down();
            }
            () = &mut timer => {
                let wait = match activity.verdict(&shared.limits, multiplexed) {
                    Verdict::LookAgainIn(wait) => wait,
                    // Told to end already, and still nothing moves.
                    Verdict::Idle if closing => return,
                    Verdict::Idle => {
                        closing = true;
                        activity.will_close();
                        connection.as_mut().shut_down();
                        shared.limits.header_timeout
                    }
                    Verdict::SlowHead => return cut("slow_head"),
                    Verdict::Stalled => return cut("stalled"),
                };
                timer.as_mut().reset(tokio::time::Instant::now() + wait);
            }
        }
    }
}

fn cut(reason: &'static str) {
    counter!("moat_net_connections_cut_total", "reason" => reason).increment(1);
    tracing::debug!(reason, "cutting a slow connection");
}

/// Counts one request until its response's body is dropped.
struct Running(Arc<Activity>);

impl Running {
    fn begin(activity: &Arc<Activity>, has_body: bool) -> Self {
        activity.request_begins(has_body);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

/// A response body that says whose turn it is: the service's to give, or the peer's to take.
struct TrackedBody {
    body: Body,
    running: Running,
    frame_given: bool,
}

impl TrackedBody {
    fn take_frame(&mut self) {
        if std::mem::take(&mut self.frame_given) {
            self.running.0.frame_taken();
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.take_frame();
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) => {
                self.frame_given = true;
                self.running.0.frame_given();
            }
            Some(Err(error)) => tracing::warn!(%error, "response cut"),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.take_frame();
    }
}
