//! The metadata schema. Every row begins with a format byte.
//!
//! | table | key | row |
//! | --- | --- | --- |
//! | `B` | bucket | bucket: creation, default encryption |
//! | `O` | bucket, 0, object key | the current version of an object |
//! | `V` | bucket, 0, escaped key, version | older versions (when versioning arrives) |
//! | `I` | blob id | sealed bytes of a small blob, or a manifest |
//! | `R` | blob id | number of references, where there are several |
//! | `T` | blob id | tombstone: may be freed, or is being written |
//! | `U` | bucket, 0, escaped key, 0 0, upload id | multipart upload |
//! | `P` | upload id, part number | part |
//! | `D` | upload id | result of a completed upload |
//! | `E` | bucket, 0, epoch id | wrapped epoch key |
//! | `C` | bucket, 0, KMS key | the epoch that seals new objects |
//! | `S` | name | format of the database; id of the lake |
//!
//! Formats are documented in `docs/design/0002-metadata.md`.

mod bucket;
mod codec;
pub(crate) mod keys;
mod manifest;
mod object;
mod part;
mod references;
mod upload;

pub(crate) use bucket::{BucketRow, DefaultEncryption};
pub(crate) use codec::Damaged;
pub(crate) use manifest::{ManifestRow, Segment};
pub(crate) use object::{
    Attributes, Body, Checksum, Entry, Envelope, ListedObject, ObjectRow, Scheme, sealed_under,
};
pub(crate) use part::{PartContent, PartRow};
pub(crate) use references::{References, Tombstone};
pub(crate) use upload::{CompletedRow, EpochRow, UploadRow};
