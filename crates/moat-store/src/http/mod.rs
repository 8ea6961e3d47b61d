//! S3 over HTTP: requests are parsed, authenticated, dispatched, and answered.
//!
//! Phases of a request: health probes aside, `service` finds the operation and verifies the
//! signature, a handler in `*_ops` turns headers into a call of the store, `answer` builds what
//! goes back.

mod admin;
mod answer;
mod auth;
mod body;
mod bucket_ops;
mod call;
mod checksums;
mod list_ops;
mod multipart_ops;
mod object_ops;
mod service;

pub use auth::RootCredentials;
pub use service::{S3Service, ServiceConfig};
