//! Ordered key-value metadata with transactions: `get`, `scan`, `commit(checks, writes)`.
//!
//! Knows nothing about S3, keys or objects: rows are bytes. One contract suite
//! (`moat_testkit::meta_contract`) holds for every engine.

mod embedded;
mod engine;
pub mod files;
mod postgres;

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;

pub use embedded::{Embedded, Options};
pub use engine::Engine;
pub use postgres::{DatabaseUrl, DatabaseUrlError, Postgres};

/// The longest key. A B-tree page of PostgreSQL must hold three; S3's object keys are at most 1,024
/// bytes, twice that where their zero bytes are escaped.
pub const KEY_BYTES_MAX: usize = 2600;

/// What went wrong in an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or server could not be opened: another process holds it.
    #[error("metadata at {place} is in use by another process")]
    InUse {
        /// Path or address.
        place: String,
    },
    /// No space left on the device. Nothing of the commit was kept; a retry is safe.
    #[error("no space left for metadata")]
    NoSpace,
    /// The engine found its own data damaged. Never retried.
    #[error("metadata is damaged: {0}")]
    Corrupt(String),
    /// The engine is shutting down. Whether the commit happened is not known.
    #[error("the metadata engine is closed")]
    Closed,
    /// The database server does not answer, or refuses us. Nothing was changed; a retry is safe.
    #[error("the database at {place} can't be used: {reason}")]
    Unreachable {
        /// Where it is; holds no password.
        place: String,
        /// What it or the network says.
        reason: String,
    },
    /// The connection ended while a commit was on its way. Whether it happened is not known.
    #[error(
        "the connection to the database at {place} ended during a commit; whether it was kept is not known"
    )]
    Unknown {
        /// Where it is.
        place: String,
    },
    /// Anything else the engine reports.
    #[error("metadata engine: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The same condition once more, for another caller whom it concerns; causes become text.
    fn again(&self) -> Self {
        match self {
            Self::InUse { place } => Self::InUse {
                place: place.clone(),
            },
            Self::NoSpace => Self::NoSpace,
            Self::Corrupt(problem) => Self::Corrupt(problem.clone()),
            Self::Closed => Self::Closed,
            Self::Unreachable { place, reason } => Self::Unreachable {
                place: place.clone(),
                reason: reason.clone(),
            },
            Self::Unknown { place } => Self::Unknown {
                place: place.clone(),
            },
            Self::Engine(cause) => Self::Engine(cause.to_string().into()),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace,
            _ => Self::Engine(Box::new(error)),
        }
    }
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// All checks held; all writes are durable.
    Committed,
    /// The check with this index (in the order given) did not hold; nothing was written.
    CheckFailed(usize),
}

/// A condition on one row, evaluated in the same transaction as the writes.
#[derive(Debug, Clone)]
pub struct Check {
    /// The row.
    pub key: Bytes,
    /// What must be there: `None` for no row, `Some` for exactly this value.
    pub expected: Option<Bytes>,
}

/// One change of a commit. Writes are applied in order; a later one wins over an earlier one
/// of the same row.
#[derive(Debug, Clone)]
pub enum Write {
    /// Sets a row.
    Put(Bytes, Bytes),
    /// Removes a row; no row is no error.
    Delete(Bytes),
}

/// Rows in key order, packed in one buffer so that a page of a thousand costs two allocations.
#[derive(Debug, Default, Clone)]
pub struct Page {
    buffer: Vec<u8>,
    /// End of the key and end of the value of each row, in `buffer`.
    ends: Vec<(u32, u32)>,
}

impl Page {
    /// An empty page with room for `rows` rows of `bytes` bytes in all.
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(rows),
        }
    }

    /// Appends a row; the caller keeps key order.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.buffer.extend_from_slice(key);
        let key_end = self.buffer.len() as u32;
        self.buffer.extend_from_slice(value);
        self.ends.push((key_end, self.buffer.len() as u32));
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the page holds no row.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of keys and values held.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Key and value of row `index`; panics if there is no such row.
    pub fn row(&self, index: usize) -> (&[u8], &[u8]) {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1].1 as usize
        };
        let (key_end, end) = self.ends[index];
        (
            &self.buffer[start..key_end as usize],
            &self.buffer[key_end as usize..end as usize],
        )
    }

    /// Rows in key order.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        (0..self.len()).map(|index| self.row(index))
    }
}

/// An engine. Cheap to clone behind an `Arc`; all methods may be called from many tasks.
///
/// Reads see every commit that returned before they began. Keys are at most [`KEY_BYTES_MAX`] bytes
/// long, values at most 64 MiB.
pub trait MetaStore: Send + Sync + 'static {
    /// The value of a row, or `None`.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Bytes>, Error>> + Send;

    /// Rows with `range.start <= key < range.end` in ascending byte order: at most `rows_max`
    /// rows, and no further row once `bytes_max` bytes are held (so at least one row is returned
    /// if there is one). A page is one consistent snapshot.
    fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Page, Error>> + Send;

    /// The last row of a range, or an empty page.
    fn last(&self, range: Range<Bytes>) -> impl Future<Output = Result<Page, Error>> + Send;

    /// Applies `writes` if all `checks` hold, atomically and durably: when this returns
    /// `Committed`, a power cut loses nothing of it. If the future is dropped, the commit may
    /// or may not happen, but never in part. If the process dies half way, the same.
    fn commit(
        &self,
        checks: Vec<Check>,
        writes: Vec<Write>,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// A number that grows whenever a read might see another row than before. Who asks for it,
    /// then reads, and later gets the same number, need not read again. `None` if that can't be
    /// known without asking the engine, as where others commit to the same database.
    fn revision(&self) -> Option<u64> {
        None
    }
}

/// The smallest key above every key that begins with `prefix` (all 0xFF prefixes are not used).
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            break;
        }
    }
    Bytes::from(end)
}
