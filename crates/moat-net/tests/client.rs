//! Guards the client: requests leave as they are, connections are used again and never after they
//! ended, and an error says what was sent.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use moat_net::tls::ClientAuth;
use moat_net::{Body, ClientConfig, ClientErrorKind, Endpoint, HttpClient, Limits, Peer};
use rustls_pki_types::ServerName;
use support::{Files, Fn2, Server, soon};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

async fn describe(peer: Arc<Peer>, request: Request<Body>) -> Response<Body> {
    if request.uri().path() == "/long" {
        return Response::new(Body::full(vec![b'x'; 1 << 20]));
    }
    let host = request.headers()[HOST].to_str().unwrap().to_owned();
    let line = format!(
        "{} {} {host} {}",
        request.method(),
        request.uri(),
        peer.addr
    );
    Response::new(Body::full(line))
}

fn client() -> HttpClient {
    HttpClient::new(ClientConfig::default())
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::parse(&format!("http://{}", server.addr)).unwrap()
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn host_and_path_are_sent_as_given_and_filled_in_only_if_missing() {
    let server = Server::start(None, Limits::default(), Fn2(describe));
    let (client, endpoint) = (client(), endpoint(&server));
    let mut request = get("//a%2Fb/../c?x=&y");
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_static("bucket.example"));
    let sent = text(soon(client.send(&endpoint, request)).await.unwrap()).await;
    assert!(
        sent.starts_with("GET //a%2Fb/../c?x=&y bucket.example "),
        "{sent}"
    );

    let absolute = get(&format!("http://{}/p?q", server.addr));
    let sent = text(soon(client.request(absolute)).await.unwrap()).await;
    assert!(
        sent.starts_with(&format!("GET /p?q {} ", server.addr)),
        "{sent}"
    );

    let error = soon(client.request(get("/nowhere"))).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Request);
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_read_answer_and_not_after_an_unread_one() {
    let server = Server::start(None, Limits::default(), Fn2(describe));
    let (client, endpoint) = (client(), endpoint(&server));
    let port = async |response| text(response).await.rsplit(':').next().unwrap().to_owned();
    let first = port(soon(client.send(&endpoint, get("/"))).await.unwrap()).await;
    let second = port(soon(client.send(&endpoint, get("/"))).await.unwrap()).await;
    assert_eq!(first, second);
    drop(soon(client.send(&endpoint, get("/long"))).await.unwrap());
    let third = port(soon(client.send(&endpoint, get("/"))).await.unwrap()).await;
    assert_ne!(second, third);
    client.close_idle(&endpoint);
    let fourth = port(soon(client.send(&endpoint, get("/"))).await.unwrap()).await;
    assert_ne!(third, fourth);
}

#[tokio::test]
async fn a_restarted_server_is_reached_without_an_error() {
    let server = Server::start(None, Limits::default(), Fn2(describe));
    let (client, endpoint) = (client(), endpoint(&server));
    text(soon(client.send(&endpoint, get("/"))).await.unwrap()).await;
    let addr = server.addr;
    server.drain.start(Duration::from_secs(10));
    soon(server.task).await.unwrap();
    let config = moat_net::ListenerConfig {
        address: addr,
        tls: None,
        limits: Limits::default(),
    };
    let listener = moat_net::Listener::bind(config).unwrap();
    tokio::spawn(listener.serve(Arc::new(Fn2(describe)), moat_net::Drain::new()));
    // A request with a body, since those can't be repeated once they left.
    let request = Request::put("/").body(Body::full("data")).unwrap();
    let response = soon(client.send(&endpoint, request)).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn errors_tell_whether_anything_was_sent_and_return_what_was_not() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = unused.local_addr().unwrap();
    drop(unused);
    let endpoint = Endpoint::parse(&format!("http://{addr}")).unwrap();
    let request = Request::put("/k").body(Body::full("data")).unwrap();
    let error = soon(client().send(&endpoint, request)).await.unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::Connect);
    assert!(error.nothing_sent());
    let request = error.into_request().unwrap();
    assert_eq!(request.uri().path(), "/k");
    assert_eq!(
        request.into_body().collect().await.unwrap().to_bytes(),
        "data"
    );

    let no_tls = Endpoint::parse(&format!("https://{addr}")).unwrap();
    let error = soon(client().send(&no_tls, get("/"))).await.unwrap_err();
    assert!(error.nothing_sent());
}

#[tokio::test]
async fn a_server_that_hangs_up_or_talks_nonsense_is_told_apart() {
    for (answer, kind) in [
        (&b""[..], ClientErrorKind::Closed),
        (b"220 smtp.example ESMTP\r\n", ClientErrorKind::BadAnswer),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 16];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut head)
                .await
                .unwrap();
            stream.write_all(answer).await.unwrap();
            stream.shutdown().await.unwrap();
            // Drained, or the unread rest of the request would turn the FIN into a reset.
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await;
        });
        let endpoint = Endpoint::parse(&endpoint).unwrap();
        let error = soon(client().send(&endpoint, get("/"))).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.nothing_sent());
        assert!(!error.reused());
    }
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_wait_and_the_request() {
    struct Cancelled(Arc<Notify>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let cancelled = Arc::new(Notify::new());
    let server = Server::start(None, Limits::default(), {
        let cancelled = Arc::clone(&cancelled);
        Fn2(move |_, _| {
            let guard = Cancelled(Arc::clone(&cancelled));
            async move {
                let never = std::future::pending::<Response<Body>>().await;
                drop(guard);
                never
            }
        })
    });
    let client = HttpClient::new(ClientConfig {
        response_timeout: Some(Duration::from_millis(100)),
        ..ClientConfig::default()
    });
    let error = soon(client.send(&endpoint(&server), get("/")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ClientErrorKind::ResponseTimeout);
    soon(cancelled.notified()).await;
}

#[tokio::test]
async fn http2_streams_share_a_connection_and_drain_lets_them_end() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let files = Files::new();
    let tls = files.server_tls(ClientAuth::Requested);
    let server = Server::start(Some(tls), Limits::default(), {
        let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
        Fn2(move |peer: Arc<Peer>, request: Request<Body>| {
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            async move {
                assert_eq!(request.version(), Version::HTTP_2);
                if request.uri().path() == "/wait" {
                    entered.notify_one();
                    release.notified().await;
                }
                Response::new(Body::full(peer.addr.to_string()))
            }
        })
    });
    let mut config = (*files.client_tls(None).current()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let stream = soon(connector.connect(name, server.connect().await))
        .await
        .unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let ask = |path: &str| {
        let mut sender = sender.clone();
        let request = get(&format!("https://localhost{path}"));
        tokio::spawn(async move {
            let response = sender.send_request(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        })
    };
    let waiting = ask("/wait");
    soon(entered.notified()).await;
    // A second stream is not held up by the first.
    let quick = soon(ask("/quick")).await.unwrap();
    server.drain.start(Duration::from_secs(60));
    release.notify_one();
    assert_eq!(soon(waiting).await.unwrap(), quick);
    soon(server.task).await.unwrap();
    soon(connection).await.unwrap().unwrap();
}
