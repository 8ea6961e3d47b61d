//! The key manager: enclaves, keys, identities, policies and an audit, behind wire fronts.
//!
//! State lives in any [`moat_meta::MetaStore`], every row sealed under the key of its enclave, and
//! those under the HSM key. Knows nothing about objects or blobs: a store is an identity like any
//! other, and what it gets are leases of epoch keys.

pub mod audit;
mod backup;
mod codec;
mod core;
mod envelope;
mod error;
mod feed;
#[doc(hidden)]
pub mod fuzzing;
mod hsm;
mod http;
mod json;
mod kes_store;
mod policy;
mod reserve;
mod rows;
mod seal;
pub mod server_log;
mod state;
mod wires;

pub use crate::core::{
    BATCH_ITEMS_MAX, CONTEXT_BYTES_MAX, Caller, Core, CoreConfig, DATA_KEY_BYTES,
    DATA_KEY_BYTES_MAX, DELETION_GRACE, DELETION_GRACE_MAX, DUE_INTERVAL, DataKey, Decider,
    Decision, Decrypt, Decrypted, EnclaveInfo, Encrypt, Encrypted, EpochGrant, ExportedVersion,
    Force, Generate, Guarded, HsmInfo, HsmRotation, HsmSource, HsmStatus, IMPORTED_VERSIONS_MAX,
    IdentityInfo, Import, KEY_VERSIONS_MAX, KeyInfo, KeyVersionInfo, ListQuery, Mac, MacCode,
    NewKey, NodeConfig, OpenedEpoch, PLAINTEXT_BYTES_MAX, Page, PendingDeletion, PolicyInfo,
    ROTATION_MAX, ROTATION_MIN, RateLimit, RewrappedEpoch, SERVICE_ACCOUNTS_MAX, TAG_BYTES_MAX,
    TAGS_MAX, Tags,
};
pub use backup::{BACKUP_BYTES_MAX, BackupError, BackupInfo, restore};
pub use envelope::{OVERHEAD_BYTES, ciphertext_version};
pub use error::{DenyReason, Error, Fault, HOLDERS_NAMED_MAX, OpenError};
pub use hsm::{Hsm, HsmError, HsmKey, TokenKey, TokenUri, UriError};
pub use kes_store::{StoredKeyError, parse_minio_secret_key, parse_stored_key};
pub use policy::{Command, PATTERNS_MAX, PathPolicy, Policy, PolicyError, Verdict};
pub use rows::{Algorithm, Origin, Scope};
pub use wires::body::{BODIES_BYTES_MAX, BODY_TIMEOUT};
pub use wires::{KmsServer, ServerInfo};
