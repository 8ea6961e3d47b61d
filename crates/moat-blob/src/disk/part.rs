//! A file that is not a blob yet. Whoever drops it removes it, on whatever way.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use moat_types::BlobId;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::blocks::BlockFile;
use super::buffers::Buffer;
use super::folders::{Folders, remove_if_there};
use super::{Shared, io_error};
use crate::Error;

/// An unfinished file, or the intent to write one. `write` and `finish` may wait for the disk:
/// they run on blocking threads.
pub(super) struct Part {
    shared: Arc<Shared>,
    id: BlobId,
    /// Bytes that the blob will probably have, 0 if nobody knows.
    size_hint: u64,
    /// `None` until the first write, and in `drop`.
    file: Option<BlockFile>,
    /// Whether the file has its final name already.
    renamed: bool,
    bytes: u64,
    kept: bool,
}

impl Part {
    pub(super) fn new(shared: Arc<Shared>, id: BlobId, size_hint: u64) -> Self {
        shared.parts.send_modify(|count| *count += 1);
        Self {
            shared,
            id,
            size_hint,
            file: None,
            renamed: false,
            bytes: 0,
            kept: false,
        }
    }

    /// Appends a run, if there is one; the first call creates the file. Only the last run may be
    /// less than full.
    pub(super) fn write(&mut self, run: Option<Buffer>) -> Result<(), Error> {
        let id = self.id;
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.shared, id)?),
        };
        let Some(mut run) = run else {
            return Ok(());
        };
        let expected = self.size_hint.max(self.bytes + run.len() as u64);
        let written = file.write_at(run.padded(), self.bytes, expected);
        self.bytes += run.len() as u64;
        self.shared.buffers.give(run);
        written.map_err(|source| io_error(id, "write", source))
    }

    /// Makes data and name durable; something was written before, be it nothing. The file is
    /// still removed on drop until `keep` is called.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let (id, folders) = (self.id, &self.shared.folders);
        let file = self.file.as_mut().expect("the first write created it");
        // The name first, so that one commit of a journal holds it and the file. After a power cut
        // it may stand for half a blob; nobody has been told of it by then.
        rename_to_new(&folders.part(id), &folders.blob(id)).map_err(|error| {
            match error.kind() {
                ErrorKind::AlreadyExists => Error::Exists(id),
                _ => io_error(id, "rename", error),
            }
        })?;
        self.renamed = true;
        file.sync(self.bytes)
            .map_err(|source| io_error(id, "sync", source))?;
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
            close_elsewhere(file.into_file());
        }
        self.shared.parts.send_modify(|count| *count -= 1);
    }
}

fn create(shared: &Shared, id: BlobId) -> Result<BlockFile, Error> {
    let folders: &Folders = &shared.folders;
    folders
        .ensure(id)
        .map_err(|source| io_error(id, "make folder", source))?;
    BlockFile::create(&folders.part(id), shared.direct).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Error::Exists(id),
        _ => io_error(id, "create", error),
    })
}

/// Closing the last handle of a removed file frees its blocks, which takes milliseconds for a
/// large one: not on a thread that serves requests.
fn close_elsewhere(file: File) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(move || drop(file));
    }
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
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn a_full_disk_is_its_own_error_and_nothing_is_left() {
        let root = tempfile::tempdir().unwrap();
        let shared = Arc::new(Shared::open(root.path()).unwrap());
        let run = |bytes: &[u8]| {
            let mut run = shared.buffers.take();
            run.push(bytes);
            Some(run)
        };
        let id = BlobId::from_bytes([1; 16]);
        let mut part = Part::new(shared.clone(), id, 0);
        part.write(run(b"fits")).unwrap();
        // The kernel's own full disk takes the file's place.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        part.file = Some(BlockFile::new(full, false));
        let result = part.write(run(b"does not fit"));
        assert!(matches!(result, Err(Error::NoSpace)), "{result:?}");
        drop(part);
        assert!(!shared.folders.part(id).exists());
        assert_eq!(*shared.parts.borrow(), 0);
    }
}
