//! Reads ranges of a finished blob.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use moat_types::BlobId;
use rustix::io::{ReadWriteFlags, preadv2};

use super::{blocking, io_error};
use crate::{BlobReader, Error};

/// Reads up to this size are tried on the caller's thread if the page cache holds them: the copy
/// of 256 KiB takes about as long as the hop to another thread and back.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// An open blob on the disk.
pub struct DiskReader {
    id: BlobId,
    file: Arc<File>,
    bytes: u64,
}

impl DiskReader {
    /// Takes an open file; its length is known to the kernel without disk access.
    pub(super) fn new(id: BlobId, file: File) -> Result<Self, Error> {
        let bytes = file
            .metadata()
            .map_err(|source| io_error(id, "open", source))?
            .len();
        Ok(Self {
            id,
            file: Arc::new(file),
            bytes,
        })
    }
}

impl BlobReader for DiskReader {
    fn len(&self) -> u64 {
        self.bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let short = |found| Error::Short {
            id: self.id,
            found,
            wanted: range.end,
        };
        if range.end > self.bytes {
            return Err(short(self.bytes));
        }
        let length = range.end.saturating_sub(range.start) as usize;
        let mut buffer = vec![0; length];
        let done = read_if_cached(&self.file, &mut buffer, range.start);
        if done == length {
            return Ok(buffer);
        }
        let (file, offset) = (self.file.clone(), range.start);
        let result = blocking(self.id, "read", move || {
            file.read_exact_at(&mut buffer[done..], offset + done as u64)?;
            Ok(buffer)
        })
        .await?;
        result.map_err(|source: std::io::Error| match source.kind() {
            // Somebody cut the file while it was open.
            ErrorKind::UnexpectedEof => short(self.file.metadata().map_or(0, |now| now.len())),
            _ => io_error(self.id, "read", source),
        })
    }
}

/// Reads what is in the page cache and returns how many bytes that were. Whatever is in the way
/// (not cached, a file system that can't tell, an error) is left to the read that may wait.
fn read_if_cached(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    if buffer.len() > INLINE_BYTES_MAX {
        return 0;
    }
    let mut slices = [IoSliceMut::new(buffer)];
    preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
}
