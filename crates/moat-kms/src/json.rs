//! JSON: how requests are read, and answers that hold keys, written by hand.
//!
//! Such answers are all of one form, and there are thousands a second: an object with the version
//! of a key and some binary values. serde wrote them with a text of base64 for each value, which it
//! then looked through for what needs an escape; that took 5,300 instructions a data key, and this
//! takes 2,000. What is written is zeroized when its last user is done.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use moat_types::{KeyVersion, SecretBuffer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::audit::push_number;

/// What the answer with a data key of the usual length takes; larger ones grow.
pub(crate) const OBJECT_BYTES: usize = 256;

/// Appends an object: the version, if there is one, and the values as base64.
pub(crate) fn push_object(
    out: &mut SecretBuffer,
    version: Option<KeyVersion>,
    values: &[(&str, &[u8])],
) {
    let mut before = "{\"";
    if let Some(version) = version {
        out.push(b"{\"version\":");
        push_number(version.number().into(), |digits| out.push(digits));
        before = ",\"";
    }
    for (name, value) in values {
        out.push(before.as_bytes());
        out.push(name.as_bytes());
        out.push(b"\":\"");
        push_base64(out, value);
        before = "\",\"";
    }
    out.push(b"\"}");
}

fn push_base64(out: &mut SecretBuffer, value: &[u8]) {
    let length = base64::encoded_len(value.len(), true).expect("values are far below the limit");
    let written = STANDARD.encode_slice(value, out.push_zeros(length));
    debug_assert_eq!(written, Ok(length));
}

/// Appends anything else.
pub(crate) fn push_value(out: &mut SecretBuffer, value: &impl Serialize) -> serde_json::Result<()> {
    serde_json::to_writer(out, value)
}

/// An answer that is one object.
pub(crate) fn object(version: Option<KeyVersion>, values: &[(&str, &[u8])]) -> Bytes {
    let mut out = SecretBuffer::with_capacity(OBJECT_BYTES);
    push_object(&mut out, version, values);
    Bytes::from_owner(out)
}

/// Decodes a request. Whether it is text is looked at once, which is cheaper than for each text in
/// it; what is none has the decoder's own error.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        let check = |version: Option<u32>, values: &[(&str, &[u8])], expected: &str| {
            let written = object(
                version.map(|number| KeyVersion::new(number).unwrap()),
                values,
            );
            assert_eq!(std::str::from_utf8(&written), Ok(expected));
        };
        check(None, &[("a", b"")], r#"{"a":""}"#);
        check(Some(7), &[("a", b"x")], r#"{"version":7,"a":"eA=="}"#);
        check(
            Some(u32::MAX),
            &[("a", b"xyz"), ("b", &[0xff; 4])],
            r#"{"version":4294967295,"a":"eHl6","b":"/////w=="}"#,
        );
        let long = [0; 3000];
        let expected = format!(r#"{{"a":"{}"}}"#, "A".repeat(4000));
        check(None, &[("a", &long)], &expected);
    }
}
