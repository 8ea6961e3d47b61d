//! Runs a row of S3 operations.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use moat_types::{Clock, SystemClock};

use crate::load::{self, Measured};
use crate::prepare;
use crate::request::Target;
use crate::rows::Row;
use crate::wire::Connection;
use crate::work::Work;

/// Servers may put work off until after their answer; what they do in this time is still counted.
const AFTERMATH: Duration = Duration::from_millis(250);

/// What was measured of a row.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) row: Row,
    pub(crate) measured: Measured,
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
    let mut clients = Vec::with_capacity(row.connections());
    for number in 0..row.connections() {
        let mut connection = target.connect().await?;
        let mut work = Work::new(target, row, number, &prefix)?;
        if !row.cleans_up() {
            // The first operation also brings caches and keys in; nobody times that.
            work.step(target, &mut connection)
                .await
                .context("the first request")?;
        }
        clients.push(Client {
            target: Arc::clone(target),
            connection,
            work,
        });
    }
    let measured = load::run(clients, time, pids, AFTERMATH).await?;
    if row.cleans_up() {
        prepare::remove_below(target, &prefix)
            .await
            .context("removing what the row wrote")?;
    }
    Ok(Figures { row, measured })
}

struct Client {
    target: Arc<Target>,
    connection: Connection,
    work: Work,
}

impl load::Client for Client {
    async fn step(&mut self) -> Result<()> {
        self.work.step(&self.target, &mut self.connection).await
    }

    /// Behind an error comes a new connection.
    async fn recover(&mut self) -> bool {
        match self.target.connect().await {
            Ok(new) => {
                self.connection = new;
                true
            }
            Err(_) => false,
        }
    }
}
