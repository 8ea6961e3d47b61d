//! The log stream: the server's log and its operations, from now on, until one side ends it.
//!
//! A record is a length (u32 big-endian, at most 4096) and a protobuf message: level, time, text,
//! and in field 5 a request. Newer clients do not know field 5; older ones do not live without it,
//! and parse its address, so it stands in every record.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::{Body as HttpBody, Frame};
use moat_meta::MetaStore;
use moat_net::{Body, BoxError};
use moat_types::{EnclaveName, KeyName, UnixMillis};
use tokio::sync::{mpsc, watch};

use super::error::Refusal;
use super::proto::{Sint32, Writer};
use super::{reply, request};
use crate::audit::{Facts, Outcome};
use crate::core::Core;
use crate::error::Fault;
use crate::feed::{Follower, Next};
use crate::server_log::{self, LogEvent};

/// The levels of Go's `slog`.
const DEBUG: i32 = -4;
const INFO: i32 = 0;
const WARN: i32 = 4;
const ERROR: i32 = 8;
/// Records that wait for the peer to take them.
const WAITING_MAX: usize = 16;
/// The longest text of a record: with it, a record stays far below what clients take.
const TEXT_BYTES_MAX: usize = 1024;

/// Which records a client wants.
pub(super) struct Wanted {
    level: i32,
    text: String,
}

impl Wanted {
    /// Reads a request. Its `since` is of no use: what is past is in the audit, not here.
    pub(super) fn parse(message: &[u8]) -> Result<Self, Refusal> {
        use request::Message as _;
        let request = request::Logs::parse(message)?;
        let Sint32(level) = request.level;
        Ok(Self {
            level,
            text: request.message.to_owned(),
        })
    }

    /// An answer that goes on until the client or the server ends it. Its head goes out at once:
    /// clients wait for it.
    pub(super) fn stream<M: MetaStore>(self, core: &Core<M>) -> Response<Body> {
        let (sender, records) = mpsc::channel(WAITING_MAX);
        let sources = Sources {
            operations: core.follow_audit(),
            log: server_log::follow(),
            ending: core.ending(),
        };
        tokio::spawn(self.feed(sources, sender));
        let mut response = Response::new(Body::stream(Records(records)));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/octet-stream");
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn feed(self, mut sources: Sources, records: mpsc::Sender<Bytes>) {
        loop {
            let next = tokio::select! {
                () = records.closed() => return,
                next = sources.next() => next,
            };
            let Some(record) = next else { return };
            if let Some(record) = self.encode(&record)
                && records.send(record).await.is_err()
            {
                return;
            }
        }
    }

    /// A record as it is sent, if it is wanted.
    fn encode(&self, record: &Record) -> Option<Bytes> {
        if record.level < self.level || !record.text.contains(&self.text) {
            return None;
        }
        let text = &record.text[..record.text.floor_char_boundary(TEXT_BYTES_MAX)];
        Some(encode(|out| {
            out.sint(1, record.level.into());
            reply::timestamp(out, 2, record.time);
            out.bytes(3, text);
            out.message(5, |out| {
                if let Some(request) = &record.request {
                    out.bytes(1, "POST");
                    out.bytes(2, &request.path);
                    out.bytes(3, &request.identity);
                }
                out.bytes(4, record.ip.to_string());
            });
        }))
    }
}

/// Where records come from.
struct Sources {
    operations: Follower<Facts>,
    log: Follower<LogEvent>,
    ending: watch::Receiver<bool>,
}

impl Sources {
    /// The next record; `None` when the server stops.
    async fn next(&mut self) -> Option<Record> {
        tokio::select! {
            _ = self.ending.wait_for(|ending| *ending) => None,
            next = self.operations.next() => Some(match next? {
                Next::Item(facts) => Record::of_operation(&facts),
                Next::Missed(count) => Record::of_missed(count),
            }),
            next = self.log.next() => Some(match next? {
                Next::Item(event) => Record::of_event(&event),
                Next::Missed(count) => Record::of_missed(count),
            }),
        }
    }
}

/// What a record says.
struct Record {
    level: i32,
    time: UnixMillis,
    text: String,
    request: Option<Request>,
    ip: IpAddr,
}

struct Request {
    path: String,
    identity: String,
}

impl Record {
    fn of_operation(facts: &Facts) -> Self {
        let level = match (facts.outcome, facts.fault) {
            (Outcome::Allowed | Outcome::Begun, _) => INFO,
            (Outcome::Error, Some(Fault::Server) | None) => ERROR,
            (Outcome::Denied | Outcome::Error, _) => WARN,
        };
        let asked = &facts.asked;
        let mut text = asked.operation.to_owned();
        let key = facts.key.as_ref().map(KeyName::as_str);
        for part in [key, facts.subject.as_deref()].into_iter().flatten() {
            text.push(' ');
            text.push_str(part);
        }
        text.push_str(": ");
        text.push_str(facts.outcome.as_str());
        if let Some(reason) = &facts.reason {
            text.push_str(", ");
            text.push_str(reason);
        }
        let address = asked.source.parse::<SocketAddr>();
        let enclave = asked.enclave.as_ref().map_or("", EnclaveName::as_str);
        Self {
            level,
            time: asked.time,
            text,
            // As if it had come on this protocol.
            request: Some(Request {
                path: format!("/v1/kms/{enclave}"),
                identity: asked.identity.map(|by| by.to_string()).unwrap_or_default(),
            }),
            ip: address.map_or(NOWHERE, |address| address.ip().to_canonical()),
        }
    }

    fn of_event(event: &LogEvent) -> Self {
        Self {
            level: match event.level {
                tracing::Level::ERROR => ERROR,
                tracing::Level::WARN => WARN,
                tracing::Level::INFO => INFO,
                _ => DEBUG,
            },
            time: event.time,
            text: format!("{}: {}", event.target, event.message),
            request: None,
            ip: NOWHERE,
        }
    }

    fn of_missed(count: u64) -> Self {
        Self {
            level: WARN,
            time: UnixMillis(0),
            text: format!("{count} records were left out because the reader is slow"),
            request: None,
            ip: NOWHERE,
        }
    }
}

/// The address of what no client asked for.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn encode(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut out = Writer::default();
    out.raw(&[0; 4]);
    write(&mut out);
    let length = u32::try_from(out.len() - 4).expect("a record has some KiB at most");
    out.patch(0, &length.to_be_bytes());
    out.into_bytes()
}

/// Records as a body of unknown length.
struct Records(mpsc::Receiver<Bytes>);

impl HttpBody for Records {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let record = self.0.poll_recv(cx);
        record.map(|record| record.map(|record| Ok(Frame::data(record))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use moat_kms_client::Identity;

    use super::*;
    use crate::audit::Asked;

    fn facts() -> Facts {
        let asked = Asked {
            time: UnixMillis(1_500),
            request_id: "r".into(),
            identity: Some(Identity::from_spki_sha256([7; 32])),
            source: "127.0.0.1:5".into(),
            enclave: Some(EnclaveName::parse("e").unwrap()),
            operation: "KEY:GENERATE",
        };
        Facts {
            key: Some(KeyName::parse("k").unwrap()),
            reason: Some("KMS key k does not exist".into()),
            fault: Some(Fault::Missing),
            micros: 5,
            ..Facts::new(Arc::new(asked))
        }
    }

    fn wanted(hex: &str) -> Wanted {
        Wanted::parse(&hex::decode(hex).unwrap()).unwrap()
    }

    #[test]
    fn records_are_chosen_by_level_and_text() {
        let record = Record::of_operation(&facts());
        for (request, is_wanted) in [
            ("", true),
            ("0808", true),             // level 4, zig-zag
            ("0810", false),            // level 8
            ("0807", true),             // level -4
            ("1203666f6f", false),      // "foo"
            ("12034b4559", true),       // "KEY"
            ("08082204504f5354", true), // field 4 is of another kind in each client
        ] {
            let wanted = wanted(request);
            assert_eq!(wanted.encode(&record).is_some(), is_wanted, "{request}");
        }
    }

    #[test]
    fn operations_have_the_level_of_their_outcome() {
        for (outcome, fault, level) in [
            (Outcome::Allowed, None, INFO),
            (Outcome::Begun, None, INFO),
            (Outcome::Denied, Some(Fault::Caller), WARN),
            (Outcome::Error, Some(Fault::Missing), WARN),
            (Outcome::Error, Some(Fault::Server), ERROR),
        ] {
            let facts = Facts {
                outcome,
                fault,
                ..facts()
            };
            assert_eq!(Record::of_operation(&facts).level, level, "{outcome:?}");
        }
    }

    #[test]
    fn a_record_is_a_length_and_a_message_with_a_request_in_it() {
        let record = wanted("").encode(&Record::of_operation(&facts())).unwrap();
        let (length, message) = record.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, message.len());
        let text = hex::encode(message);
        // Level 4, time 1.5 s; the request is POST from 127.0.0.1.
        assert!(text.starts_with("0808120808011080cab5ee011a"), "{text}");
        assert!(text.contains("0a04504f5354"), "{text}");
        assert!(text.ends_with("22093132372e302e302e31"), "{text}");

        let long = Record {
            text: "é".repeat(4096),
            ..Record::of_missed(1)
        };
        assert!(wanted("").encode(&long).unwrap().len() < 4096);
    }
}
