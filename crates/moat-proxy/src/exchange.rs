//! One request from the client's head to the head of the answer: choose, send, try again where
//! that is safe.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use moat_net::client::Preface;
use moat_net::{Body, ClientError, ClientErrorKind, Peer, proxy_protocol, request_id};
use tokio::time::Instant;

use crate::answer::Refusal;
use crate::body::{AnswerBody, RequestBody};
use crate::config::{ATTEMPTS_MAX, CONNECT_ATTEMPTS_WITHIN, ProxyProtocol};
use crate::expect::{Continue, Gate, expects_continue};
use crate::gateway::{Admitted, Plan};
use crate::health::Outcome;
use crate::observe::Class;
use crate::proxy::{Flight, State};
use crate::record::Record;
use crate::watch::Watch;
use crate::{bucket_list, client_certificate, headers, plain, upgrade};

/// Answers one request.
pub(crate) async fn answer(
    state: &Arc<State>,
    peer: &Arc<Peer>,
    request: Request<Body>,
) -> Response<Body> {
    let began = Instant::now();
    let (mut head, body) = request.into_parts();
    if let Some(spans) = &state.config.spans {
        spans.begin(&mut head);
    }
    if !peer.tls && plain::carries_customer_key_anywhere(&head) {
        return refuse(state, peer, &head, began, Refusal::CustomerKeyOnPlain);
    }
    if head.method == Method::CONNECT {
        return refuse(state, peer, &head, began, Refusal::BadRequest);
    }
    // HTTP/2 has no such thing.
    let upgrade = upgrade::wanted(&head, !body.is_end_stream());
    let may = !state.config.upstream_http2 && state.gateway.is_none();
    let upgrade = upgrade.filter(|_| may);
    // The client's signature may cover what goes and what comes.
    let signed = state.gateway.as_ref().map(|_| head.headers.clone());
    headers::strip_hop_by_hop(&mut head.headers);
    headers::set_forwarded(
        &mut head.headers,
        &head.uri,
        peer,
        &state.config.trusted_proxies,
    );
    client_certificate::pass_on(&mut head.headers, peer, state.config.pass_certificate);
    let asked = head.uri.clone();
    let admitted = match (&state.gateway, signed) {
        (Some(gateway), Some(signed)) => {
            gateway
                .admit(&state.config, peer, &signed, &mut head, body)
                .await
        }
        _ => Ok(Admitted::Request(RequestBody::if_any(body, state), None)),
    };
    let (body, plan) = match admitted {
        Ok(Admitted::Request(body, plan)) => (body, plan),
        Ok(Admitted::ListBuckets(listing)) => {
            return bucket_list::answer(state, peer, &head, began, *listing).await;
        }
        Err(refusal) => {
            head.uri = asked;
            return refuse(state, peer, &head, began, refusal);
        }
    };
    let mut attempts = Attempts::new(state, peer, body, plan, began);
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        upgrade::ask(&mut head.headers, protocol);
    }
    let outcome = attempts.run(&head).await;
    // Errors and logs speak of what the client asked for.
    head.uri = asked;
    match outcome {
        Ok((response, flight)) => {
            let record = Record::if_wanted(&state.config, peer, &head, &response, began);
            let record = record.map(|mut record| {
                record.answered_by(&flight, attempts.sends);
                record
            });
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let response = match &attempts.plan {
                    Some(plan) => plan.translate(response),
                    None => response,
                };
                return relay(state, peer, &head.method, response, flight, record);
            }
            if let Some(record) = record {
                record.write(0, true);
            }
            let silence = state.config.tunnel_idle_timeout;
            upgrade::pass_on(response, upgrades, silence, flight)
                .unwrap_or_else(|| refuse(state, peer, &head, began, Refusal::NoAnswer))
        }
        Err(refusal) => refuse(state, peer, &head, began, refusal),
    }
}

/// The endpoints that one request is tried on.
pub(crate) struct Attempts<'a> {
    state: &'a State,
    peer: &'a Peer,
    /// Since when no endpoint has taken it: what a frozen one cost is not counted.
    looking_since: Instant,
    /// `None` if the request has no body.
    body: Option<RequestBody>,
    tried: Vec<u64>,
    /// How often it was sent, and how often of these something of it may have arrived.
    sends: usize,
    arrivals: usize,
    replayed: bool,
    /// How it is signed, in gateway mode.
    pub(crate) plan: Option<Plan>,
}

/// Why an attempt came to nothing.
enum Failure {
    /// No answer.
    Error(ClientError),
    /// None within all reason, or from an endpoint that answers not even probes.
    GaveUp,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(
        state: &'a State,
        peer: &'a Peer,
        body: Option<RequestBody>,
        plan: Option<Plan>,
        began: Instant,
    ) -> Self {
        state.budget.earn();
        Self {
            state,
            peer,
            looking_since: began,
            body,
            tried: Vec::new(),
            sends: 0,
            arrivals: 0,
            replayed: false,
            plan,
        }
    }

    pub(crate) async fn run(&mut self, head: &Parts) -> Result<(Response<Body>, Flight), Refusal> {
        loop {
            let sites = self.plan.as_ref().map(|plan| plan.sites.clone());
            let Some(flight) = self.state.begin(sites, &self.tried) else {
                return Err(if self.arrivals > 0 {
                    Refusal::NoAnswer
                } else {
                    Refusal::NoUpstream
                });
            };
            self.sends += 1;
            let request = self.request(head, &flight)?;
            let sent_at = Instant::now();
            let failure = match self.send(&head.method, &flight, request).await {
                Ok(response) => {
                    answered(&flight, &head.method, &response, sent_at);
                    return Ok((response, flight));
                }
                Err(failure) => failure,
            };
            flight.backend.meters.failed();
            let (may, refusal) = match &failure {
                Failure::Error(error) => {
                    tracing::debug!(endpoint = %flight.backend.upstream.endpoint, %error, "no answer");
                    flight.site.failed(&flight.backend, error);
                    (
                        self.may_try_again(head, error, flight.backend.id),
                        refusal_of(error),
                    )
                }
                Failure::GaveUp => {
                    let reason = "it gives no answer";
                    flight.site.served(&flight.backend, Outcome::Failed, reason);
                    (
                        self.may_replay_read(&head.method, flight.backend.id),
                        Refusal::Timeout,
                    )
                }
            };
            // A body that is wrong is so everywhere, and the client must hear of it.
            if let Some(fault) = self.plan.as_ref().and_then(Plan::fault) {
                return Err(Refusal::Denied(Box::new(fault.into())));
            }
            if !may {
                return Err(refusal);
            }
            flight.backend.meters.retried();
        }
    }

    /// The request for one attempt. Its head is copied: a second attempt may need it.
    fn request(&self, head: &Parts, flight: &Flight) -> Result<Request<Body>, Refusal> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        if let Some(version) = self.state.config.send_proxy_protocol {
            let addresses = Some((self.peer.addr, self.peer.local));
            request.extensions_mut().insert(Preface(match version {
                ProxyProtocol::V1 => proxy_protocol::encode_v1(addresses),
                ProxyProtocol::V2 => proxy_protocol::encode_v2(addresses),
            }));
        }
        if let Some(body) = &self.body {
            // Over HTTP/2 a refusal comes as early, since answers need not wait for bodies.
            let waits = expects_continue(&head.headers) && !self.state.config.upstream_http2;
            let gate = waits.then(|| {
                let signal = Continue::default();
                signal.listen(&mut request);
                Gate::new(signal)
            });
            *request.body_mut() = body.attempt(gate, &flight.backend);
        }
        if let Some(plan) = &self.plan {
            plan.sign(&mut request, &flight.backend.endpoint)
                .map_err(|error| Refusal::Denied(Box::new(error.into())))?;
        }
        flight.backend.meters.sent(headers::bytes_of(&head.headers));
        Ok(request)
    }

    /// Sends one attempt and waits for the head of its answer, as long as there is hope.
    async fn send(
        &self,
        method: &Method,
        flight: &Flight,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        let config = &self.state.config;
        let limit = if method.is_safe() {
            config.read_timeout
        } else {
            config.write_timeout
        };
        let mut watch = Watch::new(&flight.backend, config.liveness_check_every, limit);
        let client = &flight.site.client;
        let mut answer = pin!(client.send(&flight.backend.endpoint, request));
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = answer.as_mut().poll(cx) {
                return Poll::Ready(outcome.map_err(Failure::Error));
            }
            if let Some(body) = &self.body {
                watch.moved_at(body.moved());
            }
            watch.poll(cx).map(|_| Err(Failure::GaveUp))
        })
        .await
    }

    /// Whether the request may be sent once more after `error`, given that none may act on it twice.
    fn may_try_again(&mut self, head: &Parts, error: &ClientError, failed: u64) -> bool {
        let method = &head.method;
        if error.kind() == ClientErrorKind::Request {
            return false;
        }
        if !error.reused() {
            // Of a kept connection the connection was stale, not the endpoint.
            self.tried.push(failed);
        }
        if error.nothing_sent() {
            // Costs no endpoint anything, so all may be tried, in a time that clients wait for.
            return self.body_is_whole() && self.looking_since.elapsed() < CONNECT_ATTEMPTS_WITHIN;
        }
        self.note_arrival();
        if self.arrivals >= ATTEMPTS_MAX {
            return false;
        }
        let safe = match (error.kind(), &self.body) {
            // A body of which a part is missing: whoever got the rest can't have acted on it.
            (ClientErrorKind::Closed, Some(body)) => body.can_begin_anew(),
            // A read does no harm twice.
            (ClientErrorKind::Closed | ClientErrorKind::BadAnswer, None) if method.is_safe() => {
                if error.kind() == ClientErrorKind::BadAnswer {
                    self.tried.push(failed);
                }
                true
            }
            // A kept connection that ends without an answer was closed for idleness, or by a server that
            // ends; the next one may be, too. A new one that ends so is no habit of servers: once.
            (ClientErrorKind::Closed, None) => {
                method.is_idempotent()
                    && (error.reused()
                        || !(headers::is_conditional(&head.headers)
                            || std::mem::replace(&mut self.replayed, true)))
            }
            _ => false,
        };
        safe && self.within_budget()
    }

    fn may_replay_read(&mut self, method: &Method, failed: u64) -> bool {
        self.tried.push(failed);
        self.note_arrival();
        self.body.is_none()
            && method.is_safe()
            && self.arrivals < ATTEMPTS_MAX
            && self.within_budget()
    }

    /// Something of the request may have reached an endpoint.
    fn note_arrival(&mut self) {
        self.arrivals += 1;
        self.looking_since = Instant::now();
    }

    fn within_budget(&self) -> bool {
        let within = self.state.budget.spend();
        if !within {
            metrics::counter!("moat_proxy_retry_budget_exhausted_total").increment(1);
        }
        within
    }

    fn body_is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(RequestBody::can_begin_anew)
    }
}

/// Takes note of an answer.
fn answered(flight: &Flight, method: &Method, response: &Response<Body>, sent_at: Instant) {
    let (status, meters) = (response.status(), &flight.backend.meters);
    meters.answered(Class::of(method), sent_at.elapsed(), status);
    meters.received(headers::bytes_of(response.headers()));
    let outcome = if status == StatusCode::SERVICE_UNAVAILABLE {
        Outcome::Busy
    } else {
        Outcome::Answered
    };
    flight
        .site
        .served(&flight.backend, outcome, "it answers 503 again and again");
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
pub(crate) fn relay(
    state: &State,
    peer: &Arc<Peer>,
    method: &Method,
    response: Response<Body>,
    flight: Flight,
    record: Option<Box<Record>>,
) -> Response<Body> {
    let config = &state.config;
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    if !peer.tls && config.hide_key_id_on_plain {
        plain::hide_key_id(method, &mut head.headers);
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    let ended = body.is_end_stream();
    let check_every = config.liveness_check_every;
    let watch = Watch::new(&flight.backend, check_every, config.body_idle_timeout);
    let body = AnswerBody::new(body, watch, flight, record);
    if ended {
        // Nothing will be polled: the request ends here.
        drop(body);
    } else {
        *answer.body_mut() = Body::stream(body);
    }
    answer
}

/// Answers in the upstream's place.
pub(crate) fn refuse(
    state: &State,
    peer: &Arc<Peer>,
    head: &Parts,
    began: Instant,
    refusal: Refusal,
) -> Response<Body> {
    let id = request_id(&*state.config.random);
    let response = refusal.response(&head.method, head.uri.path(), &id);
    metrics::counter!("moat_proxy_refusals_total", "status" => response.status().as_str().to_owned())
        .increment(1);
    tracing::info!(
        request_id = id,
        ?refusal,
        status = response.status().as_u16(),
        "answered in the upstream's place"
    );
    if let Some(record) = Record::if_wanted(&state.config, peer, head, &response, began) {
        record.write(response.body().size_hint().exact().unwrap_or(0), true);
    }
    response
}
