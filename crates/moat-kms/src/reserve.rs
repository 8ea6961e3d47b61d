//! Random bytes in reserve: what a draw from the secure source costs hardly depends on its length.
//!
//! A data key with the salt and the nonce of its wrapping takes 60 bytes, for which the source
//! took 2,900 instructions; out of a reserve it takes 500, with the share of the draw that fills it.
//! Bytes in reserve are as secret as the state of the source itself, which knows what comes next.
//! Each is given out once and wiped as it goes. The process never forks without starting another
//! program, so no two processes have the same reserve.

use std::sync::{Arc, Mutex, PoisonError};

use moat_types::{Random, SecretBuffer};

/// Bytes of one draw: those of seventeen data keys. More would make it hardly cheaper.
const RESERVE_BYTES: usize = 1024;
/// What is longer is drawn by itself.
const PIECE_BYTES_MAX: usize = 128;

/// Hands out bytes of a secure source, each once.
pub(crate) struct Reserve {
    random: Arc<dyn Random>,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    bytes: SecretBuffer,
    /// How many of them were given out, from the first one on.
    used: usize,
}

impl Reserve {
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        let drawn = Mutex::new(Drawn {
            bytes: SecretBuffer::zeros(RESERVE_BYTES),
            used: RESERVE_BYTES,
        });
        Self { random, drawn }
    }
}

impl Random for Reserve {
    fn fill(&self, out: &mut [u8]) {
        if out.len() > PIECE_BYTES_MAX {
            return self.random.fill(out);
        }
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let Drawn { bytes, used } = &mut *drawn;
        if RESERVE_BYTES - *used < out.len() {
            self.random.fill(bytes);
            *used = 0;
        }
        let piece = &mut bytes[*used..][..out.len()];
        out.copy_from_slice(piece);
        piece.fill(0);
        *used += out.len();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Gives 1, 2, 3, ... as numbers of 8 bytes, so that what is given twice shows.
    struct Counting(AtomicU64);

    impl Random for Counting {
        fn fill(&self, out: &mut [u8]) {
            for number in out.chunks_mut(8) {
                let next = self.0.fetch_add(1, Ordering::Relaxed) + 1;
                number.copy_from_slice(&next.to_be_bytes()[..number.len()]);
            }
        }
    }

    #[test]
    fn no_byte_is_given_twice_and_none_stays() {
        let reserve = Reserve::new(Arc::new(Counting(AtomicU64::new(0))));
        let mut last = 0;
        for round in 0..1000 {
            let mut out = vec![0; 8 * (round % (PIECE_BYTES_MAX / 8 + 1))];
            reserve.fill(&mut out);
            for number in out.chunks(8) {
                let number = u64::from_be_bytes(number.try_into().unwrap());
                assert!(number > last, "{number} after {last}");
                last = number;
            }
            let drawn = reserve.drawn.lock().unwrap();
            assert!(drawn.bytes[..drawn.used].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn pieces_of_any_length_are_filled() {
        let reserve = Reserve::new(Arc::new(moat_types::SystemRandom));
        for length in [16, PIECE_BYTES_MAX, PIECE_BYTES_MAX + 1, 1 << 20, 16] {
            let mut out = vec![0; length];
            reserve.fill(&mut out);
            assert!(
                out.chunks(16)
                    .all(|chunk| chunk.len() < 16 || chunk != [0; 16])
            );
        }
    }
}
