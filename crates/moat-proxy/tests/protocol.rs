//! Guards what the proxy does with connections that are more than requests and answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use support::{Front, config, raw_upstream, soon};
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
