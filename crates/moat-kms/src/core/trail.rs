//! The audit line of one operation, filled as the operation goes on.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use metrics::{Counter, Histogram};
use moat_meta::MetaStore;
use moat_types::{BucketName, EpochId, KeyName, KeyVersion};

use super::refusals::Refusals;
use super::{Caller, Core};
use crate::audit::{Asked, AuditLog, Facts, Outcome};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::Scope;

/// What is known of an operation that is under way.
pub(super) struct Trail<'a> {
    audit: &'a AuditLog,
    refusals: &'a Refusals,
    started: Instant,
    facts: Facts,
    begun: bool,
    meters: &'a Meters,
    command: Command,
}

/// The metrics of operations. Looked up by their labels when an operation is counted for the first
/// time, because that costs as much as a good part of an operation.
pub(super) struct Meters(Vec<OnceLock<Meter>>);

struct Meter {
    /// In the order of [`OUTCOMES`].
    ended: [Counter; OUTCOMES.len()],
    seconds: Histogram,
}

/// How operations end.
pub(super) const OUTCOMES: [Outcome; 3] = [Outcome::Allowed, Outcome::Denied, Outcome::Error];

impl Meters {
    pub(super) fn new() -> Self {
        Self(Command::ALL.iter().map(|_| OnceLock::new()).collect())
    }

    /// Counts operations that ended alike.
    pub(super) fn count(
        &self,
        command: Command,
        outcome: Outcome,
        duration: Duration,
        count: usize,
    ) {
        // Every command is in the list, which is in the order of their codes.
        let Ok(at) = Command::ALL.binary_search(&command) else {
            return;
        };
        let meter = self.0[at].get_or_init(|| Meter::of(command.as_str()));
        if let Some(at) = OUTCOMES.iter().position(|one| *one == outcome) {
            meter.ended[at].increment(count as u64);
        }
        meter.seconds.record_many(duration.as_secs_f64(), count);
    }
}

impl Meter {
    fn of(operation: &'static str) -> Self {
        Self {
            ended: OUTCOMES.map(|outcome| {
                metrics::counter!(
                    "moat_kms_operations_total",
                    "operation" => operation, "outcome" => outcome.as_str()
                )
            }),
            seconds: metrics::histogram!("moat_kms_operation_seconds", "operation" => operation),
        }
    }
}

impl<M: MetaStore> Core<M> {
    /// The trail of something that the key manager does by itself, because it is due.
    pub(super) fn own_trail(&self, scope: &Scope, command: Command) -> Trail<'_> {
        let nobody = moat_kms_client::Identity::from_spki_sha256([0; 32]);
        self.trail_of(
            Asked {
                identity: None,
                ..self.asked(&Caller::local(nobody), scope, command)
            },
            command,
        )
    }

    pub(super) fn trail(&self, caller: &Caller, scope: &Scope, command: Command) -> Trail<'_> {
        self.trail_of(self.asked(caller, scope, command), command)
    }

    fn trail_of(&self, asked: Asked, command: Command) -> Trail<'_> {
        Trail {
            audit: &self.audit,
            refusals: &self.refusals,
            started: Instant::now(),
            facts: Facts::new(Arc::new(asked)),
            begun: false,
            meters: &self.meters,
            command,
        }
    }

    /// What is known of an operation when it begins.
    pub(super) fn asked(&self, caller: &Caller, scope: &Scope, command: Command) -> Asked {
        Asked {
            time: self.state.clock.now(),
            request_id: caller.request_id.clone(),
            identity: Some(caller.identity),
            source: caller.source.clone(),
            enclave: match scope {
                Scope::System => None,
                Scope::Enclave(name) => Some(name.clone()),
            },
            operation: command.as_str(),
        }
    }
}

impl Trail<'_> {
    pub(super) fn key(mut self, key: &KeyName) -> Self {
        self.facts.key = Some(key.clone());
        self
    }

    pub(super) fn subject(mut self, subject: impl ToString) -> Self {
        self.facts.subject = Some(subject.to_string());
        self
    }

    pub(super) fn context(mut self, context: &[u8]) -> Self {
        self.facts.context = Some(context_hash(context));
        self
    }

    pub(super) fn lease(mut self, bucket: &BucketName, epoch: EpochId) -> Self {
        self.facts.bucket = Some(bucket.as_str().to_owned());
        self.facts.epoch = Some(epoch.to_string());
        self
    }

    pub(super) const fn version(&mut self, version: KeyVersion) {
        self.facts.version = Some(version.number());
    }

    /// Makes it durable that a change is allowed and about to be made.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let mut facts = self.facts.clone();
        facts.outcome = Outcome::Begun;
        facts.micros = micros(self.started.elapsed());
        self.audit.commit(&facts).await?;
        self.begun = true;
        Ok(())
    }

    /// Ends a release or change: a success is answered only when its line is durable.
    pub(super) async fn committed<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.end(result, true).await
    }

    /// Ends an operation that gave nothing away and changed nothing.
    pub(super) async fn noted<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.end(result, false).await
    }

    async fn end<T>(&mut self, result: Result<T, Error>, durable: bool) -> Result<T, Error> {
        let taken = self.started.elapsed();
        conclude(&mut self.facts, &result, taken);
        self.meters
            .count(self.command, self.facts.outcome, taken, 1);
        if matches!(result, Err(Error::RateLimited { .. })) {
            let facts = self.facts.clone();
            let now = tokio::time::Instant::now();
            if self.refusals.gather(facts, now).is_none() {
                return result;
            }
        }
        let written = if self.begun || (durable && result.is_ok()) {
            self.audit.commit(&self.facts).await
        } else {
            self.audit.note(&self.facts).await
        };
        match (result, written) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(e)) => Err(e.into()),
            // Why the operation failed says more than that its line could not be written.
            (Err(e), _) => Err(e),
        }
    }
}

/// Adds how the operation ended.
pub(super) fn conclude<T>(facts: &mut Facts, result: &Result<T, Error>, taken: Duration) {
    facts.micros = micros(taken);
    let Err(error) = result else {
        facts.outcome = Outcome::Allowed;
        return;
    };
    let (outcome, reason) = match error {
        Error::Denied { reason, .. } => (Outcome::Denied, reason.to_string()),
        e => (Outcome::Error, e.to_string()),
    };
    facts.outcome = outcome;
    facts.reason = Some(reason);
    facts.fault = Some(error.fault());
}

/// The hash of a context, as the audit has it.
pub(super) fn context_hash(context: &[u8]) -> [u8; 32] {
    /// Many clients give none, and its hash is always the same one.
    static OF_NOTHING: LazyLock<[u8; 32]> = LazyLock::new(|| sha256(b""));
    match context {
        [] => *OF_NOTHING,
        context => sha256(context),
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn micros(taken: Duration) -> u64 {
    u64::try_from(taken.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_meter() {
        assert!(Command::ALL.is_sorted(), "it is searched by halves");
        let meters = Meters::new();
        for command in Command::ALL {
            meters.count(*command, Outcome::Allowed, Duration::ZERO, 1);
        }
        assert!(meters.0.iter().all(|meter| meter.get().is_some()));
    }
}
