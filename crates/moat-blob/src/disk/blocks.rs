//! A file that is written in whole blocks, past the page cache where the file system lets us.
//!
//! The copy into fresh pages of the cache, and writing them out again, was more than half of the
//! CPU that a large upload cost. A direct write leaves the copy out; what is read soon after is
//! fetched from the disk once. File systems that know no direct writes get ordinary ones.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_setfl};
use rustix::io::Errno;

use super::buffers::BLOCK_BYTES;

const FILE_MODE: u32 = 0o600;
/// Space is reserved ahead by no more than this: extents stay long, and a client that announces
/// terabytes and sends nothing does not fill the disk.
const RESERVE_BYTES: u64 = 64 << 20;

/// Whether the file system of a folder knows direct writes. Asked once, because a kernel may have
/// made a file by the time it refuses to write it directly.
pub(super) fn knows_direct_writes(folder: &Path) -> bool {
    let probe = folder.join("direct-writes.probe");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(&probe);
    // Not made, or made in vain: both are fine.
    let _ = std::fs::remove_file(&probe);
    opened.is_ok()
}

/// A file being written from its beginning to its end.
pub(super) struct BlockFile {
    file: File,
    /// Whether the file was opened for direct writes.
    direct: bool,
    /// Length up to which space was reserved, which is then the file's length.
    reserved: u64,
}

impl BlockFile {
    /// Creates a new file, for direct writes or ordinary ones.
    pub(super) fn create(path: &Path, direct: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        if direct {
            options.custom_flags(OFlags::DIRECT.bits().cast_signed());
        }
        Ok(Self::new(options.open(path)?, direct))
    }

    pub(super) const fn new(file: File, direct: bool) -> Self {
        Self {
            file,
            direct,
            reserved: 0,
        }
    }

    /// Writes whole blocks at `offset`, itself at a block. `expected` is the length that the file
    /// will probably have.
    pub(super) fn write_at(&mut self, blocks: &[u8], offset: u64, expected: u64) -> io::Result<()> {
        self.reserve(offset + blocks.len() as u64, expected)?;
        let mut done = 0;
        while done < blocks.len() {
            match self.file.write_at(&blocks[done..], offset + done as u64) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Larger blocks than ours, or a write that ended inside of one.
                Err(error) if self.direct && error.kind() == ErrorKind::InvalidInput => {
                    fcntl_setfl(&self.file, OFlags::empty())?;
                    self.direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes sure that there is space up to `end`, and some more if more is expected.
    fn reserve(&mut self, end: u64, expected: u64) -> io::Result<()> {
        if end <= self.reserved || !self.direct {
            return Ok(());
        }
        let until = expected.clamp(end, end + RESERVE_BYTES);
        let until = until.next_multiple_of(BLOCK_BYTES as u64);
        let from = self.reserved;
        match fallocate(&self.file, FallocateFlags::empty(), from, until - from) {
            Ok(()) => self.reserved = until,
            // A full disk says so now; whatever else is in the way, the write will tell.
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => return Err(error.into()),
            Err(_) => {}
        }
        Ok(())
    }

    /// Makes the first `bytes` bytes durable; what was reserved beyond their last block is given
    /// back.
    pub(super) fn sync(&self, bytes: u64) -> io::Result<()> {
        let padded = bytes.next_multiple_of(BLOCK_BYTES as u64);
        if self.reserved > padded {
            self.file.set_len(padded)?;
        }
        self.file.sync_data()
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::buffers::{Buffers, RUN_BYTES};

    /// Writes `bytes` zeros-and-ones in runs and returns the file's content.
    fn written(path: &Path, direct: bool, bytes: usize, expected: u64) -> Vec<u8> {
        let content: Vec<u8> = (0..bytes).map(|n| (n % 251) as u8).collect();
        let mut file = BlockFile::create(path, direct).unwrap();
        let buffers = Buffers::default();
        let mut offset = 0;
        for run in content.chunks(RUN_BYTES) {
            let mut buffer = buffers.take();
            buffer.push(run);
            file.write_at(buffer.padded(), offset, expected).unwrap();
            offset += run.len() as u64;
        }
        file.sync(bytes as u64).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_file_holds_what_was_written_and_less_than_a_block_more() {
        let root = tempfile::tempdir().unwrap();
        // Where the target folder is on a real disk this is a direct file, else an ordinary one;
        // memory file systems are tried as well.
        let folders = [root.path(), Path::new("/dev/shm")];
        let sizes = [
            1,
            4095,
            4096,
            4097,
            RUN_BYTES - 1,
            RUN_BYTES,
            RUN_BYTES + 1,
            3 * RUN_BYTES,
        ];
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            let folder = tempfile::tempdir_in(folder).unwrap();
            for (number, size) in sizes.into_iter().enumerate() {
                for expected in [0, size as u64, 5 << 20, 1 << 40] {
                    let path = folder.path().join(format!("{number}-{expected}"));
                    let direct = knows_direct_writes(folder.path());
                    let found = written(&path, direct, size, expected);
                    assert_eq!(found.len(), size.next_multiple_of(BLOCK_BYTES));
                    let wanted = (0..size).map(|n| (n % 251) as u8);
                    assert!(found.iter().copied().take(size).eq(wanted), "{size} bytes");
                    assert!(found[size..].iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn a_write_that_can_not_be_direct_is_made_the_ordinary_way() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let mut file = BlockFile::create(&path, knows_direct_writes(root.path())).unwrap();
        // Neither the address nor the length is at a block.
        let memory = [3; 10_000];
        file.write_at(&memory[1..], 0, 0).unwrap();
        file.write_at(&memory[1..], 9_999, 0).unwrap();
        file.sync(19_998).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..19_998], [3; 19_998]);
    }
}
