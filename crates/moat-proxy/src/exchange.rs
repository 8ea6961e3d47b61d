//! One request from the client's head to the head of the answer: choose, send, try again where
//! that is safe.

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use moat_net::{Body, ClientError, ClientErrorKind, Peer, request_id};
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::body::{AnswerBody, Line, RequestBody};
use crate::config::ATTEMPTS_MAX;
use crate::expect::{Continue, Gate, expects_continue};
use crate::proxy::{Flight, Site};
use crate::{headers, plain};

/// Answers one request.
pub(crate) async fn answer(
    site: &Arc<Site>,
    peer: &Arc<Peer>,
    request: Request<Incoming>,
) -> Response<Body> {
    let began = Instant::now();
    let (mut head, body) = request.into_parts();
    if !peer.tls && plain::carries_customer_key(&head.headers) {
        return refuse(site, peer, &head, began, Refusal::CustomerKeyOnPlain);
    }
    if head.method == Method::CONNECT {
        return refuse(site, peer, &head, began, Refusal::BadRequest);
    }
    headers::strip_hop_by_hop(&mut head.headers);
    headers::set_forwarded(&mut head.headers, &head.uri, peer);
    let mut attempts = Attempts::new(site, body);
    match attempts.run(&head).await {
        Ok((response, flight)) => {
            let line = Line::if_enabled(|| line(site, peer, &head, &response, began));
            relay(site, peer, &head.method, response, flight, line, began)
        }
        Err(refusal) => refuse(site, peer, &head, began, refusal),
    }
}

/// The endpoints that one request is tried on.
struct Attempts<'a> {
    site: &'a Arc<Site>,
    /// `None` if the request has no body.
    body: Option<RequestBody>,
    hint: http_body::SizeHint,
    tried: Vec<usize>,
    sends: usize,
    replayed: bool,
}

impl<'a> Attempts<'a> {
    fn new(site: &'a Arc<Site>, body: Incoming) -> Self {
        let hint = body.size_hint();
        Self {
            site,
            body: (!body.is_end_stream()).then(|| RequestBody::new(body)),
            hint,
            tried: Vec::new(),
            sends: 0,
            replayed: false,
        }
    }

    async fn run(&mut self, head: &Parts) -> Result<(Response<Body>, Flight), Refusal> {
        let mut sent = false;
        loop {
            let Some(flight) = Flight::begin(self.site, &self.tried) else {
                return Err(if sent {
                    Refusal::NoAnswer
                } else {
                    Refusal::NoUpstream
                });
            };
            let endpoint = self.site.endpoint(&flight);
            endpoint.meters.requests.increment(1);
            self.sends += 1;
            let request = self.request(head, &flight);
            let error = match self.site.client.send(&endpoint.endpoint, request).await {
                Ok(response) => {
                    flight.answered(&response);
                    return Ok((response, flight));
                }
                Err(error) => error,
            };
            flight.failed(&error);
            sent |= !error.nothing_sent();
            if !self.may_try_again(&head.method, &error, flight.index()) {
                return Err(refusal_of(&error));
            }
            endpoint.meters.retries.increment(1);
        }
    }

    /// The request for one attempt. Its head is copied: a second attempt may need it.
    fn request(&self, head: &Parts, flight: &Flight) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        if let Some(body) = &self.body {
            let gate = expects_continue(&head.headers).then(|| {
                let signal = Continue::default();
                signal.listen(&mut request);
                Gate::new(signal)
            });
            let idle = self.site.config.body_idle_timeout;
            let bytes = self.site.endpoint(flight).meters.rx_bytes.clone();
            *request.body_mut() = body.attempt(self.hint, gate, idle, bytes);
        }
        request
    }

    /// Whether the request may be sent once more after `error`, given that none may act on it twice.
    fn may_try_again(&mut self, method: &Method, error: &ClientError, failed: usize) -> bool {
        if error.kind() == ClientErrorKind::Request || self.sends >= ATTEMPTS_MAX {
            return false;
        }
        if !error.reused() {
            // Of a kept connection the connection was stale, not the endpoint.
            self.tried.push(failed);
        }
        if error.nothing_sent() {
            return self.body_is_whole();
        }
        if error.kind() != ClientErrorKind::Closed {
            return false;
        }
        match &self.body {
            // Of a body that was not begun, whoever got the head can't have acted on it.
            Some(body) => body.is_untouched(),
            // A read does no harm twice. For other requests, a kept connection that ends without an
            // answer is nearly always the upstream's idle timeout: worth one more try, not two.
            None if method.is_safe() => true,
            None => {
                error.reused()
                    && method.is_idempotent()
                    && !std::mem::replace(&mut self.replayed, true)
            }
        }
    }

    fn body_is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(RequestBody::is_untouched)
    }
}

fn refusal_of(error: &ClientError) -> Refusal {
    match error.kind() {
        ClientErrorKind::Request => Refusal::BadRequest,
        ClientErrorKind::RequestBody => Refusal::IncompleteBody,
        _ if error.nothing_sent() => Refusal::NoUpstream,
        _ => Refusal::NoAnswer,
    }
}

/// Passes the upstream's answer on.
fn relay(
    site: &Arc<Site>,
    peer: &Arc<Peer>,
    method: &Method,
    response: Response<Body>,
    flight: Flight,
    line: Option<Box<Line>>,
    began: Instant,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    if !peer.tls && site.config.hide_key_id_on_plain {
        plain::hide_key_id(method, &mut head.headers);
    }
    let meters = &site.endpoint(&flight).meters;
    meters.seconds.record(began.elapsed().as_secs_f64());
    let bytes = meters.tx_bytes.clone();
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    let ended = body.is_end_stream();
    let body = AnswerBody::new(body, site.config.body_idle_timeout, bytes, flight, line);
    if ended {
        // Nothing will be polled: the request ends here.
        drop(body);
    } else {
        *answer.body_mut() = Body::stream(body);
    }
    answer
}

fn refuse(
    site: &Site,
    peer: &Arc<Peer>,
    head: &Parts,
    began: Instant,
    refusal: Refusal,
) -> Response<Body> {
    let id = request_id(&*site.config.random);
    let response = refusal.response(&head.method, head.uri.path(), &id);
    metrics::counter!("moat_proxy_refusals_total", "status" => response.status().as_str().to_owned())
        .increment(1);
    tracing::info!(
        request_id = id,
        ?refusal,
        status = response.status().as_u16(),
        "answered in the upstream's place"
    );
    let line = Line::if_enabled(|| Line {
        request_id: id,
        ..line(site, peer, head, &response, began)
    });
    if let Some(line) = line {
        line.log(response.body().size_hint().exact().unwrap_or(0));
    }
    response
}

fn line(
    site: &Site,
    peer: &Arc<Peer>,
    head: &Parts,
    response: &Response<Body>,
    began: Instant,
) -> Line {
    let given = response.headers().get("x-amz-request-id");
    let length = head.headers.get(http::header::CONTENT_LENGTH);
    Line {
        peer: Arc::clone(peer),
        request_id: given
            .and_then(|id| id.to_str().ok())
            .map_or_else(|| request_id(&*site.config.random), str::to_owned),
        method: head.method.clone(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        status: response.status(),
        bytes_in: length
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .unwrap_or(0),
        began,
    }
}
