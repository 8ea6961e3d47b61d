//! Request ids in the form that S3 answers: 16 upper-case hex digits.

use std::cell::RefCell;

use moat_types::Random;

/// Ids of which the bytes are drawn together: a draw of 8 bytes costs as much as one of 512.
const IDS: usize = 64;

thread_local! {
    /// Bytes that were drawn on this thread, and how many ids are left of them.
    static DRAWN: RefCell<([[u8; 8]; IDS], usize)> = const { RefCell::new(([[0; 8]; IDS], 0)) };
}

fn draw(random: &dyn Random) -> [u8; 8] {
    DRAWN.with_borrow_mut(|(drawn, left)| {
        if *left == 0 {
            random.fill(drawn.as_flattened_mut());
            *left = IDS;
        }
        *left -= 1;
        drawn[*left]
    })
}

/// A new request id, unique for all practical purposes and without meaning.
pub fn request_id(random: &dyn Random) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let bytes = draw(random);
    let mut text = String::with_capacity(16);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn ids_are_16_upper_case_hex_digits_and_differ() {
        let (a, b) = (request_id(&SystemRandom), request_id(&SystemRandom));
        assert_eq!(a.len(), 16);
        assert!(
            a.bytes()
                .all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c))
        );
        assert_ne!(a, b);
    }
}
