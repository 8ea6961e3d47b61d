//! Gathers what is appended and hands it to blocking threads in runs.

use std::sync::Arc;

use moat_types::BlobId;
use tokio::task::JoinHandle;

use super::buffers::Buffer;
use super::part::Part;
use super::{Shared, blocking, io_error};
use crate::{BlobWriter, Error};

/// A blob being written to the disk.
///
/// The file comes into being with the first run that is full, or in `finish`; therefore an id
/// that exists already is reported by whichever of them comes first. If the future of `append` is
/// dropped, the writer may have taken the bytes or not: drop the writer as well.
pub struct DiskWriter {
    shared: Arc<Shared>,
    id: BlobId,
    /// Appended bytes that are not on their way yet.
    run: Option<Buffer>,
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
            shared: shared.clone(),
            id,
            run: None,
            file: FileState::Idle(Part::new(shared, id, size_hint)),
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
    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let run = self.run.get_or_insert_with(|| self.shared.buffers.take());
            let taken = run.push(bytes);
            bytes = &bytes[taken..];
            if !run.is_full() {
                continue;
            }
            let mut part = self.take_file().await?;
            let run = self.run.take();
            self.file = FileState::Busy(tokio::task::spawn_blocking(move || {
                part.write(run)?;
                Ok(part)
            }));
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, Error> {
        let mut part = self.take_file().await?;
        let run = self.run.take();
        // If this future is dropped, so is the part that comes back, and the file goes with it.
        let part = blocking(self.id, "finish", move || {
            part.write(run)?;
            part.finish()?;
            Ok::<_, Error>(part)
        })
        .await??;
        Ok(part.keep())
    }
}
