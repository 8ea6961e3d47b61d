//! The embedded engine: one folder, one process.

use std::ops::{Bound, Range};
use std::path::Path;
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition,
};
use tokio::sync::{mpsc, oneshot};

use crate::{Check, Error, MetaStore, Outcome, Page, Write};

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");

/// How the engine uses memory.
#[derive(Debug, Clone)]
pub struct Options {
    /// Memory for pages of the tree, in bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
        }
    }
}

type Snapshot = Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>;

struct Request {
    checks: Vec<Check>,
    writes: Vec<Write>,
    answer: oneshot::Sender<Result<Outcome, Error>>,
}

/// Metadata in one folder of this machine.
pub struct Embedded {
    snapshot: Arc<RwLock<Snapshot>>,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// `Error::InUse` if another process has it open.
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(engine)?;
        let path = folder.join("rows.redb");
        let db = Builder::new()
            .set_cache_size(options.cache_bytes)
            .create(&path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => Error::InUse {
                    place: folder.display().to_string(),
                },
                other => engine(other),
            })?;
        let txn = db.begin_write().map_err(engine)?;
        txn.open_table(ROWS).map_err(engine)?;
        txn.commit().map_err(engine)?;
        let snapshot = Arc::new(RwLock::new(open_snapshot(&db)?));
        let (queue, requests) = mpsc::channel(1024);
        let shared = snapshot.clone();
        let writer = std::thread::Builder::new()
            .name("meta-writer".into())
            .spawn(move || write_loop(&db, &shared, requests))
            .map_err(engine)?;
        Ok(Self {
            snapshot,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot.read().expect("no panic while held").clone()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn open_snapshot(db: &Database) -> Result<Snapshot, Error> {
    let txn = db.begin_read().map_err(engine)?;
    Ok(Arc::new(txn.open_table(ROWS).map_err(engine)?))
}

fn write_loop(db: &Database, shared: &RwLock<Snapshot>, mut requests: mpsc::Receiver<Request>) {
    let mut batch = Vec::new();
    while requests.blocking_recv_many(&mut batch, 256) > 0 {
        let result = write_batch(db, &batch);
        let result = result.and_then(|outcomes| {
            *shared.write().expect("no panic while held") = open_snapshot(db)?;
            Ok(outcomes)
        });
        match result {
            Ok(outcomes) => {
                for (request, outcome) in batch.drain(..).zip(outcomes) {
                    let _ = request.answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                let text = error.to_string();
                for request in batch.drain(..) {
                    let _ = request.answer.send(Err(Error::Engine(text.clone().into())));
                }
            }
        }
    }
}

fn write_batch(db: &Database, batch: &[Request]) -> Result<Vec<Outcome>, Error> {
    let mut txn = db.begin_write().map_err(engine)?;
    txn.set_two_phase_commit(true);
    txn.set_quick_repair(true);
    txn.set_durability(Durability::Immediate).map_err(engine)?;
    let mut outcomes = Vec::with_capacity(batch.len());
    {
        let mut table = txn.open_table(ROWS).map_err(engine)?;
        'requests: for request in batch {
            for (index, check) in request.checks.iter().enumerate() {
                let found = table.get(&check.key[..]).map_err(engine)?;
                if found.as_ref().map(|found| found.value()) != check.expected.as_deref() {
                    outcomes.push(Outcome::CheckFailed(index));
                    continue 'requests;
                }
            }
            for write in &request.writes {
                match write {
                    Write::Put(key, value) => {
                        table.insert(&key[..], &value[..]).map_err(engine)?;
                    }
                    Write::Delete(key) => {
                        table.remove(&key[..]).map_err(engine)?;
                    }
                }
            }
            outcomes.push(Outcome::Committed);
        }
    }
    txn.commit().map_err(engine)?;
    Ok(outcomes)
}

impl MetaStore for Embedded {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.snapshot().get(key).map_err(engine)?;
        Ok(found.map(|found| Bytes::copy_from_slice(found.value())))
    }

    async fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        let mut page = Page::default();
        if range.start >= range.end {
            return Ok(page);
        }
        let rows = self
            .snapshot()
            .range::<&[u8]>((
                Bound::Included(&range.start[..]),
                Bound::Excluded(&range.end[..]),
            ))
            .map_err(engine)?;
        for row in rows.take(rows_max) {
            let (key, value) = row.map_err(engine)?;
            page.push(key.value(), value.value());
            if page.bytes() >= bytes_max {
                break;
            }
        }
        Ok(page)
    }

    async fn last(&self, range: Range<Bytes>) -> Result<Page, Error> {
        let mut page = Page::default();
        if range.start >= range.end {
            return Ok(page);
        }
        let mut rows = self
            .snapshot()
            .range::<&[u8]>((
                Bound::Included(&range.start[..]),
                Bound::Excluded(&range.end[..]),
            ))
            .map_err(engine)?;
        if let Some(row) = rows.next_back() {
            let (key, value) = row.map_err(engine)?;
            page.push(key.value(), value.value());
        }
        Ok(page)
    }

    async fn commit(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Outcome, Error> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().expect("closed only by drop");
        let request = Request {
            checks,
            writes,
            answer,
        };
        queue.send(request).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

fn engine(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Engine(Box::new(error))
}
