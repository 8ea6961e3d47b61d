//! Request ids in the form that S3 answers: 16 upper-case hex digits.

use moat_types::Random;

/// A new request id, unique for all practical purposes and without meaning.
pub fn request_id(random: &dyn Random) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut bytes = [0; 8];
    random.fill(&mut bytes);
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
