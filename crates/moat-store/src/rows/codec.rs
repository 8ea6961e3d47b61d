//! The byte codec of rows: unsigned LEB128 numbers and length-prefixed bytes.
//!
//! Rows are read on every request and by the thousand in LIST, so decoding borrows.

/// A row that can't be decoded. What it says is for the log only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("metadata row is damaged: {0}")]
pub(crate) struct Damaged(pub(crate) &'static str);

#[derive(Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn number(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).fixed(bytes)
    }

    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// `what` names the row in errors.
    pub(crate) const fn new(rest: &'a [u8], what: &'static str) -> Self {
        Self { rest, what }
    }

    const fn damaged(&self) -> Damaged {
        Damaged(self.what)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damaged> {
        let (&first, rest) = self.rest.split_first().ok_or(self.damaged())?;
        self.rest = rest;
        Ok(first)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or(self.damaged())?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let damaged = self.damaged();
        self.slice(N)?.try_into().map_err(|_| damaged)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length = usize::try_from(self.number()?).map_err(|_| self.damaged())?;
        self.slice(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Damaged> {
        let damaged = self.damaged();
        std::str::from_utf8(self.bytes()?).map_err(|_| damaged)
    }

    /// A parsed value: `None` from `parse` is damage.
    pub(crate) fn parsed<T>(&self, parsed: Option<T>) -> Result<T, Damaged> {
        parsed.ok_or(self.damaged())
    }

    /// Nothing may follow.
    pub(crate) const fn end(&self) -> Result<(), Damaged> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(number: u64, text in ".{0,40}", byte: u8) {
            let mut encoder = Encoder::default();
            encoder.number(number).text(&text).u8(byte).fixed(&[7; 16]);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes, "test");
            prop_assert_eq!(decoder.number(), Ok(number));
            prop_assert_eq!(decoder.text(), Ok(text.as_str()));
            prop_assert_eq!(decoder.u8(), Ok(byte));
            prop_assert_eq!(decoder.fixed::<16>(), Ok([7; 16]));
            prop_assert_eq!(decoder.end(), Ok(()));
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let mut decoder = Decoder::new(&bytes, "test");
            let _ = decoder.number();
            let _ = decoder.bytes();
            let _ = decoder.text();
            let _ = decoder.end();
        }
    }
}
