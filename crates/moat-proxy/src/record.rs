//! What is written about one request: its access line, its trace if somebody traces, and its span.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use moat_net::access_log::{self, redact_query};
use moat_net::{Body, Peer, request_id};
use moat_types::UnixMillis;
use tokio::time::Instant;

use crate::Config;
use crate::gateway::Caller;
use crate::otlp::Span;
use crate::proxy::Flight;
use crate::trace::Tracer;

/// Bytes of an error's body that a verbose trace shows. S3 errors have some hundred.
const ERROR_BODY_BYTES_MAX: usize = 8 * 1024;

/// The facts of a request, kept until its answer has ended.
pub(crate) struct Record {
    pub(crate) peer: Arc<Peer>,
    pub(crate) client: std::net::IpAddr,
    pub(crate) request_id: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) status: StatusCode,
    pub(crate) bytes_in: u64,
    pub(crate) began: Instant,
    pub(crate) first_byte: Duration,
    /// Who answered; `None`: the proxy itself.
    pub(crate) endpoint: Option<String>,
    pub(crate) site: usize,
    pub(crate) sends: usize,
    pub(crate) verbose: Option<Verbose>,
    tracer: Option<Arc<Tracer>>,
    span: Option<Span>,
    /// Who asked, if a gateway knows.
    caller: Option<Caller>,
}

/// What only a verbose trace shows. Headers still hold their secrets; they are cut out when written.
pub(crate) struct Verbose {
    pub(crate) at: UnixMillis,
    pub(crate) request: HeaderMap,
    pub(crate) answer: HeaderMap,
    pub(crate) error_body: Vec<u8>,
}

impl Record {
    /// Nothing, if nobody reads it.
    pub(crate) fn if_wanted(
        config: &Config,
        peer: &Arc<Peer>,
        head: &Parts,
        response: &Response<Body>,
        began: Instant,
    ) -> Option<Box<Self>> {
        let status = response.status();
        let tracer = config
            .tracer
            .as_ref()
            .filter(|tracer| tracer.wants_request(status));
        let span = head.extensions.get::<Span>();
        if tracer.is_none() && span.is_none() && !access_log::enabled() {
            return None;
        }
        let given = response.headers().get("x-amz-request-id");
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let verbose = tracer.filter(|tracer| tracer.is_verbose());
        Some(Box::new(Self {
            peer: Arc::clone(peer),
            client: crate::headers::client_of(&head.headers, peer),
            request_id: given
                .and_then(|id| id.to_str().ok())
                .map_or_else(|| request_id(&*config.random), str::to_owned),
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            status,
            bytes_in: length
                .and_then(|length| length.to_str().ok()?.parse().ok())
                .unwrap_or(0),
            began,
            first_byte: began.elapsed(),
            endpoint: None,
            site: 0,
            sends: 0,
            verbose: verbose.map(|tracer| Verbose {
                at: tracer.now(),
                request: head.headers.clone(),
                answer: response.headers().clone(),
                error_body: Vec::new(),
            }),
            tracer: tracer.map(Arc::clone),
            span: span.cloned(),
            caller: head.extensions.get().cloned(),
        }))
    }

    /// Names who answered.
    pub(crate) fn answered_by(&mut self, flight: &Flight, sends: usize) {
        self.endpoint = Some(flight.backend.upstream.endpoint.to_string());
        self.site = flight.site.number;
        self.sends = sends;
    }

    /// Takes note of a piece of the answer.
    pub(crate) fn body_of_answer(&mut self, data: &Bytes) {
        if let Some(verbose) = &mut self.verbose
            && (self.status.is_client_error() || self.status.is_server_error())
        {
            let room = ERROR_BODY_BYTES_MAX - verbose.error_body.len();
            verbose
                .error_body
                .extend_from_slice(&data[..data.len().min(room)]);
        }
    }

    /// Writes it. `whole`: whether the answer was given to its end.
    pub(crate) fn write(mut self: Box<Self>, bytes_out: u64, whole: bool) {
        if access_log::enabled() {
            self.log(bytes_out, whole);
        }
        if let Some(tracer) = &self.tracer {
            tracer.request(&self, bytes_out);
        }
        if let Some(span) = self.span.take() {
            span.end(&self, bytes_out, whole);
        }
    }

    fn log(&self, bytes_out: u64, whole: bool) {
        let caller = self.caller.as_ref();
        let upstream = caller.and_then(Caller::upstream);
        tracing::info!(
            target: access_log::TARGET,
            request_id = self.request_id,
            peer = %self.peer.addr,
            client = %self.client,
            tls = self.peer.tls,
            user = caller.map(Caller::user),
            access_key = caller.map(Caller::access_key_id),
            method = %self.method,
            path = self.path,
            query = self.query.as_deref().map(redact_query).as_deref(),
            bucket = caller.and_then(Caller::bucket),
            store = upstream.map(|(store, _)| store),
            store_bucket = upstream.map(|(_, bucket)| bucket),
            status = self.status.as_u16(),
            bytes_in = self.bytes_in,
            bytes_out,
            whole,
            endpoint = self.endpoint,
            site = self.site,
            sends = self.sends,
            first_byte_ms = self.first_byte.as_secs_f64() * 1000.0,
            duration_ms = self.began.elapsed().as_secs_f64() * 1000.0,
        );
    }
}
