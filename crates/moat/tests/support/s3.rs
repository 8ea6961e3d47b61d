//! A blocking S3 client for the tests, over the project's own HTTP client and signer.

#![allow(unreachable_pub, reason = "shared by several test crates")]
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use moat_net::tls::{ClientTls, ClientTlsConfig, Roots};
use moat_net::{Body, ClientConfig, HttpClient};
use moat_s3::sigv4::{Credentials, PayloadHash, Signer};
use moat_types::{Clock, SecretString, SystemClock};

pub struct S3 {
    runtime: tokio::runtime::Runtime,
    client: HttpClient,
    signer: Signer,
}

impl S3 {
    /// With the root credentials and the CA of a data folder.
    pub fn new(data: &Path) -> Self {
        let text = std::fs::read_to_string(data.join("root.env")).unwrap();
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .to_owned()
        };
        let credentials = Credentials {
            access_key_id: value("MOAT_ROOT_USER="),
            secret_access_key: SecretString::new(value("MOAT_ROOT_PASSWORD=")),
            session_token: None,
        };
        let roots = Roots {
            system: false,
            files: vec![data.join("trust/ca.pem")],
            pem: Vec::new(),
        };
        let tls = ClientTls::load(ClientTlsConfig {
            roots,
            ..ClientTlsConfig::default()
        })
        .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = runtime.block_on(async {
            HttpClient::new(ClientConfig {
                tls: Some(tls),
                ..ClientConfig::default()
            })
        });
        Self {
            runtime,
            client,
            signer: Signer::new(credentials, "us-east-1", "s3"),
        }
    }

    pub fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Response<String> {
        let method: Method = method.parse().unwrap();
        let uri: Uri = url.parse().unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        self.signer
            .sign(
                &method,
                &uri,
                &mut map,
                PayloadHash::Unsigned,
                SystemClock.now(),
            )
            .unwrap();
        let mut request = Request::new(Body::full(body.to_owned()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = map;
        self.runtime.block_on(async {
            let (head, body) = self.client.request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
        })
    }
}

/// A header of an answer; empty if it is missing.
pub fn header<'a>(answer: &'a Response<String>, name: &str) -> &'a str {
    answer
        .headers()
        .get(name)
        .map_or("", |value| value.to_str().unwrap())
}
