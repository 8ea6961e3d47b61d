//! The admin listener: liveness, readiness, metrics and state of the proxy itself, apart from the
//! ports that objects are served on.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use moat_net::{Body, Peer, Service, health};

use crate::Proxy;

/// What the root page says, and 404 answers.
const PATHS: &str = "/live     200 while the process works
/ready    200 while requests are served, 503 when no endpoint is up or the proxy drains
/status   sites and endpoints, JSON
/metrics  Prometheus
";

/// Answers about a proxy. Read only, so it needs no credentials; it names the endpoints, so it belongs
/// on an address that only operators reach.
pub struct Admin {
    proxy: Arc<Proxy>,
}

impl Admin {
    /// The admin service of `proxy`.
    pub const fn new(proxy: Arc<Proxy>) -> Self {
        Self { proxy }
    }

    fn answer(&self, path: &str) -> Response<Body> {
        match path {
            "/" => text(StatusCode::OK, PATHS),
            "/live" | "/minio/health/live" => health::answer(true),
            "/ready" | "/v1/health" | "/minio/health/ready" | "/minio/health/cluster" => {
                health::answer(self.proxy.is_ready())
            }
            "/metrics" | "/.prometheus/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                of_kind(kind, self.proxy.metrics())
            }
            "/status" => {
                let status = serde_json::to_string_pretty(&self.proxy.status());
                let status = status.expect("numbers and strings are JSON");
                of_kind("application/json", status + "\n")
            }
            _ => text(StatusCode::NOT_FOUND, PATHS),
        }
    }
}

impl Service for Admin {
    async fn call(&self, _: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PATHS);
            let headers = response.headers_mut();
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        self.answer(request.uri().path())
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = of_kind("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn of_kind(kind: &'static str, body: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
