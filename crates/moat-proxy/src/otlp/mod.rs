//! Spans of requests, exported over OTLP/HTTP to a collector.
//!
//! A request that carries a `traceparent` continues that trace, and only if its caller records it; one
//! without begins a trace, a share of the time. The store is told the proxy's span as its parent, unless
//! the client signed the header. Queries are cut as in the access log.
//!
//! Requests never wait for the collector: a span that finds no room in the queue is dropped and counted.
//! While the collector is away its batch is tried again for some time, and the queue fills behind it.

mod context;
mod encode;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use metrics::counter;
use moat_net::tls::ClientTls;
use moat_net::{Body, ClientConfig, Endpoint, HttpClient};
use moat_types::{Clock, Random, UnixMillis};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::record::Record;
use context::{Context, TRACEPARENT, TRACESTATE};

/// Where OTLP/HTTP collectors take traces.
const PATH: &str = "/v1/traces";
/// Spans that wait for the collector: two seconds' worth of a busy proxy, some MiB.
pub const QUEUE_SPANS_MAX: usize = 4096;
/// Spans of one request: what the SDKs of OpenTelemetry send, and some 300 KiB.
const BATCH_SPANS_MAX: usize = 512;
/// A batch that is not full leaves after this, so that traces are seen while one looks for them.
const BATCH_AFTER: Duration = Duration::from_secs(1);
/// What SDKs give a collector for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A batch is given up after so many attempts: about half a minute, a restart of the collector.
const ATTEMPTS_MAX: u32 = 6;
/// Between attempts: this, and twice as long each time. Also the most that a collector may ask for at
/// once: the queue would only overflow for longer.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Answers of collectors are a few bytes; more is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Paths and queries longer than this are cut, or a client could fill the queue's memory.
const TEXT_BYTES_MAX: usize = 1024;

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct ExporterConfig {
    /// The collector; `/v1/traces` is asked there.
    pub collector: Endpoint,
    /// Trust towards an https collector.
    pub tls: Option<ClientTls>,
    /// The share of requests without a trace of their own that begin one, from 0 to 1.
    pub sample: f64,
    /// Spans that may wait, see [`QUEUE_SPANS_MAX`].
    pub queue_spans_max: usize,
}

/// Exports spans in the background until it is dropped.
pub struct SpanExporter {
    queue: mpsc::Sender<Message>,
    /// Of 2^56, as the sampler of OpenTelemetry counts.
    sampled_below: u64,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

enum Message {
    Span(Box<Finished>),
    /// Everything before it is to be sent.
    Flush(oneshot::Sender<()>),
}

impl SpanExporter {
    /// Begins to export. Must be called inside a runtime.
    pub fn start(config: ExporterConfig, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let (queue, waiting) = mpsc::channel(config.queue_spans_max.max(1));
        let mut instance = [0; 16];
        random.fill(&mut instance);
        let sender = Sender {
            client: HttpClient::new(ClientConfig {
                tls: config.tls,
                response_timeout: Some(REQUEST_TIMEOUT),
                ..ClientConfig::default()
            }),
            collector: config.collector,
            instance: context::hex(&instance),
            failing: false,
        };
        for reason in ["queue", "collector"] {
            counter!("moat_proxy_spans_dropped_total", "reason" => reason).increment(0);
        }
        counter!("moat_proxy_spans_exported_total").increment(0);
        tokio::spawn(sender.run(waiting));
        Self {
            queue,
            sampled_below: (config.sample.clamp(0.0, 1.0) * (1_u64 << 56) as f64) as u64,
            clock,
            random,
        }
    }

    /// Waits until what was recorded so far has left, or has been given up, but no longer than `within`.
    pub async fn flush(&self, within: Duration) {
        let (tell, done) = oneshot::channel();
        let flushed = async {
            if self.queue.send(Message::Flush(tell)).await.is_ok() {
                let _ = done.await;
            }
        };
        let _ = tokio::time::timeout(within, flushed).await;
    }

    /// Begins the span of a request, if it is to be recorded, and leaves it in its extensions.
    pub(crate) fn begin(self: &Arc<Self>, head: &mut Parts) {
        let caller = Context::of(&head.headers);
        let span_id = self.draw();
        let context = match &caller {
            Some(caller) if caller.is_sampled() => caller.child(span_id),
            Some(_) => return,
            None => match self.new_trace(span_id) {
                Some(context) => context,
                None => return,
            },
        };
        // A signed header is left as it is: the store then takes the caller for its parent.
        if !context::is_signed(&head.headers, head.uri.query(), &TRACEPARENT) {
            let value = HeaderValue::try_from(context.to_string());
            head.headers
                .insert(TRACEPARENT, value.expect("digits and dashes are visible"));
            if caller.is_none() {
                head.headers.remove(TRACESTATE);
            }
        }
        head.extensions.insert(Span {
            exporter: Arc::clone(self),
            context,
            parent: caller.map(|caller| caller.span_id),
            start: self.clock.now(),
        });
    }

    fn new_trace(&self, span_id: [u8; 8]) -> Option<Context> {
        let trace_id: [u8; 16] = self.draw();
        let (_, low) = trace_id.split_last_chunk::<8>()?;
        let drawn = u64::from_be_bytes(*low) & ((1 << 56) - 1);
        (drawn < self.sampled_below).then(|| Context::root(trace_id, span_id))
    }

    /// An id. Zero is none, by the standard.
    fn draw<const N: usize>(&self) -> [u8; N] {
        let mut id = [0; N];
        self.random.fill(&mut id);
        if id == [0; N] {
            id[N - 1] = 1;
        }
        id
    }
}

/// A span that has begun.
#[derive(Clone)]
pub(crate) struct Span {
    exporter: Arc<SpanExporter>,
    context: Context,
    parent: Option<[u8; 8]>,
    start: UnixMillis,
}

impl Span {
    /// The request has ended as `record` says.
    pub(crate) fn end(self, record: &Record, bytes_out: u64, whole: bool) {
        let start = u128::try_from(self.start.0).unwrap_or(0) * 1_000_000;
        let finished = Finished {
            context: self.context,
            parent: self.parent,
            start_nanos: start,
            end_nanos: start + record.began.elapsed().as_nanos(),
            method: cut(record.method.as_str()),
            scheme: record.peer.scheme(),
            path: cut(&record.path),
            query: record
                .query
                .as_deref()
                .map(|query| cut(&moat_net::access_log::redact_query(query))),
            client: record.client.to_string(),
            request_id: cut(&record.request_id),
            status: record.status.as_u16(),
            bytes_in: record.bytes_in,
            bytes_out,
            whole,
            endpoint: record.endpoint.clone(),
            site: record.site,
            sends: record.sends,
        };
        let message = Message::Span(Box::new(finished));
        if self.exporter.queue.try_send(message).is_err() {
            dropped("queue", 1);
        }
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

fn dropped(reason: &'static str, spans: usize) {
    counter!("moat_proxy_spans_dropped_total", "reason" => reason).increment(spans as u64);
}

/// A span that has ended.
struct Finished {
    context: Context,
    parent: Option<[u8; 8]>,
    start_nanos: u128,
    end_nanos: u128,
    method: String,
    scheme: &'static str,
    path: String,
    query: Option<String>,
    client: String,
    request_id: String,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    whole: bool,
    endpoint: Option<String>,
    site: usize,
    sends: usize,
}

/// The other end of the queue.
struct Sender {
    client: HttpClient,
    collector: Endpoint,
    instance: String,
    /// Whether the last batch was lost; said once, not for every batch.
    failing: bool,
}

/// What a collector made of a batch.
enum Verdict {
    Taken,
    /// It may take it later, perhaps after this time.
    Later(String, Option<Duration>),
    Refused(String),
}

impl Sender {
    async fn run(mut self, mut waiting: mpsc::Receiver<Message>) {
        while let Some(first) = waiting.recv().await {
            let mut batch = Vec::new();
            let mut flushes = Vec::new();
            let full = Instant::now() + BATCH_AFTER;
            let mut next = Some(first);
            loop {
                match next {
                    Some(Message::Span(span)) => batch.push(*span),
                    Some(Message::Flush(tell)) => flushes.push(tell),
                    None => break,
                }
                if batch.len() >= BATCH_SPANS_MAX || !flushes.is_empty() {
                    break;
                }
                next = tokio::time::timeout_at(full, waiting.recv())
                    .await
                    .ok()
                    .flatten();
            }
            if !batch.is_empty() {
                self.export(&batch).await;
            }
            for tell in flushes {
                let _ = tell.send(());
            }
        }
    }

    async fn export(&mut self, batch: &[Finished]) {
        let body = Bytes::from(encode::request(&self.instance, batch));
        let mut why = String::new();
        for attempt in 0..ATTEMPTS_MAX {
            match self.post(body.clone()).await {
                Verdict::Taken => {
                    counter!("moat_proxy_spans_exported_total").increment(batch.len() as u64);
                    if std::mem::take(&mut self.failing) {
                        tracing::info!(collector = %self.collector, "the collector takes spans again");
                    }
                    return;
                }
                Verdict::Refused(reason) => {
                    why = reason;
                    break;
                }
                Verdict::Later(reason, after) => {
                    why = reason;
                    let wait = after.unwrap_or(BACKOFF * (1 << attempt)).min(BACKOFF_MAX);
                    if attempt + 1 < ATTEMPTS_MAX {
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
        dropped("collector", batch.len());
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(collector = %self.collector, why, "the collector takes no spans; they are dropped until it does");
        }
    }

    async fn post(&self, body: Bytes) -> Verdict {
        let request = Request::post(PATH)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::full(body));
        let request = request.expect("the path and one header are well-formed");
        let response = match self.client.send(&self.collector, request).await {
            Ok(response) => response,
            Err(error) => return Verdict::Later(error.to_string(), None),
        };
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok()?.parse().ok());
        // Read to its end, so that the connection can be used again.
        let _ = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let answer = format!("it answers {status}");
        match status {
            _ if status.is_success() => Verdict::Taken,
            // Those that the OTLP specification names as worth another try.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Verdict::Later(answer, after.map(Duration::from_secs)),
            _ => Verdict::Refused(answer),
        }
    }
}
