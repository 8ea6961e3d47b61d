//! What Sidekick answers by itself on its main listener, and its metric names.
//!
//! Two of the paths are those of the objects `health` and `certificates` in a bucket `v1`, so they are
//! answered only where Sidekick's own command line is used, or where it was asked for, and only to who
//! brings no signature: a health check has none, a client of S3 that means the object has one.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::header::{AUTHORIZATION, CONTENT_TYPE, SERVER};
use http::{HeaderValue, Request, Response, StatusCode};
use moat_net::Body;

use crate::Proxy;
use crate::answer::Refusal;
use crate::config::SidekickPaths;
use crate::observe::Figures;
use crate::proxy::State;

const HEALTH: &str = "/v1/health";
const CERTIFICATES: &str = "/v1/certificates";
const METRICS: &str = "/.prometheus/metrics";

/// The answer, if the request is for one of the paths.
pub(crate) fn answer<B>(
    proxy: &Proxy,
    paths: &SidekickPaths,
    request: &Request<B>,
) -> Option<Response<Body>> {
    match request.uri().path() {
        HEALTH | CERTIFICATES if is_signed(request) => None,
        HEALTH => Some(health(proxy, request)),
        CERTIFICATES => Some(certificate(paths)),
        METRICS => Some(text(
            proxy.metrics(),
            "text/plain; version=0.0.4; charset=utf-8",
        )),
        _ => None,
    }
}

/// Whether it carries a signature of S3, in a header or in its query.
fn is_signed<B>(request: &Request<B>) -> bool {
    let of_link = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        ["x-amz-signature", "signature"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    };
    let query = request.uri().query().unwrap_or_default();
    request.headers().contains_key(AUTHORIZATION) || query.split('&').any(of_link)
}

fn health<B>(proxy: &Proxy, request: &Request<B>) -> Response<Body> {
    if !proxy.is_ready() {
        return Refusal::NoUpstream.response(request.method(), HEALTH, "");
    }
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("SideKick"));
    response
}

fn certificate(paths: &SidekickPaths) -> Response<Body> {
    match &paths.certificate {
        Some(pem) => text(pem.clone(), "application/x-pem-file"),
        None => {
            let mut response = text("no configured certificates found\n".into(), "text/plain");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn text(body: String, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// One of Sidekick's metrics: its name, what it counts, and where the number is.
type Row = (&'static str, &'static str, fn(&Figures) -> u64);

const ROWS: [Row; 5] = [
    (
        "sidekick_requests_total",
        "Calls, health checks included.",
        |figures| load(&figures.requests) + load(&figures.probes),
    ),
    (
        "sidekick_errors_total",
        "Calls without an answer or with one of 400 and above.",
        |figures| load(&figures.refused),
    ),
    ("sidekick_rx_bytes_total", "Bytes of requests.", |figures| {
        load(&figures.rx_bytes)
    }),
    ("sidekick_tx_bytes_total", "Bytes of answers.", |figures| {
        load(&figures.tx_bytes)
    }),
    (
        "sidekick_health_error_counts",
        "Health checks that failed.",
        |figures| load(&figures.health_errors),
    ),
];

fn load(number: &AtomicU64) -> u64 {
    number.load(Relaxed)
}

/// The metrics of all sites under Sidekick's names. An endpoint of several sites is one series.
pub(crate) fn metrics(state: &State) -> String {
    let mut text = String::new();
    for (name, help, figure) in ROWS {
        // Writing to a string can't fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
        let mut done: Vec<(String, u64)> = Vec::new();
        for site in &state.sites {
            let mut seen = Vec::new();
            for backend in site.backends().iter() {
                let endpoint = backend.upstream.endpoint.to_string();
                if seen.contains(&endpoint) {
                    continue;
                }
                let value = figure(&backend.meters.figures);
                match done.iter_mut().find(|(other, _)| *other == endpoint) {
                    Some((_, sum)) => *sum += value,
                    None => done.push((endpoint.clone(), value)),
                }
                seen.push(endpoint);
            }
        }
        for (endpoint, value) in done {
            let _ = writeln!(text, "{name}{{endpoint=\"{endpoint}\"}} {value}");
        }
    }
    text
}
