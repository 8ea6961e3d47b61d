//! Guards what a listener promises to its peers whatever the service does: limits end in an answer
//! or a closed connection, draining cuts nothing, and an early answer arrives.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use moat_net::{Body, Error, Limits, Listener, ListenerConfig, Peer};
use support::{Fn2, Server, read_to_end, read_until, say, soon};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;

const GET: &str = "GET /x HTTP/1.1\r\nhost: h\r\n\r\n";

async fn hello(_: Arc<Peer>, _: Request<Body>) -> Response<Body> {
    Response::new(Body::full("hello"))
}

#[tokio::test]
async fn binding_a_taken_port_says_so() {
    let server = Server::start(None, Limits::default(), Fn2(hello));
    let config = ListenerConfig {
        address: server.addr,
        tls: None,
        limits: Limits::default(),
    };
    let Err(error) = Listener::bind(config) else {
        panic!("the port is taken");
    };
    assert!(matches!(error, Error::AddressInUse { .. }));
    assert!(error.to_string().contains("another process uses this port"));
}

#[tokio::test]
async fn requests_share_a_connection_and_pipelined_ones_are_answered_in_order() {
    let server = Server::start(
        None,
        Limits::default(),
        Fn2(|_, request: Request<Body>| async move {
            Response::new(Body::full(request.uri().path().to_owned()))
        }),
    );
    let mut stream = server.connect().await;
    let answers = say(
        &mut stream,
        "GET /1 HTTP/1.1\r\nhost: h\r\n\r\nGET /2 HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n",
    )
    .await;
    let first = answers.find("\r\n\r\n/1").unwrap();
    let second = answers.find("\r\n\r\n/2").unwrap();
    assert!(first < second);
}

#[tokio::test]
async fn drain_finishes_the_running_request_and_refuses_new_connections() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        Fn2(move |_, _| {
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            async move {
                entered.notify_one();
                release.notified().await;
                Response::new(Body::full("finished"))
            }
        })
    };
    let server = Server::start(None, Limits::default(), service);
    let mut idle = server.connect().await;
    let mut running = server.connect().await;
    running.write_all(GET.as_bytes()).await.unwrap();
    soon(entered.notified()).await;

    server.drain.start(Duration::from_secs(60));
    // The idle connection is closed at once; when that is seen, the listening socket is gone too.
    assert_eq!(read_to_end(&mut idle).await, "");
    soon(async {
        while TcpStream::connect(server.addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!server.task.is_finished());

    release.notify_one();
    let answer = read_to_end(&mut running).await.to_lowercase();
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("finished"), "{answer}");
    soon(server.task).await.unwrap();
}

#[tokio::test]
async fn drain_cuts_what_outlives_its_deadline() {
    let entered = Arc::new(Notify::new());
    let service = {
        let entered = Arc::clone(&entered);
        Fn2(move |_, _| {
            entered.notify_one();
            std::future::pending::<Response<Body>>()
        })
    };
    let server = Server::start(None, Limits::default(), service);
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    soon(entered.notified()).await;
    server.drain.start(Duration::from_millis(50));
    soon(server.task).await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_a_freed_place_is_taken() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let server = Server::start(None, limits, Fn2(hello));
    let mut first = server.connect().await;
    first.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut first, "hello").await;

    let mut second = server.connect().await;
    assert_eq!(read_to_end(&mut second).await, "");

    drop(first);
    soon(async {
        loop {
            let mut third = server.connect().await;
            let request = GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
            // The place is free when the server has seen that the first one left.
            if third.write_all(request.as_bytes()).await.is_ok()
                && read_to_end(&mut third).await.ends_with("hello")
            {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_dribbling_head_is_cut() {
    let limits = Limits {
        header_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::start(None, limits, Fn2(hello));
    let mut stream = server.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_serves_before() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(150),
        ..Limits::default()
    };
    let server = Server::start(None, limits, Fn2(hello));
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.ends_with("hello"));
}

#[tokio::test]
async fn oversized_and_malformed_heads_get_a_status() {
    let limits = Limits {
        header_bytes_max: 64 * 1024,
        headers_max: 200,
        ..Limits::default()
    };
    let server = Server::start(None, limits, Fn2(hello));
    let check = async |request: String, status: &str| {
        let mut stream = server.connect().await;
        // The server may answer and close before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_to_end(&mut stream).await;
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.contains(status), "{status}: {line:?}");
    };
    let long = "a".repeat(60 * 1024);
    let close = "host: h\r\nconnection: close\r\n";
    check(
        format!("GET / HTTP/1.1\r\n{close}referer: {long}\r\n\r\n"),
        "200",
    )
    .await;
    check(
        format!("GET / HTTP/1.1\r\n{close}referer: {long}{long}\r\n\r\n"),
        "431",
    )
    .await;
    let many: String = (0..190).map(|n| format!("x-amz-meta-{n}: v\r\n")).collect();
    check(format!("GET / HTTP/1.1\r\n{close}{many}\r\n"), "200").await;
    check(format!("GET / HTTP/1.1\r\n{close}{many}{many}\r\n"), "431").await;
    check("GET / HTTP/1.1\r\nbad header\r\n\r\n".into(), "400").await;
    check("GET /\u{1} HTTP/1.1\r\n\r\n".into(), "400").await;
    // What hyper alone would take, and repair.
    check(format!("GET / HTTP/1.1\n{close}\r\n"), "400").await;
    check(format!("GET / HTTP/1.1\r\n{close}\n"), "400").await;
    let both = "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n";
    check(format!("PUT / HTTP/1.1\r\n{close}{both}"), "400").await;
}

#[tokio::test]
async fn an_answer_before_the_body_is_read_reaches_a_client_that_is_still_sending() {
    let server = Server::start(
        None,
        Limits::default(),
        Fn2(|_, _| async {
            let mut response = Response::new(Body::full("denied"));
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            response
        }),
    );
    let mut stream = server.connect().await;
    let body = vec![b'x'; 8 * 1024 * 1024];
    let head = format!(
        "PUT /x HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let _ = soon(stream.write_all(&body)).await;
    let answer = read_to_end(&mut stream).await;
    assert!(answer.contains("403 Forbidden"), "{answer}");
    assert!(answer.ends_with("denied"), "{answer}");
}

#[tokio::test]
async fn a_response_that_nobody_reads_is_cut() {
    let dropped = Arc::new(Notify::new());
    struct Endless(Arc<Notify>);
    impl Drop for Endless {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    impl http_body::Body for Endless {
        type Data = bytes::Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
            let frame = http_body::Frame::data(bytes::Bytes::from(vec![0; 64 * 1024]));
            std::task::Poll::Ready(Some(Ok(frame)))
        }
    }
    let service = {
        let dropped = Arc::clone(&dropped);
        Fn2(move |_, _| {
            let body = Endless(Arc::clone(&dropped));
            async move { Response::new(Body::stream(body)) }
        })
    };
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        write_stall_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(None, limits, service);
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    soon(dropped.notified()).await;
}

#[tokio::test]
async fn a_body_that_fails_ends_the_connection_without_a_proper_end() {
    let received = Arc::new(Notify::new());
    let service = {
        let received = Arc::clone(&received);
        Fn2(move |_, _| {
            let received = Arc::clone(&received);
            async move {
                let first = async { Ok(http_body::Frame::data(bytes::Bytes::from("half"))) };
                let then = async move {
                    received.notified().await;
                    Err(std::io::Error::other("damaged"))
                };
                let frames = first.into_stream().chain(then.into_stream());
                Response::new(Body::stream(http_body_util::StreamBody::new(frames)))
            }
        })
    };
    let server = Server::start(None, Limits::default(), service);
    let mut stream = server.connect().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let begin = read_until(&mut stream, "half\r\n").await;
    assert!(begin.contains("transfer-encoding: chunked"), "{begin}");
    received.notify_one();
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn expect_100_is_answered_when_the_body_is_wanted_and_not_before() {
    let server = Server::start(
        None,
        Limits::default(),
        Fn2(|_, request: Request<Body>| async move {
            if request.uri().path() == "/refuse" {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = http::StatusCode::FORBIDDEN;
                return response;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Body::full(body))
        }),
    );
    let head = |path| {
        format!(
            "PUT {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"
        )
    };
    let mut stream = server.connect().await;
    stream.write_all(head("/take").as_bytes()).await.unwrap();
    let interim = read_until(&mut stream, "\r\n\r\n").await;
    assert!(interim.starts_with("HTTP/1.1 100 Continue"), "{interim}");
    stream.write_all(b"abc").await.unwrap();
    assert!(read_until(&mut stream, "abc").await.contains("200 OK"));

    let mut stream = server.connect().await;
    let answer = say(&mut stream, &head("/refuse")).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}
