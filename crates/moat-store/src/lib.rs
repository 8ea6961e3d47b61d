//! S3 object store: buckets, objects, multipart uploads, conditions.
//!
//! Knows nothing about listeners' certificates, files or the key manager's wire: metadata, blobs
//! and epoch keys come in through their traits. `docs/design/0002-metadata.md` draws the rows.

mod batch;
mod buckets;
mod census;
mod collector;
mod copy;
mod envelope;
mod epochs;
mod error;
mod http;
mod list;
mod multipart;
mod objects;
mod payload;
mod rewrap;
mod rows;
mod sink;
mod source;
mod store;
#[cfg(test)]
mod tests;

pub use buckets::SetUpError;
pub use http::{RootCredentials, S3Service, ServiceConfig};
pub use store::{OpenError, Parts, Settings, Store};
