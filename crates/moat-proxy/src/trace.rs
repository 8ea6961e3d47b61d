//! Traces of requests and probes in Sidekick's forms, for people and scripts that have them.
//!
//! Unlike Sidekick's, they are off until asked for, and hold no secret: signatures, tokens and customer
//! keys are cut out of queries and headers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use moat_net::access_log::{redact_headers, redact_query};
use moat_types::{Clock, UnixMillis};
use serde::Serialize;

use crate::backend::Backend;
use crate::balance::Standing;
use crate::probe::ProbeError;
use crate::record::{Record, Verbose};

/// Which calls are traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Requests of clients.
    pub requests: bool,
    /// Health checks.
    pub probes: bool,
    /// Only answers of 400 to 599.
    pub errors_only: bool,
    /// Only these statuses, if any is named.
    pub statuses: Vec<u16>,
}

impl Filter {
    fn takes(&self, status: u16) -> bool {
        (!self.errors_only || (400..600).contains(&status))
            && (self.statuses.is_empty() || self.statuses.contains(&status))
    }
}

/// How traces are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// JSON, one object a line, instead of text.
    pub json: bool,
    /// Headers, and the bodies of errors, too.
    pub verbose: bool,
}

/// Takes lines.
pub type Sink = Box<dyn Fn(&str) + Send + Sync>;

/// Writes traces, and changes of endpoints.
pub struct Tracer {
    filter: Filter,
    form: Form,
    /// Whether endpoints that come and go are written.
    changes: bool,
    clock: Arc<dyn Clock>,
    sink: Sink,
}

impl Tracer {
    /// A tracer. `sink` is called with whole lines, from any thread, and should not wait.
    pub fn new(
        filter: Filter,
        form: Form,
        changes: bool,
        clock: Arc<dyn Clock>,
        sink: Sink,
    ) -> Self {
        Self {
            filter,
            form,
            changes,
            clock,
            sink,
        }
    }

    pub(crate) fn wants_request(&self, status: StatusCode) -> bool {
        self.filter.requests && self.filter.takes(status.as_u16())
    }

    pub(crate) const fn is_verbose(&self) -> bool {
        self.form.verbose
    }

    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// A request whose answer has ended.
    pub(crate) fn request(&self, record: &Record, bytes_out: u64) {
        let query = record.query.as_deref().map(redact_query);
        let call = Call {
            host: record.endpoint.as_deref().unwrap_or("moat-proxy"),
            client: record.client.to_string(),
            method: record.method.as_str(),
            path: &record.path,
            query: query.as_deref().unwrap_or_default(),
            status: record.status,
            stats: Stats {
                rx: record.bytes_in,
                tx: bytes_out,
                latency: nanos(record.began.elapsed()),
                first_byte: nanos(record.first_byte),
                health_error: String::new(),
            },
        };
        self.write(&call, record.verbose.as_ref());
    }

    /// A probe that has returned.
    pub(crate) fn probe(
        &self,
        backend: &Backend,
        path: &str,
        outcome: &Result<(), ProbeError>,
        took: Duration,
    ) {
        // What is known of a failed probe is a sentence; scripts look at the number.
        let status = match outcome {
            Ok(()) => StatusCode::OK,
            Err(ProbeError::Unwell(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Err(ProbeError::Silent(_)) => StatusCode::BAD_GATEWAY,
        };
        if !self.filter.probes || !self.filter.takes(status.as_u16()) {
            return;
        }
        let host = backend.upstream.endpoint.to_string();
        let call = Call {
            host: &host,
            client: String::new(),
            method: "GET",
            path,
            query: "",
            status,
            stats: Stats {
                rx: 0,
                tx: 0,
                latency: nanos(took),
                first_byte: nanos(took),
                health_error: outcome
                    .as_ref()
                    .err()
                    .map_or_else(String::new, |error| error.text().to_owned()),
            },
        };
        self.write(&call, None);
    }

    /// An endpoint that came or went.
    pub(crate) fn change(
        &self,
        backend: &Backend,
        standing: Standing,
        downtime: Duration,
        reason: Option<&str>,
    ) {
        if !self.changes {
            return;
        }
        let endpoint = backend.upstream.endpoint.to_string();
        let up = standing == Standing::Up;
        let time = self.clock.now();
        if self.form.json {
            self.json(&Change {
                kind: "LOG",
                endpoint: &endpoint,
                error: if up { "" } else { reason.unwrap_or_default() },
                status: if up { "up" } else { "down" },
                downtime: if up { nanos(downtime) } else { 0 },
                timestamp: rfc3339(time),
            });
            return;
        }
        let time = time_of_day(time);
        let said = match (up, downtime.is_zero()) {
            (true, true) => "is up".to_owned(),
            (true, false) => format!("is up Downtime duration: {}", go_duration(downtime)),
            (false, _) => format!("is down: {}", reason.unwrap_or("unknown")),
        };
        (self.sink)(&format!("LOG  : {time}  {endpoint} {said}\n"));
    }

    fn write(&self, call: &Call<'_>, verbose: Option<&Verbose>) {
        let now = self.clock.now();
        match (self.form.json, verbose) {
            (true, None) => self.json(&ShortTrace::of(call, now)),
            (true, Some(verbose)) => self.json(&VerboseTrace::of(call, verbose, now)),
            (false, None) => (self.sink)(&short_text(call, now)),
            (false, Some(verbose)) => (self.sink)(&verbose_text(call, verbose, now)),
        }
    }

    fn json(&self, value: &impl Serialize) {
        let line = serde_json::to_string(value).expect("strings and numbers are JSON");
        (self.sink)(&(line + "\n"));
    }
}

/// What both forms show of a call.
struct Call<'a> {
    host: &'a str,
    client: String,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    status: StatusCode,
    stats: Stats,
}

#[derive(Clone, Serialize)]
struct Stats {
    rx: u64,
    tx: u64,
    latency: u64,
    #[serde(rename = "timetofirstbyte")]
    first_byte: u64,
    #[serde(rename = "healthError")]
    health_error: String,
}

#[derive(Serialize)]
struct ShortTrace<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    host: &'a str,
    time: String,
    client: &'a str,
    #[serde(rename = "callStats")]
    stats: &'a Stats,
    #[serde(rename = "statusCode")]
    status: u16,
    #[serde(rename = "statusMsg")]
    reason: &'static str,
    method: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> ShortTrace<'a> {
    fn of(call: &'a Call<'_>, now: UnixMillis) -> Self {
        Self {
            kind: "TRACE",
            host: call.host,
            time: rfc3339(now),
            client: &call.client,
            stats: &call.stats,
            status: call.status.as_u16(),
            reason: call.status.canonical_reason().unwrap_or_default(),
            method: call.method,
            path: call.path,
            query: call.query,
        }
    }
}

type Headers = BTreeMap<String, Vec<String>>;

#[derive(Serialize)]
struct VerboseTrace<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    nodename: &'a str,
    request: VerboseRequest<'a>,
    response: VerboseResponse<'a>,
    stats: &'a Stats,
}

#[derive(Serialize)]
struct VerboseRequest<'a> {
    time: String,
    method: &'a str,
    path: &'a str,
    rawquery: &'a str,
    headers: Headers,
    body: &'static str,
    client: &'a str,
}

#[derive(Serialize)]
struct VerboseResponse<'a> {
    time: String,
    headers: Headers,
    body: std::borrow::Cow<'a, str>,
    statuscode: u16,
}

impl<'a> VerboseTrace<'a> {
    fn of(call: &'a Call<'_>, verbose: &'a Verbose, now: UnixMillis) -> Self {
        Self {
            kind: "DEBUG",
            nodename: call.host,
            request: VerboseRequest {
                time: rfc3339(verbose.at),
                method: call.method,
                path: call.path,
                rawquery: call.query,
                headers: headers(&verbose.request),
                body: BODY,
                client: &call.client,
            },
            response: VerboseResponse {
                time: rfc3339(now),
                headers: headers(&verbose.answer),
                body: body_text(&verbose.error_body),
                statuscode: call.status.as_u16(),
            },
            stats: &call.stats,
        }
    }
}

/// Stands for a body that is not shown.
const BODY: &str = "<BODY>";

fn body_text(body: &[u8]) -> std::borrow::Cow<'_, str> {
    if body.is_empty() {
        BODY.into()
    } else {
        String::from_utf8_lossy(body)
    }
}

fn headers(headers: &HeaderMap) -> Headers {
    let mut map = Headers::new();
    for (name, value) in redact_headers(headers) {
        map.entry(name).or_default().push(value);
    }
    map
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(rename = "Endpoint")]
    endpoint: &'a str,
    #[serde(rename = "Error", skip_serializing_if = "str::is_empty")]
    error: &'a str,
    #[serde(rename = "Status", skip_serializing_if = "str::is_empty")]
    status: &'static str,
    #[serde(rename = "Downtime", skip_serializing_if = "is_zero")]
    downtime: u64,
    #[serde(rename = "Timestamp")]
    timestamp: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn short_text(call: &Call<'_>, now: UnixMillis) -> String {
    let status = call.status;
    let question = if call.query.is_empty() { "" } else { "?" };
    format!(
        " LOG: {time} [{code} {reason}]  {host} {method} {path}{question}{query} {client:<15}  {latency:>12} ↑ {rx} ↓ {tx}\n",
        time = time_of_day(now),
        code = status.as_u16(),
        reason = status.canonical_reason().unwrap_or_default(),
        host = call.host,
        method = call.method,
        path = call.path,
        query = call.query,
        client = call.client,
        latency = go_duration(Duration::from_nanos(call.stats.latency)),
        rx = iec(call.stats.rx),
        tx = iec(call.stats.tx),
    )
}

fn verbose_text(call: &Call<'_>, verbose: &Verbose, now: UnixMillis) -> String {
    let mut text = String::new();
    let mut line = |rest: &str| {
        // Writing to a string can't fail.
        let _ = writeln!(text, "DEBUG: {} {rest}", call.host);
    };
    let question = if call.query.is_empty() { "" } else { "?" };
    line(&format!(
        "[REQUEST] [{}] [{}]",
        time_of_day(verbose.at),
        call.client
    ));
    line(&format!(
        "{} {}{question}{}",
        call.method, call.path, call.query
    ));
    for (name, value) in redact_headers(&verbose.request) {
        line(&format!("{name}: {value}"));
    }
    line(BODY);
    line(&format!(
        "[RESPONSE] [{}] [{}] [↑ {} ↓ {}]",
        time_of_day(now),
        go_duration(Duration::from_nanos(call.stats.latency)),
        iec(call.stats.rx),
        iec(call.stats.tx),
    ));
    line(&call.status.to_string());
    for (name, value) in redact_headers(&verbose.answer) {
        line(&format!("{name}: {value}"));
    }
    line(&body_text(&verbose.error_body));
    text
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn rfc3339(at: UnixMillis) -> String {
    moat_s3::time::iso_millis(at).as_str().to_owned()
}

/// `HH:MM:SS.mmm`, UTC.
fn time_of_day(at: UnixMillis) -> String {
    let text = rfc3339(at);
    text.get(11..23).unwrap_or(&text).to_owned()
}

/// As Go prints durations: `1.5s`, `2m3s`, `870.25ms`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let short = |unit: f64, name: &str| format!("{}{name}", (nanos as f64) / unit);
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => short(1e3, "µs"),
        1_000_000..1_000_000_000 => short(1e6, "ms"),
        _ => {
            let seconds = duration.as_secs();
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let rest = duration - Duration::from_secs(seconds / 60 * 60);
            let rest = format!("{}s", rest.as_secs_f64());
            match (hours, minutes) {
                (0, 0) => rest,
                (0, minutes) => format!("{minutes}m{rest}"),
                (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
            }
        }
    }
}

/// `1.5 KiB`.
fn iec(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (950, "950ns"),
            (1_500, "1.5µs"),
            (870_250_000, "870.25ms"),
            (1_500_000_000, "1.5s"),
            (123_000_000_000, "2m3s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(iec(0), "0 B");
        assert_eq!(iec(1536), "1.5 KiB");
        assert_eq!(iec(5 << 30), "5.0 GiB");
    }

    #[test]
    fn filters_go_by_status() {
        let mut filter = Filter::default();
        assert!(filter.takes(200) && filter.takes(503));
        filter.errors_only = true;
        assert!(!filter.takes(200) && filter.takes(404));
        filter.statuses = vec![503];
        assert!(!filter.takes(404) && filter.takes(503));
    }
}
