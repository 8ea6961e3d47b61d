//! One client connection, driven by whoever uses it.
//!
//! hyper splits a client connection into a sender and a future that does the I/O, meant to be
//! spawned. Here both stay together: waiting for an answer polls the I/O future first, and so does
//! reading the answer's body. Between requests nobody polls it; that the upstream closed an unused
//! connection is found out by one poll when it is taken from the pool.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Connection, Parts, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::Stream;
use super::pool::Pools;
use super::{ClientError, ClientErrorKind, Endpoint};
use crate::{Body, BoxError, Offer};

type Io = TokioIo<Box<dyn Stream>>;

/// A connection and its sender.
pub(super) struct Wire {
    sender: SendRequest<Body>,
    /// `None` once it has ended.
    connection: Option<Connection<Io, Body>>,
    /// What is left of one that ended in peace: a socket, and after a 101 it is another protocol's.
    left: Option<Parts<Io>>,
    reused: bool,
    once: bool,
}

impl Wire {
    pub(super) const fn new(sender: SendRequest<Body>, connection: Connection<Io, Body>) -> Self {
        Self {
            sender,
            connection: Some(connection),
            left: None,
            reused: false,
            once: false,
        }
    }

    /// Keeps the connection from being used for a second request.
    pub(super) const fn use_once(&mut self) {
        self.once = true;
    }

    /// Does what I/O is possible now. Errors reach the request's future or body through hyper: also
    /// that of a request that was handed over in the moment in which the connection ended, but only
    /// because the connection is dropped.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = Pin::new(connection).poll(cx)
        {
            let connection = self.connection.take().filter(|_| ended.is_ok());
            self.left = connection.map(Connection::into_parts);
        }
    }

    const fn has_ended(&self) -> bool {
        self.connection.is_none()
    }

    /// Whether the next request can be sent, as far as one look at the socket tells.
    pub(super) fn is_usable(&mut self) -> bool {
        // The task that takes the connection polls it again with its own waker.
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.has_ended() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn exchange(
        mut self: Box<Self>,
        request: Request<Body>,
        pools: &Arc<Pools>,
        endpoint: &Endpoint,
    ) -> Result<Response<Body>, ClientError> {
        // A new connection says that it takes a request when it is polled for the first time.
        if !self.reused {
            self.drive(&mut Context::from_waker(Waker::noop()));
        }
        let mut answer = pin!(self.sender.try_send_request(request));
        let outcome = std::future::poll_fn(|cx| {
            self.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        match outcome {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                self.switched(response)
            }
            Ok(response) => {
                let pools = Arc::clone(pools);
                let endpoint = endpoint.clone();
                let response = response.map(|incoming| {
                    let mut body = AnswerBody {
                        incoming,
                        lease: Some(Lease {
                            wire: self,
                            pools,
                            endpoint,
                        }),
                    };
                    // HEAD, 204, 304 and empty answers: nobody may ever poll their body.
                    if body.incoming.is_end_stream() {
                        body.finish(&mut Context::from_waker(Waker::noop()));
                        Body::from(body.incoming)
                    } else {
                        Body::stream(body)
                    }
                });
                Ok(response)
            }
            Err(error) => Err(ClientError::of_sending(error, self.reused)),
        }
    }
}

impl Wire {
    /// The answer to a request whose connection now carries another protocol.
    fn switched(
        mut self: Box<Self>,
        response: Response<Incoming>,
    ) -> Result<Response<Body>, ClientError> {
        self.drive(&mut Context::from_waker(Waker::noop()));
        let Some(left) = self.left else {
            let message = "the answer is 101 in the middle of something else";
            return Err(ClientError::new(ClientErrorKind::BadAnswer, message));
        };
        let mut response = response.map(|_| Body::empty());
        let offer = Offer::new(left.io.into_inner(), left.read_buf);
        response.extensions_mut().insert(offer);
        Ok(response)
    }
}

/// A connection on loan to the body of an answer.
struct Lease {
    wire: Box<Wire>,
    pools: Arc<Pools>,
    endpoint: Endpoint,
}

/// The body of an answer. Holds the connection and gives it back at the end; dropped before, it
/// closes the connection, since its rest would stand in the way of the next answer.
struct AnswerBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl AnswerBody {
    /// The body has ended: keep the connection if the request was sent to its end as well.
    fn finish(&mut self, cx: &mut Context<'_>) {
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        lease.wire.drive(cx);
        if !lease.wire.once && !lease.wire.has_ended() && lease.wire.sender.is_ready() {
            lease.wire.reused = true;
            lease.pools.put(&lease.endpoint, lease.wire);
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        // The first poll tells the connection that data is wanted, the drive fetches it, the second
        // poll takes it. Only the drive needs our waker: nothing else fills the body.
        let noop = &mut Context::from_waker(Waker::noop());
        let mut frame = Pin::new(&mut this.incoming).poll_frame(noop);
        if frame.is_pending() {
            if let Some(lease) = &mut this.lease {
                lease.wire.drive(cx);
            }
            frame = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        match &frame {
            Poll::Ready(None) => this.finish(cx),
            Poll::Ready(Some(Ok(_))) if this.incoming.is_end_stream() => this.finish(cx),
            _ => {}
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::client::conn::http1;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    async fn wire() -> (Wire, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4096);
        let stream: Box<dyn Stream> = Box::new(ours);
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.unwrap();
        (Wire::new(sender, connection), theirs)
    }

    fn request() -> Request<Body> {
        Request::get("/").body(Body::empty()).unwrap()
    }

    /// The upstream closes a kept connection between the look at it and the request.
    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_under_a_request_is_an_error_and_no_hang() {
        let pools = Arc::new(Pools::new(1, Duration::from_secs(60)));
        let endpoint = Endpoint::parse("http://127.0.0.1:1").unwrap();
        let (wire, mut upstream) = wire().await;
        let first = tokio::spawn({
            let (pools, endpoint) = (Arc::clone(&pools), endpoint.clone());
            async move {
                let answer = Box::new(wire).exchange(request(), &pools, &endpoint).await;
                drop(answer.unwrap());
            }
        });
        let mut head = [0; 1024];
        assert_ne!(upstream.read(&mut head).await.unwrap(), 0);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        upstream.write_all(answer).await.unwrap();
        first.await.unwrap();
        let kept = pools.take(&endpoint).expect("it can be used again");
        drop(upstream);
        let second = kept.exchange(request(), &pools, &endpoint);
        let error = tokio::time::timeout(Duration::from_secs(3600), second)
            .await
            .expect("the request is told")
            .unwrap_err();
        assert!(error.reused() && error.nothing_sent(), "{error}");
    }
}
