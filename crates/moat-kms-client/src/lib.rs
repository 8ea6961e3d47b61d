//! The key manager seen from outside: identities and API keys, the bodies of its native API, a
//! client, and a [`moat_crypto::KeyRing`] that leases epoch keys over it.
//!
//! The only way in which other members speak to the key manager. Knows nothing about how the key
//! manager keeps its keys.

mod client;
mod curve;
mod error;
mod identity;
mod problem;
mod ring;
mod source;
mod transport;
pub mod wire;

pub use client::{AuditOptions, Client, ClientConfig, Credential, DEFAULT_PORT, ListOptions};
pub use error::{Error, SetupError};
pub use identity::{ApiKey, CredentialError, Identity, Privilege};
pub use problem::{Code, PROBLEM_JSON, Problem};
pub use ring::RemoteKeyRing;
pub use transport::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, REST};
