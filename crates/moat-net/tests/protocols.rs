//! Guards how a connection finds its protocol, and what drives it: HTTP/2 without TLS, upgrades, threads
//! of its own.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::thread;

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moat_net::{Body, ClientConfig, Endpoint, HttpClient, Limits, Listener, Peer, Workers};
use support::{Fn2, PATIENCE, Server, read_until, say, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

async fn version(_: Arc<Peer>, request: Request<Body>) -> Response<Body> {
    let text = format!("{:?}", request.version());
    Response::new(Body::full(text))
}

#[tokio::test]
async fn a_plain_listener_speaks_http2_with_those_who_begin_with_it() {
    let server = Server::start_with(None, Limits::default(), Fn2(version), Listener::with_h2c);
    let stream = TokioIo::new(server.connect().await);
    let handshake = http2::handshake::<_, _, Body>(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        let request = Request::get("http://h/").body(Body::empty()).unwrap();
        let answer = soon(sender.send_request(request)).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "HTTP/2.0");
    }
    drop(sender);
    soon(connection).await.unwrap().unwrap();
    let request = "PUT / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = say(&mut server.connect().await, request).await;
    assert!(answer.ends_with("HTTP/1.1"), "{answer}");
    // A listener that was not told to takes the preface for a request of HTTP/1, which it is not.
    let other = Server::start(None, Limits::default(), Fn2(version));
    let answer = say(
        &mut other.connect().await,
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 400") || answer.is_empty(),
        "{answer}"
    );
}

#[tokio::test]
async fn connections_are_driven_by_the_threads_that_were_named() {
    let name = async |_, _: Request<Body>| {
        let name = thread::current().name().map(str::to_owned);
        Response::new(Body::full(format!("{}.", name.unwrap_or_default())))
    };
    let workers = Workers::start(2).unwrap();
    let on_workers = |listener: Listener| listener.on_workers(&workers);
    let server = Server::start_with(None, Limits::default(), Fn2(name), on_workers);
    let mut names = HashSet::new();
    let mut kept = Vec::new();
    for _ in 0..4 {
        let mut stream = server.connect().await;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        let answer = read_until(&mut stream, ".").await;
        names.insert(answer.rsplit('\n').next().unwrap().to_owned());
        kept.push(stream);
    }
    let expected = ["moat-worker-1.", "moat-worker-2."].map(str::to_owned);
    assert_eq!(names, HashSet::from(expected));
    // Their connections are drained like any other.
    server.drain.start(PATIENCE);
    soon(server.task).await.unwrap();
}

/// A server that changes to a protocol in which it echoes, and greets with the head's packet.
async fn echo_upstream() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains("upgrade: echo"), "{head}");
        let answer =
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhi\n";
        stream.write_all(answer).await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    endpoint
}

/// A service that hands everything on, as it is.
async fn front(endpoint: Endpoint) -> (Server, HttpClient) {
    let client = HttpClient::new(ClientConfig::default());
    let sender = client.clone();
    let forward = move |_, request: Request<Body>| {
        let (client, endpoint) = (sender.clone(), endpoint.clone());
        async move {
            client
                .send(&endpoint, request.map(Body::from))
                .await
                .unwrap()
        }
    };
    (Server::start(None, Limits::default(), Fn2(forward)), client)
}

#[tokio::test]
async fn after_a_101_bytes_of_any_kind_flow_both_ways() {
    let (server, _client) = front(echo_upstream().await).await;
    let mut stream = server.connect().await;
    let ask = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let answer = read_until(&mut stream, "hi\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // What no head may hold: lines that end with LF alone, NUL.
    let said: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn({
        let said = said.clone();
        async move {
            write.write_all(&said).await.unwrap();
            write.shutdown().await.unwrap();
        }
    });
    let mut echoed = Vec::new();
    soon(read.read_to_end(&mut echoed)).await.unwrap();
    writing.await.unwrap();
    assert_eq!(echoed.len(), said.len());
    assert!(echoed == said);
    server.drain.start(PATIENCE);
    soon(server.task).await.unwrap();
}

#[tokio::test]
async fn a_tunnel_is_cut_at_the_deadline_of_a_drain() {
    let (server, _client) = front(echo_upstream().await).await;
    let mut stream = server.connect().await;
    let ask = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    read_until(&mut stream, "hi\n").await;
    server.drain.start(std::time::Duration::from_millis(10));
    soon(server.task).await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_101_out_of_the_blue_is_no_answer() {
    let service = async |_, _: Request<Body>| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response
    };
    let server = Server::start(None, Limits::default(), Fn2(service));
    let request = "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = say(&mut server.connect().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}

/// What a server that takes HTTP/2 tells of a request.
async fn told(peer: Arc<Peer>, request: Request<Body>) -> Response<Body> {
    let authority = request.uri().authority().map(ToString::to_string);
    let (head, body) = request.into_parts();
    let host = head.headers.get("host").cloned();
    let sent = body.collect().await.unwrap().to_bytes().len();
    let (version, path) = (head.version, head.uri.path_and_query().cloned());
    let text = format!(
        "{version:?} {authority:?} {host:?} {path:?} {sent} {}",
        peer.addr
    );
    Response::new(Body::full(text))
}

fn http2_client(tls: Option<moat_net::tls::ClientTls>) -> HttpClient {
    HttpClient::new(ClientConfig {
        tls,
        http2: true,
        ..ClientConfig::default()
    })
}

async fn ask(client: &HttpClient, endpoint: &Endpoint, body: Body) -> String {
    let request = Request::put("//a%2Fb?x=&y").header("host", "b.s3.test:1");
    let answer = soon(client.send(endpoint, request.body(body).unwrap())).await;
    let body = answer.unwrap().into_body();
    let bytes = soon(body.collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn requests_share_one_connection_of_http2_and_keep_host_and_path() {
    let files = support::Files::new();
    let tls = files.server_tls(moat_net::tls::ClientAuth::None);
    let servers = [
        (
            "https",
            Server::start(Some(tls), Limits::default(), Fn2(told)),
        ),
        (
            "http",
            Server::start_with(None, Limits::default(), Fn2(told), Listener::with_h2c),
        ),
    ];
    for (scheme, server) in servers {
        let port = server.addr.port();
        let endpoint = Endpoint::parse(&format!("{scheme}://localhost:{port}")).unwrap();
        let endpoint = endpoint.at("127.0.0.1".parse().unwrap());
        let client = http2_client(Some(files.client_tls(None)));
        let first = ask(&client, &endpoint, Body::empty()).await;
        let expected = r#"HTTP/2.0 Some("b.s3.test:1") None Some(//a%2Fb?x=&y) "#;
        assert!(first.starts_with(expected), "{first}");
        let large = || Body::full(vec![7; 3_000_000]);
        let asked = (0..8).map(|_| ask(&client, &endpoint, large()));
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer, first.replace(" 0 ", " 3000000 "));
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_choose_http2_is_spoken_to_in_http1() {
    let files = support::Files::new();
    let tls = files
        .server_tls(moat_net::tls::ClientAuth::None)
        .without_http2();
    let server = Server::start(Some(tls), Limits::default(), Fn2(told));
    let url = format!("https://localhost:{}", server.addr.port());
    let endpoint = Endpoint::parse(&url)
        .unwrap()
        .at("127.0.0.1".parse().unwrap());
    let client = http2_client(Some(files.client_tls(None)));
    let first = ask(&client, &endpoint, Body::empty()).await;
    let expected = r#"HTTP/1.1 None Some("b.s3.test:1") Some(//a%2Fb?x=&y) 0"#;
    assert!(first.starts_with(expected), "{first}");
    assert_eq!(ask(&client, &endpoint, Body::empty()).await, first);
}

#[tokio::test]
async fn after_an_http2_connection_ended_the_next_request_opens_another() {
    let start = || Server::start_with(None, Limits::default(), Fn2(told), Listener::with_h2c);
    let server = start();
    let endpoint = Endpoint::parse(&format!("http://{}", server.addr)).unwrap();
    let client = http2_client(None);
    let first = ask(&client, &endpoint, Body::empty()).await;
    client.close_idle(&endpoint);
    let second = ask(&client, &endpoint, Body::empty()).await;
    assert_ne!(first, second);
    assert_eq!(ask(&client, &endpoint, Body::empty()).await, second);
    // What the server closes is not used either.
    server.drain.start(PATIENCE);
    soon(server.task).await.unwrap();
    let request = Request::get("/").body(Body::empty()).unwrap();
    let error = soon(client.send(&endpoint, request)).await.unwrap_err();
    assert!(error.nothing_sent(), "{error}");
}
