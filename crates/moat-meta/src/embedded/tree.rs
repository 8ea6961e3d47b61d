//! The tree on disk: redb, written in large sorted batches from the log.
//!
//! One table holds all rows; another says up to where the log is contained in it, in the same
//! transaction. redb refuses all work after an I/O error until it is opened again, so `reopen`
//! puts a new one in its place; the old one can't write any more from that moment.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{
    Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, StorageBackend, StorageError,
    TableDefinition, TableError,
};

use super::layers::Layer;
use crate::Error;
use crate::files::{DataFile, Files};

const FILE_NAME: &str = "rows.redb";
const NEW_NAME: &str = "rows.redb.new";
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const STATE: TableDefinition<'static, &str, u64> = TableDefinition::new("engine");
/// Keys of the `engine` table.
const FORMAT: &str = "format";
const FLUSHED_SEGMENT: &str = "flushed_segment";
const FLUSHED_SEQUENCE: &str = "flushed_sequence";
const FORMAT_VERSION: u64 = 1;

/// A consistent state of all rows; cheap to read from many threads.
pub(super) type Snapshot = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Up to where the tree contains the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flushed {
    /// The newest segment all of whose rows are in the tree.
    pub(super) segment: u64,
    /// The sequence of its last frame.
    pub(super) sequence: u64,
}

pub(super) struct Tree {
    files: Arc<dyn Files>,
    cache_bytes: usize,
    database: Database,
    fence: Arc<AtomicBool>,
}

impl Tree {
    /// Opens the tree, or makes an empty one if the folder has none.
    pub(super) fn open(files: Arc<dyn Files>, cache_bytes: usize) -> Result<Self, Error> {
        let names = files.list()?;
        if !names.iter().any(|name| name == FILE_NAME) {
            if super::log::has_segments(&names) {
                let problem = format!("{FILE_NAME} is missing beside its log");
                return Err(Error::Corrupt(problem));
            }
            create(&*files, cache_bytes)?;
        }
        let (database, fence) = open_database(&*files, FILE_NAME, cache_bytes)?;
        let tree = Self {
            files,
            cache_bytes,
            database,
            fence,
        };
        match tree.state(FORMAT)? {
            Some(FORMAT_VERSION) => Ok(tree),
            found => Err(Error::Corrupt(format!(
                "{FILE_NAME} has format {found:?}, and this program reads format {FORMAT_VERSION}"
            ))),
        }
    }

    /// Puts a freshly opened database in the place of one that failed. Snapshots of the old one
    /// stop working. After an error the old one is still there.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        self.fence.store(true, Ordering::Release);
        let (database, fence) = open_database(&*self.files, FILE_NAME, self.cache_bytes)?;
        self.database = database;
        self.fence = fence;
        Ok(())
    }

    /// Applies a layer's rows in key order, in one durable transaction.
    pub(super) fn apply(&self, layer: &Layer, flushed: Flushed) -> Result<(), Error> {
        self.write(layer, flushed).map_err(sorted)
    }

    fn write(&self, layer: &Layer, flushed: Flushed) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        // With both, a crash at any moment leaves a file that opens at once to the last commit,
        // without trusting a checksum to tell a whole commit from a torn one.
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut rows = transaction.open_table(ROWS)?;
            for (key, value) in layer {
                match value {
                    Some(value) => drop(rows.insert(&key[..], &value[..])?),
                    None => drop(rows.remove(&key[..])?),
                }
            }
            let mut state = transaction.open_table(STATE)?;
            state.insert(FLUSHED_SEGMENT, flushed.segment)?;
            state.insert(FLUSHED_SEQUENCE, flushed.sequence)?;
        }
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        let open = || Ok(self.database.begin_read()?.open_table(ROWS)?);
        open().map_err(sorted)
    }

    pub(super) fn flushed(&self) -> Result<Flushed, Error> {
        let read = |name| {
            self.state(name)?
                .ok_or_else(|| Error::Corrupt(format!("{FILE_NAME} has no row {name}")))
        };
        Ok(Flushed {
            segment: read(FLUSHED_SEGMENT)?,
            sequence: read(FLUSHED_SEQUENCE)?,
        })
    }

    fn state(&self, name: &str) -> Result<Option<u64>, Error> {
        let read = || {
            let table = match self.database.begin_read()?.open_table(STATE) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(None),
                other => other?,
            };
            Ok(table.get(name)?.map(|value| value.value()))
        };
        read().map_err(sorted)
    }
}

/// Makes an empty tree under another name first, so that a crash half-way leaves none.
fn create(files: &dyn Files, cache_bytes: usize) -> Result<(), Error> {
    files.create(NEW_NAME)?;
    let (database, _) = open_database(files, NEW_NAME, cache_bytes)?;
    write_empty(&database).map_err(sorted)?;
    drop(database);
    files.open(NEW_NAME)?.sync()?;
    files.rename(NEW_NAME, FILE_NAME)?;
    files.sync()?;
    Ok(())
}

fn write_empty(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(ROWS)?;
    {
        let mut state = transaction.open_table(STATE)?;
        state.insert(FORMAT, FORMAT_VERSION)?;
        state.insert(FLUSHED_SEGMENT, 0)?;
        state.insert(FLUSHED_SEQUENCE, 0)?;
    }
    transaction.commit()?;
    Ok(())
}

fn open_database(
    files: &dyn Files,
    name: &str,
    cache_bytes: usize,
) -> Result<(Database, Arc<AtomicBool>), Error> {
    let fence = Arc::new(AtomicBool::new(false));
    let backend = Backend {
        file: files.open(name)?,
        fence: fence.clone(),
    };
    let database = Builder::new()
        .set_cache_size(cache_bytes)
        .create_with_backend(backend)
        .map_err(|error| sorted(error.into()))?;
    Ok((database, fence))
}

/// The file under redb. The folder's lock stands for redb's own.
#[derive(Debug)]
struct Backend {
    file: Arc<dyn DataFile>,
    /// Set when another database took over the file.
    fence: Arc<AtomicBool>,
}

impl Backend {
    fn check_fence(&self) -> io::Result<()> {
        match self.fence.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(io::Error::other("the file was opened anew")),
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_fence()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check_fence()?;
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_fence()?;
        self.file.write(offset, &[data])
    }
}

/// Sorts redb's errors into ours.
fn sorted(error: redb::Error) -> Error {
    match error {
        redb::Error::Io(error) => error.into(),
        redb::Error::Corrupted(problem) => Error::Corrupt(problem),
        other => Error::Engine(Box::new(other)),
    }
}

/// The same for what reads of a snapshot give.
pub(super) fn sorted_storage(error: StorageError) -> Error {
    sorted(error.into())
}
