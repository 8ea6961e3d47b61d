//! What objects hold: bytes that no server can compress, cut from one buffer that is made once.

use std::sync::LazyLock;

/// Bytes of a small object.
pub(crate) const SMALL_BYTES: usize = 4 << 10;
/// Bytes of a middle-sized object.
pub(crate) const MIDDLE_BYTES: usize = 256 << 10;
/// Bytes of a big object, and of a part of the huge one.
pub(crate) const BIG_BYTES: usize = 64 << 20;
/// Bytes of a ranged read, as a columnar reader asks for them.
pub(crate) const RANGE_BYTES: usize = 128 << 10;

/// Offsets into the buffer are taken below this, so that different objects differ.
const SHIFT_BYTES_MAX: usize = 1 << 20;

static BUFFER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = (BIG_BYTES + SHIFT_BYTES_MAX) / 8;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(words * 8);
    for _ in 0..words {
        // xorshift64: incompressible, and the same on each machine and in each run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
});

/// The content of object number `index`, of at most `BIG_BYTES`.
pub(crate) fn content(index: u64, length: usize) -> &'static [u8] {
    // A step that is prime to the limit: neighbours begin far from each other.
    let slots = SHIFT_BYTES_MAX as u64;
    let shift = (index.wrapping_mul(4099) % slots) as usize;
    &BUFFER[shift..shift + length]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_objects_differ_and_lengths_are_kept() {
        assert_ne!(content(1, 64), content(2, 64));
        assert_eq!(content(1, 64), content(1, 64));
        assert_eq!(content(u64::MAX, BIG_BYTES).len(), BIG_BYTES);
    }
}
