//! Log streams: one JSON object a line, for as long as the client listens.
//!
//! The head of the answer goes out at once, because clients wait for it before they hand the
//! stream to whoever asked.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use moat_kms_client::Identity;
use moat_net::Body;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::audit::{Facts, Outcome};
use crate::error::Fault;
use crate::feed::{Follower, Next};
use crate::server_log::LogEvent;

/// Lines between the feed and the connection. The feed itself holds what a slow client is behind.
const LINES_WAITING_MAX: usize = 16;

/// Answers with what `line` makes of each item, until `ending` says so; items that it makes
/// nothing of are left out.
pub(super) fn lines<T: Send + Sync + 'static>(
    mut follower: Follower<T>,
    mut ending: watch::Receiver<bool>,
    line: impl Fn(&T) -> Option<Bytes> + Send + 'static,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = follower.next() => next,
                _ = ending.wait_for(|ending| *ending) => return,
                // The client went away.
                () = sender.closed() => return,
            };
            let text = match next {
                None => return,
                Some(Next::Item(item)) => line(&item),
                Some(Next::Missed(count)) => Some(missed(count)),
            };
            if let Some(text) = text
                && sender.send(text).await.is_err()
            {
                return;
            }
        }
    });
    let mut response = Response::new(Body::stream(Lines(receiver)));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

struct Lines(mpsc::Receiver<Bytes>);

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

fn encode(line: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("a line of texts and numbers is JSON");
    text.push(b'\n');
    text.into()
}

fn missed(count: u64) -> Bytes {
    let message = format!("{count} lines were left out because the reader is slow");
    encode(&Message { message: &message })
}

/// A line of the error log; nothing for what is no warning.
pub(super) fn log_line(event: &LogEvent) -> Option<Bytes> {
    (event.level <= tracing::Level::WARN).then(|| {
        encode(&Message {
            message: &event.message,
        })
    })
}

#[derive(Serialize)]
struct AuditLine<'a> {
    time: String,
    request: AuditRequest<'a>,
    response: AuditResponse,
}

#[derive(Serialize)]
struct AuditRequest<'a> {
    ip: &'a str,
    path: String,
    identity: String,
}

#[derive(Serialize)]
struct AuditResponse {
    code: u16,
    /// Microseconds.
    time: u64,
}

/// A line of the audit.
pub(super) fn audit_line(facts: &Facts) -> Bytes {
    let asked = &facts.asked;
    let ip = asked
        .source
        .rsplit_once(':')
        .map_or(&*asked.source, |(ip, _)| ip);
    encode(&AuditLine {
        time: asked.time.to_timestamp().to_string(),
        request: AuditRequest {
            ip: ip.trim_start_matches('[').trim_end_matches(']'),
            path: path_of(asked.operation, facts.name()),
            identity: asked
                .identity
                .as_ref()
                .map(Identity::to_kes_text)
                .unwrap_or_default(),
        },
        response: AuditResponse {
            code: match (facts.outcome, facts.fault) {
                (Outcome::Allowed | Outcome::Begun, _) => 200,
                (Outcome::Denied, _) => 403,
                (Outcome::Error, Some(Fault::Missing)) => 404,
                (Outcome::Error, Some(Fault::Caller)) => 400,
                (Outcome::Error, Some(Fault::Server) | None) => 502,
            },
            time: facts.micros,
        },
    })
}

/// The path that stands for an operation, whichever wire it came on.
fn path_of(operation: &str, name: Option<&str>) -> String {
    let stem = match operation {
        "KEY:STATUS" => "key/describe".to_owned(),
        "KEY:MAC" => "key/hmac".to_owned(),
        "POLICY:STATUS" => "policy/describe".to_owned(),
        "POLICY:GET" => "policy/read".to_owned(),
        "IDENTITY:STATUS" => "identity/describe".to_owned(),
        "AUDIT:READ" => return "/v1/log/audit".to_owned(),
        "METRICS:READ" => return "/v1/metrics".to_owned(),
        "LOG:READ" => return "/v1/log/error".to_owned(),
        "SERVER:STATUS" => return format!("/v1/{}", name.unwrap_or("status")),
        other => other.to_ascii_lowercase().replace(':', "/"),
    };
    format!("/v1/{stem}/{}", name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_every_wire_have_a_path() {
        for (operation, name, path) in [
            ("KEY:GENERATE", Some("k"), "/v1/key/generate/k"),
            ("KEY:STATUS", Some("k"), "/v1/key/describe/k"),
            ("KEY:LIST", None, "/v1/key/list/"),
            ("EPOCH:OPEN", Some("k"), "/v1/epoch/open/k"),
            ("SERVER:STATUS", Some("api"), "/v1/api"),
            ("AUDIT:READ", None, "/v1/log/audit"),
        ] {
            assert_eq!(path_of(operation, name), path);
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_feed_and_its_reader() {
        use http_body_util::BodyExt as _;

        let feed = crate::feed::Feed::<u8>::default();
        let make = |n: &u8| (*n > 0).then(|| Bytes::from(vec![*n]));
        let ending = watch::Sender::new(false);
        let response = lines(feed.follow(), ending.subscribe(), make);
        for number in [1, 0, 2] {
            feed.send(number);
        }
        let mut body = response.into_body();
        for number in [1, 2] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(&frame.into_data().unwrap()[..], [number]);
        }
        ending.send_replace(true);
        assert!(body.frame().await.is_none());
    }
}
