//! HTTP/1.1 as other people's clients and servers speak it: versions, framings, what becomes of a connection after each kind
//! of request, and answers that come before their time.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use moat_net::{Body, BoxError, ClientConfig, Endpoint, HttpClient, Limits, Peer};
use support::{Fn2, Server, read_to_end, read_until, say, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A body of frames that are at hand, of a length that nobody knows.
fn frames(frames: Vec<Frame<Bytes>>) -> Body {
    let frames = frames.into_iter().map(Ok::<_, BoxError>);
    Body::stream(StreamBody::new(stream::iter(frames)))
}

/// Answers by path: the request's body, frames, nothing, or without having read the body.
async fn answer(_: Arc<Peer>, request: Request<Body>) -> Response<Body> {
    let mut response = match request.uri().path() {
        "/echo" => {
            let body = request.into_body().collect().await.unwrap();
            let fields = body.trailers().map_or(0, HeaderMap::len);
            Response::new(Body::full(
                [body.to_bytes(), format!("|{fields}").into()].concat(),
            ))
        }
        "/mirror" => return Response::new(request.into_body()),
        "/frames" => {
            let mut fields = HeaderMap::new();
            fields.insert("x-sum", "7".parse().unwrap());
            fields.insert("x-other", "8".parse().unwrap());
            let data = |text: &'static str| Frame::data(Bytes::from(text));
            Response::new(frames(vec![
                data("ab"),
                data("cde"),
                Frame::trailers(fields),
            ]))
        }
        "/nothing" => Response::new(Body::empty()),
        "/refuse" => {
            let mut response = Response::new(Body::full("no"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
        path => panic!("{path}"),
    };
    response
        .headers_mut()
        .insert("trailer", "x-sum".parse().unwrap());
    response
}

fn server() -> Server {
    Server::start(None, Limits::default(), Fn2(answer))
}

/// Sends `request`, then another whose answer ends the connection, and returns both answers; without a second answer the
/// connection was not used again.
async fn both(request: &str) -> (String, bool) {
    let mut stream = server().connect().await;
    let last = "GET /nothing HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answers = say(&mut stream, &format!("{request}{last}")).await;
    let second = answers.rfind("HTTP/1.1 200 OK").filter(|at| *at > 0);
    (
        answers[..second.unwrap_or(answers.len())].to_owned(),
        second.is_some(),
    )
}

#[tokio::test]
async fn a_connection_is_used_again_when_the_next_request_can_be_found() {
    let (answer, again) =
        both("PUT /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc").await;
    assert!(again && answer.ends_with("\r\n\r\nabc|0"), "{answer}");
    let chunks = "PUT /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx-a: 1\r\n\r\n";
    let (answer, again) = both(chunks).await;
    assert!(again && answer.ends_with("\r\n\r\nabc|1"), "{answer}");
    // Nobody wants these bodies. What is small, or there already, is read; more is not worth it.
    let (answer, again) =
        both("PUT /refuse HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc").await;
    assert!(again && answer.contains("403 Forbidden"), "{answer}");
    let (answer, again) = both(&chunks.replace("/echo", "/refuse")).await;
    assert!(again && answer.contains("403 Forbidden"), "{answer}");
    let (answer, again) =
        both("PUT /refuse HTTP/1.1\r\nhost: h\r\ncontent-length: 9000000\r\n\r\nabc").await;
    assert!(
        !again && answer.contains("connection: close\r\n"),
        "{answer}"
    );
    // What a client keeps back until it is asked may never come.
    let expects =
        "PUT /refuse HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    let mut stream = server().connect().await;
    let answer = say(&mut stream, expects).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_rest_of_an_unwanted_body_is_read_when_it_comes_and_is_no_request() {
    let mut stream = server().connect().await;
    let head = "PUT /refuse HTTP/1.1\r\nhost: h\r\ncontent-length: 44\r\n\r\nGET /nothing";
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\nno").await.contains("403"));
    let rest = " HTTP/1.1\r\nhost: smuggled\r\n\r\n....GET /echo HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answers = say(&mut stream, rest).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    assert!(answers.ends_with("\r\n\r\n|0"), "{answers}");
}

#[tokio::test]
async fn clients_of_http10_are_understood() {
    let mut stream = server().connect().await;
    let kept = "GET /nothing HTTP/1.0\r\nconnection: keep-alive\r\n\r\nGET /frames HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let answers = say(&mut stream, kept).await;
    let (first, second) = answers.split_once("\r\n\r\n").unwrap();
    assert!(
        first.contains("content-length: 0\r\n") && first.contains("connection: keep-alive"),
        "{first}"
    );
    // No chunks: the end of the connection is the end of the body, and says so.
    assert!(
        second.starts_with("HTTP/1.0 200 OK") && second.contains("connection: close\r\n"),
        "{second}"
    );
    assert!(
        second.ends_with("\r\n\r\nabcde") && !second.contains("chunked"),
        "{second}"
    );
}

#[tokio::test]
async fn heads_are_answered_as_their_gets_without_a_body() {
    let (answer, again) = both("HEAD /echo HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(
        again && answer.contains("content-length: 2\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let (answer, again) = both("HEAD /frames HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(
        again && !answer.contains("content-length") && !answer.contains("chunked"),
        "{answer}"
    );
}

#[tokio::test]
async fn frames_of_unknown_length_are_chunks_and_promised_trailers_follow() {
    let (answer, again) = both("GET /frames HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert!(
        again && answer.contains("transfer-encoding: chunked\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\nx-sum: 7\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_is_answered_while_it_comes() {
    let mut stream = server().connect().await;
    let head = "PUT /mirror HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for word in ["one", "two", "six"] {
        stream
            .write_all(format!("3\r\n{word}\r\n").as_bytes())
            .await
            .unwrap();
        read_until(&mut stream, &format!("3\r\n{word}\r\n")).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(read_until(&mut stream, "0\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn a_body_that_is_cut_or_damaged_is_an_error_to_its_reader() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let done = Arc::new(Notify::new());
    let service = {
        let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
        Fn2(move |_, request: Request<Body>| {
            let (seen, done) = (Arc::clone(&seen), Arc::clone(&done));
            async move {
                let failed = request.into_body().collect().await.is_err();
                seen.lock().unwrap().push(failed);
                done.notify_one();
                Response::new(Body::empty())
            }
        })
    };
    let server = Server::start(None, Limits::default(), service);
    for body in [
        "content-length: 5\r\n\r\nabc",
        "transfer-encoding: chunked\r\n\r\n5\r\nabc",
        "transfer-encoding: chunked\r\n\r\n5\nabcde",
    ] {
        let mut stream = server.connect().await;
        stream
            .write_all(format!("PUT /x HTTP/1.1\r\nhost: h\r\n{body}").as_bytes())
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
        soon(done.notified()).await;
    }
    assert_eq!(*seen.lock().unwrap(), [true; 3]);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_work_for_it() {
    struct Bell(Arc<Notify>);
    impl Drop for Bell {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (begun, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        Fn2(move |_, request: Request<Body>| {
            let (begun, bell) = (Arc::clone(&begun), Bell(Arc::clone(&dropped)));
            async move {
                if request.uri().path() == "/answer" {
                    begun.notify_one();
                    // An answer that never ends, and of which nothing more comes.
                    let frames = stream::once(async move {
                        let _bell = bell;
                        std::future::pending::<Result<Frame<Bytes>, BoxError>>().await
                    });
                    return Response::new(Body::stream(StreamBody::new(frames)));
                }
                let body = request.into_body().collect().await.unwrap();
                assert_eq!(body.to_bytes(), "abc");
                begun.notify_one();
                std::future::pending::<()>().await;
                drop(bell);
                Response::new(Body::empty())
            }
        })
    };
    let server = Server::start(None, Limits::default(), service);
    for head in [
        "PUT /work HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc",
        "GET /answer HTTP/1.1\r\nhost: h\r\n\r\n",
    ] {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        soon(begun.notified()).await;
        drop(stream);
        soon(dropped.notified()).await;
    }
}

#[tokio::test]
async fn a_body_that_outlives_its_request_gets_nothing_of_the_next() {
    let kept: Arc<std::sync::Mutex<Option<Body>>> = Arc::default();
    let service = {
        let kept = Arc::clone(&kept);
        Fn2(move |_, request: Request<Body>| {
            let kept = Arc::clone(&kept);
            async move {
                if request.uri().path() == "/keep" {
                    *kept.lock().unwrap() = Some(request.into_body());
                }
                Response::new(Body::full("done"))
            }
        })
    };
    let server = Server::start(None, Limits::default(), service);
    let mut stream = server.connect().await;
    let kept_back = "PUT /keep HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\nabc";
    stream.write_all(kept_back.as_bytes()).await.unwrap();
    read_until(&mut stream, "done").await;
    let next = "defPUT /next HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nx";
    stream.write_all(next.as_bytes()).await.unwrap();
    read_until(&mut stream, "done").await;
    let body = kept.lock().unwrap().take().unwrap();
    assert!(soon(body.collect()).await.is_err());
}

/// A server that reads a head, says this, and closes when the client does.
async fn upstream(says: &'static [u8], reads_all: bool) -> (HttpClient, Endpoint) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
            stream.write_all(says).await.unwrap();
            if reads_all {
                read_to_end(&mut stream).await;
            }
        }
    });
    (
        HttpClient::new(ClientConfig::default()),
        Endpoint::parse(&endpoint).unwrap(),
    )
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_sent_is_an_answer() {
    for reads_all in [true, false] {
        let says = b"HTTP/1.1 413 Too Large\r\ncontent-length: 5\r\nconnection: close\r\n\r\nlarge";
        let (client, endpoint) = upstream(says, reads_all).await;
        let body = frames(vec![Frame::data(Bytes::from(vec![0; 32 << 20]))]);
        let response = soon(client.send(&endpoint, Request::put("/").body(body).unwrap()))
            .await
            .unwrap();
        assert_eq!(response.status(), 413);
        let body = soon(response.into_body().collect()).await;
        assert_eq!(body.unwrap().to_bytes(), "large", "reads all: {reads_all}");
    }
}

#[tokio::test]
async fn answers_end_where_they_say() {
    for (says, body) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabGARBAGE"[..], Some("ab")),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Some("ab")),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n", Some("")),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\nab\r\n0\r\n\r\n", None),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            stream.write_all(says).await.unwrap();
        });
        let client = HttpClient::new(ClientConfig::default());
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = soon(client.send(&endpoint, request)).await.unwrap();
        let got = soon(response.into_body().collect()).await.ok();
        let got = got.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap());
        assert_eq!(got.as_deref(), body, "{}", String::from_utf8_lossy(says));
    }
}

#[tokio::test]
async fn a_stream_of_unknown_length_is_sent_in_chunks_and_a_known_one_is_not() {
    let server = Server::start(
        None,
        Limits::default(),
        Fn2(|_, request: Request<Body>| async move {
            let framing = ["content-length", "transfer-encoding"]
                .map(|name| request.headers().get(name).cloned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(Body::full(format!("{framing:?} {}", body.len())))
        }),
    );
    let endpoint = Endpoint::parse(&format!("http://{}", server.addr)).unwrap();
    let client = HttpClient::new(ClientConfig::default());
    let large = Bytes::from(vec![1; 300_000]);
    for (body, length, framing) in [
        (
            frames(vec![Frame::data(large.clone()), Frame::data(large.clone())]),
            None,
            "[None, Some(\"chunked\")] 600000",
        ),
        (
            frames(vec![Frame::data(large.clone())]),
            Some(300_000),
            "[Some(\"300000\"), None] 300000",
        ),
        (Body::full(large), None, "[Some(\"300000\"), None] 300000"),
        (Body::empty(), None, "[None, None] 0"),
    ] {
        let mut request = Request::put("/").body(body).unwrap();
        if let Some(length) = length {
            request
                .headers_mut()
                .insert("content-length", length.into());
        }
        let response = soon(client.send(&endpoint, request)).await.unwrap();
        let told = soon(response.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(told, framing);
    }
    // A body that is shorter than its head says is the request's fault, and is not sent as another.
    let mut request = Request::put("/")
        .body(frames(vec![Frame::data(Bytes::from("abc"))]))
        .unwrap();
    request.headers_mut().insert("content-length", 5.into());
    let error = tokio::time::timeout(Duration::from_secs(10), client.send(&endpoint, request))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(
        error.kind(),
        moat_net::ClientErrorKind::RequestBody,
        "{error}"
    );
}
