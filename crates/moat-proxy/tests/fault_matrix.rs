//! Guards what clients see of each way in which a store can fail, at its start, in mid-request and in
//! mid-answer: reads are answered all the same, writes are acted on at most once and their failure is
//! told, nothing that was cut looks whole, and a store that is well again is used again.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use moat_net::tls::{ClientAuth, ServerTls};
use moat_net::{Body, HttpClient};
use moat_proxy::Config;
use support::{
    Front, Notes, Pki, Server, any_port, client, config, get, read_head, request, soon, text,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Requests that meet a fault at once. Few enough for the budget of repetitions.
const CLIENTS: usize = 12;

/// How a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The process is gone, and its port refuses.
    Killed,
    /// It takes connections and requests and says nothing more.
    Frozen,
    /// It answers everything, a piece now and then.
    Slowed,
    /// Connections end with a reset.
    Resetting,
    /// What it says is no HTTP.
    Garbage,
    /// It closes its side without an answer and reads on.
    HalfClosing,
}

const FAULTS: [Fault; 6] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Slowed,
    Fault::Resetting,
    Fault::Garbage,
    Fault::HalfClosing,
];

/// What a store does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Serve,
    /// Takes requests whole, and waits before it answers.
    HoldRequests,
    /// Answers them by half, and waits.
    HoldAnswers,
    Fail(Fault),
}

/// A store on bare TCP.
struct Store {
    name: &'static str,
    address: std::net::SocketAddr,
    act: watch::Sender<Act>,
    inside: Arc<Inside>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Inside {
    held: AtomicUsize,
    applied: Notes,
    connections: Mutex<JoinSet<()>>,
}

impl Store {
    async fn start(name: &'static str, act: Act) -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (act, _) = watch::channel(act);
        let inside = Arc::new(Inside::default());
        let task = serve(listener, name, &act, &inside);
        let this = Self {
            name,
            address,
            act,
            inside,
            task,
        };
        if *this.act.borrow() == Act::Fail(Fault::Killed) {
            this.kill();
        }
        this
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn kill(&self) {
        self.task.abort();
        self.inside.connections.lock().unwrap().abort_all();
    }

    fn fail(&self, fault: Fault) {
        self.act.send_replace(Act::Fail(fault));
        if fault == Fault::Killed {
            self.kill();
        }
    }

    async fn heal(&mut self) {
        self.act.send_replace(Act::Serve);
        if !self.task.is_finished() {
            return;
        }
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.task = serve(listener, self.name, &self.act, &self.inside);
    }

    fn held(&self) -> usize {
        self.inside.held.load(Relaxed)
    }
}

fn serve(
    listener: TcpListener,
    name: &'static str,
    act: &watch::Sender<Act>,
    inside: &Arc<Inside>,
) -> JoinHandle<()> {
    let (act, inside) = (act.clone(), Arc::clone(inside));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let one = connection(stream, name, act.subscribe(), Arc::clone(&inside));
            inside.connections.lock().unwrap().spawn(one);
        }
    })
}

async fn connection(
    mut stream: TcpStream,
    name: &'static str,
    mut act: watch::Receiver<Act>,
    inside: Arc<Inside>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let probe = path.starts_with("/minio/health/");
        if head.starts_with("PUT ") {
            // Whoever has read all of it may have acted on it, whatever it says afterwards.
            inside.applied.add(&path);
        }
        let text = format!("{name} answers {path}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        let mut sent = 0;
        let now = *act.borrow_and_update();
        if !probe && matches!(now, Act::HoldRequests | Act::HoldAnswers) {
            if now == Act::HoldAnswers {
                sent = answer.len() - 5;
                stream.write_all(&answer.as_bytes()[..sent]).await.unwrap();
            }
            inside.held.fetch_add(1, Relaxed);
            act.changed().await.unwrap();
        }
        let now = *act.borrow();
        let rest = &answer.as_bytes()[sent..];
        match now {
            Act::Fail(Fault::Slowed) => dribble(&mut stream, rest).await,
            Act::Fail(fault) => return fail(stream, fault).await,
            _ => stream.write_all(rest).await.unwrap(),
        }
    }
}

async fn dribble(stream: &mut TcpStream, bytes: &[u8]) {
    for piece in bytes.chunks(bytes.len().div_ceil(8)) {
        // This is how it is slow; nothing waits for it but the request itself.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = stream.write_all(piece).await;
    }
}

async fn fail(mut stream: TcpStream, fault: Fault) {
    match fault {
        Fault::Resetting => stream.set_zero_linger().unwrap(),
        Fault::Garbage => {
            let _ = stream
                .write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                .await;
        }
        Fault::HalfClosing => {
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Fault::Frozen => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        // Whoever is killed is aborted, and does not get here.
        Fault::Killed | Fault::Slowed => std::future::pending().await,
    }
}

/// Sends everything to the first store as long as it is up.
fn preferring_first(stores: &[Store]) -> Config {
    let urls: Vec<_> = stores.iter().map(Store::url).collect();
    let mut config = config(&urls);
    config.sites[0].upstreams[0].weight = 256;
    config.sites[0].health.timeout = Duration::from_millis(500);
    config.liveness_check_every = Duration::from_millis(100);
    config.slow_start = Duration::ZERO;
    config
}

async fn stores(first: Act) -> [Store; 3] {
    [
        Store::start("first", first).await,
        Store::start("second", Act::Serve).await,
        Store::start("third", Act::Serve).await,
    ]
}

/// Every second one is a read, every other a write.
async fn ask(client: HttpClient, front: Arc<Front>, number: usize) -> Asked {
    let path = format!("/b/{number}");
    let request = if number.is_multiple_of(2) {
        get(&path)
    } else {
        request("PUT", &path, Body::full("data"))
    };
    let response = soon(client.send(&front.plain_endpoint(), request)).await;
    Asked {
        number,
        path,
        response: response.unwrap(),
    }
}

struct Asked {
    number: usize,
    path: String,
    response: Response<Body>,
}

impl Asked {
    /// The answer is right, or says of a write that its fate is unknown.
    async fn check(self, writes_may_fail: bool, context: &str) {
        let status = self.response.status();
        let retry_after = self.response.headers().get("retry-after").cloned();
        let said = text(self.response).await;
        if status == StatusCode::OK {
            assert!(
                said.ends_with(&format!("answers {}", self.path)),
                "{context}: {said}"
            );
            return;
        }
        assert!(
            !self.number.is_multiple_of(2),
            "{context}: a read got {status}: {said}"
        );
        assert!(writes_may_fail, "{context}: a write got {status}: {said}");
        assert!([502, 504].contains(&status.as_u16()), "{context}: {status}");
        assert_eq!(retry_after.unwrap(), "1", "{context}");
        assert!(
            said.contains("<Code>ServiceUnavailable</Code>"),
            "{context}: {said}"
        );
        assert!(!said.contains("127.0.0.1"), "{context}: {said}");
    }
}

fn no_write_was_applied_twice(stores: &[Store], context: &str) {
    let mut all: Vec<_> = stores
        .iter()
        .flat_map(|one| one.inside.applied.all())
        .collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "{context}: {all:?}");
}

/// The first store is well again: everything goes there, and nothing fails any more.
async fn heals(stores: &mut [Store; 3], front: &Arc<Front>, context: &str) {
    stores[0].heal().await;
    front.until_up(&[true; 3]).await;
    let client = client(None);
    for number in 100..104 {
        let asked = ask(client.clone(), Arc::clone(front), number).await;
        assert_eq!(asked.response.status(), 200, "{context}");
        let said = text(asked.response).await;
        assert_eq!(said, format!("first answers /b/{number}"), "{context}");
    }
    no_write_was_applied_twice(stores, context);
}

#[tokio::test]
async fn a_store_that_fails_from_the_start_on() {
    for fault in FAULTS {
        let context = format!("{fault:?} at start");
        let mut stores = stores(Act::Fail(fault)).await;
        let front = Arc::new(Front::start(preferring_first(&stores), None));
        // A store that takes a request and is never heard of again may have acted on it. One that
        // refuses connections can't have.
        let writes_may_fail = !matches!(fault, Fault::Killed | Fault::Slowed);
        let client = client(None);
        for number in 0..CLIENTS {
            let asked = ask(client.clone(), Arc::clone(&front), number).await;
            asked.check(writes_may_fail, &context).await;
        }
        if fault != Fault::Slowed {
            front.until_up(&[false, true, true]).await;
            for number in 20..20 + CLIENTS {
                let asked = ask(client.clone(), Arc::clone(&front), number).await;
                asked.check(false, &context).await;
            }
        }
        heals(&mut stores, &front, &context).await;
    }
}

/// Has the first store take `CLIENTS` requests and stop where `hold` says.
async fn held(hold: Act) -> ([Store; 3], Arc<Front>, Vec<JoinHandle<Asked>>) {
    let stores = stores(hold).await;
    let front = Arc::new(Front::start(preferring_first(&stores), None));
    front.until_up(&[true; 3]).await;
    let client = client(None);
    let running = (0..CLIENTS)
        .map(|number| tokio::spawn(ask(client.clone(), Arc::clone(&front), number)))
        .collect();
    front.until(|_| stores[0].held() == CLIENTS).await;
    (stores, front, running)
}

#[tokio::test]
async fn a_store_that_fails_in_mid_request() {
    for fault in FAULTS {
        let context = format!("{fault:?} in mid-request");
        let (mut stores, front, running) = held(Act::HoldRequests).await;
        stores[0].fail(fault);
        for one in running {
            let asked = soon(one).await.unwrap();
            asked.check(fault != Fault::Slowed, &context).await;
        }
        if fault != Fault::Slowed {
            front.until_up(&[false, true, true]).await;
        }
        heals(&mut stores, &front, &context).await;
    }
}

#[tokio::test]
async fn a_store_that_fails_in_mid_answer() {
    for fault in FAULTS {
        let context = format!("{fault:?} in mid-answer");
        let (mut stores, front, running) = held(Act::HoldAnswers).await;
        let mut answers = Vec::new();
        for one in running {
            answers.push(soon(one).await.unwrap());
        }
        stores[0].fail(fault);
        for asked in answers {
            assert_eq!(asked.response.status(), 200, "{context}");
            let whole = soon(asked.response.into_body().collect()).await;
            // Bytes that follow within the announced length can't be told from the answer.
            match fault {
                Fault::Slowed => {
                    let body = whole.unwrap().to_bytes();
                    let expected = format!("first answers {}", asked.path);
                    assert_eq!(body, expected, "{context}");
                }
                Fault::Garbage => {}
                _ => assert!(whole.is_err(), "{context}: a cut answer looked whole"),
            }
        }
        if fault != Fault::Slowed {
            front.until_up(&[false, true, true]).await;
        }
        heals(&mut stores, &front, &context).await;
    }
}

/// A certificate that runs out while the store serves: connections that are there go on, new ones go
/// elsewhere, and the renewal brings the store back.
#[tokio::test]
async fn a_certificate_that_expires_under_way_and_is_renewed() {
    let (good, expired) = (Pki::new(), Pki::expired());
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("crt"), folder.path().join("key"));
    good.copy_to(&crt, &key);
    let tls = ServerTls::load(&crt, &key, ClientAuth::None).unwrap();
    let named = |name: &'static str, tls: ServerTls| {
        Server::upstream(Some(tls), move |_| async move {
            Response::new(Body::full(name))
        })
    };
    let (first, second) = (named("first", tls.clone()), named("second", good.server()));
    let mut config = config(&[first.url("https"), second.url("https")]);
    config.sites[0].upstreams[0].weight = 256;
    config.sites[0].tls = Some(good.client_trusting(&[&expired]));
    config.slow_start = Duration::ZERO;
    let front = Front::start(config, None);
    front.until_up(&[true; 2]).await;
    let client = client(None);
    let said = async |path: &str, method: &str| {
        let request = request(method, path, Body::full("data"));
        let response = soon(client.send(&front.plain_endpoint(), request)).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        text(response).await
    };
    assert_eq!(said("/b/1", "PUT").await, "first");
    expired.copy_to(&crt, &key);
    tls.reload().unwrap();
    // Resumption must not hide it for longer than connections last.
    let mut met = said("/b/2", "PUT").await;
    soon(async {
        while front.endpoints()[0].is_up() || met != "second" {
            met = said("/b/3", "PUT").await;
        }
    })
    .await;
    good.copy_to(&crt, &key);
    tls.reload().unwrap();
    front.until_up(&[true; 2]).await;
    assert_eq!(said("/b/4", "PUT").await, "first");
}
