//! Guards behaviour when upstreams fail: nothing is acted on twice, nothing cut looks whole, and
//! clients see no error that another endpoint could have spared them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use moat_net::Body;
use moat_proxy::{Config, Error, Proxy, Upstream};
use support::{
    Front, Notes, Server, any_port, client, config, dead_port, get, raw_upstream, request, soon,
    text,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};

#[tokio::test]
async fn requests_in_flight_are_spread_evenly() {
    let notes = Notes::default();
    let gate = Arc::new(Semaphore::new(0));
    let upstreams: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let (notes, gate) = (notes.clone(), Arc::clone(&gate));
            Server::upstream(None, move |_| {
                notes.add(name);
                let gate = Arc::clone(&gate);
                async move {
                    drop(gate.acquire().await);
                    Response::new(Body::empty())
                }
            })
        })
        .collect();
    let front = Front::to(&upstreams.iter().collect::<Vec<_>>());
    let client = client(None);
    let running: Vec<_> = (0..9)
        .map(|_| {
            let (client, endpoint) = (client.clone(), front.plain_endpoint());
            tokio::spawn(async move { client.send(&endpoint, get("/")).await })
        })
        .collect();
    soon(async {
        while notes.all().len() < 9 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut counts = HashMap::new();
    for name in notes.all() {
        *counts.entry(name).or_insert(0) += 1;
    }
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [3, 3, 3]);
    gate.add_permits(9);
    for one in running {
        assert_eq!(soon(one).await.unwrap().unwrap().status(), 200);
    }
    front.until(|front| front.in_flight() == 0).await;
}

#[tokio::test]
async fn a_dead_upstream_costs_no_client_an_error() {
    let dead = format!("http://127.0.0.1:{}", dead_port().await);
    let alive = Server::upstream(None, |request: Request<Body>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::full(body))
    });
    let mut config = config(&[dead, alive.url("http")]);
    // Before the first probe has returned and after: both must do.
    config.sites[0].health.fall = u32::MAX;
    let front = Front::start(config, None);
    let client = client(None);
    for number in 0..50 {
        let body = format!("body {number}");
        let request = request("PUT", "/b/k", Body::full(body.clone()));
        let response = soon(client.send(&front.plain_endpoint(), request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(text(response).await, body);
    }
    front.until_up(&[false, true]).await;
}

#[tokio::test]
async fn nothing_up_is_a_short_503_that_names_no_upstream() {
    let port = dead_port().await;
    let front = Front::start(config(&[format!("http://127.0.0.1:{port}")]), None);
    for _ in 0..2 {
        let request = get("/bucket/a%26b");
        let response = soon(client(None).send(&front.plain_endpoint(), request))
            .await
            .unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/xml");
        let id = response.headers()["x-amz-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let xml = text(response).await;
        assert!(xml.contains("<Code>ServiceUnavailable</Code>"), "{xml}");
        assert!(xml.contains("<Resource>/bucket/a%26b</Resource>"), "{xml}");
        assert!(xml.contains(&id), "{xml}");
        assert!(!xml.contains(&port.to_string()), "{xml}");
        // And once more when the probe has seen it, too.
        front.until_up(&[false]).await;
        assert!(!front.proxy.is_ready());
    }
}

#[tokio::test]
async fn an_endpoint_that_returns_is_used_again() {
    let handler = |_: Request<Body>| async { Response::new(Body::full("here")) };
    let first = Server::upstream(None, handler);
    let front = Front::to(&[&first]);
    front.until_up(&[true]).await;
    first.drain.start(Duration::from_secs(5));
    soon(first.task).await.unwrap();
    front.until_up(&[false]).await;
    let again = Server::start(first.addr, None, Arc::new(support::Handler(handler)));
    front.until_up(&[true]).await;
    let response = soon(client(None).send(&front.plain_endpoint(), get("/")))
        .await
        .unwrap();
    assert_eq!(text(response).await, "here");
    drop(again);
}

#[tokio::test]
async fn an_upstream_that_dies_in_mid_body_aborts_the_client() {
    for length in ["content-length: 1000\r\n", "transfer-encoding: chunked\r\n"] {
        let die = Arc::new(Notify::new());
        let told = Arc::clone(&die);
        let (url, _heads) = raw_upstream(move |mut stream: TcpStream| {
            let told = Arc::clone(&told);
            async move {
                let answer = format!("HTTP/1.1 200 OK\r\n{length}\r\n5\r\nhello\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                told.notified().await;
            }
        })
        .await;
        let front = Front::start(config(&[url]), None);
        let response = soon(client(None).send(&front.plain_endpoint(), get("/")))
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert!(soon(body.frame()).await.unwrap().is_ok());
        die.notify_one();
        let error = soon(async {
            loop {
                match body.frame().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error,
                    None => panic!("a cut body looked whole"),
                }
            }
        });
        error.await;
    }
}

#[tokio::test]
async fn a_put_whose_body_was_sent_is_never_sent_again() {
    let (bad, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let mut body = [0; 4];
        let _ = stream.read_exact(&mut body).await;
        // Closed without a word: the store may have acted.
    })
    .await;
    let notes = Notes::default();
    let good = Server::upstream(None, {
        let notes = notes.clone();
        move |_| {
            notes.add("good");
            async { Response::new(Body::empty()) }
        }
    });
    let front = Front::start(config(&[bad, good.url("http")]), None);
    let client = client(None);
    let mut failed = 0;
    // Ties go to either, then in turn: within three requests the bad one was met.
    for _ in 0..3 {
        let request = request("PUT", "/b/k", Body::full("data"));
        let response = soon(client.send(&front.plain_endpoint(), request))
            .await
            .unwrap();
        if response.status() == 502 {
            failed += 1;
            let xml = text(response).await;
            assert!(xml.contains("<Code>ServiceUnavailable</Code>"), "{xml}");
        }
    }
    let mut met = 0;
    while heads.try_recv().is_ok() {
        met += 1;
    }
    assert!(met > 0);
    assert_eq!(failed, met);
    assert_eq!(notes.all().len(), 3 - met);
}

#[tokio::test]
async fn reads_that_met_a_dying_upstream_are_answered_by_another() {
    let (bad, mut heads) = raw_upstream(async |_: TcpStream| {}).await;
    let good = Server::upstream(None, |_| async { Response::new(Body::full("fine")) });
    let front = Front::start(config(&[bad, good.url("http")]), None);
    let client = client(None);
    for _ in 0..6 {
        let response = soon(client.send(&front.plain_endpoint(), get("/b/k")))
            .await
            .unwrap();
        assert_eq!(text(response).await, "fine");
    }
    assert!(heads.try_recv().is_ok());
}

#[tokio::test]
async fn a_delete_may_be_sent_twice_but_not_if_the_second_would_fail_by_the_first() {
    let (bad, _heads) = raw_upstream(async |_: TcpStream| {}).await;
    let good = Server::upstream(None, |_| async { Response::new(Body::full("fine")) });
    let mut config = config(&[bad, good.url("http")]);
    // The bad one is met first, as long as it is not set aside.
    config.sites[0].upstreams[0].weight = 256;
    let front = Front::start(config, None);
    front.until_up(&[true, true]).await;
    for (condition, status) in [(None, 200), (Some("if-match"), 502)] {
        let mut request = request("DELETE", "/b/k", Body::empty());
        if let Some(name) = condition {
            request.headers_mut().insert(name, "\"e\"".parse().unwrap());
        }
        let response = soon(client(None).send(&front.plain_endpoint(), request)).await;
        assert_eq!(response.unwrap().status(), status, "{condition:?}");
    }
}

#[tokio::test]
async fn kept_connections_that_the_upstream_closed_cost_nobody_an_error() {
    // Says keep-alive and closes after each answer, once as the proxy can see and once as it can't.
    let (url, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let front = Front::start(config(&[url]), None);
    let client = client(None);
    for number in 0..30 {
        let method = ["GET", "DELETE", "HEAD", "PUT"][number % 4];
        let request = request(method, "/b/k", Body::empty());
        let response = soon(client.send(&front.plain_endpoint(), request))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{method} {number}");
    }
    let mut count = 0;
    while heads.try_recv().is_ok() {
        count += 1;
    }
    assert!(count >= 30);
    front.until_up(&[true]).await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_upstream() {
    struct Left(Arc<Notify>);
    impl Drop for Left {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (entered, left) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let upstream = Server::upstream(None, {
        let (entered, left) = (Arc::clone(&entered), Arc::clone(&left));
        move |_| {
            let (entered, left) = (Arc::clone(&entered), Left(Arc::clone(&left)));
            async move {
                entered.notify_one();
                let never = std::future::pending::<Response<Body>>().await;
                drop(left);
                never
            }
        }
    });
    let front = Front::to(&[&upstream]);
    let mut stream = front.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .unwrap();
    soon(entered.notified()).await;
    drop(stream);
    soon(left.notified()).await;
    front.until(|front| front.in_flight() == 0).await;
    assert!(front.proxy.is_ready());
}

#[tokio::test]
async fn clients_that_break_off_their_uploads_eject_nobody() {
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        let _ = request.into_body().collect().await;
        Response::new(Body::empty())
    });
    let front = Front::to(&[&upstream]);
    for _ in 0..5 {
        let mut stream = front.connect().await;
        stream
            .write_all(b"PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nabc")
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = soon(stream.read_to_end(&mut answer)).await;
    }
    assert!(front.proxy.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_the_upstreams_is_not_noticed() {
    let handler = |request: Request<Body>| async move {
        Response::new(Body::full(request.uri().path().to_owned().repeat(100)))
    };
    let start = |addr| Server::start(addr, None, Arc::new(support::Handler(handler)));
    let mut upstreams: [Server; 4] = std::array::from_fn(|_| start(any_port()));
    let front = Front::to(&upstreams.iter().collect::<Vec<_>>());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (client, endpoint) = (client(None), front.plain_endpoint());
            let stop = Arc::clone(&stop);
            tokio::spawn(async move {
                let mut answered = 0;
                while !stop.load(Relaxed) {
                    let path = format!("/b/{answered}");
                    // All that may be repeated; a CopyObject is a PUT without a body.
                    let method = ["GET", "DELETE", "HEAD", "PUT"][answered % 4];
                    let request = request(method, &path, Body::empty());
                    let response = client.send(&endpoint, request).await.unwrap();
                    assert_eq!(response.status(), 200, "{method}");
                    let said = text(response).await;
                    if method != "HEAD" {
                        assert_eq!(said, path.repeat(100));
                    }
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    for round in 0..8 {
        let upstream = &mut upstreams[round % 4];
        upstream.drain.start(Duration::from_secs(30));
        soon(&mut upstream.task).await.unwrap();
        *upstream = start(upstream.addr);
        front.until_up(&[true; 4]).await;
    }
    stop.store(true, Relaxed);
    for one in clients {
        assert!(soon(one).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn drain_lets_a_running_download_end() {
    let go_on = Arc::new(Notify::new());
    let upstream = Server::upstream(None, {
        let go_on = Arc::clone(&go_on);
        move |_| {
            let go_on = Arc::clone(&go_on);
            let frames = futures_util::stream::unfold(0, move |step| {
                let go_on = Arc::clone(&go_on);
                async move {
                    if step == 1 {
                        go_on.notified().await;
                    }
                    let frame = Frame::data(Bytes::from_static(b"half"));
                    (step < 2).then_some((Ok::<_, std::io::Error>(frame), step + 1))
                }
            });
            async { Response::new(Body::stream(StreamBody::new(frames))) }
        }
    });
    let front = Front::to(&[&upstream]);
    let response = soon(client(None).send(&front.plain_endpoint(), get("/")))
        .await
        .unwrap();
    let mut body = response.into_body();
    assert!(soon(body.frame()).await.unwrap().is_ok());
    front.plain.drain.start(Duration::from_secs(60));
    go_on.notify_one();
    let rest = soon(body.collect()).await.unwrap().to_bytes();
    assert_eq!(rest, "half");
    soon(front.plain.task).await.unwrap();
}

#[tokio::test]
async fn impossible_configurations_are_refused() {
    let refused = |config: Config| match Proxy::new(config) {
        Ok(_) => panic!("accepted"),
        Err(error) => error,
    };
    assert!(matches!(refused(Config::new(vec![])), Error::NoUpstreams));
    let twice = ["http://a:1", "http://a:1"].map(|url| Upstream::parse(url).unwrap());
    assert!(matches!(
        refused(Config::new(twice.into())),
        Error::DuplicateUpstream(_)
    ));
    let tls = vec![Upstream::parse("https://a:1").unwrap()];
    assert!(matches!(refused(Config::new(tls)), Error::NoTls(_)));
    let mut path = Config::new(vec![Upstream::parse("http://a:1").unwrap()]);
    path.sites[0].health.path = "live".into();
    assert!(matches!(refused(path), Error::HealthPath(_)));
    assert!(Upstream::parse("a:9000").is_err());
    let _ = any_port();
}
