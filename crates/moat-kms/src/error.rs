//! What an operation of the key manager can end in, apart from success.

use std::time::Duration;

use moat_kms_client::Identity;
use moat_types::{EnclaveName, KeyName, KeyVersion};

use crate::audit::AuditError;
use crate::backup::BackupError;
use crate::hsm::HsmError;
use crate::policy::{Command, PolicyError};
use crate::rows::Algorithm;

/// Why the state could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The state was sealed under another HSM key. Nothing was changed.
    #[error("the key manager's state was sealed under another HSM key; nothing was changed")]
    WrongHsmKey,
    /// The state belongs to this HSM key, but does not open.
    #[error("the key manager's state is damaged in row {row}")]
    Damaged {
        /// The row.
        row: String,
    },
    /// Rows exist, but the row that holds the system's key does not.
    #[error("the key manager's state lacks its system row, but holds others")]
    Incomplete,
    /// The HSM failed.
    #[error("HSM: {0}")]
    Hsm(#[from] HsmError),
    /// The metadata engine failed.
    #[error("key manager state: {0}")]
    Store(#[from] moat_meta::Error),
    /// The audit could not be opened.
    #[error("audit: {0}")]
    Audit(#[from] AuditError),
}

impl From<Error> for OpenError {
    fn from(e: Error) -> Self {
        match e {
            Error::Store(e) => Self::Store(e),
            Error::Hsm(e) => Self::Hsm(e),
            Error::Audit(e) => Self::Audit(e),
            Error::Damaged { row } => Self::Damaged { row },
            _ => Self::Incomplete,
        }
    }
}

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller may not do this. Says the same whether or not the thing exists.
    #[error("{identity} may not use {command} here: {reason}")]
    Denied {
        /// The caller.
        identity: Identity,
        /// What it asked for.
        command: Command,
        /// For the audit and the log; the caller is not told.
        reason: DenyReason,
    },
    /// No such enclave.
    #[error("enclave {enclave} does not exist")]
    EnclaveNotFound {
        /// The enclave.
        enclave: EnclaveName,
    },
    /// The enclave is there already.
    #[error("enclave {enclave} already exists")]
    EnclaveExists {
        /// The enclave.
        enclave: EnclaveName,
    },
    /// No such key.
    #[error("KMS key {key} does not exist")]
    KeyNotFound {
        /// The key.
        key: KeyName,
    },
    /// The key is there already.
    #[error("KMS key {key} already exists")]
    KeyExists {
        /// The key.
        key: KeyName,
    },
    /// The key is disabled.
    #[error("KMS key {key} is disabled")]
    KeyDisabled {
        /// The key.
        key: KeyName,
    },
    /// The key waits out the grace period before its deletion.
    #[error("KMS key {key} is being deleted; restore it within its grace period to use it")]
    KeyDeleting {
        /// The key.
        key: KeyName,
    },
    /// The key has no such version, or not any more.
    #[error("KMS key {key} has no version {version}")]
    KeyVersionNotFound {
        /// The key.
        key: KeyName,
        /// The version.
        version: KeyVersion,
    },
    /// The key is of an algorithm that can't do this.
    #[error("KMS key {key} is for {algorithm} and can't be used for this")]
    KeyUsage {
        /// The key.
        key: KeyName,
        /// Its algorithm.
        algorithm: Algorithm,
    },
    /// The key's material never leaves the key manager.
    #[error("KMS key {key} was not made exportable, so its material stays where it is")]
    KeyNotExportable {
        /// The key.
        key: KeyName,
    },
    /// Imported material of a wrong length.
    #[error("a key for {algorithm} has 32 bytes, and {length} were given")]
    KeyMaterial {
        /// For which algorithm.
        algorithm: Algorithm,
        /// How many bytes were given.
        length: usize,
    },
    /// Without its only version the key would be gone, and no grace period would save it.
    #[error(
        "version {version} is the only one of KMS key {key}; delete the key instead, which can be taken back, or rotate it first"
    )]
    KeyLastVersion {
        /// The key.
        key: KeyName,
        /// The version.
        version: KeyVersion,
    },
    /// The key has as many versions as one may have.
    #[error("KMS key {key} has {limit} versions, which is the limit")]
    KeyVersionLimit {
        /// The key.
        key: KeyName,
        /// The limit.
        limit: u32,
    },
    /// The ciphertext does not open: damaged, moved, or of another key, version or context.
    #[error("the ciphertext does not open under KMS key {key}")]
    InvalidCiphertext {
        /// The key.
        key: KeyName,
        /// The version that the ciphertext names, if it names one.
        version: Option<KeyVersion>,
    },
    /// A length is out of bounds.
    #[error("{what} must be {min} to {max} bytes long")]
    Length {
        /// Of what.
        what: &'static str,
        /// The shortest that is taken.
        min: usize,
        /// The longest that is taken.
        max: usize,
    },
    /// A key that would rotate too often, or never.
    #[error(
        "a key can rotate by itself once an hour at most, and once in a hundred years at least"
    )]
    Rotation,
    /// A grace period that is too long.
    #[error("a deletion waits for a year at most")]
    Grace,
    /// A list is too long.
    #[error("at most {max} {what} are taken at once")]
    Count {
        /// Of what.
        what: &'static str,
        /// The most that is taken.
        max: usize,
    },
    /// The caller asks more often than it may.
    #[error("{identity} asks more often than it may; wait {retry_after:?}")]
    RateLimited {
        /// The caller.
        identity: Identity,
        /// When it may ask again.
        retry_after: Duration,
    },
    /// No such identity.
    #[error("identity {identity} does not exist")]
    IdentityNotFound {
        /// The identity.
        identity: Identity,
    },
    /// The identity is known already.
    #[error("identity {identity} already exists")]
    IdentityExists {
        /// The identity.
        identity: Identity,
    },
    /// A privilege or policy that an identity can't have there.
    #[error("{0}")]
    IdentityForm(&'static str),
    /// No such policy.
    #[error("policy {policy} does not exist")]
    PolicyNotFound {
        /// The policy.
        policy: KeyName,
    },
    /// Identities have the policy, so that they could do nothing without it.
    #[error(
        "{} the policy {policy}, and may do nothing without it: {}; give them another, or force its deletion",
        holders(.count), listed(.some, .count)
    )]
    PolicyInUse {
        /// The policy.
        policy: KeyName,
        /// How many identities have it.
        count: usize,
        /// The first of them, at most [`HOLDERS_NAMED_MAX`].
        some: Vec<Identity>,
    },
    /// The policy document is no good.
    #[error(transparent)]
    PolicyForm(#[from] PolicyError),
    /// Others changed the same row again and again. A retry is safe.
    #[error("the row was changed by others at the same time")]
    Contended,
    /// A row does not open or is malformed.
    #[error("the key manager's state is damaged in row {row}")]
    Damaged {
        /// The row.
        row: String,
    },
    /// The HSM failed.
    #[error("HSM: {0}")]
    Hsm(#[from] HsmError),
    /// The metadata engine failed.
    #[error("key manager state: {0}")]
    Store(#[from] moat_meta::Error),
    /// A backup could not be taken.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The audit could not be written, so the operation was not done or its result withheld.
    #[error("audit: {0}")]
    Audit(#[from] AuditError),
}

/// Identities that [`Error::PolicyInUse`] names: enough to act on, in a message that stays readable.
pub const HOLDERS_NAMED_MAX: usize = 10;

fn holders(count: &usize) -> String {
    match *count {
        1 => "1 identity has".to_owned(),
        count => format!("{count} identities have"),
    }
}

fn listed(some: &[Identity], count: &usize) -> String {
    let mut text = some
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let others = count.saturating_sub(some.len());
    if others > 0 {
        text.push_str(&format!(" and {others} more"));
    }
    text
}

/// Whose fault a failure is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The caller asked for what can't be, or may not.
    Caller,
    /// The caller asked for what is not there.
    Missing,
    /// The server can't do now what it should.
    Server,
}

impl Error {
    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            Self::EnclaveNotFound { .. }
            | Self::KeyNotFound { .. }
            | Self::KeyDeleting { .. }
            | Self::KeyVersionNotFound { .. }
            | Self::IdentityNotFound { .. }
            | Self::PolicyNotFound { .. } => Fault::Missing,
            Self::Contended
            | Self::Damaged { .. }
            | Self::Hsm(_)
            | Self::Backup(_)
            | Self::Store(_)
            | Self::Audit(_) => Fault::Server,
            _ => Fault::Caller,
        }
    }
}

/// Why a caller was refused; goes to the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyReason {
    /// The identity is not known in the enclave.
    UnknownIdentity,
    /// Only an Admin may make an Admin.
    NeedsAdmin,
    /// The identity is a user without a policy.
    NoPolicy,
    /// The policy of the identity was deleted.
    PolicyGone,
    /// Its policy does not allow it.
    NotAllowed,
    /// A rule of its policy denies it.
    DeniedByRule,
}

impl DenyReason {
    /// The text in the audit.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIdentity => "the identity is not known in this enclave",
            Self::NeedsAdmin => "only an Admin may make an Admin",
            Self::NoPolicy => "the identity has no policy",
            Self::PolicyGone => "the policy of the identity was deleted; assign it another",
            Self::NotAllowed => "no rule of its policy allows it",
            Self::DeniedByRule => "a rule of its policy denies it",
        }
    }
}

impl std::fmt::Display for DenyReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
