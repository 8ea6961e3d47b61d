//! Reads and commits as transactions.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::future::join;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::retry::{Failure, Retries};
use super::{Inner, bytes_of};
use crate::{Check, Error, KEY_BYTES_MAX, Outcome, Write};

/// Longer than the server's own limit for a statement: only a silent network comes to this.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(40);

type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// A commit in the form that statements take: each row once, as its last write leaves it.
pub(super) struct Batch {
    checks: Vec<Check>,
    puts: (Vec<Bytes>, Vec<Bytes>),
    deletes: Vec<Bytes>,
}

impl Batch {
    pub(super) fn new(checks: Vec<Check>, writes: Vec<Write>) -> Result<Self, Error> {
        let mut last = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put(key, value) => last.insert(key, Some(value)),
                Write::Delete(key) => last.insert(key, None),
            };
        }
        if let Some(key) = last.keys().find(|key| key.len() > KEY_BYTES_MAX) {
            let problem = format!(
                "a key has {} bytes, the limit is {KEY_BYTES_MAX}",
                key.len()
            );
            return Err(Error::Engine(problem.into()));
        }
        let (mut puts, mut deletes) = ((Vec::new(), Vec::new()), Vec::new());
        for (key, value) in last {
            match value {
                Some(value) => {
                    puts.0.push(key);
                    puts.1.push(value);
                }
                None => deletes.push(key),
            }
        }
        Ok(Self {
            checks,
            puts,
            deletes,
        })
    }

    /// The index of the first check that does not hold.
    fn judge(&self, rows: &[Row]) -> Result<Option<usize>, Error> {
        let mut found = BTreeMap::new();
        for row in rows {
            found.insert(bytes_of(row, 0)?, bytes_of(row, 1)?);
        }
        let holds = |check: &Check| found.get(&check.key) == check.expected.as_ref();
        Ok(self.checks.iter().position(|check| !holds(check)))
    }
}

impl Inner {
    /// Makes the table unless it is there. Looked for first, because a user who may not make
    /// tables may use one that somebody made for it.
    pub(super) async fn make_table(&self, table: &str) -> Result<(), Error> {
        let look = format!("SELECT 1 FROM {table} LIMIT 1");
        let make =
            format!("CREATE TABLE IF NOT EXISTS {table} (k BYTEA PRIMARY KEY, v BYTEA NOT NULL)");
        let mut retries = Retries::new();
        loop {
            let failure = match self.sessions.connection().await {
                Err(failure) => failure,
                Ok(client) => match client.batch_execute(&look).await {
                    Ok(()) => return Ok(()),
                    Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                        match client.batch_execute(&make).await {
                            Ok(()) => return Ok(()),
                            Err(e) if e.code() == Some(&SqlState::DUPLICATE_TABLE) => return Ok(()),
                            Err(e) => Failure::before_commit(&e, self.sessions.place()),
                        }
                    }
                    Err(e) => Failure::before_commit(&e, self.sessions.place()),
                },
            };
            retries.again(failure).await?;
        }
    }

    /// One statement that changes nothing.
    pub(super) async fn read(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, Error> {
        let mut retries = Retries::new();
        loop {
            match self.read_once(sql, parameters).await {
                Ok(rows) => return Ok(rows),
                Err(failure) => retries.again(failure).await?,
            }
        }
    }

    async fn read_once(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let client = self.sessions.connection().await?;
        let read = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, parameters).await
        };
        match tokio::time::timeout(ATTEMPT_TIME_MAX, read).await {
            Ok(done) => done.map_err(|e| Failure::before_commit(&e, self.sessions.place())),
            Err(_) => {
                // The answer may still come; the connection is of no use until then.
                drop(Object::take(client));
                Err(Failure::Final(self.silent()))
            }
        }
    }

    pub(super) async fn commit(&self, batch: &Batch) -> Result<Outcome, Error> {
        let mut retries = Retries::new();
        loop {
            let client = match self.sessions.connection().await {
                Ok(client) => client,
                Err(failure) => {
                    retries.again(failure).await?;
                    continue;
                }
            };
            let attempt = self.attempt(&client, batch);
            let failure = match tokio::time::timeout(ATTEMPT_TIME_MAX, attempt).await {
                Ok(Ok(outcome)) => return Ok(outcome),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Final(Error::Unknown {
                    place: self.sessions.place().to_owned(),
                }),
            };
            match &failure {
                // The transaction was rolled back before this was returned.
                Failure::Conflict(_) => {}
                _ => drop(Object::take(client)),
            }
            retries.again(failure).await?;
        }
    }

    async fn attempt(&self, client: &Object, batch: &Batch) -> Result<Outcome, Failure> {
        let place = self.sessions.place();
        let before = |e: tokio_postgres::Error| Failure::before_commit(&e, place);
        // Prepared outside the transaction: preparing fails without spoiling one.
        let read = client
            .prepare_cached(&self.sql.read_many)
            .await
            .map_err(before)?;
        let put = client
            .prepare_cached(&self.sql.put_many)
            .await
            .map_err(before)?;
        let delete = client
            .prepare_cached(&self.sql.delete_many)
            .await
            .map_err(before)?;

        let keys = slices(batch.checks.iter().map(|check| &check.key));
        let begun = if keys.is_empty() {
            client.batch_execute("BEGIN").await.map(|()| Vec::new())
        } else {
            // Both go out in one packet; the answers come in this order.
            let (begin, rows) =
                join(client.batch_execute("BEGIN"), client.query(&read, &[&keys])).await;
            begin.and(rows)
        };
        let rows = match begun {
            Ok(rows) => rows,
            Err(e) => {
                self.roll_back(client).await?;
                return Err(before(e));
            }
        };
        if let Some(failed) = batch.judge(&rows).map_err(Failure::Final)? {
            self.roll_back(client).await?;
            return Ok(Outcome::CheckFailed(failed));
        }

        let (put_keys, put_values) = (slices(&batch.puts.0), slices(&batch.puts.1));
        let deletes = slices(&batch.deletes);
        let puts = async {
            match put_keys.is_empty() {
                true => Ok(0),
                false => client.execute(&put, &[&put_keys, &put_values]).await,
            }
        };
        let removals = async {
            match deletes.is_empty() {
                true => Ok(0),
                false => client.execute(&delete, &[&deletes]).await,
            }
        };
        // In one packet as well. If a statement fails, the server makes the COMMIT a rollback.
        let (written, committed) = join(join(puts, removals), client.batch_execute("COMMIT")).await;
        for result in [written.0.map(drop), written.1.map(drop), committed] {
            if let Err(e) = result {
                self.roll_back(client).await?;
                return Err(Failure::during_commit(&e, place));
            }
        }
        Ok(Outcome::Committed)
    }

    /// Leaves the connection outside any transaction. Outside of one already, the server warns
    /// and does nothing.
    async fn roll_back(&self, client: &Object) -> Result<(), Failure> {
        if client.is_closed() {
            // The failure that closed it says more.
            return Ok(());
        }
        let _ = client.batch_execute("ROLLBACK").await;
        Ok(())
    }

    fn silent(&self) -> Error {
        Error::Unreachable {
            place: self.sessions.place().to_owned(),
            reason: format!("no answer within {} s", ATTEMPT_TIME_MAX.as_secs()),
        }
    }
}

fn slices<'a>(from: impl IntoIterator<Item = &'a Bytes>) -> Vec<&'a [u8]> {
    from.into_iter().map(|bytes| &bytes[..]).collect()
}
