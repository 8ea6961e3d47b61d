//! Names and folders on the disk, and what has to be synced so that a name survives a power cut.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use moat_types::BlobId;

use super::group_sync::GroupSync;

/// Folders of the first level (one hex digit) times folders of the second (two): few enough
/// that all exist soon and their entries stay cached, and enough that ten million blobs are 2,400
/// to a folder and that writers rarely meet in one. (Measured on ext4 with 8 writers: 4,096
/// folders cost a third less CPU per blob than 256, because folders are locked while they change.)
const FOLDERS: usize = PARENTS * CHILDREN;
const PARENTS: usize = 16;
const CHILDREN: usize = 256;
const FOLDER_MODE: u32 = 0o700;

pub(super) struct Folders {
    root: PathBuf,
    /// Folders of the first level whose own name is known to be on the disk.
    durable_parents: [AtomicBool; PARENTS],
    /// The same for the second level.
    durable: Box<[AtomicBool]>,
    /// Folders being synced now.
    syncs: Mutex<HashMap<usize, Arc<GroupSync>>>,
}

impl Folders {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        make_folders(root)?;
        let root = root.canonicalize()?;
        // It may be there without being durable: made by a process that died.
        if let Some(parent) = root.parent() {
            sync_folder(parent)?;
        }
        let folders = Self {
            root,
            durable_parents: Default::default(),
            durable: (0..FOLDERS).map(|_| AtomicBool::new(false)).collect(),
            syncs: Mutex::default(),
        };
        folders.sync_what_is_there()?;
        Ok(folders)
    }

    /// Makes the folders durable that an earlier process made and perhaps did not sync.
    fn sync_what_is_there(&self) -> io::Result<()> {
        for parent in 0..PARENTS {
            let path = self.root.join(format!("{parent:x}"));
            let children: Vec<usize> = match path.read_dir() {
                Ok(entries) => entries
                    .filter_map(|entry| child_number(&entry.ok()?.file_name()))
                    .collect(),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            sync_folder(&path)?;
            for child in children {
                self.durable[parent * CHILDREN + child].store(true, Ordering::Release);
            }
            self.durable_parents[parent].store(true, Ordering::Release);
        }
        sync_folder(&self.root)
    }

    /// Where a finished blob is.
    pub(super) fn blob(&self, id: BlobId) -> PathBuf {
        let mut path = self.folder(id);
        path.push(id.to_string());
        path
    }

    /// Where a blob is while it is written.
    pub(super) fn part(&self, id: BlobId) -> PathBuf {
        let mut path = self.folder(id);
        path.push(format!("{id}.part"));
        path
    }

    fn folder(&self, id: BlobId) -> PathBuf {
        let digits = id.to_string();
        // Room for the name as well, so that the caller's push does not allocate.
        let mut path = PathBuf::with_capacity(self.root.as_os_str().len() + 48);
        path.push(&self.root);
        path.push(&digits[..1]);
        path.push(&digits[1..3]);
        path
    }

    /// Makes the blob's folder if it does not exist, and its name durable.
    pub(super) fn ensure(&self, id: BlobId) -> io::Result<()> {
        let index = index(id);
        let durable = &self.durable[index];
        if durable.load(Ordering::Acquire) {
            return Ok(());
        }
        let folder = self.folder(id);
        let parent = folder.parent().expect("joined to the root above");
        let durable_parent = &self.durable_parents[index / CHILDREN];
        if !durable_parent.load(Ordering::Acquire) {
            make_folder(parent)?;
            sync_folder(&self.root)?;
            durable_parent.store(true, Ordering::Release);
        }
        make_folder(&folder)?;
        sync_folder(parent)?;
        durable.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes the names in the blob's folder durable; concurrent callers share the work.
    pub(super) fn sync(&self, id: BlobId) -> io::Result<()> {
        let index = index(id);
        let group = {
            let mut syncs = self.syncs.lock().expect("no panic while held");
            syncs.entry(index).or_default().clone()
        };
        let folder = self.folder(id);
        let result = group.run(|| sync_folder(&folder));
        let mut syncs = self.syncs.lock().expect("no panic while held");
        // Ours and the map's: nobody else is interested any more.
        if Arc::strong_count(&group) == 2 {
            syncs.remove(&index);
        }
        result
    }

    /// Removes a blob, finished or not, durably: a caller who forgets the blob afterwards does not
    /// find it back after a power cut, when nothing would name it any more.
    pub(super) fn remove(&self, id: BlobId) -> io::Result<()> {
        let finished = remove_if_there(&self.blob(id))?;
        let part = remove_if_there(&self.part(id))?;
        if finished || part {
            self.sync(id)?;
        }
        Ok(())
    }
}

/// The number of a folder of the second level, from its name; `None` for what is not ours.
fn child_number(name: &OsStr) -> Option<usize> {
    let name = name.to_str().filter(|name| name.len() == 2)?;
    usize::from_str_radix(name, 16).ok()
}

/// The folder's number: the value of the first three hex digits.
fn index(id: BlobId) -> usize {
    let bytes = id.as_bytes();
    (usize::from(bytes[0]) << 4) | usize::from(bytes[1] >> 4)
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
    make_folder(path)?;
    sync_folder(parent)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether there was such a file.
pub(super) fn remove_if_there(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_folder_name_the_same_three_digits() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::open(root.path()).unwrap();
        let id = BlobId::parse("abcdef00112233445566778899aabbcc").unwrap();
        assert_eq!(index(id), 0xabc);
        let path = folders.blob(id);
        assert!(path.ends_with("a/bc/abcdef00112233445566778899aabbcc"));
        assert_eq!(
            index(BlobId::from_bytes([0xFF; 16])),
            FOLDERS - 1,
            "the last id is in the last folder"
        );
    }

    #[test]
    fn folders_that_are_there_are_known_after_opening_and_others_are_made() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] =
            ["abc", "fff"].map(|start| BlobId::parse(&format!("{start:0<32}")).unwrap());
        Folders::open(root.path()).unwrap().ensure(first).unwrap();
        std::fs::create_dir(root.path().join("a/strange")).unwrap();
        let folders = Folders::open(root.path()).unwrap();
        assert!(folders.durable[index(first)].load(Ordering::Acquire));
        let known = folders
            .durable
            .iter()
            .filter(|one| one.load(Ordering::Acquire));
        assert_eq!(known.count(), 1);
        folders.ensure(second).unwrap();
        assert!(root.path().join("f/ff").is_dir());
    }
}
