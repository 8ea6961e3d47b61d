//! S3 as pure data: SigV4, chunk framing, checksums, XML, request routing, error codes.
//!
//! Nothing here opens a socket or a file, and nothing is async. Bytes, time and randomness come
//! in as arguments, so each part can be fuzzed and tested with vectors. What the parts promise:
//!
//! - [`sigv4`] parses, verifies and makes AWS Signature Version 4, over the request as received.
//! - [`sigv2`] verifies presigned URLs of version 2, which boto3 makes by default.
//! - [`authenticate`] finds the account that signed a request.
//! - [`chunked`] decodes and encodes `aws-chunked` bodies without buffering a chunk.
//! - [`checksum`] runs and compares the payload digests that S3 knows.
//! - [`request`] turns method, host, path, query and headers into an operation and typed values.
//! - [`policy`] reads access policies in the form of AWS and decides by them.
//! - [`xml`] reads request documents within limits and writes answer documents.
//! - [`error`] is the table of S3 error codes: code text, HTTP status, default message.

pub mod authenticate;
pub mod checksum;
pub mod chunked;
pub mod error;
pub mod policy;
pub mod request;
pub mod sigv2;
pub mod sigv4;
pub mod time;
pub mod uri;
pub mod xml;

pub use error::{ErrorCode, S3Error};
