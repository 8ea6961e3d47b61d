//! The audit line of one operation, filled as the operation goes on.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use metrics::{Counter, Histogram};
use moat_meta::MetaStore;
use moat_types::{BucketName, EpochId, KeyName, KeyVersion};

use super::refusals::Refusals;
use super::{Caller, Core};
use crate::audit::{AuditLog, Facts, Outcome};
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
const OUTCOMES: [Outcome; 3] = [Outcome::Allowed, Outcome::Denied, Outcome::Error];

impl Meters {
    pub(super) fn new() -> Self {
        Self(Command::ALL.iter().map(|_| OnceLock::new()).collect())
    }

    fn count(&self, command: Command, outcome: Outcome, duration: Duration) {
        // Every command is in the list, which is in the order of their codes.
        let Ok(at) = Command::ALL.binary_search(&command) else {
            return;
        };
        let meter = self.0[at].get_or_init(|| Meter::of(command.as_str()));
        if let Some(at) = OUTCOMES.iter().position(|one| *one == outcome) {
            meter.ended[at].increment(1);
        }
        meter.seconds.record(duration.as_secs_f64());
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
        let mut trail = self.trail(
            &Caller::local(moat_kms_client::Identity::from_spki_sha256([0; 32])),
            scope,
            command,
        );
        trail.facts.identity = None;
        trail
    }

    /// Ends a batch: one wait for all its lines. If any of it was a release, nothing of it is
    /// answered before all lines are durable.
    pub(super) async fn end_batch<T>(
        &self,
        mut trails: Vec<Trail<'_>>,
        results: Vec<Result<T, Error>>,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let lines = trails
            .iter_mut()
            .zip(&results)
            .map(|(trail, result)| trail.close(result))
            .collect();
        let written = if results.iter().any(Result::is_ok) {
            self.audit.commit_all(lines).await
        } else {
            self.audit.note_all(lines).await
        };
        match written {
            Err(e) if results.iter().any(Result::is_ok) => Err(e.into()),
            _ => Ok(results),
        }
    }

    pub(super) fn trail(&self, caller: &Caller, scope: &Scope, command: Command) -> Trail<'_> {
        Trail {
            audit: &self.audit,
            refusals: &self.refusals,
            started: Instant::now(),
            facts: Facts {
                time: self.state.clock.now(),
                request_id: caller.request_id.clone(),
                identity: Some(caller.identity),
                source: caller.source.clone(),
                enclave: scope.as_str().to_owned(),
                operation: command.as_str(),
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
            },
            begun: false,
            meters: &self.meters,
            command,
        }
    }
}

impl Trail<'_> {
    pub(super) fn key(mut self, key: &KeyName) -> Self {
        self.facts.key = Some(key.as_str().to_owned());
        self
    }

    pub(super) fn subject(mut self, subject: impl ToString) -> Self {
        self.facts.subject = Some(subject.to_string());
        self
    }

    pub(super) fn context(mut self, context: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, context).as_ref());
        self.facts.context = Some(hash);
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
        facts.micros = self.micros();
        self.audit.commit(facts).await?;
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
        let mut facts = self.close(&result);
        if matches!(result, Err(Error::RateLimited { .. })) {
            match self.refusals.gather(facts, tokio::time::Instant::now()) {
                Some(first) => facts = first,
                None => return result,
            }
        }
        let written = if self.begun || (durable && result.is_ok()) {
            self.audit.commit(facts).await
        } else {
            self.audit.note(facts).await
        };
        match (result, written) {
            (Ok(value), Ok(())) => Ok(value),
            (Ok(_), Err(e)) => Err(e.into()),
            // Why the operation failed says more than that its line could not be written.
            (Err(e), _) => Err(e),
        }
    }

    /// The facts of an operation that has ended, for a caller who writes those of several at once.
    /// Nothing is left here.
    pub(super) fn close<T>(&mut self, result: &Result<T, Error>) -> Facts {
        let (outcome, reason) = match result {
            Ok(_) => (Outcome::Allowed, None),
            Err(Error::Denied { reason, .. }) => (Outcome::Denied, Some(reason.to_string())),
            Err(e) => (Outcome::Error, Some(e.to_string())),
        };
        self.facts.outcome = outcome;
        self.facts.reason = reason;
        self.facts.fault = result.as_ref().err().map(Error::fault);
        self.facts.micros = self.micros();
        self.meters
            .count(self.command, outcome, self.started.elapsed());
        self.facts.take()
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_meter() {
        assert!(Command::ALL.is_sorted(), "it is searched by halves");
        let meters = Meters::new();
        for command in Command::ALL {
            meters.count(*command, Outcome::Allowed, Duration::ZERO);
        }
        assert!(meters.0.iter().all(|meter| meter.get().is_some()));
    }
}
