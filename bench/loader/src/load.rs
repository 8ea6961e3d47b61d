//! The frame of every load: all clients are ready first, then the clock runs, then each does its
//! operations until the time is over.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::usage::{cpu_of, resident_bytes_of};

/// One broken connection is enough to fail a load; further errors say nothing new.
const ERRORS_MAX: usize = 3;

/// One connection and what is done on it.
pub(crate) trait Client: Send + 'static {
    /// One operation, which is timed.
    fn step(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Gets ready again behind an error, if it can. A client that can't is done.
    fn recover(&mut self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measured {
    /// From the first operation to the last answer.
    pub(crate) elapsed: Duration,
    /// Of each operation that succeeded, sorted.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) errors: usize,
    pub(crate) first_error: Option<String>,
    /// CPU time of the server's processes.
    pub(crate) server_cpu: Duration,
    /// CPU time of the loader itself.
    pub(crate) loader_cpu: Duration,
    /// Memory of the server's processes at the end, with all connections still open.
    pub(crate) resident_bytes: u64,
}

/// Runs a load for `time`. What the server's processes do in the `aftermath` is theirs as well:
/// some put work off until after their answer.
///
/// # Errors
/// If there is no such process.
pub(crate) async fn run<C: Client>(
    clients: Vec<C>,
    time: Duration,
    pids: &[u32],
    aftermath: Duration,
) -> Result<Measured> {
    let own = [std::process::id()];
    let (server_before, loader_before) = (cpu_of(pids)?, cpu_of(&own)?);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(until(start + time, client));
    }
    let outcomes = tasks.join_all().await;
    let elapsed = start.elapsed();
    let loader_cpu = cpu_of(&own)?.saturating_sub(loader_before);
    let resident_bytes = resident_bytes_of(pids)?;
    if !aftermath.is_zero() {
        tokio::time::sleep(aftermath).await;
    }
    let server_cpu = cpu_of(pids)?.saturating_sub(server_before);

    let mut measured = Measured {
        elapsed,
        latencies: Vec::new(),
        errors: 0,
        first_error: None,
        server_cpu,
        loader_cpu,
        resident_bytes,
    };
    for outcome in outcomes {
        measured.latencies.extend(outcome.latencies);
        measured.errors += outcome.errors;
        measured.first_error = measured.first_error.or(outcome.first_error);
    }
    measured.latencies.sort_unstable();
    Ok(measured)
}

struct Outcome<C> {
    latencies: Vec<Duration>,
    errors: usize,
    first_error: Option<String>,
    /// Open until the memory is read.
    _client: C,
}

async fn until<C: Client>(deadline: Instant, mut client: C) -> Outcome<C> {
    let mut latencies = Vec::new();
    let (mut errors, mut first_error) = (0, None);
    while errors < ERRORS_MAX {
        let start = Instant::now();
        if start >= deadline {
            break;
        }
        match client.step().await {
            Ok(()) => latencies.push(start.elapsed()),
            Err(error) => {
                errors += 1;
                first_error.get_or_insert_with(|| format!("{error:#}"));
                if !client.recover().await {
                    break;
                }
            }
        }
    }
    Outcome {
        latencies,
        errors,
        first_error,
        _client: client,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    /// Works so often, then fails each time.
    struct Fails {
        after: usize,
        recovers: bool,
    }

    impl Client for Fails {
        async fn step(&mut self) -> Result<()> {
            tokio::task::yield_now().await;
            if self.after == 0 {
                bail!("broken");
            }
            self.after -= 1;
            Ok(())
        }

        async fn recover(&mut self) -> bool {
            self.recovers
        }
    }

    async fn load(clients: Vec<Fails>) -> Measured {
        let pids = [std::process::id()];
        let long = Duration::from_secs(3600);
        run(clients, long, &pids, Duration::ZERO).await.unwrap()
    }

    #[tokio::test]
    async fn clients_that_break_end_the_load_and_their_errors_are_counted() {
        let fails = |after, recovers| Fails { after, recovers };
        let measured = load(vec![fails(5, false), fails(2, true)]).await;
        assert_eq!(
            (measured.latencies.len(), measured.errors),
            (7, 1 + ERRORS_MAX)
        );
        assert_eq!(measured.first_error.as_deref(), Some("broken"));
        assert!(measured.latencies.is_sorted() && measured.resident_bytes > 0);
    }

    #[tokio::test]
    async fn a_load_ends_when_its_time_is_over() {
        let client = Fails {
            after: usize::MAX,
            recovers: false,
        };
        let (time, pids) = (Duration::from_millis(20), [std::process::id()]);
        let measured = run(vec![client], time, &pids, Duration::ZERO);
        let measured = measured.await.unwrap();
        assert!(measured.elapsed >= time && measured.errors == 0);
        assert!(!measured.latencies.is_empty());
    }
}
