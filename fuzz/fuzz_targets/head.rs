//! Heads of HTTP/1 requests, and where the next one begins.
//!
//! What the guard lets through must be read by hyper as the guard read it: whoever finds more requests
//! in the same bytes has found one that was smuggled in. And how the bytes were cut must not matter.

#![no_main]

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use moat_net::strict::Guard;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fuzz_target!(|input: &[u8]| {
    let (whole, heads) = through(input, input.len());
    let piece = 1 + usize::from(input.first().copied().unwrap_or(0) % 9);
    assert_eq!(through(input, piece), (whole.clone(), heads));
    let served = served(whole);
    assert!(served <= heads, "{served} requests were served, {heads} were seen");
});

/// The bytes as the guard leaves them, and the heads that it saw.
fn through(input: &[u8], piece: usize) -> (Vec<u8>, u64) {
    let mut guard = Guard::default();
    let mut bytes = input.to_vec();
    for piece in bytes.chunks_mut(piece.max(1)) {
        guard.inspect(piece);
    }
    (bytes, guard.heads())
}

/// How many requests hyper finds.
fn served(bytes: Vec<u8>) -> u64 {
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    let service = service_fn(move |request: Request<Incoming>| {
        counted.fetch_add(1, Relaxed);
        async {
            // Where the next request begins is known at the end of the body alone.
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Empty::<&[u8]>::new()))
        }
    });
    let connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(Client { bytes, at: 0 }), service);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    // Most end with an error of the client's; what counts is what was served before.
    let _ = runtime.expect("a runtime without drivers").block_on(connection);
    count.load(Relaxed)
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
