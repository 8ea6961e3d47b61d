//! Percent encoding and decoding as S3 and SigV4 do it (RFC 3986 unreserved characters stay,
//! hex digits are upper case, one encoding only and no path normalisation).

use std::borrow::Cow;

/// Whether a slash is kept or encoded as `%2F`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slash {
    /// `/` stays, as in a path.
    Keep,
    /// `/` becomes `%2F`, as in a query or a path segment.
    Encode,
}

const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// `UNRESERVED[b]` tells whether byte `b` stays as it is: letters, digits, `-`, `.`, `_`, `~`.
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

/// Appends the encoded form of `bytes` to `out`.
pub fn encode_into(out: &mut Vec<u8>, bytes: &[u8], slash: Slash) {
    for &b in bytes {
        if UNRESERVED[usize::from(b)] || (b == b'/' && slash == Slash::Keep) {
            out.push(b);
        } else {
            push_encoded(out, b);
        }
    }
}

/// The encoded form of `bytes`.
pub fn encode(bytes: &[u8], slash: Slash) -> String {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    encode_into(&mut out, bytes, slash);
    String::from_utf8(out).expect("percent encoding gives ASCII")
}

/// Appends `%XX` for one byte.
pub(crate) fn push_encoded(out: &mut Vec<u8>, b: u8) {
    out.extend_from_slice(&[
        b'%',
        HEX_UPPER[usize::from(b >> 4)],
        HEX_UPPER[usize::from(b & 15)],
    ]);
}

/// Decodes `%XX`; a `%` that no two hex digits follow stays as it is. `+` is not touched.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    decode_into(&mut out, text);
    Cow::Owned(out)
}

/// Appends the decoded form of `text` to `out`; see [`decode`].
pub fn decode_into(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match decoded_byte(first, tail) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
}

/// Decodes one part of a query string: `%XX`, and `+` as a space.
///
/// S3 reads a bare `+` in a query as a space, as HTML forms do. The SDKs never send a bare `+`:
/// they write `%20` and `%2B`; curl users and some browsers do.
pub fn decode_query(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') && !text.contains(&b'+') {
        return Cow::Borrowed(text);
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|&b| if b == b'+' { b' ' } else { b })
        .collect();
    match decode(&spaced) {
        Cow::Owned(decoded) => Cow::Owned(decoded),
        Cow::Borrowed(_) => Cow::Owned(spaced),
    }
}

/// The byte that `%` and two hex digits stand for.
fn decoded_byte(first: u8, tail: &[u8]) -> Option<u8> {
    if first != b'%' || tail.len() < 2 {
        return None;
    }
    Some(hex_digit(tail[0])? << 4 | hex_digit(tail[1])?)
}

/// The value of one hex digit of either case.
pub(crate) const fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unreserved_stays_and_the_rest_is_upper_case_hex() {
        assert_eq!(encode(b"aZ0-._~", Slash::Encode), "aZ0-._~");
        assert_eq!(encode("a b/é+".as_bytes(), Slash::Keep), "a%20b/%C3%A9%2B");
        assert_eq!(encode(b"a/b", Slash::Encode), "a%2Fb");
    }

    #[test]
    fn a_stray_percent_stays() {
        assert_eq!(&*decode(b"100%"), b"100%");
        assert_eq!(&*decode(b"%zz%4"), b"%zz%4");
        assert_eq!(&*decode(b"%41%2f"), b"A/");
    }

    #[test]
    fn plus_is_a_space_in_a_query_only() {
        assert_eq!(&*decode(b"a+b"), b"a+b");
        assert_eq!(&*decode_query(b"a+b%2B"), b"a b+");
        assert_eq!(&*decode_query(b"a+b"), b"a b");
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let path = encode(&bytes, Slash::Keep);
            prop_assert_eq!(&*decode(path.as_bytes()), &bytes[..]);
            let parameter = encode(&bytes, Slash::Encode);
            prop_assert_eq!(&*decode_query(parameter.as_bytes()), &bytes[..]);
        }
    }
}
