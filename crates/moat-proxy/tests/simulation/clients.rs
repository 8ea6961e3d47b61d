//! Clients that read and write, and remember what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use moat_net::{Peer, Service as _};
use moat_proxy::Proxy;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::Told;
use crate::world::{LARGE_ANSWER_BYTES, Node, Seeded, Shown, pipe, serve_front};

const COUNT: usize = 6;
/// Between one request of a client and its next.
const THINKS: (u64, u64) = (50, 400);

/// What a client knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// An error that says so; the store's own 503 among them.
    Failed,
    /// The connection ended instead of an answer, or within it.
    Cut,
}

#[derive(Default)]
struct Known {
    writes: BTreeMap<String, Outcome>,
    failures: usize,
}

pub struct Clients {
    known: Arc<Mutex<Known>>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

/// One client's way to the proxy.
struct Client {
    number: usize,
    proxy: Arc<Proxy>,
    nodes: Vec<Arc<Node>>,
    random: Arc<Seeded>,
    told: Told,
    draining: Arc<Shown<bool>>,
    known: Arc<Mutex<Known>>,
}

impl Clients {
    pub fn start(
        proxy: &Arc<Proxy>,
        nodes: &[Arc<Node>],
        random: &Arc<Seeded>,
        told: &Told,
        draining: &Arc<Shown<bool>>,
    ) -> Self {
        let known = Arc::<Mutex<Known>>::default();
        let one = |number| {
            let client = Client {
                number,
                proxy: Arc::clone(proxy),
                nodes: nodes.to_vec(),
                random: Arc::clone(random),
                told: told.clone(),
                draining: Arc::clone(draining),
                known: Arc::clone(&known),
            };
            tokio::spawn(client.run())
        };
        let running = (0..COUNT).map(one).collect();
        Self {
            running: Mutex::new(running),
            known,
        }
    }

    /// Waits until all have ended by the drain.
    pub async fn finish(&self) {
        let running = std::mem::take(&mut *self.running.lock().unwrap());
        for one in running {
            let ended = tokio::time::timeout(Duration::from_secs(60), one).await;
            ended.expect("a drain ends").unwrap();
        }
    }

    pub fn failures(&self) -> usize {
        self.check_on_them();
        self.known.lock().unwrap().failures
    }

    /// A client that found something wrong has ended before its time.
    fn check_on_them(&self) {
        let running = self.running.lock().unwrap();
        assert!(
            !running.iter().any(JoinHandle::is_finished),
            "a client gave up, see above"
        );
    }

    pub fn check_writes(&self, nodes: &[Arc<Node>]) {
        let known = self.known.lock().unwrap();
        assert!(known.writes.len() > 100);
        for (path, outcome) in &known.writes {
            let times: usize = nodes
                .iter()
                .map(|node| node.applied().get(path).copied().unwrap_or(0))
                .sum();
            // What has no body and no condition may be sent again.
            let most = if path.contains("DELETE") { 4 } else { 1 };
            assert!(times <= most, "{path} was acted on {times} times");
            if *outcome == Outcome::Done {
                assert!(times >= 1, "{path} was acknowledged and not acted on");
            }
        }
    }
}

impl Client {
    async fn run(self) {
        let mut sender = self.connect().await;
        for nth in 0.. {
            sleep(self.random.millis(THINKS.0, THINKS.1)).await;
            if sender.ready().await.is_err() {
                if self.draining.get() {
                    return;
                }
                sender = self.connect().await;
            }
            let (method, large) = match self.random.below(20) {
                0..10 => (Method::GET, false),
                10 => (Method::GET, true),
                11..13 => (Method::HEAD, false),
                13..18 => (Method::PUT, false),
                _ => (Method::DELETE, false),
            };
            let end = if large { "large" } else { "" };
            let path = format!("/{method}/{}/{nth}/{end}", self.number);
            let body = if method == Method::PUT { "data" } else { "" };
            let request = Request::builder()
                .method(&method)
                .uri(&path)
                .header("host", "lake")
                .body(Full::from(body));
            let outcome = match sender.send_request(request.unwrap()).await {
                Ok(response) => self.judge(&method, &path, response).await,
                Err(error) if error.is_canceled() || error.is_closed() => {
                    // It did not leave us: the connection had ended.
                    assert!(self.draining.get(), "{path}: {error}");
                    return;
                }
                Err(error) => panic!("{path}: {error}"),
            };
            self.note(&method, path, outcome);
        }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let (ours, theirs) = pipe();
        let (proxy, draining) = (Arc::clone(&self.proxy), Arc::clone(&self.draining));
        let address = SocketAddr::from(([192, 0, 2, 1], 1000 + self.number as u16));
        let peer = Arc::new(Peer::plain(address, SocketAddr::from(([192, 0, 2, 9], 80))));
        tokio::spawn(async move {
            let call = |request| {
                let (proxy, peer) = (Arc::clone(&proxy), Arc::clone(&peer));
                async move { proxy.call(&peer, request).await }
            };
            serve_front(theirs, draining, call).await;
        });
        let (sender, connection) = handshake(TokioIo::new(ours)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn judge(&self, method: &Method, path: &str, response: Response<Incoming>) -> Outcome {
        let status = response.status();
        let body = response.into_body().collect().await;
        self.told.add(&format!("{path} {status} {}", body.is_ok()));
        let Ok(body) = body else {
            // Only what is too large for all buffers can be cut half way.
            assert!(path.ends_with("large"), "{path} was cut");
            return Outcome::Cut;
        };
        let body = body.to_bytes();
        if status == StatusCode::OK {
            let right = match method {
                &Method::HEAD => body.is_empty(),
                _ if path.ends_with("large") => body.len() == LARGE_ANSWER_BYTES,
                _ => body.ends_with(path.as_bytes()),
            };
            assert!(right, "{path}: {} bytes", body.len());
            return Outcome::Done;
        }
        let from_the_store = body == "busy" || (method == Method::HEAD && status == 503);
        let fate_unknown = [502, 504].contains(&status.as_u16());
        let write = *method == Method::PUT || *method == Method::DELETE;
        let conditions: Vec<_> = self.nodes.iter().map(|node| node.condition()).collect();
        assert!(
            from_the_store || (write && fate_unknown),
            "{path} got {status} with {conditions:?}"
        );
        Outcome::Failed
    }

    fn note(&self, method: &Method, path: String, outcome: Outcome) {
        let mut known = self.known.lock().unwrap();
        if outcome != Outcome::Done {
            known.failures += 1;
        }
        if *method == Method::PUT || *method == Method::DELETE {
            known.writes.insert(path, outcome);
        }
    }
}
