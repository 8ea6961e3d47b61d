//! The envelope: data encryption keys (DEKs), their wrapping under leased epoch keys, and the
//! chunked encryption of blobs.
//!
//! Knows nothing about files, rows or the key manager's wire. The format is drawn byte by byte in
//! `docs/design/0001-envelope.md`; vectors stand in `vectors/`.

mod epoch;
mod keyring;

pub use epoch::EpochKey;
pub use keyring::{EpochScope, KeyRing, KeyRingError, NewEpoch};
