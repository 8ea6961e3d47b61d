//! Stores in memory, on virtual time, that fall ill and recover as a seed says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use moat_net::Endpoint;
use moat_net::client::{Dialer, Dialled, Stream};
use moat_types::Random;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Bytes that the network holds in each direction.
const PIPE_BYTES: usize = 64 * 1024;
/// More than the pipe and all buffers behind it hold, so that such an answer can be cut.
pub const LARGE_ANSWER_BYTES: usize = 1024 * 1024;

/// Numbers that one seed determines (SplitMix64). Good enough to choose by, and the same for ever.
pub struct Seeded(Mutex<u64>);

impl Seeded {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(seed)))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Some time from `low` to `high` milliseconds.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(low + self.below(high - low + 1))
    }
}

impl Random for Seeded {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// A value that changes, and those that wait for it. (A `watch` wakes them in an order by chance.)
pub struct Shown<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy> Shown<T> {
    pub fn new(value: T) -> Self {
        Self {
            value: Mutex::new(value),
            changed: Notify::new(),
        }
    }

    pub fn get(&self) -> T {
        *self.value.lock().unwrap()
    }

    pub fn set(&self, value: T) {
        *self.value.lock().unwrap() = value;
        self.changed.notify_waiters();
    }

    pub async fn until(&self, holds: impl Fn(T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            let now = self.get();
            if holds(now) {
                return now;
            }
            changed.await;
        }
    }
}

/// How a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Well,
    /// Its port refuses, and what was open is closed.
    Down,
    /// It takes everything and says nothing.
    Frozen,
    /// It closes instead of answering.
    Closing,
    /// It answers 503 to all but health checks.
    Busy,
}

pub struct Node {
    pub name: usize,
    random: Arc<Seeded>,
    condition: Shown<(Condition, Instant)>,
    connections: Mutex<JoinSet<()>>,
    /// How often each write was acted on.
    applied: Mutex<BTreeMap<String, usize>>,
    served: Mutex<usize>,
}

impl Node {
    pub fn new(name: usize, random: &Arc<Seeded>) -> Arc<Self> {
        Arc::new(Self {
            name,
            random: Arc::clone(random),
            condition: Shown::new((Condition::Well, Instant::now())),
            connections: Mutex::default(),
            applied: Mutex::default(),
            served: Mutex::default(),
        })
    }

    pub fn host(&self) -> String {
        format!("10.0.0.{}", self.name)
    }

    pub fn condition(&self) -> Condition {
        self.condition.get().0
    }

    /// Its condition, and for how long it has been in it.
    pub fn condition_for(&self) -> (Condition, Duration) {
        let (condition, since) = self.condition.get();
        (condition, since.elapsed())
    }

    pub fn set(&self, condition: Condition) {
        self.condition.set((condition, Instant::now()));
        if condition == Condition::Down {
            self.connections.lock().unwrap().abort_all();
        }
    }

    pub fn applied(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.applied.lock().unwrap()
    }

    pub fn served(&self) -> usize {
        *self.served.lock().unwrap()
    }

    async fn dial(self: Arc<Self>) -> io::Result<Box<dyn Stream>> {
        sleep(self.random.millis(0, 2)).await;
        if self.condition() == Condition::Down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let node = Arc::clone(&self);
        let service = service_fn(move |request| Arc::clone(&node).answer(request));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(theirs), service);
        let mut connections = self.connections.lock().unwrap();
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // A connection that was closed on purpose ends in an error, too.
            let _ = connection.await;
        });
        Ok(Box::new(ours))
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, io::Error> {
        let path = request.uri().path().to_owned();
        let write = request.method() != Method::GET && request.method() != Method::HEAD;
        let probe = path.starts_with("/minio/health/");
        if request.into_body().collect().await.is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        sleep(self.random.millis(2, 20)).await;
        let thawed = |(now, _): (Condition, Instant)| now != Condition::Frozen;
        let (now, _) = self.condition.until(thawed).await;
        if now == Condition::Busy && !probe {
            let mut response = Response::new(Full::from("busy"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        if write {
            *self.applied().entry(path.clone()).or_default() += 1;
        }
        if now == Condition::Closing {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !probe {
            *self.served.lock().unwrap() += 1;
        }
        let mut body = format!("{} {path}", self.name).into_bytes();
        if path.ends_with("large") {
            body.resize(LARGE_ANSWER_BYTES, b'.');
        }
        Ok(Response::new(Full::from(body)))
    }
}

/// The network from the proxy to the stores.
pub fn dialer(nodes: &[Arc<Node>]) -> Dialer {
    let nodes = nodes.to_vec();
    Arc::new(move |endpoint: Endpoint| -> Dialled {
        let node = nodes.iter().find(|node| node.host() == endpoint.host());
        let node = Arc::clone(node.expect("the configuration names these nodes alone"));
        Box::pin(node.dial())
    })
}

/// Serves one connection of a client until it ends; told to drain, it ends after what runs.
pub async fn serve_front<F>(
    stream: tokio::io::DuplexStream,
    draining: Arc<Shown<bool>>,
    call: impl Fn(Request<moat_net::Body>) -> F,
) where
    F: Future<Output = Response<moat_net::Body>>,
{
    let service = service_fn(|request: Request<Incoming>| {
        let answer = call(request.map(moat_net::Body::from));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        _ = draining.until(|draining| draining) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// A pipe between a client and the front.
pub fn pipe() -> (tokio::io::DuplexStream, tokio::io::DuplexStream) {
    tokio::io::duplex(PIPE_BYTES)
}
