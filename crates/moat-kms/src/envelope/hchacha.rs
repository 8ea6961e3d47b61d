//! HChaCha20 (draft-irtf-cfrg-xchacha, section 2.2): a 256-bit key and 16 bytes give another
//! 256-bit key. Only for ciphertexts of old key managers; the TLS library does not offer it.
//! Additions, rotations and exclusive ors alone: it takes the same time for each key.

use zeroize::Zeroizing;

/// `expand 32-byte k`, as four little-endian numbers.
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

pub(super) fn hchacha20(key: &[u8; 32], input: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    let mut state = Zeroizing::new([0_u32; 16]);
    state[..4].copy_from_slice(&CONSTANTS);
    for (word, bytes) in state[4..]
        .iter_mut()
        .zip(key.chunks_exact(4).chain(input.chunks_exact(4)))
    {
        *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    for _ in 0..10 {
        for column in 0..4 {
            quarter_round(&mut state, column, 4 + column, 8 + column, 12 + column);
        }
        for diagonal in 0..4 {
            quarter_round(
                &mut state,
                diagonal,
                4 + (diagonal + 1) % 4,
                8 + (diagonal + 2) % 4,
                12 + (diagonal + 3) % 4,
            );
        }
    }
    let mut out = Zeroizing::new([0; 32]);
    let kept = state[..4].iter().chain(&state[12..]);
    for (bytes, word) in out.chunks_exact_mut(4).zip(kept) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    out
}

fn quarter_round(state: &mut [u32; 16], a: usize, b: usize, c: usize, d: usize) {
    for (sum, added, mixed, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        state[sum] = state[sum].wrapping_add(state[added]);
        state[mixed] = (state[mixed] ^ state[sum]).rotate_left(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Section 2.2.1 of the draft.
    #[test]
    fn the_vector_of_the_draft_holds() {
        let key: [u8; 32] = std::array::from_fn(|index| index as u8);
        let input = hex::decode("000000090000004a0000000031415927").unwrap();
        assert_eq!(
            hex::encode(*hchacha20(&key, &input.try_into().unwrap())),
            "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
        );
    }
}
