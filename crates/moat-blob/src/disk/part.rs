//! A file that is not a blob yet. Whoever drops it removes it, on whatever way.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use moat_types::BlobId;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::early_sync::EarlySync;
use super::folders::{Folders, remove_if_there};
use super::{Shared, io_error};
use crate::Error;

const FILE_MODE: u32 = 0o600;
/// Slices given to one `writev`; the kernel takes at most 1,024.
const SLICES_MAX: usize = 512;

/// An unfinished file, or the intent to write one. `write` and `finish` may wait for the disk:
/// they run on blocking threads.
pub(super) struct Part {
    shared: Arc<Shared>,
    id: BlobId,
    /// `None` until the first write, and in `drop`.
    file: Option<Arc<File>>,
    early_sync: EarlySync,
    /// Whether the file has its final name already.
    renamed: bool,
    bytes: u64,
    kept: bool,
}

impl Part {
    pub(super) fn new(shared: Arc<Shared>, id: BlobId) -> Self {
        shared.parts.send_modify(|count| *count += 1);
        Self {
            shared,
            id,
            file: None,
            early_sync: EarlySync::default(),
            renamed: false,
            bytes: 0,
            kept: false,
        }
    }

    /// Appends all of `chunks`; the first call creates the file.
    pub(super) fn write(&mut self, chunks: &[Bytes]) -> Result<(), Error> {
        let id = self.id;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(Arc::new(create(&self.shared.folders, id)?)),
        };
        for run in chunks.chunks(SLICES_MAX) {
            write_run(file, run).map_err(|source| io_error(id, "write", source))?;
        }
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        self.bytes += bytes;
        self.early_sync.wrote(file, bytes);
        Ok(())
    }

    /// Makes data and name durable; something was written before, be it nothing. The file is
    /// still removed on drop until `keep` is called.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let (id, folders) = (self.id, &self.shared.folders);
        // Data first: the final name never stands for less than the whole blob.
        let file = self.file.as_ref().expect("the first write created it");
        self.early_sync
            .finish()
            .and_then(|()| file.sync_data())
            .map_err(|source| io_error(id, "sync", source))?;
        rename_to_new(&folders.part(id), &folders.blob(id)).map_err(|error| {
            match error.kind() {
                ErrorKind::AlreadyExists => Error::Exists(id),
                _ => io_error(id, "rename", error),
            }
        })?;
        self.renamed = true;
        folders
            .sync(id)
            .map_err(|source| io_error(id, "sync folder", source))
    }

    /// Hands the finished blob over and returns its length in bytes.
    pub(super) fn keep(mut self) -> u64 {
        self.kept = true;
        self.bytes
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let (Some(file), false) = (self.file.take(), self.kept) {
            let folders = &self.shared.folders;
            let path = match self.renamed {
                true => folders.blob(self.id),
                false => folders.part(self.id),
            };
            if let Err(error) = remove_if_there(&path) {
                // The collector's `delete` gets it later.
                tracing::warn!(blob = %self.id, %error, "an unfinished blob could not be removed");
            }
            close_elsewhere(file);
        }
        self.shared.parts.send_modify(|count| *count -= 1);
    }
}

fn create(folders: &Folders, id: BlobId) -> Result<File, Error> {
    folders
        .ensure(id)
        .map_err(|source| io_error(id, "make folder", source))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(folders.part(id))
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::Exists(id),
            _ => io_error(id, "create", error),
        })
}

/// Closing the last handle of a removed file frees its blocks, which takes milliseconds for a
/// large one: not on a thread that serves requests.
fn close_elsewhere(file: Arc<File>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(move || drop(file));
    }
}

fn write_run(mut file: &File, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut rest = &mut slices[..];
    // Takes empty slices off the front, so that a result of 0 means that nothing can be written.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match file.write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut rest, count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Renames without replacing. File systems that can't do both in one step are asked first.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if to.try_exists()? {
                return Err(ErrorKind::AlreadyExists.into());
            }
            std::fs::rename(from, to)
        }
        other => other.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn a_full_disk_is_its_own_error_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared {
            folders: Folders::open(root.path()).unwrap(),
            parts: watch::Sender::new(0),
        });
        let id = BlobId::from_bytes([1; 16]);
        let mut part = Part::new(shared.clone(), id);
        part.write(&[Bytes::from_static(b"fits")]).unwrap();
        // The kernel's own full disk takes the file's place.
        part.file = Some(Arc::new(
            OpenOptions::new().write(true).open("/dev/full").unwrap(),
        ));
        let result = part.write(&[Bytes::from_static(b"does not fit")]);
        assert!(matches!(result, Err(Error::NoSpace)), "{result:?}");
        drop(part);
        assert!(!shared.folders.part(id).exists());
        assert_eq!(*shared.parts.borrow(), 0);
    }

    #[test]
    fn runs_of_any_number_of_slices_are_written_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let chunks: Vec<Bytes> = (0..SLICES_MAX)
            .map(|n| vec![n as u8; n % 3].into())
            .collect();
        write_run(&file, &chunks).unwrap();
        write_run(&file, &[]).unwrap();
        write_run(&file, &[Bytes::new()]).unwrap();
        let mut found = Vec::new();
        io::Seek::rewind(&mut file).unwrap();
        io::Read::read_to_end(&mut file, &mut found).unwrap();
        assert_eq!(found, chunks.concat());
    }
}
