//! What a line of an operation says, in the form in which the operation gathers it.

use std::sync::Arc;

use moat_kms_client::Identity;
use moat_types::{EnclaveName, KeyName, UnixMillis};

use super::Outcome;
use crate::error::Fault;

/// What was asked: the part of the facts that is known before anything is decided. The lines of a
/// batch share it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When the operation began.
    pub time: UnixMillis,
    /// The request it came with.
    pub request_id: Arc<str>,
    /// Who asked.
    pub identity: Option<Identity>,
    /// From where.
    pub source: Arc<str>,
    /// In which enclave; none for the system.
    pub enclave: Option<EnclaveName>,
    /// What was asked for, as policies name it.
    pub operation: &'static str,
}

/// The facts of one operation.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What was asked.
    pub asked: Arc<Asked>,
    /// The KMS key.
    pub key: Option<KeyName>,
    /// The version of the KMS key that was used.
    pub version: Option<u32>,
    /// SHA-256 of the context.
    pub context: Option<[u8; 32]>,
    /// The bucket of a lease.
    pub bucket: Option<String>,
    /// The epoch of a lease.
    pub epoch: Option<String>,
    /// What else it was about.
    pub subject: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// Whose fault it is that it failed. For those who follow the log; the line has the reason.
    pub fault: Option<Fault>,
    /// How long it took, in microseconds.
    pub micros: u64,
}

impl Facts {
    /// The facts of an operation of which nothing else is known yet. It failed, until it is known
    /// to have ended otherwise.
    pub const fn new(asked: Arc<Asked>) -> Self {
        Self {
            asked,
            key: None,
            version: None,
            context: None,
            bucket: None,
            epoch: None,
            subject: None,
            outcome: Outcome::Error,
            reason: None,
            fault: None,
            micros: 0,
        }
    }

    /// What it was about: a KMS key, or something else that has a name.
    pub fn name(&self) -> Option<&str> {
        let key = self.key.as_ref().map(KeyName::as_str);
        key.or(self.subject.as_deref())
    }
}
