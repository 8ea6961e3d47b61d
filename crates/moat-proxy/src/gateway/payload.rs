//! The body of a request as the client framed and protected it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use moat_net::{Body, BodyIdle, IdleTimeoutBody};
use moat_s3::authenticate::Authenticated;
use moat_s3::chunked::{
    AnnouncedTrailers, CHUNK_BYTES, Framing, Reframe, Source, Trailers, chunk_bytes_of,
    trailer_length,
};
use moat_s3::request::Operation;
use moat_s3::sigv4::{EMPTY_SHA256, PayloadHash};
use moat_s3::xml::REQUEST_BYTES_MAX;
use moat_s3::{ErrorCode, S3Error};

use super::plan::{DECODED_LENGTH, TRAILER};
use crate::body::RequestBody;
use crate::config::REPLAY_BYTES_MAX;

/// What the client sends.
#[derive(Debug)]
pub(super) struct Payload {
    /// Its form, as the client's signature covers it.
    pub(super) form: PayloadHash,
    pub(super) source: Source,
    pub(super) announced: AnnouncedTrailers,
    /// Payload bytes, if the client says how many.
    pub(super) length: Option<u64>,
    /// Bytes on the wire, if the client says how many.
    raw_length: Option<u64>,
    /// How large chunks are that are made of it.
    pub(super) chunk_bytes: u64,
    pub(super) has_body: bool,
}

/// A body that may have been read already.
pub(super) enum Arrived {
    Stream(Body),
    Whole(Bytes, Trailers),
}

impl Payload {
    /// That of a request of the gateway's own, which has no body.
    pub(super) fn none() -> Self {
        Self {
            form: PayloadHash::Sha256(EMPTY_SHA256),
            source: Source::Plain,
            announced: AnnouncedTrailers::default(),
            length: Some(0),
            raw_length: Some(0),
            chunk_bytes: CHUNK_BYTES,
            has_body: false,
        }
    }

    /// Reads what the head says of the body.
    pub(super) fn new(
        operation: Operation,
        proven: &Authenticated,
        headers: &HeaderMap,
        body: &Body,
    ) -> Result<Self, S3Error> {
        let form = proven.payload;
        let has_body = !body.is_end_stream();
        let raw_length = body.size_hint().exact();
        let announced = AnnouncedTrailers::from_headers(headers)?;
        let (source, length) = match Framing::new(form, proven.chunk_seed.as_ref()) {
            Some(framing) => {
                let length = decoded_length(headers)?;
                if announced.iter().any(|name| trailer_length(name).is_none()) {
                    return Err(S3Error::new(
                        ErrorCode::InvalidRequest,
                        "The value specified in the x-amz-trailer header is not supported",
                    ));
                }
                (Source::Chunked(framing, announced.clone()), Some(length))
            }
            None if form.is_chunked() => return Err(ErrorCode::InvalidRequest.into()),
            None => {
                let source = match form {
                    PayloadHash::Sha256(hash) => Source::Hashed(hash),
                    _ => Source::Plain,
                };
                let length = if has_body { raw_length } else { Some(0) };
                (source, length)
            }
        };
        let uploads = matches!(operation, Operation::PutObject | Operation::UploadPart);
        if uploads && length.is_none() {
            return Err(ErrorCode::MissingContentLength.into());
        }
        if !has_body && matches!(form, PayloadHash::Sha256(hash) if hash != EMPTY_SHA256) {
            return Err(ErrorCode::XAmzContentSHA256Mismatch.into());
        }
        let chunk_bytes = match (length, raw_length) {
            (Some(length), Some(framed)) if form.is_chunked() => {
                let trailers: Vec<_> = lengths_of(&announced).collect();
                chunk_bytes_of(form, length, framed, &trailers)
            }
            _ => CHUNK_BYTES,
        };
        Ok(Self {
            form,
            source,
            announced,
            length,
            raw_length,
            chunk_bytes,
            has_body,
        })
    }

    /// Reads the body now if it is protected and small, or if it must be looked into: what is wrong
    /// with it then never reaches a store, and what is right can be sent again.
    pub(super) async fn collect_if_small(
        &self,
        body: Body,
        operation: Operation,
        idle: Duration,
    ) -> Result<Arrived, S3Error> {
        let is_protected = !matches!(
            self.form,
            PayloadHash::Unsigned | PayloadHash::StreamingUnsignedTrailer
        );
        let is_small = self
            .raw_length
            .is_some_and(|length| length <= REPLAY_BYTES_MAX);
        let must_be_read = matches!(operation, Operation::DeleteObjects | Operation::RestoreObject)
            // Nothing of it could be held back until its signatures are known.
            || (self.form.is_chunked() && self.length == Some(0));
        if !(must_be_read || (self.has_body && is_protected && is_small)) {
            return Ok(Arrived::Stream(body));
        }
        let raw = read(body, idle).await?;
        let source = self.source.clone();
        let (whole, trailers) = Reframe::read_whole(source, self.length, raw)?;
        Ok(Arrived::Whole(whole, trailers))
    }

    /// The body for the store, and what it is now: one that was read is plain, and its trailers are
    /// headers.
    pub(super) fn settle(
        mut self,
        arrived: Arrived,
        headers: &mut HeaderMap,
        idle: Duration,
    ) -> (Option<RequestBody>, Self) {
        let (whole, trailers) = match arrived {
            Arrived::Stream(body) => {
                let body = self.has_body.then(|| RequestBody::new(body, idle));
                return (body, self);
            }
            Arrived::Whole(whole, trailers) => (whole, trailers),
        };
        if self.form.is_chunked() {
            headers.remove(TRAILER);
            headers.remove(DECODED_LENGTH);
            super::plan::remove_aws_chunked(headers);
            for (name, value) in trailers.iter() {
                let name = HeaderName::from_bytes(name.as_bytes());
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                    headers.insert(name, value);
                }
            }
            self.form = PayloadHash::Unsigned;
        }
        // Nobody has to be asked for what is at hand.
        headers.remove(EXPECT);
        headers.insert(CONTENT_LENGTH, whole.len().into());
        self.length = Some(whole.len() as u64);
        self.source = Source::Plain;
        self.announced = AnnouncedTrailers::default();
        self.has_body = !whole.is_empty();
        let body = self.has_body.then(|| RequestBody::of_bytes(whole));
        (body, self)
    }
}

/// The trailers that are announced, with the lengths of their values.
pub(super) fn lengths_of(announced: &AnnouncedTrailers) -> impl Iterator<Item = (&str, usize)> {
    let names = announced.iter();
    names.map(|name| (name, trailer_length(name).unwrap_or(0)))
}

fn decoded_length(headers: &HeaderMap) -> Result<u64, S3Error> {
    let value = headers
        .get(DECODED_LENGTH)
        .ok_or(ErrorCode::MissingContentLength)?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| {
            S3Error::new(
                ErrorCode::InvalidArgument,
                "x-amz-decoded-content-length must be a number of bytes.",
            )
        })
}

/// Reads a body of bounded size.
async fn read(body: Body, idle: Duration) -> Result<Bytes, S3Error> {
    let mut body = IdleTimeoutBody::new(body, idle);
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            S3Error::from(if error.is::<BodyIdle>() {
                ErrorCode::RequestTimeout
            } else {
                ErrorCode::IncompleteBody
            })
        })?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > REQUEST_BYTES_MAX {
                return Err(ErrorCode::ExpectedPayloadTooLong.into());
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}
