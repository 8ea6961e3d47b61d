//! Asks the stores behind a gateway for their buckets, all at once, and makes one answer of it.
//!
//! The first store must answer: nobody else knows what it has, so its refusal is the answer. Another
//! store that is away or refuses has its configured buckets shown, and delays the answer by
//! [`OTHER_STORE_WITHIN`] at most.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use moat_net::{Body, Peer, request_id};
use moat_s3::uri::{Slash, encode};
use moat_s3::xml::{BucketList, REQUEST_BYTES_MAX, read_list_buckets};
use moat_s3::{ErrorCode, S3Error};
use tokio::time::{Instant, timeout};

use crate::answer::Refusal;
use crate::body::AnswerBody;
use crate::exchange::{Attempts, refuse, relay};
use crate::gateway::{Listing, Plan};
use crate::proxy::{Flight, State};
use crate::record::Record;
use crate::watch::Watch;

/// How long the answer waits for another store than the first: a list is what people look at first,
/// and what scripts ask to see whether anybody is there.
const OTHER_STORE_WITHIN: Duration = Duration::from_secs(5);
/// Pages of one store, of 10,000 buckets each. AWS gives an account 10,000 buckets unless it asks for
/// more; the list of all must be held to be sorted.
const PAGES_MAX: usize = 10;
/// What a store is told of the client's request, beside the signature: who asks, from where. All else
/// is about the client's page.
const PASSED: [HeaderName; 7] = [
    USER_AGENT,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// What came of asking a store.
enum Said {
    Buckets(BucketList),
    /// Something else, as it came.
    Other(Response<Body>, Flight),
}

/// Answers a ListBuckets, of which `head` is what the client asked.
pub(crate) async fn answer(
    state: &Arc<State>,
    peer: &Arc<Peer>,
    head: &Parts,
    began: Instant,
    mut listing: Listing,
) -> Response<Body> {
    let mut questions = listing.take_questions().into_iter();
    let Some((store, plan)) = questions.next() else {
        return refuse(state, peer, head, began, Refusal::NoUpstream);
    };
    let others = questions.map(async |(store, plan)| {
        let asked = timeout(OTHER_STORE_WITHIN, ask(state, peer, head, plan)).await;
        let said = match asked {
            Ok(Ok(Said::Buckets(list))) => return (store, Some(list)),
            Ok(Ok(Said::Other(response, _))) => response.status().to_string(),
            Ok(Err(refusal)) => format!("{refusal:?}"),
            Err(_) => "nothing in time".to_owned(),
        };
        let store_name = listing.name_of_store(store);
        tracing::warn!(
            store = store_name,
            said,
            "asked for its buckets, so the configured ones are listed"
        );
        (store, None)
    });
    let (first, others) = tokio::join!(ask(state, peer, head, plan), join_all(others));
    let mut lists = others;
    match first {
        Ok(Said::Buckets(list)) => lists.push((store, Some(list))),
        Ok(Said::Other(response, flight)) => {
            let record = Record::if_wanted(&state.config, peer, head, &response, began);
            let record = record.map(|mut record| {
                record.answered_by(&flight, 1);
                record
            });
            return relay(state, peer, &head.method, response, flight, record);
        }
        Err(refusal) => return refuse(state, peer, head, began, refusal),
    }
    match listing.document(lists) {
        Ok(document) => whole(state, peer, head, began, document),
        Err(error) => refuse(
            state,
            peer,
            head,
            began,
            Refusal::Denied(Box::new(error.into())),
        ),
    }
}

/// Asks one store for all of its buckets.
async fn ask(state: &State, peer: &Peer, head: &Parts, mut plan: Plan) -> Result<Said, Refusal> {
    let mut whole = BucketList::default();
    for _ in 0..PAGES_MAX {
        let page = page_head(head, whole.continuation_token.as_deref());
        let mut attempts = Attempts::new(state, peer, None, Some(plan), Instant::now());
        let (response, flight) = attempts.run(&page).await?;
        if response.status() != StatusCode::OK {
            return Ok(Said::Other(response, flight));
        }
        let document = collect(state, response, flight).await?;
        // What is no list is no answer of an S3 store.
        let page = read_list_buckets(&document).map_err(|_| Refusal::NoAnswer)?;
        whole.owner = whole.owner.or(page.owner);
        whole.buckets.extend(page.buckets);
        whole.continuation_token = page.continuation_token;
        match (&whole.continuation_token, attempts.plan) {
            (Some(_), Some(again)) => plan = again,
            _ => return Ok(Said::Buckets(whole)),
        }
    }
    let error = S3Error::new(
        ErrorCode::InternalError,
        "The storage endpoint has more buckets than this gateway lists.",
    );
    Err(Refusal::Denied(Box::new(error.into())))
}

fn page_head(head: &Parts, token: Option<&str>) -> Parts {
    let mut page = Request::new(()).into_parts().0;
    page.method = Method::GET;
    page.uri = match token {
        None => Uri::from_static("/"),
        Some(token) => {
            let token = encode(token.as_bytes(), Slash::Encode);
            format!("/?continuation-token={token}")
                .parse()
                .expect("a path and an encoded query are a URI")
        }
    };
    for name in &PASSED {
        for value in head.headers.get_all(name) {
            page.headers.append(name, value.clone());
        }
    }
    page
}

async fn collect(
    state: &State,
    response: Response<Body>,
    flight: Flight,
) -> Result<Bytes, Refusal> {
    let config = &state.config;
    let watch = Watch::new(
        &flight.backend,
        config.liveness_check_every,
        config.body_idle_timeout,
    );
    let body = AnswerBody::new(response.into_body(), watch, flight, None);
    let whole = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
    whole
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_| Refusal::NoAnswer)
}

fn whole(
    state: &State,
    peer: &Arc<Peer>,
    head: &Parts,
    began: Instant,
    document: Vec<u8>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(document));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    let id = request_id(&*state.config.random);
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-amz-request-id", id);
    }
    if let Some(record) = Record::if_wanted(&state.config, peer, head, &response, began) {
        record.write(response.body().size_hint().exact().unwrap_or(0), true);
    }
    response
}
