//! The body of a request as the store takes it in: plaintext pieces, digested on the way.

use std::future::Future;

use bytes::Bytes;

use crate::error::Result;
use crate::rows::Checksum;

/// What was found out about a payload on its way in.
#[derive(Debug, Default, Clone)]
pub(crate) struct PayloadSummary {
    /// Only where `need_md5` was called, or the client sent Content-MD5.
    pub(crate) md5: Option<[u8; 16]>,
    /// The checksum that the client asked for, verified.
    pub(crate) checksum: Option<Checksum>,
}

/// A payload coming in.
pub(crate) trait Payload: Send {
    /// Asks for the MD5 of the content. Called before the first `next`.
    fn need_md5(&mut self);

    /// Plaintext length in bytes if it is known beforehand.
    fn length(&self) -> Option<u64>;

    /// The next piece, or `None` at the proper end. A body that ends early is an error.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Compares what was received with what the client promised. Called once, after `None`.
    fn finish(self) -> Result<PayloadSummary>;
}
