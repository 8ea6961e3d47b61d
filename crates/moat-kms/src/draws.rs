//! Random bytes for one request, drawn together: what a draw costs hardly depends on its length.

use moat_types::Random;
use zeroize::Zeroizing;

/// The first draw: a data key with the salt and the nonce of its wrapping.
const FIRST_BYTES: usize = 64;
/// The largest draw, of long batches.
const BYTES_MAX: usize = 4096;

/// Hands out bytes of a secure source, each once.
pub(crate) struct Draws<'a> {
    random: &'a dyn Random,
    drawn: Zeroizing<Vec<u8>>,
    used: usize,
}

impl<'a> Draws<'a> {
    pub(crate) fn new(random: &'a dyn Random) -> Self {
        Self {
            random,
            drawn: Zeroizing::new(Vec::new()),
            used: 0,
        }
    }

    /// Fills `out`.
    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        if out.len() > BYTES_MAX {
            return self.random.fill(out);
        }
        if self.drawn.len() - self.used < out.len() {
            let bytes = (self.drawn.len() * 2).clamp(FIRST_BYTES, BYTES_MAX);
            self.drawn = Zeroizing::new(vec![0; bytes.max(out.len())]);
            self.random.fill(&mut self.drawn);
            self.used = 0;
        }
        let piece = &self.drawn[self.used..][..out.len()];
        out.copy_from_slice(piece);
        self.used += out.len();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    /// Gives 1, 2, 3, ... so that a byte that was given twice, or skipped within a draw, shows.
    struct Counting(AtomicU8);

    impl Random for Counting {
        fn fill(&self, out: &mut [u8]) {
            for byte in out {
                *byte = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            }
        }
    }

    #[test]
    fn no_byte_is_given_twice() {
        let random = Counting(AtomicU8::new(0));
        let mut draws = Draws::new(&random);
        let mut last = 0;
        for length in [1, 32, 28, 3, 0, 60] {
            let mut out = vec![0; length];
            draws.fill(&mut out);
            for byte in out {
                assert!(byte > last, "{byte} after {last}");
                last = byte;
            }
        }
    }

    #[test]
    fn draws_of_any_length_are_filled() {
        let random = moat_types::SystemRandom;
        let mut draws = Draws::new(&random);
        for length in [16, BYTES_MAX, BYTES_MAX + 1, 1 << 20, 16] {
            let mut out = vec![0; length];
            draws.fill(&mut out);
            assert!(
                out.chunks(16)
                    .all(|chunk| chunk.len() < 16 || chunk != [0; 16])
            );
        }
    }
}
