//! Reading a request's body: whole, bounded in size and time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

/// A request fits into some packets; a client that takes longer is stuck.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a body could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BodyError {
    /// It is longer than the request may have.
    TooLarge,
    /// It broke off.
    Broken,
    /// It did not come in time.
    Timeout,
}

/// Reads a body of at most `bytes_max`.
pub(crate) async fn read(body: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    if http_body::Body::size_hint(&body).lower() > bytes_max as u64 {
        return Err(BodyError::TooLarge);
    }
    let read = Limited::new(body, bytes_max).collect();
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Ok(Err(_)) => Err(BodyError::Broken),
        Err(_) => Err(BodyError::Timeout),
    }
}
