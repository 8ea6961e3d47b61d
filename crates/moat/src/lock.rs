//! One process per folder: an advisory lock that the kernel drops with the process, and the
//! process id in the file for the message.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A held lock. Dropping it (or dying) releases it; the file stays.
#[derive(Debug)]
pub(crate) struct FolderLock {
    file: File,
    path: PathBuf,
}

impl FolderLock {
    /// Takes the lock `folder/lock`, or says who holds it. The folder must exist.
    pub(crate) fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let mut file = open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => bail!("{}", held(folder, &mut file)),
            Err(e) => {
                return Err(e).with_context(|| format!("can't lock {}", path.display()));
            }
        }
        note_process(&mut file).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self { file, path })
    }

    /// Notes where the holder is reached, for commands that work on the same folder.
    pub(crate) fn note_endpoint(&mut self, endpoint: &str) -> Result<()> {
        writeln!(self.file, "{endpoint}")
            .with_context(|| format!("can't write {}", self.path.display()))
    }

    /// Where the last holder of a folder's lock noted that it is reached.
    pub(crate) fn noted_endpoint(folder: &Path) -> Option<String> {
        let text = std::fs::read_to_string(folder.join("lock")).ok()?;
        text.lines().nth(1).map(str::to_owned)
    }

    /// Takes the lock `folder/lock` after whoever holds it, for work that takes milliseconds.
    pub(crate) fn wait(folder: &Path) -> Result<Self> {
        let path = folder.join("lock");
        let file = open(&path)?;
        flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("can't lock {}", path.display()))?;
        Ok(Self { file, path })
    }
}

fn open(path: &PathBuf) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("can't open {}", path.display()))
}

fn note_process(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(folder: &Path, file: &mut File) -> String {
    let mut holder = String::new();
    // Only the message suffers if the holder has not written its id yet.
    let _ = file.read_to_string(&mut holder);
    let holder = match holder.lines().next() {
        Some(id) if !id.is_empty() => format!("process {id}"),
        _ => "another process".to_owned(),
    };
    format!(
        "{} is in use by {holder}; stop it first, or give another folder with --data",
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = FolderLock::take(folder.path()).unwrap();
        lock.note_endpoint("https://127.0.0.1:1").unwrap();
        assert_eq!(
            FolderLock::noted_endpoint(folder.path()).unwrap(),
            "https://127.0.0.1:1"
        );
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
    }
}
