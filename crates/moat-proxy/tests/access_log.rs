//! Guards that no line of a log holds what makes a request usable again: keys, tokens, signatures. With
//! everything on that can be logged, and requests as the SDKs make them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use moat_net::Body;
use moat_proxy::trace::{Filter, Form, Tracer};
use moat_types::SystemClock;
use support::{Front, Pki, Server, client, config, soon, text};
use tracing_subscriber::fmt::MakeWriter;

/// In every value that must not be seen.
const SECRET: &str = "5ecret";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Queries and headers of requests whose secrets are known.
fn requests() -> Vec<(String, Vec<(&'static str, String)>)> {
    let header = format!(
        "AWS4-HMAC-SHA256 Credential=AKIA{SECRET}/20261121/eu-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature={SECRET}"
    );
    let customer = |prefix: &'static str| {
        [
            (prefix, "AES256".to_owned()),
            (
                if prefix.starts_with("x-amz-copy") {
                    "x-amz-copy-source-server-side-encryption-customer-key"
                } else {
                    "x-amz-server-side-encryption-customer-key"
                },
                format!("{SECRET}AAAA=="),
            ),
        ]
    };
    let mut copied = vec![("authorization", header.clone())];
    copied.extend(customer("x-amz-server-side-encryption-customer-algorithm"));
    copied.extend(customer(
        "x-amz-copy-source-server-side-encryption-customer-algorithm",
    ));
    copied.push((
        "x-amz-server-side-encryption-context",
        format!("{SECRET}=="),
    ));
    vec![
        (
            "x-id=GetObject".to_owned(),
            vec![
                ("authorization", header),
                ("x-amz-security-token", SECRET.to_owned()),
            ],
        ),
        ("x-id=CopyObject".to_owned(), copied),
        (
            format!(
                "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA{SECRET}%2F20261121&X-Amz-Security-Token={SECRET}%3D&X-Amz-Signature={SECRET}&x-id=GetObject"
            ),
            vec![],
        ),
        (
            format!("AWSAccessKeyId=AKIA{SECRET}&Signature={SECRET}%3D&Expires=1&x-id=GetObject"),
            vec![],
        ),
        (
            format!(
                "X%2DAmz-Signature={SECRET}&x-amz-server-side-encryption-customer-key={SECRET}&x-id=GetObject"
            ),
            vec![("authorization", format!("AWS AKIA{SECRET}:{SECRET}"))],
        ),
        (
            format!("Action=AssumeRoleWithWebIdentity&WebIdentityToken={SECRET}&x-id=GetObject"),
            vec![
                ("cookie", SECRET.to_owned()),
                ("proxy-authorization", SECRET.to_owned()),
            ],
        ),
    ]
}

#[tokio::test]
async fn no_line_holds_a_secret_of_a_request() {
    let lines = Lines::default();
    let filter = "trace,h2=off,hyper=off,rustls=off,mio=off";
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .init();
    let pki = Pki::new();
    let upstream = Server::upstream(None, |request: Request<Body>| async move {
        // Nothing was taken out of what the store gets.
        let all = format!("{} {:?}", request.uri(), request.headers());
        let mut response = Response::new(Body::full("<Error/>"));
        *response.status_mut() = if all.contains(SECRET) { 403 } else { 500 }
            .try_into()
            .unwrap();
        response
    });
    let mut config = config(&[upstream.url("http")]);
    let sink = lines.clone();
    let every = Filter {
        requests: true,
        probes: true,
        ..Filter::default()
    };
    let form = Form {
        json: true,
        verbose: true,
    };
    let write = move |line: &str| sink.0.lock().unwrap().extend_from_slice(line.as_bytes());
    let tracer = Tracer::new(every, form, true, Arc::new(SystemClock), Box::new(write));
    config.tracer = Some(Arc::new(tracer));
    let front = Front::start(config, Some(&pki));
    let client = client(Some(&pki));
    let all = requests();
    for (number, (query, headers)) in all.iter().enumerate() {
        let mut request = Request::builder().uri(format!("/b/key-{number}?{query}"));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = soon(client.send(&front.tls_endpoint(), request))
            .await
            .unwrap();
        assert_eq!(response.status(), 403);
        text(response).await;
    }
    let accesses = |text: &str| text.matches("\"target\":\"moat::access\"").count();
    front.until(|_| accesses(&lines.text()) == all.len()).await;
    let text = lines.text();
    assert_eq!(text.lines().find(|line| line.contains(SECRET)), None);
    // What is left is still of use.
    assert_eq!(text.matches("x-id=CopyObject").count(), 2, "{text}");
    for number in 0..all.len() {
        assert!(text.contains(&format!("/b/key-{number}\"")), "{text}");
    }
}
