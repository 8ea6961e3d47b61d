//! Reads ranges of a finished blob.
//!
//! | range | is read |
//! | --- | --- |
//! | small, in the page cache | on the caller's thread |
//! | small | on a blocking thread, into the page cache |
//! | large, in the page cache | on a blocking thread |
//! | large | on a blocking thread, directly: the cache stays for what is read again and again |
//!
//! A large read that fills the cache costs more CPU than everything else that an answer needs.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Arc, OnceLock};

use moat_types::BlobId;
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, preadv2};

use super::buffers::{BLOCK_BYTES, Buffers, Lent};
use super::{Shared, blocking, io_error};
use crate::{BlobReader, Error, ReadBytes};

/// Reads up to this size are tried on the caller's thread if the page cache holds them: the copy
/// of 256 KiB and their frames takes about as long as the hop to another thread and back.
const INLINE_BYTES_MAX: usize = 272 << 10;
/// Up to this size a read has memory of its own that is zeroed first, which costs next to nothing.
const OWN_BYTES_MAX: usize = 64 << 10;
/// Reads from this size on leave the page cache alone. Column chunks and whole small files are
/// below, scans are above.
const DIRECT_BYTES_MIN: u64 = 512 << 10;

/// An open blob on the disk.
pub struct DiskReader {
    id: BlobId,
    files: Arc<Files>,
}

/// The file as it was opened, and for direct reads.
struct Files {
    cached: File,
    /// Opened with the first large read; `None` where that is not possible.
    direct: OnceLock<Option<File>>,
    shared: Arc<Shared>,
}

impl DiskReader {
    /// Takes an open file.
    pub(super) fn new(id: BlobId, file: File, shared: Arc<Shared>) -> Self {
        let files = Arc::new(Files {
            cached: file,
            direct: OnceLock::new(),
            shared,
        });
        Self { id, files }
    }

    /// Where the file ends now.
    fn end(&self) -> u64 {
        self.files.cached.metadata().map_or(0, |now| now.len())
    }
}

impl BlobReader for DiskReader {
    async fn read(&self, range: Range<u64>) -> Result<ReadBytes, Error> {
        let short = || Error::Short {
            id: self.id,
            found: self.end(),
            wanted: range.end,
        };
        let length = range.end.saturating_sub(range.start);
        // Asked before memory is taken for it.
        if length > INLINE_BYTES_MAX as u64 && range.end > self.end() {
            return Err(short());
        }
        let mut bytes = space(length as usize, &self.files.shared.buffers);
        if length <= INLINE_BYTES_MAX as u64
            && read_if_cached(&self.files.cached, &mut bytes, range.start)
        {
            return Ok(bytes);
        }
        let (files, start) = (self.files.clone(), range.start);
        let result = blocking(self.id, "read", move || match length {
            DIRECT_BYTES_MIN.. => files.read_large(bytes, start),
            _ => files.read_small(bytes, start),
        });
        result.await?.map_err(|source| match source.kind() {
            // Somebody cut the file, or a record claims more than there is.
            ErrorKind::UnexpectedEof => short(),
            _ => io_error(self.id, "read", source),
        })
    }
}

impl Files {
    fn read_small(&self, mut bytes: ReadBytes, start: u64) -> io::Result<ReadBytes> {
        self.cached.read_exact_at(&mut bytes, start)?;
        Ok(bytes)
    }

    fn read_large(&self, mut bytes: ReadBytes, start: u64) -> io::Result<ReadBytes> {
        if read_if_cached(&self.cached, &mut bytes, start) {
            return Ok(bytes);
        }
        let Some(direct) = self.direct() else {
            return self.read_small(bytes, start);
        };
        let length = bytes.len();
        // Back among the spare ones, from which it is taken again as a whole.
        drop(bytes);
        let ahead = (start % BLOCK_BYTES as u64) as usize;
        let padded = (ahead + length).next_multiple_of(BLOCK_BYTES);
        let buffers = &self.shared.buffers;
        let mut buffer = buffers.take_room(padded);
        let blocks = &mut buffer.room()[..padded];
        match read_blocks(direct, blocks, start - ahead as u64, ahead + length) {
            Ok(()) => {
                let lent = Lent::new(buffer, ahead..ahead + length, buffers.clone());
                Ok(lent.into())
            }
            // A device with larger blocks than ours.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                self.read_small(space(length, buffers), start)
            }
            Err(error) => Err(error),
        }
    }

    fn direct(&self) -> Option<&File> {
        let open = || {
            // By its number, so that it works for a blob whose name is gone by now.
            let path = format!("/proc/self/fd/{}", self.cached.as_raw_fd());
            let mut options = OpenOptions::new();
            options
                .read(true)
                .custom_flags(OFlags::DIRECT.bits().cast_signed());
            options.open(path).ok()
        };
        match self.shared.direct {
            true => self.direct.get_or_init(open).as_ref(),
            false => None,
        }
    }
}

/// Memory for what is read.
fn space(length: usize, buffers: &Arc<Buffers>) -> ReadBytes {
    if length <= OWN_BYTES_MAX {
        return vec![0; length].into();
    }
    let buffer = buffers.take_room(length);
    Lent::new(buffer, 0..length, buffers.clone()).into()
}

/// Reads from the page cache, or says that it does not hold everything. Whatever else is in the
/// way (a file system that can't tell, an error) is left to the read that may wait.
fn read_if_cached(file: &File, bytes: &mut [u8], offset: u64) -> bool {
    let wanted = bytes.len();
    let done = preadv2(
        file,
        &mut [IoSliceMut::new(bytes)],
        offset,
        ReadWriteFlags::NOWAIT,
    );
    done.is_ok_and(|done| done == wanted)
}

/// Reads whole blocks at a block, of which at least `needed` bytes must be there.
fn read_blocks(file: &File, blocks: &mut [u8], offset: u64, needed: usize) -> io::Result<()> {
    let mut done = 0;
    while done < needed {
        match file.read_at(&mut blocks[done..], offset + done as u64) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
