//! Either engine, chosen when a process starts.

use std::ops::Range;

use bytes::Bytes;

use crate::{Check, Embedded, Error, MetaStore, Outcome, Page, Postgres, Write};

/// The engine that the configuration names.
pub enum Engine {
    /// In a folder of this process.
    Embedded(Embedded),
    /// In a database that other processes use as well.
    Postgres(Postgres),
}

impl MetaStore for Engine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Embedded(engine) => engine.get(key).await,
            Self::Postgres(engine) => engine.get(key).await,
        }
    }

    async fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        match self {
            Self::Embedded(engine) => engine.scan(range, rows_max, bytes_max).await,
            Self::Postgres(engine) => engine.scan(range, rows_max, bytes_max).await,
        }
    }

    async fn last(&self, range: Range<Bytes>) -> Result<Page, Error> {
        match self {
            Self::Embedded(engine) => engine.last(range).await,
            Self::Postgres(engine) => engine.last(range).await,
        }
    }

    fn revision(&self) -> Option<u64> {
        match self {
            Self::Embedded(engine) => engine.revision(),
            Self::Postgres(engine) => engine.revision(),
        }
    }

    async fn commit(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Outcome, Error> {
        match self {
            Self::Embedded(engine) => engine.commit(checks, writes).await,
            Self::Postgres(engine) => engine.commit(checks, writes).await,
        }
    }
}
