//! Row values as bytes: integers big-endian, byte strings behind a 32-bit length. Written by hand
//! because rows hold secrets, and a buffer that is ours can be zeroized.

use moat_types::UnixMillis;
use zeroize::Zeroize;

/// A row is not of the form that its version promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed row")]
pub(crate) struct Malformed;

/// Builds a row. Zeroized when dropped.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A row of the given format version, which is its first byte.
    pub(crate) fn new(format: u8) -> Self {
        // Grown buffers leave copies behind; rows are rarely larger than this.
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(format);
        Self(bytes)
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn time(&mut self, value: UnixMillis) -> &mut Self {
        self.raw(&value.0.to_be_bytes())
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).expect("rows are far below 4 GiB"));
        self.raw(value)
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn raw(&mut self, value: &[u8]) -> &mut Self {
        if self.0.capacity() - self.0.len() < value.len() {
            // Growing by hand, so that the outgrown buffer is zeroized.
            let mut larger = Vec::with_capacity((self.0.len() + value.len()) * 2);
            larger.extend_from_slice(&self.0);
            self.0.zeroize();
            self.0 = larger;
        }
        self.0.extend_from_slice(value);
        self
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Takes a row apart.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Checks the format version, the first byte.
    pub(crate) fn new(bytes: &'a [u8], format: u8) -> Result<Self, Malformed> {
        let mut reader = Self(bytes);
        if reader.u8()? == format {
            Ok(reader)
        } else {
            Err(Malformed)
        }
    }

    /// Takes the format version, the first byte, of a row that has had several.
    pub(crate) fn versioned(bytes: &'a [u8]) -> Result<(Self, u8), Malformed> {
        let mut reader = Self(bytes);
        let format = reader.u8()?;
        Ok((reader, format))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn time(&mut self) -> Result<UnixMillis, Malformed> {
        self.array()
            .map(|bytes| UnixMillis(i64::from_be_bytes(bytes)))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A byte that is 0 or 1.
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Whether everything was read.
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The row must end here.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed)
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_any_cut_is_refused() {
        let mut writer = Writer::new(3);
        writer
            .u8(7)
            .u32(8)
            .u64(u64::MAX)
            .time(UnixMillis(-5))
            .bytes(&[1; 2000])
            .text("é");
        let read = |bytes: &[u8]| -> Result<(), Malformed> {
            let mut reader = Reader::new(bytes, 3)?;
            assert_eq!(reader.u8()?, 7);
            assert_eq!(reader.u32()?, 8);
            assert_eq!(reader.u64()?, u64::MAX);
            assert_eq!(reader.time()?, UnixMillis(-5));
            assert_eq!(reader.bytes()?, [1; 2000]);
            assert_eq!(reader.text()?, "é");
            reader.end()
        };
        assert_eq!(read(writer.as_slice()), Ok(()));
        for cut in 0..writer.as_slice().len() {
            assert_eq!(read(&writer.as_slice()[..cut]), Err(Malformed), "{cut}");
        }
        let longer = [writer.as_slice(), &[0]].concat();
        assert_eq!(read(&longer), Err(Malformed));
        assert!(Reader::new(writer.as_slice(), 4).is_err());
    }
}
