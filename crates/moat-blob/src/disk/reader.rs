//! Reads ranges of a finished blob.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use moat_types::BlobId;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::{blocking, io_error};
use crate::{BlobReader, Error};

/// Reads up to this size are tried on the caller's thread if the page cache holds them: the copy
/// of 256 KiB takes about as long as the hop to another thread and back.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// An open blob on the disk.
pub struct DiskReader {
    id: BlobId,
    file: Arc<File>,
}

impl DiskReader {
    /// Takes an open file.
    pub(super) fn new(id: BlobId, file: File) -> Self {
        let file = Arc::new(file);
        Self { id, file }
    }
}

impl BlobReader for DiskReader {
    async fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Error> {
        let found = || self.file.metadata().map_or(0, |now| now.len());
        let short = |found| Error::Short {
            id: self.id,
            found,
            wanted: range.end,
        };
        let length = range.end.saturating_sub(range.start);
        if length > INLINE_BYTES_MAX as u64 && range.end > found() {
            // Before memory is taken for it.
            return Err(short(found()));
        }
        let length = length as usize;
        let buffer = match read_if_cached(&self.file, length, range.start) {
            Cached::Whole(buffer) => return Ok(buffer),
            Cached::Head(buffer) => buffer,
        };
        let (file, offset) = (self.file.clone(), range.start);
        let result = blocking(self.id, "read", move || {
            read_rest(&file, buffer, length, offset)
        })
        .await?;
        result.map_err(|source: std::io::Error| match source.kind() {
            ErrorKind::UnexpectedEof => short(found()),
            _ => io_error(self.id, "read", source),
        })
    }
}

/// What a read that does not wait has found.
enum Cached {
    /// Everything.
    Whole(Vec<u8>),
    /// The first bytes, perhaps none; the rest is left to the read that may wait.
    Head(Vec<u8>),
}

/// Reads what is in the page cache. Whatever is in the way (not cached, a file system that can't
/// tell, an error) is left to the read that may wait.
fn read_if_cached(file: &File, length: usize, offset: u64) -> Cached {
    if length > INLINE_BYTES_MAX {
        // Not zeroed first: for a large read that would cost as much as a copy.
        return Cached::Head(Vec::with_capacity(length));
    }
    let mut buffer = vec![0; length];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let done = preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT).unwrap_or(0);
    buffer.truncate(done);
    if done == length {
        Cached::Whole(buffer)
    } else {
        Cached::Head(buffer)
    }
}

/// Reads on from the bytes in `buffer` up to `length`, into memory that was not written before.
fn read_rest(
    file: &File,
    mut buffer: Vec<u8>,
    length: usize,
    offset: u64,
) -> std::io::Result<Vec<u8>> {
    buffer.reserve_exact(length - buffer.len());
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        match pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    buffer.truncate(length);
    Ok(buffer)
}
