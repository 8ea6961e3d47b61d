//! Guards the export of spans: what a collector gets, that requests never wait for it, and that headers
//! which clients signed reach the store untouched.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use moat_net::{Body, Endpoint};
use moat_proxy::otlp::{ExporterConfig, SpanExporter};
use moat_types::{SystemClock, SystemRandom};
use serde_json::Value;
use support::{Front, Notes, Server, client, config, dead_port, soon, text};
use tokio::sync::mpsc;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SIGNED: &str =
    "AWS4-HMAC-SHA256 Credential=AK/x, SignedHeaders=host;traceparent, Signature=s3cr3t";

fn exporter(url: &str, sample: f64) -> Arc<SpanExporter> {
    Arc::new(SpanExporter::start(
        ExporterConfig {
            collector: Endpoint::parse(url).unwrap(),
            tls: None,
            sample,
            queue_spans_max: 4,
        },
        Arc::new(SystemClock),
        Arc::new(SystemRandom),
    ))
}

/// A collector that refuses the first `refusals` batches for the moment; whatever it takes is given on.
fn collector(refusals: usize) -> (Server, mpsc::UnboundedReceiver<Value>) {
    let (give, take) = mpsc::unbounded_channel();
    let seen = Arc::new(AtomicUsize::new(0));
    let server = Server::upstream(None, move |request: Request<Body>| {
        let (give, turn) = (give.clone(), seen.fetch_add(1, Relaxed));
        async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            assert_eq!(request.headers()["content-type"], "application/json");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(Body::full("{}"));
            if turn < refusals {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
                    .headers_mut()
                    .insert("retry-after", "0".parse().unwrap());
            } else {
                give.send(serde_json::from_slice(&body).unwrap()).unwrap();
            }
            response
        }
    });
    (server, take)
}

/// An upstream that notes `traceparent` and `tracestate`.
fn store() -> (Server, Notes) {
    let notes = Notes::default();
    let server = Server::upstream(None, {
        let notes = notes.clone();
        move |request: Request<Body>| {
            let of = |name| {
                request
                    .headers()
                    .get(name)
                    .map_or("-", |v| v.to_str().unwrap())
            };
            notes.add(format!("{} {}", of("traceparent"), of("tracestate")));
            async { Response::new(Body::full("hello")) }
        }
    });
    (server, notes)
}

async fn send(front: &Front, path: &str, headers: &[(&str, &str)]) {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = soon(client(None).send(&front.plain_endpoint(), request)).await;
    assert_eq!(text(response.unwrap()).await, "hello");
}

fn spans(export: &Value) -> Vec<Value> {
    let scope = &export["resourceSpans"][0]["scopeSpans"][0];
    scope["spans"].as_array().unwrap().clone()
}

fn attribute<'a>(of: &'a Value, key: &str) -> &'a Value {
    let all = of["attributes"].as_array().unwrap();
    let found = all.iter().find(|one| one["key"] == key);
    &found.unwrap_or_else(|| panic!("{key} in {of}"))["value"]
}

#[tokio::test]
async fn a_collector_gets_spans_that_continue_the_callers_trace() {
    let (store, notes) = store();
    // Its first answer is 503: the batch comes again.
    let (collector, mut exports) = collector(1);
    let exporter = exporter(&collector.url("http"), 1.0);
    let mut config = config(&[store.url("http")]);
    config.spans = Some(Arc::clone(&exporter));
    let front = Front::start(config, None);
    let path = "/b/k?X-Amz-Signature=s3cr3t&x-id=GetObject";
    send(
        &front,
        path,
        &[("traceparent", CALLER), ("tracestate", "a=b")],
    )
    .await;
    send(&front, "/b/new", &[("tracestate", "left=over")]).await;
    front.until(|front| front.in_flight() == 0).await;
    exporter.flush(Duration::from_secs(60)).await;
    let export = exports.try_recv().unwrap();
    let resource = &export["resourceSpans"][0]["resource"];
    assert_eq!(
        attribute(resource, "service.name")["stringValue"],
        "moat-proxy"
    );

    let [known, new] = &spans(&export)[..] else {
        panic!("{export}")
    };
    assert_eq!(known["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(known["parentSpanId"], "00f067aa0ba902b7");
    assert_eq!(known["name"], "GET");
    assert_eq!(attribute(known, "url.path")["stringValue"], "/b/k");
    let query = &attribute(known, "url.query")["stringValue"];
    assert_eq!(query, "X-Amz-Signature=REDACTED&x-id=GetObject");
    assert_eq!(
        attribute(known, "http.response.status_code")["intValue"],
        "200"
    );
    assert_eq!(attribute(known, "http.response.body.size")["intValue"], "5");
    assert_eq!(
        attribute(known, "moat.endpoint")["stringValue"],
        store.url("http")
    );
    let nanos = |key: &str| known[key].as_str().unwrap().parse::<u64>().unwrap();
    assert!(nanos("endTimeUnixNano") > nanos("startTimeUnixNano"));
    assert!(new.get("parentSpanId").is_none(), "{new}");

    // The store is told the spans of the proxy, and no state of a trace that is another one.
    let told = |span: &Value| {
        let id = |key: &str| span[key].as_str().unwrap().to_owned();
        format!("00-{}-{}-01", id("traceId"), id("spanId"))
    };
    let expected = [told(known) + " a=b", told(new) + " -"];
    assert_eq!(notes.all(), expected);
}

#[tokio::test]
async fn what_is_signed_or_not_sampled_passes_as_it_came() {
    let (store, notes) = store();
    let (collector, mut exports) = collector(0);
    let unsampled = CALLER.replace("-01", "-00");
    let exporter = exporter(&collector.url("http"), 0.0);
    let mut config = config(&[store.url("http")]);
    config.spans = Some(Arc::clone(&exporter));
    let front = Front::start(config, None);
    send(&front, "/", &[("traceparent", &unsampled)]).await;
    send(&front, "/", &[]).await;
    send(
        &front,
        "/",
        &[("traceparent", CALLER), ("authorization", SIGNED)],
    )
    .await;
    front.until(|front| front.in_flight() == 0).await;
    exporter.flush(Duration::from_secs(60)).await;
    let [signed] = &spans(&exports.try_recv().unwrap())[..] else {
        panic!("one span")
    };
    assert_eq!(signed["parentSpanId"], "00f067aa0ba902b7");
    assert!(!signed.to_string().contains("s3cr3t"));
    let expected = [unsampled + " -", "- -".to_owned(), CALLER.to_owned() + " -"];
    assert_eq!(notes.all(), expected);
}

#[tokio::test]
async fn requests_do_not_wait_for_a_collector_that_is_away_or_silent() {
    moat_net::metrics::install().unwrap();
    let (store, notes) = store();
    let silent = Server::upstream(None, |_| std::future::pending());
    let dead = format!("http://127.0.0.1:{}", dead_port().await);
    for url in [dead, silent.url("http")] {
        let mut config = config(&[store.url("http")]);
        config.spans = Some(exporter(&url, 1.0));
        let front = Front::start(config, None);
        let before = (dropped(), notes.all().len());
        // While a batch waits for the collector, the queue fills; what finds no room is counted.
        soon(async {
            while dropped() < before.0 + 50 {
                send(&front, "/", &[]).await;
            }
        })
        .await;
        assert!(notes.all().len() >= before.1 + 50);
    }
}

fn dropped() -> usize {
    let metrics = moat_net::metrics::render();
    let of_queue = "moat_proxy_spans_dropped_total{reason=\"queue\"} ";
    let number = metrics.lines().find_map(|line| line.strip_prefix(of_queue));
    number.map_or(0, |number| number.parse().unwrap())
}
