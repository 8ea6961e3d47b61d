//! How one admitted request is signed for whichever endpoint it is sent to.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use metrics::Counter;
use moat_net::{Body, BoxError, Endpoint};
use moat_s3::chunked::{Framing, Reframe, Source, Target, encoded_length};
use moat_s3::request::Operation;
use moat_s3::sigv4::{EMPTY_SHA256, PayloadHash};
use moat_s3::{ErrorCode, S3Error};
use moat_types::Clock;
use std::ops::Range;

use super::config::{SignBody, Store};
use super::keys::Keys;
use super::payload::{Payload, lengths_of};
use super::words::Words;

pub(super) const DECODED_LENGTH: HeaderName =
    HeaderName::from_static("x-amz-decoded-content-length");
pub(super) const TRAILER: HeaderName = HeaderName::from_static("x-amz-trailer");
/// The coding that S3's own framing has in `Content-Encoding`.
const AWS_CHUNKED: &str = "aws-chunked";

/// What is to be done with a request at each attempt.
pub(crate) struct Plan {
    /// The sites that it may go to.
    pub(crate) sites: Range<usize>,
    payload: Payload,
    operation: Operation,
    sign_body: SignBody,
    clock: Arc<dyn Clock>,
    keys: Arc<Keys>,
    resigned: Counter,
    fate: Fate,
    words: Words,
}

/// What was found wrong with a body while it was sent.
#[derive(Clone, Debug, Default)]
struct Fate(Arc<Mutex<Option<S3Error>>>);

impl Fate {
    fn seal(&self, error: &S3Error) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get_or_insert_with(|| error.clone());
    }
}

impl Plan {
    pub(super) fn new(
        payload: Payload,
        operation: Operation,
        sign_body: SignBody,
        clock: Arc<dyn Clock>,
        keys: Arc<Keys>,
        store: &Store,
    ) -> Self {
        Self {
            sites: store.sites.clone(),
            payload,
            operation,
            sign_body,
            clock,
            keys,
            resigned: metrics::counter!("moat_gateway_resigned_total", "store" => store.name.clone()),
            fate: Fate::default(),
            words: Words::default(),
        }
    }

    pub(super) fn with_words(mut self, words: Words) -> Self {
        self.words = words;
        self
    }

    /// What was wrong with the client's body, if that is why an attempt failed.
    pub(crate) fn fault(&self) -> Option<S3Error> {
        let found = self.fate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &*found {
            let code = error.code.as_str();
            metrics::counter!("moat_gateway_refused_total", "code" => code).increment(1);
        }
        found.clone()
    }

    /// Signs a request for `endpoint`, and has its body framed as that signature says.
    ///
    /// # Errors
    /// `ServiceUnavailable` while there is nothing to sign with.
    pub(crate) fn sign(
        &self,
        request: &mut Request<Body>,
        endpoint: &Endpoint,
    ) -> Result<(), S3Error> {
        let Some(signer) = self.keys.signer() else {
            return Err(S3Error::new(
                ErrorCode::ServiceUnavailable,
                "The gateway has no credentials for the storage endpoint at the moment. Try again.",
            ));
        };
        let form = self.form(endpoint.is_tls());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let headers = request.headers_mut();
        headers.insert(HOST, endpoint.host_header().clone());
        if self.words.may_change_body(self.operation) {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        self.set_framing(headers, form);
        let seed = signer
            .1
            .sign(&method, &uri, headers, form, self.clock.now())
            .map_err(|error| S3Error::new(ErrorCode::InternalError, error.to_string()))?;
        self.resigned.increment(1);
        if self.payload.has_body && self.is_changed(form) {
            let target = match Framing::new(form, Some(&seed)) {
                Some(framing) => Target::Chunked(framing),
                None => Target::Plain,
            };
            let source = std::mem::take(request.body_mut());
            let reframe = Reframe::new(
                self.payload.source.clone(),
                self.payload.length,
                target,
                self.payload.chunk_bytes,
            );
            *request.body_mut() = Body::stream(Resigned {
                source,
                reframe,
                out: VecDeque::new(),
                ended: false,
                fate: self.fate.clone(),
            });
        }
        Ok(())
    }

    /// The form of the body on the way to an endpoint.
    fn form(&self, tls: bool) -> PayloadHash {
        let payload = &self.payload;
        if !payload.has_body && !payload.form.is_chunked() {
            return PayloadHash::Sha256(EMPTY_SHA256);
        }
        let signs = match self.sign_body {
            SignBody::Auto => !tls,
            SignBody::On => true,
            SignBody::Off => false,
        };
        // S3 takes signed chunks with uploads alone.
        let uploads = matches!(self.operation, Operation::PutObject | Operation::UploadPart);
        match payload.form {
            hash @ PayloadHash::Sha256(_) => hash,
            PayloadHash::Unsigned | PayloadHash::StreamingSigned if signs && uploads => {
                PayloadHash::StreamingSigned
            }
            PayloadHash::Unsigned | PayloadHash::StreamingSigned => PayloadHash::Unsigned,
            PayloadHash::StreamingSignedTrailer | PayloadHash::StreamingUnsignedTrailer
                if signs && uploads =>
            {
                PayloadHash::StreamingSignedTrailer
            }
            PayloadHash::StreamingSignedTrailer | PayloadHash::StreamingUnsignedTrailer => {
                PayloadHash::StreamingUnsignedTrailer
            }
        }
    }

    /// Whether the body must be read on its way: for its checks, or for another framing. Unsigned
    /// framing goes through as it is; the store checks it, and the checksum in its trailer.
    fn is_changed(&self, form: PayloadHash) -> bool {
        match self.payload.form {
            PayloadHash::Unsigned | PayloadHash::StreamingUnsignedTrailer => {
                form != self.payload.form
            }
            PayloadHash::Sha256(_) => matches!(self.payload.source, Source::Hashed(_)),
            _ => true,
        }
    }

    /// The headers about the body's length and framing.
    fn set_framing(&self, headers: &mut HeaderMap, form: PayloadHash) {
        let payload = &self.payload;
        if form == payload.form {
            let passes = !self.is_changed(form) || !form.is_chunked();
            if passes {
                return;
            }
        }
        let length = payload.length.unwrap_or(0);
        if form.is_chunked() {
            headers.insert(DECODED_LENGTH, length.into());
            add_aws_chunked(headers);
            let trailers: Vec<_> = lengths_of(&payload.announced).collect();
            let framed = encoded_length(form, length, payload.chunk_bytes, &trailers);
            headers.insert(CONTENT_LENGTH, framed.into());
        } else if payload.form.is_chunked() {
            headers.remove(DECODED_LENGTH);
            headers.remove(TRAILER);
            remove_aws_chunked(headers);
            headers.insert(CONTENT_LENGTH, length.into());
        }
    }

    /// Puts an answer into the client's words.
    pub(crate) fn translate(&self, response: Response<Body>) -> Response<Body> {
        self.words.translate(self.operation, response)
    }
}

/// Says that the body is framed, unless it says so already.
fn add_aws_chunked(headers: &mut HeaderMap) {
    let says = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        text.split(',').any(is_aws_chunked)
    };
    if headers.get_all(CONTENT_ENCODING).iter().any(says) {
        return;
    }
    let mut value = AWS_CHUNKED.to_owned();
    for before in headers.get_all(CONTENT_ENCODING) {
        value.push(',');
        value.push_str(before.to_str().unwrap_or_default());
    }
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(CONTENT_ENCODING, value);
    }
}

/// Takes S3's own framing out of `Content-Encoding`; the codings of the object stay.
pub(super) fn remove_aws_chunked(headers: &mut HeaderMap) {
    let mut kept: Vec<String> = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let codings = value.to_str().unwrap_or_default().split(',');
        kept.extend(
            codings
                .map(str::trim)
                .filter(|coding| !coding.is_empty() && !is_aws_chunked(coding))
                .map(str::to_owned),
        );
    }
    headers.remove(CONTENT_ENCODING);
    if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(","))) {
        headers.insert(CONTENT_ENCODING, value);
    }
}

fn is_aws_chunked(coding: &str) -> bool {
    coding.trim().eq_ignore_ascii_case(AWS_CHUNKED)
}

/// A body on its way from the client's form into the store's.
struct Resigned {
    source: Body,
    reframe: Reframe,
    out: VecDeque<Bytes>,
    ended: bool,
    fate: Fate,
}

impl Resigned {
    fn take(&mut self, input: Option<Bytes>) -> Result<(), S3Error> {
        match input {
            Some(data) => self.reframe.take(data, &mut self.out),
            None => {
                self.ended = true;
                self.reframe.end(&mut self.out)
            }
        }
    }
}

impl HttpBody for Resigned {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            if let Some(piece) = this.out.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let input = match ready!(Pin::new(&mut this.source).poll_frame(cx)) {
                // HTTP trailers are none of S3's.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(data),
                    Err(_) => continue,
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            if let Err(error) = this.take(input) {
                this.fate.seal(&error);
                this.out.clear();
                this.ended = true;
                return Poll::Ready(Some(Err(error.into())));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.out.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codings_of_the_object_stay() {
        let check = |before: &[&str], without: Option<&str>, with: &str| {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            let text = |headers: &HeaderMap| {
                let value = headers.get(CONTENT_ENCODING)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let mut added = headers.clone();
            add_aws_chunked(&mut added);
            assert_eq!(text(&added).as_deref(), Some(with), "{before:?}");
            remove_aws_chunked(&mut headers);
            assert_eq!(text(&headers).as_deref(), without, "{before:?}");
        };
        check(&[], None, "aws-chunked");
        check(&["aws-chunked"], None, "aws-chunked");
        check(&["gzip"], Some("gzip"), "aws-chunked,gzip");
        check(&["aws-chunked, gzip"], Some("gzip"), "aws-chunked, gzip");
        check(
            &["AWS-Chunked,gzip, br"],
            Some("gzip,br"),
            "AWS-Chunked,gzip, br",
        );
    }
}
