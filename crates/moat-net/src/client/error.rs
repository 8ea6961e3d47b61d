//! Why a request has no answer, and whether it may be sent again.

use std::fmt;

use http::Request;
use hyper::client::conn::TrySendError;

use crate::{Body, BoxError};

/// What happened, as seen from the question "may I try again elsewhere?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientErrorKind {
    /// The request itself can't be sent to anyone.
    Request,
    /// No connection: name, route, refused, reset in the handshake. Nothing was sent.
    Connect,
    /// No connection in time. Nothing was sent.
    ConnectTimeout,
    /// The TLS handshake failed: an untrusted or expired certificate, a wrong name, no common
    /// version. Nothing was sent.
    Tls,
    /// The connection ended before the first byte of the request was sent.
    NotSent,
    /// The connection ended before the head of an answer; the request may have been carried out.
    Closed,
    /// The answer is not HTTP.
    BadAnswer,
    /// The request's own body failed; the upstream is not to blame.
    RequestBody,
    /// No head of an answer in time.
    ResponseTimeout,
}

/// The error of [`super::HttpClient`].
pub struct ClientError(Box<Parts>);

struct Parts {
    kind: ClientErrorKind,
    reused: bool,
    source: BoxError,
    request: Option<Request<Body>>,
}

impl ClientError {
    pub(super) fn new(kind: ClientErrorKind, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Parts {
            kind,
            reused: false,
            source: source.into(),
            request: None,
        }))
    }

    /// What it means that hyper could not send a request or read the head of its answer.
    pub(super) fn of_sending(mut error: TrySendError<Request<Body>>, reused: bool) -> Self {
        let unsent = error.take_message();
        let error = error.into_error();
        let kind = if unsent.is_some() {
            ClientErrorKind::NotSent
        } else if error.is_user() {
            ClientErrorKind::RequestBody
        } else if error.is_parse() {
            ClientErrorKind::BadAnswer
        } else {
            ClientErrorKind::Closed
        };
        let error = Self::new(kind, error).on_reused(reused);
        match unsent {
            Some(request) => error.returning(request),
            None => error,
        }
    }

    pub(super) fn returning(mut self, request: Request<Body>) -> Self {
        self.0.request = Some(request);
        self
    }

    pub(super) fn on_reused(mut self, reused: bool) -> Self {
        self.0.reused = reused;
        self
    }

    /// What happened.
    pub fn kind(&self) -> ClientErrorKind {
        self.0.kind
    }

    /// Whether the connection had served other requests before. Then [`ClientErrorKind::Closed`] most
    /// likely means that the upstream closed it for idleness in the same moment.
    pub fn reused(&self) -> bool {
        self.0.reused
    }

    /// Whether nothing of the request was sent to anyone.
    pub fn nothing_sent(&self) -> bool {
        use ClientErrorKind::{Connect, ConnectTimeout, NotSent, Request, Tls};
        matches!(
            self.0.kind,
            Request | Connect | ConnectTimeout | Tls | NotSent
        )
    }

    /// The request, whole, if nothing of it was sent.
    pub fn into_request(mut self) -> Option<Request<Body>> {
        self.0.request.take()
    }

    pub(super) fn take_request(&mut self) -> Option<Request<Body>> {
        self.0.request.take()
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            ClientErrorKind::Request => "the request cannot be sent",
            ClientErrorKind::Connect => "cannot connect",
            ClientErrorKind::ConnectTimeout => "cannot connect in time",
            ClientErrorKind::Tls => "tls handshake failed",
            ClientErrorKind::NotSent => "the connection closed before the request was sent",
            ClientErrorKind::Closed => "the connection closed before an answer came",
            ClientErrorKind::BadAnswer => "the answer is not http",
            ClientErrorKind::RequestBody => "the body of the request failed",
            ClientErrorKind::ResponseTimeout => "no answer in time",
        })?;
        let mut cause: Option<&dyn std::error::Error> = Some(&*self.0.source);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientError")
            .field("kind", &self.0.kind)
            .field("reused", &self.0.reused)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl std::error::Error for ClientError {}
