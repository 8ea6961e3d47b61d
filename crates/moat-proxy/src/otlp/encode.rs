//! Spans as OTLP/HTTP wants them: JSON of `ExportTraceServiceRequest` (opentelemetry-proto 1.x), in which
//! ids are hexadecimal and 64-bit numbers are text.

use serde::Serialize;

use super::Finished;
use super::context::hex;

/// `SPAN_KIND_SERVER`: the proxy answers; what the store does is the store's own span.
const KIND_SERVER: u32 = 2;
const STATUS_ERROR: u32 = 2;
const SCOPE: &str = "moat-proxy";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Attributes<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Attributes<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
enum Value<'a> {
    #[serde(rename = "stringValue")]
    Text(&'a str),
    #[serde(rename = "intValue")]
    Number(String),
    #[serde(rename = "boolValue")]
    Truth(bool),
}

const fn text<'a>(key: &'static str, value: &'a str) -> Attribute<'a> {
    Attribute {
        key,
        value: Value::Text(value),
    }
}

fn number(key: &'static str, value: u64) -> Attribute<'static> {
    Attribute {
        key,
        value: Value::Number(value.to_string()),
    }
}

/// One request to a collector with these spans.
pub(super) fn request(instance: &str, spans: &[Finished]) -> Vec<u8> {
    let export = Export {
        resource_spans: [ResourceSpans {
            resource: Attributes {
                attributes: vec![
                    text("service.name", SCOPE),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    text("service.instance.id", instance),
                ],
            },
            scope_spans: [ScopeSpans {
                scope: Scope {
                    name: SCOPE,
                    version: env!("CARGO_PKG_VERSION"),
                },
                spans: spans.iter().map(of_span).collect(),
            }],
        }],
    };
    serde_json::to_vec(&export).expect("strings and numbers are JSON")
}

fn of_span(span: &Finished) -> SpanJson<'_> {
    SpanJson {
        trace_id: hex(&span.context.trace_id),
        span_id: hex(&span.context.span_id),
        parent_span_id: span.parent.as_ref().map(|id| hex(id)),
        // Of a path there are as many as objects; a name is what spans are grouped by.
        name: &span.method,
        kind: KIND_SERVER,
        start_time_unix_nano: span.start_nanos.to_string(),
        end_time_unix_nano: span.end_nanos.to_string(),
        attributes: attributes_of(span),
        status: Status {
            code: (span.status >= 500 || !span.whole).then_some(STATUS_ERROR),
        },
    }
}

/// Names of the semantic conventions for HTTP servers, and a few of our own.
fn attributes_of(span: &Finished) -> Vec<Attribute<'_>> {
    let mut all = vec![
        text("http.request.method", &span.method),
        text("url.scheme", span.scheme),
        text("url.path", &span.path),
        text("client.address", &span.client),
        number("http.response.status_code", u64::from(span.status)),
        number("http.request.body.size", span.bytes_in),
        number("http.response.body.size", span.bytes_out),
        text("aws.request_id", &span.request_id),
        Attribute {
            key: "moat.whole",
            value: Value::Truth(span.whole),
        },
    ];
    if let Some(query) = &span.query {
        all.push(text("url.query", query));
    }
    if let Some(endpoint) = &span.endpoint {
        all.push(text("moat.endpoint", endpoint));
        all.push(number("moat.site", span.site as u64));
        all.push(number(
            "http.request.resend_count",
            span.sends.saturating_sub(1) as u64,
        ));
    }
    all
}
