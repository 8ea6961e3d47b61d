//! The files of an audit folder: `audit-<number of the first line>.jsonl`, in order of names, and
//! what else is set aside there. Each file begins with a checkpoint.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// The audit files of a folder, in order.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if first_seq(&path).is_some() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The number of the first line of a file, by its name.
pub(crate) fn first_seq(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse().ok()
}

/// The path of the file that begins with line `seq`; 20 digits hold every number.
pub(crate) fn path_of(folder: &Path, seq: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{seq:020}{SUFFIX}"))
}

/// A file that lines are appended to. A trait so that tests can fill the disk.
pub(crate) trait LogFile: Send {
    /// Appends all of `bytes`, or fails with some of them written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file back to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl LogFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Opens files for the writer.
pub(crate) type OpenFile = Box<dyn Fn(&Path) -> io::Result<Box<dyn LogFile>> + Send>;

/// Opens a file of the real disk for appending, and makes it if need be; readable by its owner.
pub(crate) fn open_append(path: &Path) -> io::Result<Box<dyn LogFile>> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    Ok(Box::new(file))
}

/// Takes a folder for this process alone, until the file is dropped; `None` if another has it.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
