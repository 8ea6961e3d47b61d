//! Gathers what is appended and hands it to blocking threads in runs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use moat_types::BlobId;
use tokio::task::JoinHandle;

use super::part::Part;
use super::{Shared, blocking, io_error};
use crate::{BlobWriter, Error};

/// Bytes gathered before they go to a blocking thread. One run is being written while the next
/// is gathered, so a writer holds two of these, and a blob up to this size costs one hop in all.
const RUN_BYTES: usize = 1 << 20;
/// Appends below this are copied together. It bounds the number of slices in a run, and a small
/// slice does not keep a large buffer of the network alive.
const COPY_BELOW_BYTES: usize = 8 << 10;

/// A blob being written to the disk.
///
/// The file comes into being with the first run that is full, or in `finish`; therefore an id
/// that exists already is reported by whichever of them comes first. If the future of `append` is
/// dropped, the writer may have taken the bytes or not: drop the writer as well.
pub struct DiskWriter {
    id: BlobId,
    run: Run,
    file: FileState,
}

enum FileState {
    Idle(Part),
    /// A run is being written.
    Busy(JoinHandle<Result<Part, Error>>),
    /// A run failed, and the file is removed.
    Failed,
}

impl DiskWriter {
    pub(super) fn new(shared: Arc<Shared>, id: BlobId, size_hint: u64) -> Self {
        Self {
            id,
            run: Run::sized_for(size_hint),
            file: FileState::Idle(Part::new(shared, id)),
        }
    }

    /// Waits for the run under way and takes the file, so that the next run can have it.
    ///
    /// If it is dropped while it waits, the next call goes on waiting.
    async fn take_file(&mut self) -> Result<Part, Error> {
        if let FileState::Busy(task) = &mut self.file {
            let joined = task.await;
            self.file = FileState::Failed;
            return joined.map_err(|stopped| self.write_error(stopped))?;
        }
        match std::mem::replace(&mut self.file, FileState::Failed) {
            FileState::Idle(part) => Ok(part),
            FileState::Busy(_) => unreachable!("handled above"),
            FileState::Failed => Err(self.write_error("an earlier write of this blob failed")),
        }
    }

    fn write_error(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        io_error(self.id, "write", std::io::Error::other(cause))
    }
}

impl BlobWriter for DiskWriter {
    async fn append(&mut self, bytes: Bytes) -> Result<(), Error> {
        self.run.push(bytes);
        if self.run.bytes < RUN_BYTES {
            return Ok(());
        }
        let mut part = self.take_file().await?;
        let chunks = self.run.take();
        self.file = FileState::Busy(tokio::task::spawn_blocking(move || {
            part.write(&chunks)?;
            Ok(part)
        }));
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, Error> {
        let mut part = self.take_file().await?;
        let chunks = self.run.take();
        // If this future is dropped, so is the part that comes back, and the file goes with it.
        let part = blocking(self.id, "finish", move || {
            part.write(&chunks)?;
            part.finish()?;
            Ok::<_, Error>(part)
        })
        .await??;
        Ok(part.keep())
    }
}

/// Appended bytes that are not on their way yet.
struct Run {
    chunks: Vec<Bytes>,
    /// Small appends, copied together; follows `chunks`.
    tail: BytesMut,
    bytes: usize,
    /// How much the tail allocates at a time.
    tail_bytes: usize,
}

impl Run {
    fn sized_for(size_hint: u64) -> Self {
        // Unknown length, or one known to be large: the tail grows in steps of 64 KiB.
        const TAIL_BYTES_MAX: u64 = 64 << 10;
        let tail_bytes = match size_hint {
            0 => TAIL_BYTES_MAX,
            known => known.min(TAIL_BYTES_MAX),
        };
        Self {
            chunks: Vec::new(),
            tail: BytesMut::new(),
            bytes: 0,
            tail_bytes: tail_bytes as usize,
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.bytes += bytes.len();
        if bytes.len() >= COPY_BELOW_BYTES {
            self.close_tail();
            self.chunks.push(bytes);
            return;
        }
        if self.tail.capacity() - self.tail.len() < bytes.len() {
            self.close_tail();
            self.tail.reserve(self.tail_bytes.max(bytes.len()));
        }
        self.tail.extend_from_slice(&bytes);
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.close_tail();
        self.bytes = 0;
        std::mem::take(&mut self.chunks)
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_appends_are_gathered_in_order_into_few_slices() {
        let mut run = Run::sized_for(0);
        let mut expected = Vec::new();
        for index in 0..5_000_u32 {
            let length = if index % 1000 == 999 {
                COPY_BELOW_BYTES
            } else {
                (index % 40) as usize
            };
            let bytes = vec![index as u8; length];
            expected.extend_from_slice(&bytes);
            run.push(bytes.into());
        }
        assert_eq!(run.bytes, expected.len());
        let chunks = run.take();
        assert!(chunks.len() < 16, "{} slices", chunks.len());
        assert_eq!(chunks.concat(), expected);
        assert_eq!(run.bytes, 0);
    }
}
