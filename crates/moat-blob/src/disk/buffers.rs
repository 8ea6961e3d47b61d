//! Memory with which the disk exchanges bytes without a copy by the kernel, and a few spare pieces.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What direct writes are aligned to, in memory and in the file: the largest block that disks and
/// file systems of this machine class ask for.
pub(super) const BLOCK_BYTES: usize = 4096;
/// Bytes gathered before they go to a blocking thread and to the disk in one piece. One run is
/// being written while the next is gathered, so a writer holds two of these, and a blob up to this
/// size costs one hop in all.
pub(super) const RUN_BYTES: usize = 1 << 20;
/// Room of a buffer: a run, and what a read of a megabyte of plaintext has around it (the frames
/// of its chunks, and the rest of a block on either side).
const ROOM_BYTES: usize = RUN_BYTES + (16 << 10);
/// Buffers kept for whoever comes next: enough for some requests at once, because memory that is new
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
    fn new(room: usize) -> Self {
        // Untouched, it takes no memory.
        let memory = vec![0; room + BLOCK_BYTES];
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

    /// All of the room, whatever it holds.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let end = self.memory.len() - (BLOCK_BYTES - self.start);
        &mut self.memory[self.start..end]
    }

    /// What was pushed, and zeros up to the end of the last block.
    pub(super) fn padded(&mut self) -> &[u8] {
        let end = self.start + self.filled;
        let padded = self.start + self.filled.next_multiple_of(BLOCK_BYTES);
        self.memory[end..padded].fill(0);
        &self.memory[self.start..padded]
    }
}

/// Spare buffers, shared by the writers and readers of an engine.
#[derive(Default)]
pub(super) struct Buffers {
    spare: Mutex<Vec<Buffer>>,
}

impl Buffers {
    /// An empty buffer for a run.
    pub(super) fn take(&self) -> Buffer {
        self.take_room(ROOM_BYTES)
    }

    /// An empty buffer with at least so much room.
    pub(super) fn take_room(&self, bytes: usize) -> Buffer {
        if bytes > ROOM_BYTES {
            return Buffer::new(bytes);
        }
        let spare = self.lock().pop();
        spare.unwrap_or_else(|| Buffer::new(ROOM_BYTES))
    }

    /// Takes back a buffer that is no longer needed.
    pub(super) fn give(&self, mut buffer: Buffer) {
        buffer.filled = 0;
        let usual = buffer.memory.len() == ROOM_BYTES + BLOCK_BYTES;
        let mut spare = self.lock();
        if usual && spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of a buffer that goes back to the others when it is dropped.
pub(crate) struct Lent {
    /// `None` only in `drop`.
    buffer: Option<Buffer>,
    range: Range<usize>,
    home: Arc<Buffers>,
}

impl Lent {
    /// `range` counts in the buffer's room.
    pub(super) fn new(buffer: Buffer, range: Range<usize>, home: Arc<Buffers>) -> Self {
        let range = buffer.start + range.start..buffer.start + range.end;
        assert!(range.end <= buffer.memory.len(), "the range is in the room");
        let buffer = Some(buffer);
        Self {
            buffer,
            range,
            home,
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        let buffer = self.buffer.as_ref().expect("it is taken in `drop` only");
        &buffer.memory[self.range.clone()]
    }
}

impl AsMut<[u8]> for Lent {
    fn as_mut(&mut self) -> &mut [u8] {
        let buffer = self.buffer.as_mut().expect("it is taken in `drop` only");
        &mut buffer.memory[self.range.clone()]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.home.give(buffer);
        }
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

    #[test]
    fn what_is_lent_comes_back_and_odd_sizes_do_not() {
        let home = Arc::new(Buffers::default());
        for room in [1, ROOM_BYTES, ROOM_BYTES + 1, 3 << 20] {
            let mut buffer = home.take_room(room);
            assert!(buffer.room().len() >= room);
            assert_eq!(buffer.room().as_ptr().align_offset(BLOCK_BYTES), 0);
            buffer.room()[..3].copy_from_slice(b"abc");
            let mut lent = Lent::new(buffer, 1..3, home.clone());
            lent.as_mut()[1] = b'C';
            assert_eq!(lent.as_ref(), b"bC");
        }
        assert_eq!(home.lock().len(), 1);
    }
}
