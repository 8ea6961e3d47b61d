//! The key manager: enclaves, keys, identities, policies and an audit, behind wire fronts.
//!
//! State lives in any [`moat_meta::MetaStore`], every row sealed under the key of its enclave, and
//! those under the HSM key. Knows nothing about objects or blobs: a store is an identity like any
//! other, and what it gets are leases of epoch keys.

pub mod audit;
mod codec;
mod core;
mod envelope;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod hsm;
mod http;
mod policy;
mod rows;
mod seal;
mod state;
mod wires;

pub use crate::core::{
    CONTEXT_BYTES_MAX, Caller, Core, CoreConfig, DATA_KEY_BYTES, DATA_KEY_BYTES_MAX, DataKey,
    Decrypted, EnclaveInfo, Encrypted, EpochGrant, IdentityInfo, KEY_VERSIONS_MAX, KeyInfo,
    KeyVersionInfo, ListQuery, OpenedEpoch, PLAINTEXT_BYTES_MAX, Page, PolicyInfo,
};
pub use envelope::{OVERHEAD_BYTES, ciphertext_version};
pub use error::{DenyReason, Error, OpenError};
pub use hsm::{Hsm, HsmError, HsmKey};
pub use policy::{Command, PATTERNS_MAX, Policy, PolicyError, Verdict};
pub use rows::{Algorithm, Origin, Scope};
pub use wires::body::BODY_TIMEOUT;
pub use wires::{KmsServer, ServerInfo};
