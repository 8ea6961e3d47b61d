//! Memory from which the disk can take bytes without a copy by the kernel, and a few spare ones.

use std::sync::{Mutex, PoisonError};

/// What direct writes are aligned to, in memory and in the file: the largest block that disks and
/// file systems of this machine class ask for.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Bytes gathered before they go to a blocking thread and to the disk in one piece. One run is
/// being written while the next is gathered, so a writer holds two of these, and a blob up to this
/// size costs one hop in all.
pub(super) const RUN_BYTES: usize = 1 << 20;
/// Buffers kept for the next writer: enough for some uploads at once, because memory that is new
/// costs as much as the copy into it.
const SPARE_MAX: usize = 16;

/// A run of bytes at an address that direct writes accept.
pub(super) struct Buffer {
    memory: Vec<u8>,
    /// Where the aligned part begins.
    start: usize,
    filled: usize,
}

impl Buffer {
    fn new() -> Self {
        let memory = vec![0; RUN_BYTES + BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start <= BLOCK_BYTES, "an offset of bytes can be reached");
        Self {
            memory,
            start,
            filled: 0,
        }
    }

    /// Takes in as many of `bytes` as there is room for, and returns how many.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(RUN_BYTES - self.filled);
        let at = self.start + self.filled;
        self.memory[at..at + count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    pub(super) const fn is_full(&self) -> bool {
        self.filled == RUN_BYTES
    }

    /// Bytes pushed.
    pub(super) const fn len(&self) -> usize {
        self.filled
    }

    /// What was pushed, and zeros up to the end of the last block.
    pub(super) fn padded(&mut self) -> &[u8] {
        let end = self.start + self.filled;
        let padded = self.start + self.filled.next_multiple_of(BLOCK_BYTES);
        self.memory[end..padded].fill(0);
        &self.memory[self.start..padded]
    }
}

/// Spare buffers, shared by the writers of an engine.
#[derive(Default)]
pub(super) struct Buffers {
    spare: Mutex<Vec<Buffer>>,
}

impl Buffers {
    /// An empty buffer.
    pub(super) fn take(&self) -> Buffer {
        let spare = self.lock().pop();
        spare.unwrap_or_else(Buffer::new)
    }

    /// Takes back a buffer that is no longer needed.
    pub(super) fn give(&self, mut buffer: Buffer) {
        buffer.filled = 0;
        let mut spare = self.lock();
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_takes_a_run_and_pads_with_zeros() {
        let buffers = Buffers::default();
        let mut buffer = buffers.take();
        assert_eq!(buffer.push(&[7; RUN_BYTES + 1]), RUN_BYTES);
        assert!(buffer.is_full());
        assert_eq!(buffer.padded().as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(buffer.padded(), &[7; RUN_BYTES][..]);
        // What another blob left there is never written behind this one's end.
        buffers.give(buffer);
        let mut buffer = buffers.take();
        assert_eq!(buffer.padded().len(), 0);
        buffer.push(&[1; BLOCK_BYTES + 1]);
        let padded = buffer.padded();
        assert_eq!(padded.len(), 2 * BLOCK_BYTES);
        assert_eq!(padded[..=BLOCK_BYTES], [1; BLOCK_BYTES + 1]);
        assert!(padded[BLOCK_BYTES + 1..].iter().all(|byte| *byte == 0));
    }
}
