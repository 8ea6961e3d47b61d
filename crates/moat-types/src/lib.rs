//! Words everyone shares: names, ids, secret wrappers, time and randomness.
//!
//! Knows nothing about S3, HTTP, files or sockets. Everything here is either a checked name
//! (parse once, then pass the type), an opaque id, or a port to the outside world (`Clock`,
//! `Random`) that the simulated world of the tests can replace.

mod id;
mod name;
mod secret;
mod world;

pub use id::{BlobId, EpochId, LakeId, UploadId, VersionId};
pub use name::{BucketName, EnclaveName, KeyName, KeyVersion, NameError, ObjectKey, PartNumber};
pub use secret::{SecretBuffer, SecretBytes, SecretString};
pub use world::{Clock, Random, SystemClock, SystemRandom, UnixMillis};
