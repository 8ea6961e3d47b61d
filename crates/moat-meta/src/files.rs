//! The little that the embedded engine asks of a file system, so that tests can put a simulated
//! disk under it (`moat_testkit::sim_disk`) that forgets what was not synced.

use std::fmt::Debug;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Error;

/// One folder of files. A name (created, renamed or removed) survives a power cut once `sync`
/// returned; contents survive once the file's own `sync` returned.
pub trait Files: Debug + Send + Sync + 'static {
    /// Names of all files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>>;

    /// Makes an empty file, replacing what has this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>>;

    /// Gives a file another name, replacing what has that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file; it stays usable where it is open.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync(&self) -> io::Result<()>;

    /// Free space for files, in bytes; `u64::MAX` if not known.
    fn free_bytes(&self) -> u64;
}

/// An open file.
#[allow(
    clippy::len_without_is_empty,
    reason = "a length in the file system's sense, which can fail"
)]
pub trait DataFile: Debug + Send + Sync + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`, or fails with `UnexpectedEof`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all slices one after the other; the file grows if needed.
    fn write(&self, offset: u64, slices: &[&[u8]]) -> io::Result<()>;

    /// Cuts the file, or lengthens it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
}

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK_NAME: &str = "lock";

/// A folder of this machine, locked for this process.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// The open folder: for syncs and free space.
    handle: File,
    /// Held as long as this lives; the kernel lets go of it when the process dies.
    _lock: File,
}

impl Folder {
    /// Opens a folder, or makes it (mode 0700, synced), and locks it.
    ///
    /// # Errors
    /// `Error::InUse` if another process, or another engine of this process, has the lock.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        Self::open_and_lock(path)?.ok_or_else(|| Error::InUse {
            place: path.display().to_string(),
        })
    }

    fn open_and_lock(path: &Path) -> Result<Option<Self>, io::Error> {
        make_folders(path)?;
        let path = path.canonicalize()?;
        // It may be there without being durable: made by a process that died.
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Some(Self {
            handle: File::open(&path)?,
            path,
            _lock: lock,
        }))
    }
}

/// Makes a folder and those above it that are missing, each durable in its parent.
fn make_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folders(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        other => other?,
    }
    File::open(parent)?.sync_all()
}

impl Files for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DataFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> u64 {
        match rustix::fs::fstatvfs(&self.handle) {
            Ok(volume) => volume.f_bavail.saturating_mul(volume.f_frsize),
            Err(_) => u64::MAX,
        }
    }
}

impl DataFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }

    fn write(&self, mut offset: u64, slices: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut rest = &mut slices[..];
        // Takes empty slices off the front, so that a result of 0 means that nothing can be written.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match rustix::io::pwritev(self, rest, offset) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    offset += count as u64;
                    IoSlice::advance_slices(&mut rest, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
