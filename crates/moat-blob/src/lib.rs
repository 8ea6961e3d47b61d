//! Immutable blob engines: `create -> append -> finish (durable)`, `read(range)`, `delete`.
//!
//! Knows nothing about encryption or S3: blobs are bytes under a random id. One contract suite
//! (`moat_testkit::blob_contract`) holds for every engine.

mod disk;
mod read_bytes;

use std::future::Future;
use std::ops::Range;

use moat_types::BlobId;

pub use disk::{Disk, DiskReader, DiskWriter};
pub use read_bytes::ReadBytes;

/// What went wrong in an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No blob of this id.
    #[error("blob {0} does not exist")]
    NotFound(BlobId),
    /// A blob of this id exists already; ids are random, so this is a programmer's error.
    #[error("blob {0} exists already")]
    Exists(BlobId),
    /// The blob is shorter than the range asked for: it was damaged.
    #[error("blob {id} ends at byte {found} before byte {wanted}")]
    Short {
        /// The blob.
        id: BlobId,
        /// Where it ends, in bytes; padding counts.
        found: u64,
        /// The end of the range asked for.
        wanted: u64,
    },
    /// No space left on the device. Nothing of the blob is kept.
    #[error("no space left for blobs")]
    NoSpace,
    /// Any other error of the system.
    #[error("blob {id}: {action}: {source}")]
    Io {
        /// The blob.
        id: BlobId,
        /// What was being done, as in "sync".
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder could not be opened.
    #[error("blob folder {path}: {source}")]
    Folder {
        /// Its path.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// An engine.
pub trait BlobStore: Send + Sync + 'static {
    /// The blob being written.
    type Writer: BlobWriter;
    /// An open blob.
    type Reader: BlobReader;

    /// Begins a blob. It can't be read before `finish`. `size_hint` is the expected length in
    /// bytes, 0 if not known; a wrong one costs time and nothing else.
    fn create(
        &self,
        id: BlobId,
        size_hint: u64,
    ) -> impl Future<Output = Result<Self::Writer, Error>> + Send;

    /// Opens a blob for reading. What is open stays readable while it is being deleted.
    fn open(&self, id: BlobId) -> impl Future<Output = Result<Self::Reader, Error>> + Send;

    /// Removes a blob, finished or abandoned half-way by a process that died; no blob is no
    /// error (a delete may be repeated after a crash).
    fn delete(&self, id: BlobId) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A blob being written. Dropping it without `finish` leaves nothing behind.
pub trait BlobWriter: Send + 'static {
    /// Appends bytes. Returns once they are copied or handed over; back-pressure is the wait.
    fn append(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes the blob durable (data and name) and readable. Returns its length in bytes.
    fn finish(self) -> impl Future<Output = Result<u64, Error>> + Send;
}

/// What an engine may keep behind the last byte of a blob, in bytes.
pub const PADDING_MAX: u64 = 4095;

/// An open blob.
pub trait BlobReader: Send + Sync + 'static {
    /// Reads exactly `range`.
    ///
    /// Whoever reads knows from its own records how long the blob is: an engine may keep up to
    /// [`PADDING_MAX`] bytes behind the end, which mean nothing.
    ///
    /// # Errors
    /// `Error::Short` if the blob and its padding end before `range.end`.
    fn read(&self, range: Range<u64>) -> impl Future<Output = Result<ReadBytes, Error>> + Send;
}
