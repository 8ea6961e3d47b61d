//! One accepted connection from its handshake to its end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use metrics::counter;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::activity::{Activity, Running, Verdict};
use crate::listener::ProxyProtocolFrom;
use crate::socket::Socket;
use crate::tls::{Handshake, ServerTls};
use crate::{Body, BoxError, ClientKey, Drain, Limits, Peer, Service, h1, proxy_protocol};

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
        let header = Box::pin(read_proxy_header(&mut stream));
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
    let limit = shared.limits.handshake_timeout;
    let handshake = Box::pin(tokio::time::timeout(limit, tls.accept(socket)));
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
        Box::pin(serve_http2(shared, stream, peer, activity)).await;
    } else {
        Box::pin(serve_http1(shared, stream, peer, activity)).await;
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
    io: impl h1::server::Io,
    peer: Peer,
    activity: Arc<Activity>,
) {
    let connection = h1::server::serve(shared, io, peer, Arc::clone(&activity));
    // It looks at the activity by itself whether it is to end.
    let switched = drive(shared, connection, |_| {}, &activity, false).await;
    if let Some(Some((tunnel, client, sent))) = switched {
        Box::pin(tunnel.join(client, sent)).await;
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
    let service = service_of(shared, peer, &activity);
    let connection = builder.serve_connection(TokioIo::new(io), service_fn(service));
    let shut_down =
        |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
    if let Some(Err(error)) = drive(shared, connection, shut_down, &activity, true).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// Turns the service into hyper's form, with requests and response frames counted.
fn service_of<S: Service>(
    shared: &Arc<Shared<S>>,
    peer: Peer,
    activity: &Arc<Activity>,
) -> impl Fn(Request<Incoming>) -> ServiceFuture + Send + 'static {
    let (service, peer) = (Arc::clone(&shared.service), Arc::new(peer));
    let activity = Arc::clone(activity);
    move |request| {
        let (service, peer) = (Arc::clone(&service), Arc::clone(&peer));
        let running = Running::begin(&activity, !request.body().is_end_stream());
        Box::pin(async move {
            let response = service.call(&peer, request.map(Body::from)).await;
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

/// Runs a connection to its end, with one timer for all its time limits. `None`: a limit ended it.
async fn drive<S, F: Future>(
    shared: &Shared<S>,
    connection: F,
    shut_down: impl Fn(Pin<&mut F>),
    activity: &Activity,
    multiplexed: bool,
) -> Option<F::Output> {
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
            ended = &mut connection => return Some(ended),
            () = &mut drained, if !closing => {
                closing = true;
                activity.will_close();
                shut_down(connection.as_mut());
            }
            () = &mut timer => {
                let wait = match activity.verdict(&shared.limits, multiplexed) {
                    Verdict::LookAgainIn(wait) => wait,
                    // Told to end already, and still nothing moves.
                    Verdict::Idle if closing => return None,
                    Verdict::Idle => {
                        closing = true;
                        activity.will_close();
                        shut_down(connection.as_mut());
                        shared.limits.header_timeout
                    }
                    Verdict::SlowHead => {
                        cut("slow_head");
                        return None;
                    }
                    Verdict::Stalled => {
                        cut("stalled");
                        return None;
                    }
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

/// A response body that says whose turn it is: the service's to give, or the peer's to take.
struct TrackedBody {
    body: Body,
    running: Running,
    frame_given: bool,
}

impl TrackedBody {
    fn take_frame(&mut self) {
        if std::mem::take(&mut self.frame_given) {
            self.running.activity().frame_taken();
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
                self.running.activity().frame_given();
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
