//! The port through which a store reaches epoch keys. The key manager's client implements it
//! with leases; tests implement it in memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use moat_types::{BucketName, EnclaveName, EpochId, KeyName, KeyVersion, LakeId};

use crate::EpochKey;

/// What an epoch key is for. The key manager binds its wrapped form to all of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EpochScope {
    /// The bucket whose objects are sealed under the epoch.
    pub bucket: BucketName,
    /// The KMS key that wraps the epoch key.
    pub key: KeyName,
    /// The epoch.
    pub epoch: EpochId,
}

/// A new epoch key, leased from now on.
#[derive(Debug, Clone)]
pub struct NewEpoch {
    /// The key version that wrapped it.
    pub version: KeyVersion,
    /// Its wrapped form: opaque, at most 1 KiB, to be kept in one metadata row.
    pub wrapped: Vec<u8>,
    /// The key itself, for as long as the lease lasts.
    pub key: Arc<EpochKey>,
}

/// An epoch key, wrapped anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewrappedEpoch {
    /// The key version that wraps it now.
    pub version: KeyVersion,
    /// Its wrapped form, to take the place of the old one; the same if that was up to date.
    pub wrapped: Vec<u8>,
}

/// What one KMS key guards in a lake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The key.
    pub key: KeyName,
    /// Buckets that have an object under it.
    pub buckets: u64,
    /// Objects under it.
    pub objects: u64,
    /// The bytes of those objects, as their owners see them.
    pub bytes: u64,
}

/// What all KMS keys guard in a lake: what is not named guards nothing there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// The lake.
    pub lake: LakeId,
    /// How long ago the count was finished.
    pub age: Duration,
    /// Key by key.
    pub holdings: Vec<Holding>,
}

/// Why an epoch key could not be had.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum KeyRingError {
    /// The KMS key does not exist in the enclave.
    #[error("KMS key {key} does not exist")]
    NotFound {
        /// The key asked for.
        key: KeyName,
    },
    /// The KMS key was disabled by an operator.
    #[error("KMS key {key} is disabled")]
    Disabled {
        /// The key asked for.
        key: KeyName,
    },
    /// The policy of this store's identity does not allow the operation.
    #[error("the key manager does not let this store use KMS key {key}")]
    Denied {
        /// The key asked for.
        key: KeyName,
    },
    /// The wrapped form does not open: damaged, or of another scope. Never retried.
    #[error("the wrapped epoch key does not open under KMS key {key}")]
    Tampered {
        /// The key asked for.
        key: KeyName,
    },
    /// The key manager can't be reached, or can't answer now. A retry is safe.
    #[error("the key manager can't be reached: {reason}")]
    Unavailable {
        /// The cause, for the log.
        reason: String,
    },
}

/// Gives epoch keys. Implementations are cheap to call again: concurrent calls for one epoch
/// lead to one request (single flight).
pub trait KeyRing: Send + Sync + 'static {
    /// The enclave that the keys live in.
    fn enclave(&self) -> &EnclaveName;

    /// The key of an epoch whose lease is still good, without waiting.
    fn held(&self, epoch: &EpochId) -> Option<Arc<EpochKey>>;

    /// Makes a new epoch key under the latest version of `scope.key` and leases it.
    fn generate(&self, scope: EpochScope) -> BoxFuture<'_, Result<NewEpoch, KeyRingError>>;

    /// Leases the epoch key whose wrapped form this is (or returns the lease that is held).
    fn open(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, Result<Arc<EpochKey>, KeyRingError>>;

    /// Wraps an epoch key under the latest version of `scope.key`, without leasing it.
    fn rewrap(
        &self,
        scope: EpochScope,
        wrapped: Vec<u8>,
    ) -> BoxFuture<'_, Result<RewrappedEpoch, KeyRingError>>;

    /// Says whether the key exists and may be used, without leasing anything.
    fn check(&self, key: KeyName) -> BoxFuture<'_, Result<(), KeyRingError>>;

    /// Tells the key manager what its keys guard, so that it can say so before one is taken away.
    /// Nothing depends on it: a report that fails is made again with the next count.
    fn report(&self, census: Census) -> BoxFuture<'_, Result<(), KeyRingError>>;
}
