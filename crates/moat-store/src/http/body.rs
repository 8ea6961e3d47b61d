//! Request bodies: the transfer framing is taken off, what the client promised is checked, and
//! the plaintext goes on in pieces.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use moat_net::{Body, IdleTimeoutBody};
use moat_s3::checksum::{ChecksumAlgorithm, ChecksumRequest, Expected, PayloadDigest};
use moat_s3::chunked::{AnnouncedTrailers, ChunkedDecoder, Framing, Trailers};
use moat_s3::{ErrorCode, S3Error};

use super::call::Call;
use super::checksums::{algorithm_of, of_payload};
use crate::error::{Error, Result};
use crate::payload::{Payload, PayloadSummary};

/// A body whose plaintext is an object or a part.
pub(super) struct RequestBody {
    body: IdleTimeoutBody<Body>,
    framing: Option<ChunkedDecoder>,
    /// Received bytes that the decoder has not taken yet.
    received: Bytes,
    expected: Expected,
    digest: Option<PayloadDigest>,
}

impl RequestBody {
    /// The body of a PUT.
    pub(super) fn of_object(call: &Call<'_>, body: Body, idle_timeout: Duration) -> Result<Self> {
        Self::new(call, body, idle_timeout)
    }

    /// The body of a part. Every part of an upload with checksums gets one of its algorithm.
    pub(super) fn of_part(
        call: &Call<'_>,
        body: Body,
        upload_kind: u8,
        idle_timeout: Duration,
    ) -> Result<Self> {
        let mut this = Self::new(call, body, idle_timeout)?;
        let wanted = algorithm_of(upload_kind);
        match (&this.expected.checksum, wanted) {
            (None, Some(algorithm)) => {
                this.expected.checksum = Some(ChecksumRequest::Computed(algorithm));
            }
            (Some(sent), Some(algorithm)) if sent.algorithm() != algorithm => {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    format!(
                        "Checksum Type mismatch occurred, expected checksum Type: {}, actual \
                         checksum Type: {}",
                        algorithm.name().to_ascii_lowercase(),
                        sent.algorithm().name().to_ascii_lowercase()
                    ),
                ));
            }
            _ => {}
        }
        Ok(this)
    }

    fn new(call: &Call<'_>, body: Body, idle_timeout: Duration) -> Result<Self> {
        let headers = &call.parts.headers;
        let mut expected = Expected::from_headers(headers, call.payload)?;
        let framing = match Framing::new(call.payload, call.chunk_seed.as_ref()) {
            None => {
                // Without the header an empty body can't be told from a forgotten one.
                if !headers.contains_key(http::header::CONTENT_LENGTH) {
                    return Err(ErrorCode::MissingContentLength.into());
                }
                expected.length = expected
                    .length
                    .or(http_body::Body::size_hint(&body).exact());
                None
            }
            Some(framing) => {
                let announced = AnnouncedTrailers::from_headers(headers).map_err(S3Error::from)?;
                let length = expected.length.ok_or(ErrorCode::MissingContentLength)?;
                Some(ChunkedDecoder::new(framing, length, announced))
            }
        };
        let body = IdleTimeoutBody::new(body, idle_timeout);
        Ok(Self {
            body,
            framing,
            received: Bytes::new(),
            expected,
            digest: None,
        })
    }

    /// The next bytes as they come from the connection.
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(broken(&error)),
            }
        }
    }

    async fn next_plain(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(decoder) = &mut self.framing else {
                return self.receive().await;
            };
            if let Some(piece) = decoder.decode(&mut self.received).map_err(S3Error::from)? {
                return Ok(Some(piece));
            }
            match self.receive().await? {
                Some(bytes) => self.received = bytes,
                None => return Ok(None),
            }
        }
    }

    fn digest(&mut self) -> &mut PayloadDigest {
        self.digest
            .get_or_insert_with(|| PayloadDigest::new(self.expected.clone()))
    }
}

impl Payload for RequestBody {
    fn need_md5(&mut self) {
        self.expected.compute_md5 = true;
    }

    fn length(&self) -> Option<u64> {
        self.expected.length
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let piece = self.next_plain().await?;
        if let Some(piece) = &piece {
            self.digest().update(piece)?;
        }
        Ok(piece)
    }

    fn finish(mut self) -> Result<PayloadSummary> {
        self.digest();
        let trailers = match self.framing {
            Some(decoder) => decoder.finish().map_err(S3Error::from)?,
            None => Trailers::default(),
        };
        let digest = self.digest.expect("it was made on the line above");
        let digested = digest.finish(&trailers)?;
        Ok(PayloadSummary {
            md5: digested.md5,
            checksum: digested.checksum.as_ref().map(of_payload),
        })
    }
}

/// A whole document, at most `bytes_max` bytes, with its digests checked.
pub(super) async fn small_body(call: &Call<'_>, body: Body, bytes_max: usize) -> Result<Bytes> {
    let payload = RequestBody::of_document(call, &call.parts.headers, body)?;
    collect(payload, bytes_max).await
}

/// As [`small_body`], where the checksum that the headers state is that of an object and not of
/// the document: CompleteMultipartUpload.
pub(super) async fn small_body_about_an_object(
    call: &Call<'_>,
    body: Body,
    bytes_max: usize,
) -> Result<Bytes> {
    let mut headers = call.parts.headers.clone();
    for algorithm in ChecksumAlgorithm::ALL {
        headers.remove(algorithm.header_name());
    }
    let payload = RequestBody::of_document(call, &headers, body)?;
    collect(payload, bytes_max).await
}

async fn collect(mut payload: RequestBody, bytes_max: usize) -> Result<Bytes> {
    let mut document = Vec::new();
    while let Some(piece) = payload.next().await? {
        if document.len() + piece.len() > bytes_max {
            return Err(ErrorCode::ExpectedPayloadTooLong.into());
        }
        document.extend_from_slice(&piece);
    }
    payload.finish()?;
    Ok(document.into())
}

/// How long a client may take for the next bytes of a document.
const DOCUMENT_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

impl RequestBody {
    /// Documents may come without a length: their size is bounded as they are read.
    fn of_document(call: &Call<'_>, headers: &HeaderMap, body: Body) -> Result<Self> {
        if Framing::new(call.payload, call.chunk_seed.as_ref()).is_some() {
            return Self::new(call, body, DOCUMENT_IDLE_TIMEOUT);
        }
        let expected = Expected::from_headers(headers, call.payload)?;
        let body = IdleTimeoutBody::new(body, DOCUMENT_IDLE_TIMEOUT);
        Ok(Self {
            body,
            framing: None,
            received: Bytes::new(),
            expected,
            digest: None,
        })
    }
}

/// The connection ended, or nothing came in time.
fn broken(error: &moat_net::BoxError) -> Error {
    if error.is::<moat_net::BodyIdle>() {
        return Error::from(ErrorCode::RequestTimeout).because(error);
    }
    Error::from(ErrorCode::IncompleteBody).because(error)
}
