//! Runs a row: all connections first, then the clock, then operations until the time is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use moat_types::{Clock, SystemClock};
use tokio::task::JoinSet;

use crate::prepare;
use crate::request::Target;
use crate::rows::Row;
use crate::usage::cpu_of;
use crate::wire::Connection;
use crate::work::Work;

/// Servers may put work off until after their answer; what they do in this time is still counted.
const AFTERMATH: Duration = Duration::from_millis(250);
/// One broken connection is enough to fail a row; further errors say nothing new.
const ERRORS_MAX: usize = 3;

/// What was measured.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) row: Row,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    /// Of each operation that succeeded, sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// CPU time of the server's processes.
    pub(crate) server_cpu: Duration,
    /// CPU time of the loader itself.
    pub(crate) loader_cpu: Duration,
}

/// Runs a row against `target` for `time`.
///
/// # Errors
/// If nothing could be measured: no connection, no such process, a row whose objects are missing.
pub(crate) async fn run(
    target: &Arc<Target>,
    row: Row,
    time: Duration,
    pids: &[u32],
) -> Result<Figures> {
    let prefix = format!("/new/{}/{}", row.name(), SystemClock.now().0);
    let mut connections = Vec::with_capacity(row.connections());
    for number in 0..row.connections() {
        let mut connection = target.connect().await?;
        let mut work = Work::new(target, row, number, &prefix)?;
        if !row.cleans_up() {
            // The first operation also brings caches and keys in; nobody times that.
            work.step(target, &mut connection)
                .await
                .context("the first request")?;
        }
        connections.push((connection, work));
    }

    let (server_before, loader_before) = (cpu_of(pids)?, cpu_of(&[std::process::id()])?);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (connection, work) in connections {
        tasks.spawn(until(start + time, Arc::clone(target), connection, work));
    }
    let outcomes = tasks.join_all().await;
    let elapsed = start.elapsed();
    let loader_cpu = cpu_of(&[std::process::id()])?.saturating_sub(loader_before);
    tokio::time::sleep(AFTERMATH).await;
    let server_cpu = cpu_of(pids)?.saturating_sub(server_before);

    let mut figures = Figures {
        row,
        elapsed,
        latencies: Vec::new(),
        errors: 0,
        first_error: None,
        server_cpu,
        loader_cpu,
    };
    for outcome in outcomes {
        figures.latencies.extend(outcome.latencies);
        figures.errors += outcome.errors;
        figures.first_error = figures.first_error.or(outcome.first_error);
    }
    figures.latencies.sort_unstable();
    if row.cleans_up() {
        prepare::remove_below(target, &prefix)
            .await
            .context("removing what the row wrote")?;
    }
    Ok(figures)
}

#[derive(Default)]
struct Outcome {
    latencies: Vec<Duration>,
    errors: usize,
    first_error: Option<String>,
}

/// Works on one connection until the deadline. Behind an error comes a new connection.
async fn until(
    deadline: Instant,
    target: Arc<Target>,
    mut connection: Connection,
    mut work: Work,
) -> Outcome {
    let mut outcome = Outcome::default();
    while Instant::now() < deadline && outcome.errors < ERRORS_MAX {
        let start = Instant::now();
        match work.step(&target, &mut connection).await {
            Ok(()) => outcome.latencies.push(start.elapsed()),
            Err(error) => {
                outcome.errors += 1;
                outcome
                    .first_error
                    .get_or_insert_with(|| format!("{error:#}"));
                match target.connect().await {
                    Ok(new) => connection = new,
                    Err(_) => break,
                }
            }
        }
    }
    outcome
}
