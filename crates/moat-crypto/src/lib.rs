//! The envelope: data encryption keys (DEKs), their wrapping under leased epoch keys, and the
//! chunked encryption of blobs.
//!
//! Knows nothing about files, rows or the key manager's wire: it takes bytes and randomness and
//! gives bytes. The format is drawn byte by byte in `docs/design/0001-envelope.md`; vectors stand
//! in `vectors/`.

mod blob;
mod dek;
mod epoch;
mod keyring;
mod place;

pub use blob::{
    BlobLayout, BlobSealer, CHUNK_BYTES, HEADER_BYTES, Run, SEALED_CHUNK_BYTES, TAG_BYTES,
    check_header, open_run,
};
pub use dek::{AttributesKey, Dek, WRAPPED_DEK_BYTES, WrappedDek};
pub use epoch::EpochKey;
pub use keyring::{Census, EpochScope, Holding, KeyRing, KeyRingError, NewEpoch, RewrappedEpoch};
pub use place::{Place, Wrapping};

/// What can go wrong when something is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A wrapped DEK does not open under this key and place: damaged, moved, or the wrong key.
    #[error("the wrapped data key does not open here")]
    Unwrap,
    /// Sealed attributes do not open.
    #[error("the sealed attributes do not open")]
    Attributes,
    /// The header of a blob is not the one that its record promises.
    #[error("the blob header is not that of the blob")]
    Header,
    /// A chunk does not open.
    #[error("chunk {index} of the blob does not open")]
    Chunk {
        /// Counted from 0.
        index: u64,
    },
}
