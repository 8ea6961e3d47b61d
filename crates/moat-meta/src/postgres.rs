//! The engine for several processes over one database: one table of byte strings on anything that
//! speaks PostgreSQL's protocol.
//!
//! ```text
//! CREATE TABLE <table> (k BYTEA PRIMARY KEY, v BYTEA NOT NULL)
//! ```
//!
//! Every statement runs at isolation level SERIALIZABLE, reads included, so a check that holds in
//! a commit held at the moment of the commit, also for rows that are absent. A transaction that
//! the server gives up (SQLSTATE class 40) is done again. Portable SQL alone: no functions, types
//! or locks that only one vendor has.

mod commit;
mod retry;
mod session;
mod url;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ClientConfig;
use tokio_postgres::Row;

use crate::{Check, Error, MetaStore, Outcome, Page, Write};
use commit::Batch;
use session::Sessions;
pub use url::{DatabaseUrl, DatabaseUrlError};

/// A table in a database. Clones share the connections.
#[derive(Clone)]
pub struct Postgres(Arc<Inner>);

struct Inner {
    sessions: Sessions,
    sql: Statements,
}

/// The texts of all statements; each connection prepares them once.
struct Statements {
    get: String,
    scan: String,
    last: String,
    read_many: String,
    put_many: String,
    delete_many: String,
}

impl Statements {
    fn new(table: &str) -> Self {
        // The sum of what stands before a row decides whether the row is still given, so that a
        // page of large values is cut where the contract says, in one statement.
        let scan = format!(
            "SELECT k, v FROM (SELECT k, v, SUM(octet_length(k) + octet_length(v)) OVER \
             (ORDER BY k ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS held FROM \
             (SELECT k, v FROM {table} WHERE k >= $1 AND k < $2 ORDER BY k LIMIT $3) AS rows) AS page \
             WHERE held IS NULL OR held < $4::BIGINT ORDER BY k"
        );
        Self {
            get: format!("SELECT v FROM {table} WHERE k = $1"),
            scan,
            last: format!(
                "SELECT k, v FROM {table} WHERE k >= $1 AND k < $2 ORDER BY k DESC LIMIT 1"
            ),
            read_many: format!("SELECT k, v FROM {table} WHERE k = ANY($1)"),
            put_many: format!(
                "INSERT INTO {table} (k, v) SELECT * FROM unnest($1::BYTEA[], $2::BYTEA[]) \
                 ON CONFLICT (k) DO UPDATE SET v = excluded.v"
            ),
            delete_many: format!("DELETE FROM {table} WHERE k = ANY($1)"),
        }
    }
}

impl Postgres {
    /// Connects, and makes the table if it is missing. `tls` is used if the URL asks for it, and
    /// verifies the server.
    ///
    /// # Errors
    /// `Error::Unreachable` names what the server or the network says; a server that runs without
    /// fsync is refused, because it would lose acknowledged commits.
    ///
    /// # Panics
    /// If `table` is not made of lower-case letters and `_`.
    pub async fn connect(
        url: &DatabaseUrl,
        table: &str,
        tls: Option<ClientConfig>,
    ) -> Result<Self, Error> {
        assert!(
            table.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "the table's name goes into statements as it stands"
        );
        let sessions = Sessions::open(url, tls)?;
        let inner = Inner {
            sessions,
            sql: Statements::new(table),
        };
        inner.make_table(table).await?;
        Ok(Self(Arc::new(inner)))
    }
}

impl MetaStore for Postgres {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let rows = self.0.read(&self.0.sql.get, &[&key]).await?;
        rows.first().map(|row| bytes_of(row, 0)).transpose()
    }

    async fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        let (start, end) = (&range.start[..], &range.end[..]);
        let (rows_max, bytes_max) = (limit(rows_max), limit(bytes_max).max(1));
        let rows = self
            .0
            .read(&self.0.sql.scan, &[&start, &end, &rows_max, &bytes_max])
            .await?;
        page_of(&rows)
    }

    async fn last(&self, range: Range<Bytes>) -> Result<Page, Error> {
        let (start, end) = (&range.start[..], &range.end[..]);
        page_of(&self.0.read(&self.0.sql.last, &[&start, &end]).await?)
    }

    async fn commit(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Outcome, Error> {
        let batch = Batch::new(checks, writes)?;
        let inner = Arc::clone(&self.0);
        // In a task of its own: a caller that goes away must not leave a connection in the middle
        // of a transaction.
        let commit = tokio::spawn(async move { inner.commit(&batch).await });
        commit.await.unwrap_or(Err(Error::Closed))
    }
}

fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn page_of(rows: &[Row]) -> Result<Page, Error> {
    let mut page = Page::with_capacity(rows.len(), 0);
    for row in rows {
        page.push(column(row, 0)?, column(row, 1)?);
    }
    Ok(page)
}

fn bytes_of(row: &Row, at: usize) -> Result<Bytes, Error> {
    column(row, at).map(Bytes::copy_from_slice)
}

fn column(row: &Row, at: usize) -> Result<&[u8], Error> {
    row.try_get(at).map_err(|_| {
        Error::Corrupt("the database's table does not have the columns k and v of bytes".into())
    })
}
