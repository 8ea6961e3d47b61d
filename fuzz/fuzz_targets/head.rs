//! Requests of HTTP/1.1, one behind the other: heads, bodies, and where the next one begins.
//!
//! What our server takes for a request, another implementation that takes it too must read in the same
//! way, body included: where two of them differ, requests can be smuggled past one of them. And how the
//! bytes were cut must not matter.

#![no_main]

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::BytesMut;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use moat_net::h1::body::{Decoder, Piece};
use moat_net::h1::head::{Finder, parse_request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Enough for any input.
const HEAD_BYTES_MAX: usize = 1 << 20;
const HEADERS_MAX: usize = 100;

/// Method, target, and the body.
type Seen = (Method, String, Vec<u8>);

fuzz_target!(|input: &[u8]| {
    let whole = ours(input, input.len());
    let piece = 1 + usize::from(input.first().copied().unwrap_or(0) % 9);
    assert_eq!(ours(input, piece), whole);
    for (ours, theirs) in whole.iter().zip(theirs(input)) {
        assert_eq!(*ours, theirs);
    }
});

/// The requests that our server finds.
fn ours(input: &[u8], piece: usize) -> Vec<Seen> {
    let mut pieces = input.chunks(piece.max(1));
    let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
    loop {
        let mut finder = Finder::default();
        let head = loop {
            match finder.take(&mut buffer, HEAD_BYTES_MAX) {
                Ok(Some(head)) => break head,
                Ok(None) => match pieces.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => return seen,
                },
                Err(_) => return seen,
            }
        };
        let Ok(head) = parse_request(&head, HEADERS_MAX) else {
            return seen;
        };
        let mut decoder = Decoder::new(head.framing);
        let mut body = Vec::new();
        loop {
            match decoder.take(&mut buffer) {
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::Trailers(_) | Piece::End) => break,
                Ok(Piece::More) => match pieces.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => return seen,
                },
                Err(_) => return seen,
            }
        }
        // Behind these, what follows is no HTTP, or is not read.
        let parts = head.parts;
        let last = !head.keep_alive
            || parts.method == Method::CONNECT
            || parts.headers.contains_key(header::UPGRADE);
        seen.push((parts.method, parts.uri.to_string(), body));
        if last {
            return seen;
        }
    }
}

/// The requests that hyper finds.
fn theirs(input: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let all = Arc::clone(&all);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let body = body.to_bytes().to_vec();
                let mut all = all.lock().expect("no panics under it");
                all.push((parts.method, parts.uri.to_string(), body));
            }
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }
    });
    let client = Client {
        bytes: input.to_vec(),
        at: 0,
    };
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(client), service);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    // Most end with an error of the client's; what counts is what was served before.
    let _ = runtime.expect("a runtime without drivers").block_on(connection);
    std::mem::take(&mut *seen.lock().expect("no panics under it"))
}
/// A client that says this, and hears nothing.
struct Client {
    bytes: Vec<u8>,
    at: usize,
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.bytes.len().min(self.at + buf.remaining());
        buf.put_slice(&self.bytes[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
