//! Guards what a proxy promises over several endpoints and sites: failover and return, reload without
//! a gap, frozen servers noticed and slow ones left alone, and replays that nobody can act on twice.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use moat_net::{Body, HttpClient, Limits, Listener, ListenerConfig};
use moat_proxy::config::{ProxyProtocol, SidekickPaths};
use moat_proxy::status::AddressState;
use moat_proxy::trace::{Filter, Form, Tracer};
use moat_proxy::{Admin, Config, SiteConfig, Upstream};
use moat_types::SystemClock;
use support::{
    Front, Notes, Pki, Server, any_port, client, config, get, raw_upstream, request, soon, text,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

fn named(name: &'static str) -> Server {
    Server::upstream(
        None,
        move |_| async move { Response::new(Body::full(name)) },
    )
}

/// One site for each URL.
fn sites(urls: &[String]) -> Config {
    let site = |url: &String| SiteConfig {
        health: config(&[]).sites[0].health.clone(),
        ..SiteConfig::new(vec![Upstream::parse(url).unwrap()])
    };
    Config::of_sites(urls.iter().map(site).collect())
}

async fn ask(client: &HttpClient, front: &Front) -> String {
    let response = soon(client.send(&front.plain_endpoint(), get("/b/k"))).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200);
    text(response).await
}

#[tokio::test]
async fn a_site_takes_over_and_gives_back_only_after_a_while() {
    let (first, second) = (named("first"), named("second"));
    let mut config = sites(&[first.url("http"), second.url("http")]);
    config.fail_back_after = Duration::from_secs(2);
    let front = Front::start(config, None);
    let client = client(None);
    for _ in 0..5 {
        assert_eq!(ask(&client, &front).await, "first");
    }
    let address = first.addr;
    first.drain.start(Duration::ZERO);
    soon(first.task).await.unwrap();
    // No request is lost between the death and the probe that sees it.
    for _ in 0..5 {
        assert_eq!(ask(&client, &front).await, "second");
    }
    front.until_up(&[false, true]).await;
    let handler = |_: Request<Body>| async { Response::new(Body::full("first")) };
    let again = Server::start(address, None, Arc::new(support::Handler(handler)));
    front.until_up(&[true, true]).await;
    assert_eq!(front.proxy.status().active_site, Some(2));
    assert_eq!(ask(&client, &front).await, "second");
    front
        .until(|front| front.proxy.status().active_site == Some(1))
        .await;
    assert_eq!(ask(&client, &front).await, "first");
    drop(again);
}

#[tokio::test]
async fn shares_of_a_site_follow_weights_and_zones() {
    let servers = [named("a"), named("b"), named("c")];
    let [a, b, c] = servers.each_ref().map(|server| server.url("http"));
    let site = Upstream::parse_site(&format!("{a} zone=x, {b} zone=x weight=2, {c}")).unwrap();
    let mut config = Config::new(site);
    config.zone = Some("x".into());
    let front = Front::start(config, None);
    let client = client(None);
    for _ in 0..12 {
        assert_ne!(ask(&client, &front).await, "c");
    }
    // One after the other, the heavier one is always the better choice.
    let requests: Vec<_> = front.endpoints().iter().map(|one| one.requests).collect();
    assert_eq!(requests, [0, 12, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_cost_no_request_and_no_count() {
    let (a, b) = (named("a"), named("b"));
    let both = [a.url("http"), b.url("http")];
    let front = Front::start(config(&both), None);
    front.until_up(&[true, true]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (client, endpoint) = (client(None), front.plain_endpoint());
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut answered = 0_u64;
                while !stop.load(Relaxed) {
                    let response = client.send(&endpoint, get("/")).await.unwrap();
                    assert_eq!(response.status(), 200);
                    text(response).await;
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..40 {
        // What is dropped comes back, and what stays must never look down.
        let urls = &both[..1 + round % 2];
        front.proxy.reload(config(urls)).unwrap();
        assert!(front.proxy.is_ready());
        let before = front.endpoints()[0].requests;
        front
            .until(|front| front.endpoints()[0].requests > before)
            .await;
    }
    assert!(front.proxy.reload(Config::of_sites(Vec::new())).is_err());
    assert!(front.proxy.is_ready());
    stop.store(true, Relaxed);
    let mut answered = 0;
    for one in clients {
        answered += soon(one).await.unwrap();
    }
    // The first endpoint was never dropped, so its count is whole: it got its share of everything.
    let first = front.endpoints()[0].requests;
    assert!(first > 0 && first <= answered);
    let next = client(None);
    ask(&next, &front).await;
    let after: u64 = front.endpoints().iter().map(|one| one.requests).sum();
    assert!(after > first);
}

/// An upstream that answers probes and requests until it is told to freeze; frozen, it takes
/// connections and says nothing.
struct Freezable {
    url: String,
    frozen: Arc<AtomicBool>,
    met: mpsc::UnboundedReceiver<()>,
}

impl Freezable {
    /// It never answers requests, only probes.
    async fn start() -> Self {
        let listener = TcpListener::bind(any_port()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let frozen = Arc::new(AtomicBool::new(false));
        let (meet, met) = mpsc::unbounded_channel();
        let flag = Arc::clone(&frozen);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (flag, meet) = (Arc::clone(&flag), meet.clone());
                tokio::spawn(async move {
                    let head = support::read_head(&mut stream).await;
                    let probe = head.is_some_and(|head| head.contains("/minio/health/"));
                    if probe && !flag.load(Relaxed) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        let _ = stream.write_all(answer).await;
                        return;
                    }
                    if !probe {
                        let _ = meet.send(());
                    }
                    // Holds the connection until the proxy gives up.
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                });
            }
        });
        Self { url, frozen, met }
    }

    fn freeze(&self) {
        self.frozen.store(true, Relaxed);
    }
}

fn quick(urls: &[String]) -> Config {
    let mut config = config(urls);
    config.sites[0].health.timeout = Duration::from_millis(200);
    config.liveness_check_every = Duration::from_millis(100);
    config
}

/// Prefers the first of two, as long as it is up.
fn preferring_first(mut config: Config) -> Config {
    config.sites[0].upstreams[0].weight = 256;
    config
}

#[tokio::test]
async fn a_frozen_upstream_is_given_up_and_a_slow_one_is_not() {
    let mut slow = Freezable::start().await;
    let good = named("good");
    let config = preferring_first(quick(&[slow.url.clone(), good.url("http")]));
    let front = Front::start(config, None);
    front.until_up(&[true, true]).await;
    let send = |request: Request<Body>| {
        let (client, endpoint) = (client(None), front.plain_endpoint());
        tokio::spawn(async move { client.send(&endpoint, request).await.unwrap() })
    };
    let read = send(get("/b/k"));
    let write = send(request("PUT", "/b/k", Body::full("data")));
    soon(slow.met.recv()).await.unwrap();
    soon(slow.met.recv()).await.unwrap();
    // It answers probes: for many looks at it, both are left alone.
    let before = front.endpoints()[0].health_errors;
    tokio::time::timeout(Duration::from_secs(1), async {
        while !read.is_finished() && !write.is_finished() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_err();
    assert_eq!(front.endpoints()[0].health_errors, before);
    slow.freeze();
    // Nobody was hurt by a read, so another endpoint answers it; of the write nobody knows.
    let read = soon(read).await.unwrap();
    assert_eq!(text(read).await, "good");
    let write = soon(write).await.unwrap();
    assert_eq!(write.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(write.headers()["retry-after"], "1");
    let xml = text(write).await;
    assert!(xml.contains("<Code>ServiceUnavailable</Code>"), "{xml}");
    assert!(!xml.contains("127.0.0.1"), "{xml}");
}

#[tokio::test]
async fn an_answer_that_freezes_half_way_is_cut() {
    let frozen = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let flag = Arc::clone(&frozen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let flag = Arc::clone(&flag);
            tokio::spawn(async move {
                let head = support::read_head(&mut stream).await.unwrap_or_default();
                let answer = if head.contains("/minio/health/") {
                    &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..]
                } else {
                    b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello"
                };
                if !flag.load(Relaxed) {
                    let _ = stream.write_all(answer).await;
                }
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            });
        }
    });
    let front = Front::start(quick(&[url]), None);
    let response = soon(client(None).send(&front.plain_endpoint(), get("/")))
        .await
        .unwrap();
    let mut body = response.into_body();
    let first = soon(body.frame()).await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "hello");
    frozen.store(true, Relaxed);
    assert!(soon(body.frame()).await.unwrap().is_err());
}

#[tokio::test]
async fn a_burst_of_503_sets_one_endpoint_aside_but_never_most_of_them() {
    let busy = || {
        Server::upstream(None, |_| async {
            let mut response = Response::new(Body::full("slow down"));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            let headers = response.headers_mut();
            headers.insert("retry-after", "7".parse().unwrap());
            response
        })
    };
    let servers = [busy(), named("b"), named("c")];
    let urls = servers.each_ref().map(|server| server.url("http"));
    let mut config = preferring_first(config(&urls));
    // Long enough to look at it.
    config.sites[0].health.interval = Duration::from_secs(60);
    config.sites[0].health.interval_down = Duration::from_secs(60);
    let front = Front::start(config, None);
    let client = client(None);
    let mut passed_on = 0;
    for _ in 0..30 {
        let response = client
            .send(&front.plain_endpoint(), get("/"))
            .await
            .unwrap();
        if response.status() == 503 {
            // As the store gave it.
            assert_eq!(response.headers()["retry-after"], "7");
            assert_eq!(text(response).await, "slow down");
            passed_on += 1;
        } else {
            text(response).await;
        }
    }
    assert_eq!(passed_on, 10);
    let states = front.endpoints()[0].addresses[0].state;
    assert_eq!(states, AddressState::Ejected);
    assert_eq!(front.endpoints()[0].ejections, 1);

    let servers = [busy(), busy(), busy()];
    let front = Front::to(&servers.each_ref());
    for _ in 0..100 {
        let response = soon(client.send(&front.plain_endpoint(), get("/"))).await;
        assert_eq!(response.unwrap().status(), 503);
    }
    let up = front.endpoints().iter().filter(|one| one.is_up()).count();
    assert!(up >= 2, "{up}");
}

#[tokio::test]
async fn an_endpoint_that_is_set_aside_stays_so_for_a_while_though_it_answers_probes() {
    let (bad, _heads) = raw_upstream(async |_: TcpStream| {}).await;
    let good = named("good");
    let mut config = preferring_first(config(&[bad, good.url("http")]));
    config.sites[0].health.interval_down = Duration::from_secs(3);
    let front = Front::start(config, None);
    front.until_up(&[true, true]).await;
    let client = client(None);
    for _ in 0..3 {
        assert_eq!(ask(&client, &front).await, "good");
    }
    // Many probes later, by the interval of those that are up.
    tokio::time::timeout(Duration::from_secs(1), front.until_up(&[true, true]))
        .await
        .unwrap_err();
    assert_eq!(front.endpoints()[0].ejections, 1);
    front.until_up(&[true, true]).await;
}

#[tokio::test]
async fn reads_that_met_garbage_are_answered_by_another() {
    let (bad, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"\x16\x03\x01 what is this\r\n\r\n").await;
    })
    .await;
    let good = named("good");
    let front = Front::start(preferring_first(config(&[bad, good.url("http")])), None);
    let client = client(None);
    assert_eq!(ask(&client, &front).await, "good");
    assert!(heads.try_recv().is_ok());
    let put = request("PUT", "/b/k", Body::full("data"));
    let response = soon(client.send(&front.plain_endpoint(), put)).await;
    assert_eq!(response.unwrap().status(), 502);
    // Garbage may be about the one request: it ejects nobody.
    assert!(front.endpoints()[0].is_up());
}

#[tokio::test]
async fn an_upload_of_which_a_part_is_missing_begins_anew_elsewhere() {
    let (bad, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let mut part = [0; 4];
        let _ = stream.read_exact(&mut part).await;
        // Gone, with half of the body.
    })
    .await;
    let good = Server::upstream(None, |request: Request<Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::full(body))
    });
    let front = Front::start(preferring_first(config(&[bad, good.url("http")])), None);
    let rest = Arc::new(Notify::new());
    let told = Arc::clone(&rest);
    let frames = futures_util::stream::unfold(0, move |step| {
        let told = Arc::clone(&told);
        async move {
            if step == 1 {
                told.notified().await;
            }
            let frame = Frame::data(Bytes::from_static(b"half"));
            (step < 2).then_some((Ok::<_, std::io::Error>(frame), step + 1))
        }
    });
    let mut put = request("PUT", "/b/k", Body::stream(StreamBody::new(frames)));
    put.headers_mut().insert("content-length", 8.into());
    let (http, endpoint) = (client(None), front.plain_endpoint());
    let answer = tokio::spawn(async move { http.send(&endpoint, put).await.unwrap() });
    soon(heads.recv()).await.unwrap();
    front.until(|front| front.endpoints()[0].retries == 1).await;
    rest.notify_one();
    assert_eq!(text(soon(answer).await.unwrap()).await, "halfhalf");
}

#[tokio::test]
async fn an_upstream_with_an_expired_certificate_costs_no_client_an_error() {
    let (good, expired) = (Pki::new(), Pki::expired());
    let handler = |_: Request<Body>| async { Response::new(Body::full("fine")) };
    let bad = Server::upstream(Some(expired.server()), handler);
    let fine = Server::upstream(Some(good.server()), handler);
    let urls = [bad.url("https"), fine.url("https")];
    let mut config = preferring_first(config(&urls));
    config.sites[0].tls = Some(good.client_trusting(&[&expired]));
    let front = Front::start(config, None);
    let client = client(None);
    for _ in 0..4 {
        assert_eq!(ask(&client, &front).await, "fine");
    }
    front.until_up(&[false, true]).await;
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint_of_its_own() {
    let here = named("here");
    let url = format!("http://localhost:{}", here.addr.port());
    let front = Front::start(config(&[url]), None);
    let client = client(None);
    for _ in 0..10 {
        assert_eq!(ask(&client, &front).await, "here");
    }
    let of_here = |front: &Front| {
        let addresses = front.endpoints().remove(0).addresses;
        addresses
            .into_iter()
            .find(|one| one.address.as_deref() == Some("127.0.0.1"))
    };
    front
        .until(|front| of_here(front).is_some_and(|one| one.state == AddressState::Up))
        .await;
    // Another address of this name, if there is one, leads nowhere and is found down.
    front
        .until(|front| {
            let addresses = front.endpoints().remove(0).addresses;
            let others = addresses
                .iter()
                .filter(|one| one.address.as_deref() != Some("127.0.0.1"));
            others
                .into_iter()
                .all(|one| one.state == AddressState::Down)
        })
        .await;
}

#[tokio::test]
async fn addresses_that_dns_changes_are_followed_and_dns_that_is_away_takes_none() {
    let first = named("first");
    let port = first.addr.port();
    let handler = |_: Request<Body>| async { Response::new(Body::full("second")) };
    let second = format!("127.0.0.2:{port}").parse().unwrap();
    let second = Server::start(second, None, Arc::new(support::Handler(handler)));
    let answer: Arc<Mutex<Option<Vec<&str>>>> = Arc::new(Mutex::new(Some(vec!["127.0.0.1"])));
    let mut config = config(&[format!("http://store.example:{port}")]);
    config.dns_ttl = Duration::from_millis(20);
    config.lookup = Arc::new({
        let answer = Arc::clone(&answer);
        move |host| {
            assert_eq!(host, "store.example");
            let answer = answer.lock().unwrap().clone();
            Box::pin(async move {
                let answer = answer.ok_or(std::io::ErrorKind::TimedOut)?;
                Ok(answer.iter().map(|ip| ip.parse().unwrap()).collect())
            })
        }
    });
    let front = Front::start(config, None);
    let client = client(None);
    let until = async |addresses: &[&str]| {
        front
            .until(|front| {
                let present = front.endpoints().remove(0).addresses;
                let present = present.iter().map(|one| one.address.as_deref());
                present.eq(addresses.iter().map(|one| Some(*one)))
            })
            .await;
    };
    until(&["127.0.0.1"]).await;
    assert_eq!(ask(&client, &front).await, "first");
    *answer.lock().unwrap() = Some(vec!["127.0.0.1", "127.0.0.2"]);
    until(&["127.0.0.1", "127.0.0.2"]).await;
    let answers = [ask(&client, &front).await, ask(&client, &front).await];
    assert!(answers.contains(&"second".to_owned()), "{answers:?}");
    *answer.lock().unwrap() = Some(vec!["127.0.0.2"]);
    until(&["127.0.0.2"]).await;
    *answer.lock().unwrap() = None;
    for _ in 0..5 {
        assert_eq!(ask(&client, &front).await, "second");
    }
    *answer.lock().unwrap() = Some(vec![]);
    assert_eq!(ask(&client, &front).await, "second");
    // All addresses are figures of one endpoint.
    assert_eq!(front.endpoints()[0].requests, 9);
    drop(second);
}

#[tokio::test]
async fn requests_that_two_servers_may_read_differently_are_refused() {
    let notes = Notes::default();
    let upstream = Server::upstream(None, {
        let notes = notes.clone();
        move |request: Request<Body>| {
            let notes = notes.clone();
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await;
                let body = body.map(|body| body.to_bytes().len());
                notes.add(format!("{path} {body:?}"));
                Response::new(Body::empty())
            }
        }
    });
    let front = Front::to(&[&upstream]);
    let answer = async |bytes: &[u8]| {
        let mut stream = front.connect().await;
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        let _ = soon(stream.read_to_string(&mut answer)).await;
        answer
    };
    for refused in [
        "PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 3, 4\r\n\r\nabcd",
        "PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: +3\r\n\r\nabc",
        "PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: h\r\nx: 1\r\n folded\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: h\r\nx : 1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: h\r\nx: a\0b\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: h\r\nx: a\rb\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: h\r\n\r\n",
        "GET /a HTTP/1.1\nhost: h\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: h\n\r\n",
        "PUT /a HTTP/1.1\r\nhost: h\r\ncontent-length: 60\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /a HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let answer = answer(refused.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{refused:?}: {answer}");
    }
    assert_eq!(notes.all(), [""; 0]);
}

#[tokio::test]
async fn stores_are_told_the_client_in_a_proxy_header() {
    let (url, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let mut config = config(&[url]);
    config.send_proxy_protocol = Some(ProxyProtocol::V1);
    let front = Front::start(config, None);
    let client = client(None);
    for _ in 0..3 {
        assert_eq!(ask(&client, &front).await, "ok");
        let head = soon(heads.recv()).await.unwrap();
        let (header, request) = head.split_once("\r\n").unwrap();
        assert!(
            header.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "),
            "{header}"
        );
        assert!(header.ends_with(&format!(" {}", front.plain.addr.port())));
        assert!(request.starts_with("GET /b/k HTTP/1.1\r\n"));
    }
    front.until_up(&[true]).await;
}

#[tokio::test]
async fn the_client_behind_a_proxy_header_is_the_client() {
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        Response::new(Body::full(
            request.headers()["x-real-ip"].as_bytes().to_vec(),
        ))
    });
    let front = Front::to(&[&upstream]);
    let listener = Listener::bind(ListenerConfig {
        address: any_port(),
        tls: None,
        limits: Limits::default(),
    })
    .unwrap();
    let address = listener.local_addr();
    let listener = listener.with_proxy_protocol(Arc::new(|address| address.is_loopback()));
    let drain = moat_net::Drain::new();
    tokio::spawn(listener.serve(Arc::clone(&front.proxy), drain.clone()));
    let answer = async |pieces: &[&[u8]]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for piece in pieces {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut answer = String::new();
        let _ = soon(stream.read_to_string(&mut answer)).await;
        answer
    };
    let get = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let source = "192.0.2.7:1000".parse().unwrap();
    let destination = "192.0.2.8:443".parse().unwrap();
    let v2 = moat_net::proxy_protocol::encode_v2(Some((source, destination)));
    assert!(answer(&[&v2, get]).await.ends_with("192.0.2.7"));
    assert!(
        answer(&[&v2[..5], &v2[5..20], &v2[20..], get])
            .await
            .ends_with("192.0.2.7")
    );
    let v1 = moat_net::proxy_protocol::encode_v1(Some((source, destination)));
    assert!(answer(&[&v1, get]).await.ends_with("192.0.2.7"));
    // The sender speaks for itself; and without a header nobody speaks.
    let own = moat_net::proxy_protocol::encode_v2(None);
    assert!(answer(&[&own, get]).await.ends_with("127.0.0.1"));
    assert_eq!(answer(&[get]).await, "");
    drain.start(Duration::ZERO);
}

#[tokio::test]
async fn the_admin_listener_tells_state_and_metrics() {
    let upstream = named("a");
    let front = Front::to(&[&upstream]);
    let admin = Arc::new(Admin::new(Arc::clone(&front.proxy)));
    let admin = Server::start(any_port(), None, admin);
    let endpoint = moat_net::Endpoint::parse(&admin.url("http")).unwrap();
    let client = client(None);
    ask(&client, &front).await;
    let page = async |method: &str, path: &str| {
        let response = client.send(&endpoint, request(method, path, Body::empty()));
        let response = soon(response).await.unwrap();
        (response.status().as_u16(), text(response).await)
    };
    front.until_up(&[true]).await;
    assert_eq!(page("GET", "/live").await, (200, String::new()));
    assert_eq!(page("GET", "/ready").await, (200, String::new()));
    assert_eq!(page("PUT", "/ready").await.0, 405);
    assert_eq!(page("GET", "/b/k").await.0, 404);
    let (_, status) = page("GET", "/status").await;
    let status: moat_proxy::Status = serde_json::from_str(&status).unwrap();
    assert_eq!(status.sites[0].endpoints[0].requests, 1);
    let (_, metrics) = page("GET", "/metrics").await;
    let url = upstream.url("http");
    let series = format!("sidekick_errors_total{{endpoint=\"{url}\"}} 0");
    assert!(metrics.contains(&series), "{metrics}");
    front.proxy.begin_to_drain();
    assert_eq!(page("GET", "/ready").await.0, 503);
    assert_eq!(page("GET", "/live").await.0, 200);
    // While it drains, what comes is still served.
    ask(&client, &front).await;
}

#[tokio::test]
async fn sidekicks_paths_hide_no_object_from_who_signs() {
    let upstream = named("the object");
    let mut config = config(&[upstream.url("http")]);
    config.sidekick_paths = Some(SidekickPaths::default());
    let front = Front::start(config, None);
    let ask = async |path: &str, signed: bool| {
        let mut request = get(path);
        if signed {
            let value = "AWS4-HMAC-SHA256 Credential=x".parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        let response = soon(client(None).send(&front.plain_endpoint(), request)).await;
        text(response.unwrap()).await
    };
    for path in ["/v1/health", "/v1/certificates"] {
        assert_ne!(ask(path, false).await, "the object");
        assert_eq!(ask(path, true).await, "the object");
        let link = format!("{path}?X-Amz-Signature=abc");
        assert_eq!(ask(&link, false).await, "the object");
    }
}

/// Sidekick exports the last of its sites alone, and follows redirects in its health checks.
#[tokio::test]
async fn every_site_has_its_metrics_and_a_redirect_is_not_well() {
    moat_net::metrics::install().unwrap();
    let (first, second) = (named("first"), named("second"));
    let listener = TcpListener::bind(any_port()).await.unwrap();
    let redirecting = format!("http://{}", listener.local_addr().unwrap());
    let target = second.url("http");
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            support::read_head(&mut stream).await;
            let answer = format!(
                "HTTP/1.1 307 Elsewhere\r\nlocation: {target}/minio/health/live\r\ncontent-length: 0\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let urls = [first.url("http"), second.url("http"), redirecting];
    let front = Front::start(sites(&urls), None);
    front.until_up(&[true, true, false]).await;
    ask(&client(None), &front).await;
    let metrics = front.proxy.metrics();
    for (number, url) in urls.iter().enumerate() {
        let (site, up) = (number + 1, u8::from(number < 2));
        let labels = format!("endpoint=\"{url}\",site=\"{site}\"");
        for name in [
            "requests",
            "errors",
            "retries",
            "ejections",
            "health_errors",
            "rx_bytes",
            "tx_bytes",
        ] {
            let series = format!("moat_proxy_{name}_total{{{labels}}} ");
            assert!(metrics.contains(&series), "{series} in {metrics}");
        }
        for series in [
            format!("moat_proxy_up{{{labels}}} {up}\n"),
            format!("moat_proxy_in_flight{{{labels}}} 0\n"),
            format!("moat_proxy_site_up{{site=\"{site}\"}} {up}\n"),
            format!("sidekick_requests_total{{endpoint=\"{url}\"}} "),
        ] {
            assert_eq!(metrics.matches(&series).count(), 1, "{series} in {metrics}");
        }
    }
    let histogram = format!(
        "moat_proxy_request_seconds_count{{endpoint=\"{}\",site=\"1\",class=\"get\"}} 1",
        urls[0]
    );
    assert!(metrics.contains(&histogram), "{metrics}");
}

#[tokio::test]
async fn traces_hold_what_was_asked_for_and_no_secret() {
    let upstream = Server::upstream(None, |_| async {
        let mut response = Response::new(Body::full("<Error/>"));
        *response.status_mut() = StatusCode::FORBIDDEN;
        response
    });
    let notes = Notes::default();
    let lines = notes.clone();
    let filter = Filter {
        requests: true,
        errors_only: true,
        ..Filter::default()
    };
    let form = Form {
        json: true,
        verbose: true,
    };
    let sink = Box::new(move |line: &str| lines.add(line));
    let tracer = Tracer::new(filter, form, false, Arc::new(SystemClock), sink);
    let mut config = config(&[upstream.url("http")]);
    config.tracer = Some(Arc::new(tracer));
    let front = Front::start(config, None);
    let mut get = get("/b/k?X-Amz-Signature=5ecret&x-id=GetObject");
    for name in ["authorization", "x-amz-security-token"] {
        get.headers_mut().insert(name, "5ecret".parse().unwrap());
    }
    let response = soon(client(None).send(&front.plain_endpoint(), get)).await;
    text(response.unwrap()).await;
    front.until(|_| notes.all().len() == 1).await;
    let line = notes.all().remove(0);
    assert!(!line.contains("5ecret"), "{line}");
    let trace: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(trace["type"], "DEBUG");
    assert_eq!(trace["nodename"], upstream.url("http"));
    assert_eq!(trace["request"]["path"], "/b/k");
    assert_eq!(trace["response"]["statuscode"], 403);
    assert_eq!(trace["response"]["body"], "<Error/>");
    assert_eq!(trace["stats"]["tx"], 8);
    assert_eq!(trace["request"]["client"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_under_load_cuts_no_request() {
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::full(body))
    });
    let front = Front::to(&[&upstream]);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (client, endpoint) = (client(None), front.plain_endpoint());
            tokio::spawn(async move {
                let mut answered = 0;
                loop {
                    let body = format!("{answered}-").repeat(2000);
                    let put = request("PUT", "/b/k", Body::full(body.clone()));
                    match client.send(&endpoint, put).await {
                        Ok(response) => assert_eq!(text(response).await, body),
                        // Turned away at the door is not cut.
                        Err(error) if error.nothing_sent() => return answered,
                        // A connection that closed for idleness in the moment of the request.
                        Err(error) if error.reused() => return answered,
                        Err(error) => panic!("{error}"),
                    }
                    answered += 1;
                }
            })
        })
        .collect();
    front
        .until(|front| front.endpoints()[0].requests > 200)
        .await;
    front.plain.drain.start(Duration::from_secs(60));
    soon(front.plain.task).await.unwrap();
    for one in clients {
        assert!(soon(one).await.unwrap() > 0);
    }
}
