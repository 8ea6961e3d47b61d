//! The disk engine: one file per blob, in folders named by the first digits of the id.
//!
//! ```text
//! ROOT/a/bc/abc0...   a finished blob: never changes, mode 0600
//! ROOT/a/bc/abc0....part   one that is being written, or that a dead process left
//! ```
//!
//! A file ends with zeros up to a multiple of 4 KiB, so that it can be written past the page cache.
//!
//! `finish` answers when data and name are on the disk: the file is renamed and synced, and its
//! folder synced. A folder made on the way is synced into its parent before a blob in it is
//! answered for. Whoever writes metadata that names a blob does so after `finish`.
//!
//! Threads: small reads that the page cache holds are answered on the caller's thread, because a hop
//! to another thread costs more than the copy; the kernel tells (`RWF_NOWAIT`, `RESOLVE_CACHED`)
//! when it would have to wait for the disk, and only then the work moves to a blocking thread.
//! Writes always go to blocking threads, in runs of a megabyte, while the next run comes in.

mod blocks;
mod buffers;
mod folders;
mod group_sync;
mod part;
mod reader;
mod writer;

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use moat_types::BlobId;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use tokio::sync::watch;

pub(crate) use self::buffers::Lent;
pub use self::reader::DiskReader;
pub use self::writer::DiskWriter;

use self::buffers::Buffers;
use self::folders::Folders;
use crate::{BlobStore, Error};

/// Blobs in one folder of this machine.
pub struct Disk {
    shared: Arc<Shared>,
}

/// What the engine, its writers and their blocking threads hold together.
struct Shared {
    folders: Folders,
    /// Whether the file system knows direct writes.
    direct: bool,
    buffers: Arc<Buffers>,
    /// Number of unfinished files on the disk that a writer or its clean-up still owns.
    parts: watch::Sender<usize>,
}

impl Shared {
    fn open(root: &Path) -> std::io::Result<Self> {
        Ok(Self {
            folders: Folders::open(root)?,
            direct: blocks::knows_direct_writes(root),
            buffers: Arc::default(),
            parts: watch::Sender::new(0),
        })
    }
}

impl Disk {
    /// Opens the folder, or makes it (mode 0700, synced).
    ///
    /// # Errors
    /// `Error::Folder` if it can't be made or read.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, Error> {
        let root = root.as_ref();
        let shared = Shared::open(root).map_err(|source| Error::Folder {
            path: root.to_owned(),
            source,
        })?;
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Waits until no unfinished blob of this process is on the disk: writers are finished, or
    /// dropped and cleaned up after. For a shutdown, and for tests.
    pub async fn settled(&self) {
        let mut parts = self.shared.parts.subscribe();
        // The sender lives in `self`, so the channel can't be closed.
        let _ = parts.wait_for(|count| *count == 0).await;
    }
}

impl BlobStore for Disk {
    type Writer = DiskWriter;
    type Reader = DiskReader;

    async fn create(&self, id: BlobId, size_hint: u64) -> Result<DiskWriter, Error> {
        Ok(DiskWriter::new(self.shared.clone(), id, size_hint))
    }

    async fn open(&self, id: BlobId) -> Result<DiskReader, Error> {
        let path = self.shared.folders.blob(id);
        let file = match open_if_cached(&path) {
            Some(opened) => opened,
            None => blocking(id, "open", move || File::open(path)).await?,
        };
        match file {
            Ok(file) => Ok(DiskReader::new(id, file, self.shared.clone())),
            Err(source) if source.kind() == ErrorKind::NotFound => Err(Error::NotFound(id)),
            Err(source) => Err(io_error(id, "open", source)),
        }
    }

    async fn delete(&self, id: BlobId) -> Result<(), Error> {
        let shared = self.shared.clone();
        blocking(id, "delete", move || shared.folders.remove(id))
            .await?
            .map_err(|source| io_error(id, "delete", source))
    }
}

/// Opens a file for reading if that needs no disk access. `None`: ask again on a thread that may
/// wait (the name is not cached, or the kernel or a sandbox does not know `openat2`).
fn open_if_cached(path: &Path) -> Option<std::io::Result<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => Some(Ok(File::from(file))),
        Err(_) => None,
    }
}

/// Runs work that may wait for the disk on a blocking thread.
async fn blocking<T: Send + 'static>(
    id: BlobId,
    action: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|stopped| io_error(id, action, std::io::Error::other(stopped)))
}

/// Sorts an error of the system: a full disk (or quota) is a condition of its own.
fn io_error(id: BlobId, action: &'static str, source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace,
        _ => Error::Io { id, action, source },
    }
}
