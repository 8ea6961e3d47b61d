//! Starts writing a large blob to the disk while the rest of it is still coming in.
//!
//! Without it, the kernel holds most of a blob in memory until `finish`, which then waits for all of
//! it: receiving and writing to the disk come one after the other instead of at the same time.
//!
//! An error that a sync reports is not reported again by the next one, so an early sync that
//! failed fails the blob.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

/// Bytes written between two early syncs. Small enough that `finish` has little left to do, large
/// enough that each sync is one long run for the disk.
const EVERY_BYTES: u64 = 8 << 20;

/// The early syncs of one file.
#[derive(Default)]
pub(super) struct EarlySync {
    shared: Arc<Shared>,
    /// Bytes that were written since the last one was begun.
    unsynced: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// Waits for a thread.
    Queued,
    Running,
    Failed(io::Error),
}

impl EarlySync {
    /// Says that `bytes` more are written, and begins a sync on another thread if it is time and
    /// none is under way.
    pub(super) fn wrote(&mut self, file: &Arc<File>, bytes: u64) {
        self.unsynced += bytes;
        if self.unsynced < EVERY_BYTES {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut state = self.shared.state.lock().expect("no panic while held");
        if !matches!(*state, State::Idle) {
            return;
        }
        *state = State::Queued;
        self.unsynced = 0;
        let (shared, file) = (self.shared.clone(), file.clone());
        runtime.spawn_blocking(move || shared.run(&file));
    }

    /// Returns when no early sync is under way and none will begin.
    ///
    /// # Errors
    /// One of them failed.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut state = self.shared.state.lock().expect("no panic while held");
        loop {
            match std::mem::take(&mut *state) {
                // One that still waits for a thread is called off: the threads may all be waiting
                // here.
                State::Idle | State::Queued => return Ok(()),
                State::Running => {
                    *state = State::Running;
                    state = self
                        .shared
                        .changed
                        .wait(state)
                        .expect("no panic while held");
                }
                State::Failed(error) => return Err(error),
            }
        }
    }
}

impl Shared {
    fn run(&self, file: &File) {
        let mut state = self.state.lock().expect("no panic while held");
        if !matches!(*state, State::Queued) {
            return;
        }
        *state = State::Running;
        drop(state);
        let result = file.sync_data();
        *self.state.lock().expect("no panic while held") = match result {
            Ok(()) => State::Idle,
            Err(error) => State::Failed(error),
        };
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_early_sync_fails_the_finish() {
        // A pipe's end is a file that can be written and not synced.
        let (_reader, writer) = io::pipe().unwrap();
        let file = Arc::new(File::from(std::os::fd::OwnedFd::from(writer)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let mut early = EarlySync::default();
        runtime.block_on(async { early.wrote(&file, EVERY_BYTES) });
        // Dropping the runtime waits for the threads it started.
        drop(runtime);
        assert!(early.finish().is_err());
    }

    #[test]
    fn finish_does_not_wait_for_a_sync_that_has_no_thread() {
        let early = EarlySync::default();
        *early.shared.state.lock().unwrap() = State::Queued;
        early.finish().unwrap();
        // Its turn comes too late.
        let file = tempfile::tempfile().unwrap();
        early.shared.run(&file);
        early.finish().unwrap();
    }
}
