//! Request ids in the form that S3 answers: 16 upper-case hex digits.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use moat_types::Random;

/// Ids of which the bytes are drawn together: a draw of 8 bytes costs as much as one of 512.
const DRAWN_IDS: usize = 64;

/// A new request id, unique for all practical purposes and without meaning.
pub fn request_id(random: &dyn Random) -> String {
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
    text_of(bytes)
}

/// The ids of a server's requests, for one that gives an id to every request.
pub struct RequestIds {
    random: Arc<dyn Random>,
    drawn: Mutex<Drawn>,
}

/// Bytes that were drawn, and how many ids are left of them.
struct Drawn([[u8; 8]; DRAWN_IDS], usize);

impl RequestIds {
    /// Ids that are drawn from `random`.
    pub fn new(random: Arc<dyn Random>) -> Self {
        let drawn = Mutex::new(Drawn([[0; 8]; DRAWN_IDS], 0));
        Self { random, drawn }
    }

    /// As [`request_id`].
    pub fn next(&self) -> String {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let Drawn(ids, left) = &mut *drawn;
        if *left == 0 {
            self.random.fill(ids.as_flattened_mut());
            *left = DRAWN_IDS;
        }
        *left -= 1;
        text_of(ids[*left])
    }
}

impl fmt::Debug for RequestIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestIds")
    }
}

fn text_of(bytes: [u8; 8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(16);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn ids_are_16_upper_case_hex_digits_and_differ() {
        let ids = RequestIds::new(Arc::new(SystemRandom));
        let mut seen = HashSet::from([request_id(&SystemRandom), request_id(&SystemRandom)]);
        seen.extend((0..3 * DRAWN_IDS).map(|_| ids.next()));
        assert_eq!(seen.len(), 2 + 3 * DRAWN_IDS);
        let is_digit = |c: u8| c.is_ascii_digit() || (b'A'..=b'F').contains(&c);
        assert!(
            seen.iter()
                .all(|id| id.len() == 16 && id.bytes().all(is_digit))
        );
    }
}
