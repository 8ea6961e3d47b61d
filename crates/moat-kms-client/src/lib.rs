//! The key manager seen from outside: identities and API keys, the bodies of its native API, a
//! client, and a [`moat_crypto::KeyRing`] that leases epoch keys over it.
//!
//! The only way in which other members speak to the key manager. Knows nothing about how the key
//! manager keeps its keys.

mod identity;
pub mod wire;

pub use identity::{ApiKey, CredentialError, Identity, Privilege};
