//! What is done again: transactions that the server gave up in favour of others, and anything
//! that a lost connection cut off before it could change something.

use std::time::Duration;

use moat_types::{Random, SystemRandom};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::session::meaning;
use crate::Error;

/// A server that restarts or fails over is back within this time, or operations are refused.
const OUTAGE_MAX: Duration = Duration::from_secs(10);
/// Transactions on the same rows push each other out; with growing pauses this is far more than
/// any load of ours needs.
const CONFLICT_MAX: Duration = Duration::from_secs(20);
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How an attempt failed.
pub(super) enum Failure {
    /// The server chose others over us; nothing was changed.
    Conflict(Error),
    /// No connection, before anything could be changed.
    Outage(Error),
    /// A retry would not help, or would not be safe.
    Final(Error),
}

impl Failure {
    /// The failure of a read, or of a transaction before its commit was sent.
    pub(super) fn before_commit(error: &tokio_postgres::Error, place: &str) -> Self {
        let meaning = meaning(error, place);
        match error.code() {
            Some(code) if is_conflict(code) => Self::Conflict(meaning),
            Some(code) if is_outage(code) => Self::Outage(meaning),
            Some(_) => Self::Final(meaning),
            None => Self::Outage(meaning),
        }
    }

    /// The failure of statements that were on their way together with the commit.
    pub(super) fn during_commit(error: &tokio_postgres::Error, place: &str) -> Self {
        let meaning = meaning(error, place);
        match error.code() {
            Some(code) if is_conflict(code) => Self::Conflict(meaning),
            // Refused, so nothing was changed; after a failover another server takes it.
            Some(code) if *code == SqlState::READ_ONLY_SQL_TRANSACTION => Self::Outage(meaning),
            // The server says why it ends our session, but not whether the commit was before that.
            Some(code) if !ends_session(code) && !is_unknown(code) => Self::Final(meaning),
            _ => Self::Final(Error::Unknown {
                place: place.to_owned(),
            }),
        }
    }
}

fn is_conflict(code: &SqlState) -> bool {
    // A unique violation comes of two first writers of one row, an undefined table of two makers.
    let rolled_back = code.code().starts_with("40") && !is_unknown(code);
    rolled_back || *code == SqlState::UNIQUE_VIOLATION
}

/// 40003: a distributed database can't tell whether the statement was carried out.
fn is_unknown(code: &SqlState) -> bool {
    *code == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
}

/// 08: the connection; 57P: the server is going down or coming up.
fn ends_session(code: &SqlState) -> bool {
    code.code().starts_with("08") || code.code().starts_with("57P")
}

fn is_outage(code: &SqlState) -> bool {
    ends_session(code)
        || *code == SqlState::TOO_MANY_CONNECTIONS
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// The retries of one operation.
pub(super) struct Retries {
    started: Instant,
    pause: Duration,
}

impl Retries {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            pause: PAUSE_MIN,
        }
    }

    /// Waits before the next attempt, or says that there is none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let (error, time_max) = match failure {
            Failure::Conflict(error) => (error, CONFLICT_MAX),
            Failure::Outage(error) => (error, OUTAGE_MAX),
            Failure::Final(error) => return Err(error),
        };
        if self.started.elapsed() >= time_max {
            return Err(error);
        }
        let mut random = [0; 1];
        SystemRandom.fill(&mut random);
        // Between half and all of the pause, so that those who met once do not meet again.
        let pause = self.pause.mul_f64(0.5 + f64::from(random[0]) / 512.0);
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
