//! Guards transparency: what the client signed arrives as it was sent, what the upstream answers
//! comes back as it was given, and the few intended changes are exactly these.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moat_net::Body;
use rustls_pki_types::ServerName;
use support::{Front, Pki, Server, client, config, get, raw_upstream, request, soon, text};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CUSTOMER_KEY: &str = "x-amz-server-side-encryption-customer-key";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn path_query_host_and_headers_arrive_as_they_were_sent() {
    let (url, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let _ = stream.write_all(OK).await;
    })
    .await;
    let front = Front::start(config(&[url]), None);
    let target = "//a%2Fb/../c/./%7e+é?x=&delete&list-type=2&prefix=a//b%20c&x=1";
    let mut stream = front.connect().await;
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: bucket.s3.example:8091\r\nx-amz-meta-b: 2\r\nx-amz-meta-a: \r\n\
         x-amz-meta-b: 1, 0\r\nReferer: https://audit.example.org/?op=x\r\namz-sdk-retry: 0/0/500\r\n\
         x-forwarded-for: 6.6.6.6\r\nconnection: close, x-hop\r\nx-hop: 1\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let seen = soon(heads.recv()).await.unwrap();
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some(&*format!("GET {target} HTTP/1.1")));
    let mut sorted: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    // Between values of one name the order counts, between names it does not.
    sorted.sort_by_key(|line| line.split(':').next().map(str::to_owned));
    assert_eq!(
        sorted,
        [
            "amz-sdk-retry: 0/0/500",
            "host: bucket.s3.example:8091",
            "referer: https://audit.example.org/?op=x",
            "x-amz-meta-a: ",
            "x-amz-meta-b: 2",
            "x-amz-meta-b: 1, 0",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: bucket.s3.example:8091",
            "x-forwarded-proto: http",
            "x-real-ip: 127.0.0.1",
        ]
    );
}

/// Answers every request with a key id.
async fn with_key_id(_: Request<Body>) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(
        "x-amz-server-side-encryption",
        HeaderValue::from_static("aws:kms"),
    );
    headers.insert(KEY_ID, HeaderValue::from_static("key-a"));
    response
}

#[tokio::test]
async fn key_id_is_hidden_from_plain_head_answers_only() {
    let pki = Pki::new();
    let upstream = Server::upstream(Some(pki.server()), with_key_id);
    let mut config = config(&[upstream.url("https")]);
    config.sites[0].tls = Some(pki.client());
    let front = Front::start(config.clone(), Some(&pki));
    let client = client(Some(&pki));
    for (method, endpoint, kept) in [
        ("HEAD", front.plain_endpoint(), false),
        ("GET", front.plain_endpoint(), true),
        ("PUT", front.plain_endpoint(), true),
        ("POST", front.plain_endpoint(), true),
        ("HEAD", front.tls_endpoint(), true),
        ("GET", front.tls_endpoint(), true),
    ] {
        let request = request(method, "/b/k", Body::empty());
        let response = soon(client.send(&endpoint, request)).await.unwrap();
        assert_eq!(
            response.headers().contains_key(KEY_ID),
            kept,
            "{method} {endpoint}"
        );
        // The algorithm stays, with or without the id.
        assert_eq!(
            response.headers()["x-amz-server-side-encryption"],
            "aws:kms"
        );
    }
    config.hide_key_id_on_plain = false;
    let open = Front::start(config, None);
    let request = request("HEAD", "/b/k", Body::empty());
    let response = soon(client.send(&open.plain_endpoint(), request))
        .await
        .unwrap();
    assert!(response.headers().contains_key(KEY_ID));
}

#[tokio::test]
async fn customer_keys_are_refused_on_plain_and_pass_on_tls() {
    let pki = Pki::new();
    let notes = support::Notes::default();
    let upstream = Server::upstream(None, {
        let notes = notes.clone();
        move |request: Request<Body>| {
            notes.add(request.uri().path());
            assert!(request.headers().contains_key(CUSTOMER_KEY));
            async { Response::new(Body::empty()) }
        }
    });
    let front = Front::start(config(&[upstream.url("http")]), Some(&pki));
    let client = client(Some(&pki));
    let with_key = |path, method| {
        let mut request = request(method, path, Body::full("data"));
        let value = HeaderValue::from_static("c2VjcmV0");
        request.headers_mut().insert(CUSTOMER_KEY, value);
        request
    };
    let response = soon(client.send(&front.plain_endpoint(), with_key("/b/a&b", "PUT"))).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-type"], "application/xml");
    let xml = text(response).await;
    assert!(xml.contains("<Code>InvalidRequest</Code>"), "{xml}");
    assert!(xml.contains("/b/a&amp;b"), "{xml}");
    assert!(!xml.contains("c2VjcmV0"), "{xml}");

    let response = soon(client.send(&front.tls_endpoint(), with_key("/b/tls", "PUT"))).await;
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(notes.all(), ["/b/tls"]);
}

#[tokio::test]
async fn the_store_is_told_scheme_and_host_of_the_listener() {
    let pki = Pki::new();
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        let text = [
            header("x-forwarded-proto"),
            header("x-forwarded-host"),
            header("host"),
        ];
        Response::new(Body::full(text.join(" ")))
    });
    let front = Front::start(config(&[upstream.url("http")]), Some(&pki));
    let client = client(Some(&pki));
    for (endpoint, scheme) in [
        (front.plain_endpoint(), "http"),
        (front.tls_endpoint(), "https"),
    ] {
        let mut request = get("/");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("s3.example"));
        headers.insert("x-forwarded-proto", HeaderValue::from_static("gopher"));
        let response = soon(client.send(&endpoint, request)).await.unwrap();
        assert_eq!(
            text(response).await,
            format!("{scheme} s3.example s3.example")
        );
    }
}

#[tokio::test]
async fn http2_clients_are_served_by_http1_upstreams() {
    let pki = Pki::new();
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        assert_eq!(request.version(), Version::HTTP_11);
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        let path = request.uri().to_string();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::full(format!("{host} {path} {}", body.len())))
    });
    let front = Front::start(config(&[upstream.url("http")]), Some(&pki));
    let mut tls = (*pki.client().current()).clone();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(front.tls.as_ref().unwrap().addr)
        .await
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method("PUT")
        .uri("https://bucket.s3.example:8090//a%2Fb?x=")
        .body(Body::full(vec![b'x'; 300_000]))
        .unwrap();
    let response = soon(sender.send_request(request)).await.unwrap();
    let body = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, "bucket.s3.example:8090 //a%2Fb?x= 300000");
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        let collected = request.into_body().collect().await.unwrap();
        let trailers = collected.trailers().unwrap().clone();
        assert_eq!(trailers["x-amz-checksum-crc32"], "AAAAAA==");
        let frames = [
            Ok::<_, std::io::Error>(Frame::data(collected.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ];
        let stream = StreamBody::new(futures_util::stream::iter(frames));
        let mut response = Response::new(Body::stream(stream));
        let name = HeaderValue::from_static("x-amz-checksum-crc32");
        response.headers_mut().insert("trailer", name);
        response
    });
    let front = Front::to(&[&upstream]);
    let mut stream = front.connect().await;
    stream
        .write_all(
            b"PUT /b/k HTTP/1.1\r\nhost: h\r\nte: trailers\r\ntrailer: x-amz-checksum-crc32\r\n\
              transfer-encoding: chunked\r\nconnection: close, te\r\n\r\n\
              5\r\nhello\r\n0\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.ends_with("5\r\nhello\r\n0\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_waits_for_the_upstreams_100_and_is_not_sent_after_a_refusal() {
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        assert!(request.headers().contains_key(EXPECT));
        if request.uri().path() == "/refuse" {
            let mut response = Response::new(Body::full("no"));
            *response.status_mut() = http::StatusCode::FORBIDDEN;
            return response;
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::full(body))
    });
    let front = Front::to(&[&upstream]);
    let head = |path| {
        format!(
            "PUT {path} HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
        )
    };
    let mut stream = front.connect().await;
    stream.write_all(head("/take").as_bytes()).await.unwrap();
    let interim = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );

    let mut stream = front.connect().await;
    stream.write_all(head("/refuse").as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn an_upstream_that_knows_no_100_gets_the_body_after_a_while() {
    let (url, _heads) = raw_upstream(async |mut stream: TcpStream| {
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
        let _ = stream.write_all(OK).await;
    })
    .await;
    let front = Front::start(config(&[url]), None);
    let mut request = request("PUT", "/b/k", Body::full("hello"));
    request
        .headers_mut()
        .insert(EXPECT, HeaderValue::from_static("100-continue"));
    // Our own client does not wait for the 100; the proxy does.
    let response = soon(client(None).send(&front.plain_endpoint(), request)).await;
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn one_upstream_connection_serves_request_after_request() {
    struct Addresses(support::Notes);
    impl moat_net::Service for Addresses {
        async fn call(&self, peer: &Arc<moat_net::Peer>, request: Request<Body>) -> Response<Body> {
            if !request.uri().path().starts_with("/minio/") {
                self.0.add(peer.addr.to_string());
            }
            let method = request.method().clone();
            let _ = request.into_body().collect().await;
            match method {
                http::Method::GET => Response::new(Body::full("some bytes")),
                http::Method::POST => Response::new(numbered(3)),
                _ => Response::new(Body::empty()),
            }
        }
    }
    let pki = Pki::new();
    let notes = support::Notes::default();
    let service = Arc::new(Addresses(notes.clone()));
    let upstream = Server::start(support::any_port(), Some(pki.server()), service);
    let mut config = config(&[upstream.url("https")]);
    config.sites[0].tls = Some(pki.client());
    let front = Front::start(config, Some(&pki));
    let (client, endpoint) = (client(Some(&pki)), front.tls_endpoint());
    for number in 0..24 {
        let (method, body) = match number % 6 {
            0 => ("GET", Body::empty()),
            1 => ("PUT", Body::full("data")),
            2 => ("HEAD", Body::empty()),
            3 => ("PUT", numbered(2)),
            4 => ("POST", Body::full("data")),
            _ => ("DELETE", Body::empty()),
        };
        let response = soon(client.send(&endpoint, request(method, "/b/k", body)))
            .await
            .unwrap();
        soon(response.into_body().collect()).await.unwrap();
    }
    let mut seen = notes.all();
    assert_eq!(seen.len(), 24);
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// Blocks that may be on the way when somebody does not read: sockets and buffers of four ends.
const ON_THE_WAY: usize = 1024;

#[tokio::test]
async fn a_download_that_the_client_does_not_read_stops_the_upstream() {
    let given = Arc::new(AtomicUsize::new(0));
    let upstream = Server::upstream(None, {
        let given = Arc::clone(&given);
        move |request: Request<Body>| {
            if request.uri().path() == "/read" {
                return std::future::ready(Response::new(numbered(4096)));
            }
            let given = Arc::clone(&given);
            let frames = futures_util::stream::iter(0..4096).map(move |number| {
                given.fetch_add(1, Relaxed);
                Ok::<_, std::io::Error>(Frame::data(Bytes::from(block(number))))
            });
            std::future::ready(Response::new(Body::stream(StreamBody::new(frames))))
        }
    });
    let front = Front::to(&[&upstream]);
    let (client, endpoint) = (client(None), front.plain_endpoint());
    let unread = soon(client.send(&endpoint, get("/unread"))).await.unwrap();
    // In the time that this takes, the other one could have passed whole as well.
    let read = soon(client.send(&endpoint, get("/read"))).await.unwrap();
    assert_eq!(check_numbered(read.into_body()).await, 4096);
    assert!(given.load(Relaxed) < ON_THE_WAY, "{given:?}");
    assert_eq!(check_numbered(unread.into_body()).await, 4096);
}

/// 64 MiB in frames of 64 KiB, each with its number, so that loss and disorder show.
fn numbered(count: u32) -> Body {
    let frames = futures_util::stream::iter(0..count)
        .map(|number| Ok::<_, std::io::Error>(Frame::data(Bytes::from(block(number)))));
    Body::stream(StreamBody::new(frames))
}

fn block(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(16 * 1024)
}

async fn check_numbered(
    mut body: impl http_body::Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
) -> u32 {
    let mut pending = Vec::new();
    let mut number = 0;
    while let Some(frame) = soon(body.frame()).await {
        pending.extend_from_slice(&frame.unwrap().into_data().unwrap());
        while pending.len() >= 64 * 1024 {
            let rest = pending.split_off(64 * 1024);
            assert!(pending == block(number), "block {number}");
            pending = rest;
            number += 1;
        }
    }
    assert!(pending.is_empty());
    number
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways_over_tls() {
    let pki = Pki::new();
    let upstream = Server::upstream(Some(pki.server()), |request: Request<Body>| async move {
        if request.method() == http::Method::GET {
            return Response::new(numbered(1024));
        }
        let blocks = check_numbered(request.into_body()).await;
        Response::new(Body::full(blocks.to_string()))
    });
    let mut config = config(&[upstream.url("https")]);
    config.sites[0].tls = Some(pki.client());
    let front = Front::start(config, Some(&pki));
    let (client, endpoint) = (client(Some(&pki)), front.tls_endpoint());
    let response = soon(client.send(&endpoint, get("/b/k"))).await.unwrap();
    assert_eq!(check_numbered(response.into_body()).await, 1024);
    let response = soon(client.send(&endpoint, request("PUT", "/b/k", numbered(1024)))).await;
    assert_eq!(text(response.unwrap()).await, "1024");
}

#[tokio::test]
async fn an_upload_that_the_upstream_does_not_read_stops_the_client() {
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let upstream = Server::upstream(None, {
        let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
        move |request: Request<Body>| {
            let (entered, go_on) = (Arc::clone(&entered), Arc::clone(&go_on));
            async move {
                if request.uri().path() == "/unread" {
                    entered.notify_one();
                    go_on.notified().await;
                }
                let blocks = check_numbered(request.into_body()).await;
                Response::new(Body::full(blocks.to_string()))
            }
        }
    });
    let front = Front::to(&[&upstream]);
    let (client, endpoint) = (client(None), front.plain_endpoint());
    let taken = Arc::new(AtomicUsize::new(0));
    let unread = {
        let (client, endpoint, taken) = (client.clone(), endpoint.clone(), Arc::clone(&taken));
        let frames = futures_util::stream::iter(0..4096).map(move |number| {
            taken.fetch_add(1, Relaxed);
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(block(number))))
        });
        let request = request("PUT", "/unread", Body::stream(StreamBody::new(frames)));
        tokio::spawn(async move { client.send(&endpoint, request).await })
    };
    soon(entered.notified()).await;
    // In the time that this takes, the other one could have passed whole as well.
    let read = request("PUT", "/read", numbered(4096));
    let response = soon(client.send(&endpoint, read)).await.unwrap();
    assert_eq!(text(response).await, "4096");
    assert!(taken.load(Relaxed) < ON_THE_WAY, "{taken:?}");
    go_on.notify_one();
    assert_eq!(text(soon(unread).await.unwrap().unwrap()).await, "4096");
}

#[tokio::test]
async fn nothing_is_smuggled_in_a_body_that_can_be_read_in_two_ways() {
    let notes = support::Notes::default();
    let upstream = Server::upstream(None, {
        let notes = notes.clone();
        move |request: Request<Body>| {
            let headers = request.headers();
            let lengths = headers.contains_key("content-length");
            assert!(!(lengths && headers.contains_key("transfer-encoding")));
            notes.add(request.uri().path());
            std::future::ready(Response::new(Body::empty()))
        }
    });
    let front = Front::to(&[&upstream]);
    let body = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";
    let length = format!("content-length: {}\r\n", body.len());
    let chunked = "transfer-encoding: chunked\r\n";
    let answer_to = async |head: String| {
        let mut stream = front.connect().await;
        let request = format!("{head}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // To the end: the connection must not go on with what could be another request.
        let _ = soon(stream.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let start = "POST /once HTTP/1.1\r\nhost: h\r\n";
    for refused in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "x: 1\r\n folded\r\n",
        "x: 1\n",
        &format!("{length}{chunked}"),
        &format!("{chunked}{length}"),
    ] {
        let answer = answer_to(format!("{start}{refused}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{refused}: {answer}");
    }
    let answer = answer_to("CONNECT other:443 HTTP/1.1\r\nhost: h\r\n".into()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(notes.all().is_empty(), "{:?}", notes.all());
}

#[tokio::test]
async fn statuses_and_headers_come_back_as_given() {
    let upstream = Server::upstream(None, |_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::NOT_MODIFIED;
        let headers: &mut HeaderMap = response.headers_mut();
        headers.insert("etag", HeaderValue::from_static("\"abc-1\""));
        headers.append("x-amz-meta-a", HeaderValue::from_static("1"));
        headers.append("x-amz-meta-a", HeaderValue::from_static(""));
        headers.insert("server", HeaderValue::from_static("Other"));
        headers.insert(
            "date",
            HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT"),
        );
        headers.insert("keep-alive", HeaderValue::from_static("timeout=9"));
        response
    });
    let front = Front::to(&[&upstream]);
    let response = soon(client(None).send(&front.plain_endpoint(), get("/")))
        .await
        .unwrap();
    assert_eq!(response.status(), 304);
    let headers = response.headers();
    assert_eq!(headers["etag"], "\"abc-1\"");
    assert_eq!(headers["server"], "Other");
    assert_eq!(headers["date"], "Thu, 01 Jan 2026 00:00:00 GMT");
    let values: Vec<_> = headers.get_all("x-amz-meta-a").iter().collect();
    assert_eq!(values, ["1", ""]);
    assert!(!headers.contains_key("keep-alive"));
}

#[tokio::test]
async fn head_answers_keep_the_length_of_what_get_would_send() {
    let upstream = Server::upstream(None, |_| async {
        let mut response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert("content-length", HeaderValue::from_static("12345"));
        response
    });
    let front = Front::to(&[&upstream]);
    let client = client(None);
    // Twice: the connection must be fit for the next request.
    for _ in 0..2 {
        let request = request("HEAD", "/b/k", Body::empty());
        let response = soon(client.send(&front.plain_endpoint(), request))
            .await
            .unwrap();
        assert_eq!(response.headers()["content-length"], "12345");
    }
}
