//! Protobuf, as much of it as this protocol needs (protobuf.dev, "Encoding").
//!
//! Written by hand, because messages hold keys: what is read borrows from the request's body, and
//! what is written goes into one buffer that is zeroized. Fields that are not known are skipped.
//! Groups, which proto3 does not have, and known fields of another wire type are refused.

use moat_types::SecretBuffer;

/// A message is not of the form that its command promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command of the request is malformed")]
pub(crate) struct Malformed;

const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;
const FIELD_MAX: u64 = (1 << 29) - 1;

/// The value of a field as it stands on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32,
}

/// Calls `field` for each field of a message.
pub(crate) fn fields<'a>(
    mut message: &'a [u8],
    mut field: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let number = tag >> 3;
        if number == 0 || number > FIELD_MAX {
            return Err(Malformed);
        }
        let value = match tag & 7 {
            VARINT => Value::Varint(varint(&mut message)?),
            FIXED64 => {
                take(&mut message, 8)?;
                Value::Fixed64
            }
            BYTES => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Malformed)?;
                Value::Bytes(take(&mut message, length)?)
            }
            FIXED32 => {
                take(&mut message, 4)?;
                Value::Fixed32
            }
            _ => return Err(Malformed),
        };
        // Checked above to be at most 29 bits.
        field(number as u32, value)?;
    }
    Ok(())
}

fn varint(message: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (index, byte) in message.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte holds the last of 64 bits.
        if index == 9 && bits > 1 {
            return Err(Malformed);
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            *message = &message[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = message.split_at_checked(length).ok_or(Malformed)?;
    *message = rest;
    Ok(taken)
}

/// A field of a message that can be read. The default is what an absent field means.
pub(crate) trait Field<'a>: Default {
    /// Takes a value off the wire. Of a single field that stands there twice, the last counts.
    fn merge(&mut self, value: Value<'a>) -> Result<(), Malformed>;
}

impl<'a> Field<'a> for &'a [u8] {
    fn merge(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        match value {
            Value::Bytes(bytes) => *self = bytes,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

impl<'a> Field<'a> for &'a str {
    fn merge(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        match value {
            Value::Bytes(bytes) => *self = std::str::from_utf8(bytes).map_err(|_| Malformed)?,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

impl Field<'_> for u64 {
    fn merge(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        match value {
            Value::Varint(number) => *self = number,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

impl Field<'_> for u32 {
    fn merge(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let mut number = 0_u64;
        number.merge(value)?;
        *self = number.try_into().map_err(|_| Malformed)?;
        Ok(())
    }
}

impl Field<'_> for bool {
    fn merge(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let mut number = 0_u64;
        number.merge(value)?;
        *self = number != 0;
        Ok(())
    }
}

/// A zig-zag number (`sint32`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Sint32(pub(crate) i32);

impl Field<'_> for Sint32 {
    fn merge(&mut self, value: Value<'_>) -> Result<(), Malformed> {
        let mut number = 0_u32;
        number.merge(value)?;
        self.0 = (number >> 1) as i32 ^ -((number & 1) as i32);
        Ok(())
    }
}

/// Entries of a map, each a message with the key in field 1 and the value in field 2.
impl<'a, K: Field<'a>, V: Field<'a>> Field<'a> for Vec<(K, V)> {
    fn merge(&mut self, value: Value<'a>) -> Result<(), Malformed> {
        let Value::Bytes(entry) = value else {
            return Err(Malformed);
        };
        let (mut key, mut item) = (K::default(), V::default());
        fields(entry, |number, value| match number {
            1 => key.merge(value),
            2 => item.merge(value),
            _ => Ok(()),
        })?;
        self.push((key, item));
        Ok(())
    }
}

/// Writes messages. Zeroized when dropped.
pub(crate) struct Writer(SecretBuffer);

impl Default for Writer {
    fn default() -> Self {
        /// The answer to a command about one key; larger ones grow.
        const CAPACITY: usize = 256;
        Self::with_capacity(CAPACITY)
    }
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(SecretBuffer::with_capacity(bytes))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, which are zeroized when their last user is done.
    pub(crate) fn into_bytes(self) -> bytes::Bytes {
        bytes::Bytes::from_owner(self.0)
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }

    /// Writes over what was written at `at`.
    pub(crate) fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A field of bytes or text; nothing if it is empty.
    pub(crate) fn bytes(&mut self, number: u32, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if !value.is_empty() {
            self.tag(number, BYTES);
            self.varint(value.len() as u64);
            self.raw(value);
        }
    }

    /// A number or flag; nothing if it is 0.
    pub(crate) fn number(&mut self, number: u32, value: impl Into<u64>) {
        let value = value.into();
        if value != 0 {
            self.tag(number, VARINT);
            self.varint(value);
        }
    }

    /// A zig-zag number; nothing if it is 0.
    pub(crate) fn sint(&mut self, number: u32, value: i64) {
        self.number(number, ((value << 1) ^ (value >> 63)) as u64);
    }

    /// A message inside this one, even if it is empty: in a repeated field each one counts.
    pub(crate) fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        self.tag(number, BYTES);
        let start = self.len();
        write(self);
        // The length stands before what it counts and takes a byte more for each 7 bits: what was
        // written is moved behind it.
        let written = self.len() - start;
        self.varint(written as u64);
        self.0[start..].rotate_left(written);
    }

    fn tag(&mut self, number: u32, kind: u64) {
        self.varint(u64::from(number) << 3 | kind);
    }

    fn varint(&mut self, mut value: u64) {
        let mut bytes = [0; 10];
        let mut length = 0;
        loop {
            let more = value > 0x7f;
            bytes[length] = (value & 0x7f) as u8 | u8::from(more) << 7;
            length += 1;
            value >>= 7;
            if !more {
                break;
            }
        }
        self.raw(&bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(hex: &str) -> Result<Vec<(u32, Value<'static>)>, Malformed> {
        let message = hex::decode(hex.replace(' ', "")).unwrap().leak();
        let mut found = Vec::new();
        fields(message, |number, value| {
            found.push((number, value));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn fields_are_read_as_the_specification_says() {
        assert_eq!(read("089601"), Ok(vec![(1, Value::Varint(150))]));
        assert_eq!(
            read("1207 74657374696e67"),
            Ok(vec![(2, Value::Bytes(b"testing"))])
        );
        assert_eq!(
            read("0dffffffff 110000000000000000 1800"),
            Ok(vec![
                (1, Value::Fixed32),
                (2, Value::Fixed64),
                (3, Value::Varint(0))
            ])
        );
        assert_eq!(
            read("08ffffffffffffffffff01"),
            Ok(vec![(1, Value::Varint(u64::MAX))])
        );
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            "08",                       // no value
            "0880",                     // a number that does not end
            "08ffffffffffffffffff02",   // more than 64 bits
            "08ffffffffffffffffffff01", // more than 10 bytes
            "1205 74657374",            // longer than the message
            "0d ffffff",
            "11 00000000000000",
            "0b",                     // a group
            "0f",                     // no such wire type
            "0001",                   // field 0
            "f8ffffffff0f01",         // a field number of more than 29 bits
            "12ffffffffffffffffff01", // a length that no memory has
        ] {
            assert_eq!(read(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn sint32_is_zig_zag() {
        for (wire, number) in [
            (0, 0),
            (1, -1),
            (2, 1),
            (7, -4),
            (16, 8),
            (u32::MAX, i32::MIN),
        ] {
            let mut value = Sint32::default();
            value.merge(Value::Varint(u64::from(wire))).unwrap();
            assert_eq!(value.0, number);
            let mut out = Writer::default();
            out.sint(1, i64::from(number));
            let mut again = Sint32::default();
            fields(out.as_slice(), |_, value| again.merge(value)).unwrap();
            assert_eq!(again.0, number);
        }
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let check = |value: Value<'static>| {
            (
                <&str>::default().merge(value).is_ok(),
                <&[u8]>::default().merge(value).is_ok(),
                0_u32.merge(value).is_ok(),
                bool::default().merge(value).is_ok(),
            )
        };
        assert_eq!(check(Value::Varint(1)), (false, false, true, true));
        assert_eq!(check(Value::Varint(1 << 32)), (false, false, false, true));
        assert_eq!(check(Value::Bytes(b"a")), (true, true, false, false));
        assert_eq!(check(Value::Bytes(b"\xff")), (false, true, false, false));
        assert_eq!(check(Value::Fixed32), (false, false, false, false));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            bytes in prop::collection::vec(any::<u8>(), 0..300), number: u64, field in 1..FIELD_MAX as u32,
        ) {
            let mut out = Writer::default();
            out.message(field, |out| {
                out.bytes(1, &bytes);
                out.message(2, |out| out.number(3, number));
            });
            let mut inner: (&[u8], u64) = Default::default();
            fields(out.as_slice(), |found, value| {
                assert_eq!(found, field);
                let Value::Bytes(message) = value else { return Err(Malformed) };
                fields(message, |found, value| match (found, value) {
                    (1, value) => inner.0.merge(value),
                    (2, Value::Bytes(message)) => fields(message, |_, value| inner.1.merge(value)),
                    _ => Err(Malformed),
                })
            }).unwrap();
            prop_assert_eq!(inner, (bytes.as_slice(), number));
        }
    }
}
