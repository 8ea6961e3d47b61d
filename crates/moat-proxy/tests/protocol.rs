//! Guards what the proxy does with connections that are more than requests and answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use moat_net::Body;
use support::{Front, Pki, Server, config, raw_upstream, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const UPGRADE: &str = "GET /ws/objects HTTP/1.1\r\nhost: console\r\nconnection: keep-alive, Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\nsec-websocket-version: 13\r\n\r\n";

async fn echo_after_101(mut stream: TcpStream) {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\r\n";
    stream.write_all(answer.as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

#[tokio::test]
async fn an_upgrade_is_passed_on_and_counts_as_a_request_until_it_ends() {
    let (url, mut heads) = raw_upstream(echo_after_101).await;
    let front = Front::start(config(&[url]), None);
    let mut stream = front.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let head = soon(heads.recv()).await.unwrap().to_ascii_lowercase();
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
        "x-forwarded-proto: http\r\n",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let answer = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let answer = answer.to_ascii_lowercase();
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: ",
    ] {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    stream.write_all(b"\x81\x02\n\n").await.unwrap();
    let mut echoed = [0; 4];
    soon(stream.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"\x81\x02\n\n");
    assert_eq!(front.in_flight(), 1);
    drop(stream);
    front.until(|front| front.in_flight() == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_falls_silent_ends_after_its_limit() {
    let (url, _heads) = raw_upstream(echo_after_101).await;
    let mut config = config(&[url]);
    config.tunnel_idle_timeout = Duration::from_millis(50);
    let front = Front::start(config, None);
    let mut stream = front.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let answer = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut rest = Vec::new();
    soon(stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
    front.until(|front| front.in_flight() == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_the_upstream_declines_is_an_ordinary_request() {
    let (url, mut heads) = raw_upstream(async |mut stream: TcpStream| {
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nno";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let front = Front::start(config(&[url]), None);
    let mut stream = front.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    soon(heads.recv()).await.unwrap();
    let answer = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("upgrade"), "{answer}");
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_no_answer() {
    let (url, _heads) = raw_upstream(echo_after_101).await;
    let front = Front::start(config(&[url]), None);
    let mut stream = front.connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: h\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let answer = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

/// Reads a body to its end and tells what came with it, unless it is to refuse it.
async fn store(request: Request<Body>) -> Response<Body> {
    if request.uri().path() == "/refused" {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap();
    let trailer = body.trailers().map(|trailers| trailers["x-sum"].clone());
    let expect = head.headers.get("expect").cloned();
    let bytes = body.to_bytes().len();
    let text = format!("{:?} {bytes} {trailer:?} {expect:?}", head.version);
    Response::new(Body::full(text))
}

#[tokio::test]
async fn stores_that_choose_http2_are_spoken_to_in_it() {
    let pki = Pki::new();
    let upstream = Server::upstream(Some(pki.server()), store);
    let mut config = config(&[upstream.url("https")]);
    config.upstream_http2 = true;
    config.sites[0].tls = Some(pki.client());
    let front = Front::start(config, None);
    let ask = async |rest: &str| {
        let mut stream = front.connect().await;
        let request = format!("PUT {rest}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let head = "HTTP/1.1\r\nhost: h\r\nconnection: close, te\r\nte: trailers\r\n";
    let chunks = "5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n";
    let chunked =
        format!("/b/k {head}transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n{chunks}");
    let answer = ask(&chunked).await;
    assert!(answer.ends_with("HTTP/2.0 5 Some(\"1\") None"), "{answer}");
    // No answer of 100 is waited for, and a refusal still comes before the body was asked for.
    let expect = format!("/refused {head}expect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let answer = ask(&expect).await;
    assert!(answer.contains("HTTP/1.1 403 "), "{answer}");
    // There is nothing in HTTP/2 to pass an upgrade on with.
    let mut stream = front.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let answer = soon(support::read_head(&mut stream)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}
