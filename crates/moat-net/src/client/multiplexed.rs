//! HTTP/2 connections, each shared by many requests.
//!
//! Unlike those of HTTP/1.1 they have tasks of their own: their frames belong to all requests. A
//! further connection is opened when all have as many requests as one should carry, since all
//! bytes of one connection pass one after the other.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{EXPECT, HOST};
use http::{Request, Response, Uri, Version, uri};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::connect::Stream;
use super::{ClientError, ClientErrorKind, Endpoint};
use crate::{Body, BoxError};

/// Requests on one connection before another is opened. Servers allow 100 or more.
pub(super) const REQUESTS_MAX: usize = 64;
/// What an upstream may send before it is read: per stream enough for 10 Gbit/s at 1 ms, and for the
/// connection enough that one reader who pauses does not hold up the others.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Body bytes in a frame: larger ones cost fewer.
const FRAME_BYTES: u32 = 256 * 1024;
/// Bytes of a body that wait to be sent.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// All of an answer's headers.
const HEADER_BYTES_MAX: u32 = 128 * 1024;
/// A connection that answers no ping is gone.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A connection, or one of its users.
#[derive(Clone)]
pub(super) struct Multiplexed {
    sender: SendRequest<Body>,
    requests: Arc<AtomicUsize>,
    /// When it was used last.
    pub(super) since: Instant,
    reused: bool,
}

impl Multiplexed {
    /// Begins to speak HTTP/2. The connection lives until no clone is left and its requests are done.
    pub(super) async fn begin(stream: Box<dyn Stream>) -> Result<Self, ClientError> {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::new(ClientErrorKind::Connect, error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http/2 connection ended");
            }
        });
        Ok(Self {
            sender,
            requests: Arc::default(),
            since: Instant::now(),
            reused: false,
        })
    }

    /// Whether it can carry another request, as far as is known.
    pub(super) fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.requests.load(Relaxed) < REQUESTS_MAX
    }

    /// Whether it may be closed: it has ended, or nothing was sent over it for `idle`.
    pub(super) fn is_expired(&self, idle: Duration) -> bool {
        let unused = self.requests.load(Relaxed) == 0 && self.since.elapsed() >= idle;
        self.sender.is_closed() || unused
    }

    /// For a further request.
    pub(super) fn again(&mut self) -> Self {
        self.since = Instant::now();
        Self {
            reused: true,
            ..self.clone()
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        mut self,
        mut request: Request<Body>,
        endpoint: &Endpoint,
    ) -> Result<Response<Body>, ClientError> {
        let counted = Counted::new(&self.requests);
        let host = request.headers().get(HOST).cloned();
        if let Err(error) = prepare(endpoint, &mut request) {
            return Err(ClientError::new(ClientErrorKind::Request, error).returning(request));
        }
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response.map(|incoming| {
                if incoming.is_end_stream() {
                    return Body::from(incoming);
                }
                Body::stream(AnswerBody {
                    incoming,
                    _counted: counted,
                })
            })),
            Err(error) => {
                let mut error = ClientError::of_sending(error, self.reused);
                Err(match error.take_request() {
                    Some(mut request) => {
                        // As it was: the next connection may be of HTTP/1.1.
                        request.headers_mut().extend(host.map(|host| (HOST, host)));
                        error.returning(request)
                    }
                    None => error,
                })
            }
        }
    }
}

/// HTTP/2 has the host in the URI. `Expect` is left out: whoever gave the body has decided that it
/// may flow.
fn prepare(endpoint: &Endpoint, request: &mut Request<Body>) -> Result<(), BoxError> {
    let host = request.headers_mut().remove(HOST);
    let host = host.as_ref().unwrap_or_else(|| endpoint.host_header());
    let scheme = if endpoint.is_tls() {
        uri::Scheme::HTTPS
    } else {
        uri::Scheme::HTTP
    };
    let path = request.uri().path_and_query().cloned();
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(uri::Authority::try_from(host.as_bytes())?);
    parts.path_and_query = Some(path.unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts)?;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(EXPECT);
    Ok(())
}

/// Counts one request until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The body of an answer, which keeps its request counted.
struct AnswerBody {
    incoming: Incoming,
    _counted: Counted,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = Pin::new(&mut self.get_mut().incoming).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
