//! What a reader hands out.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::disk::Lent;

/// Bytes that were read. The caller may change them in place, and should drop them soon: large
/// ones are in memory that is used again.
pub struct ReadBytes(Memory);

enum Memory {
    Own(Vec<u8>),
    Lent(Lent),
}

impl From<Vec<u8>> for ReadBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Memory::Own(bytes))
    }
}

impl From<Lent> for ReadBytes {
    fn from(lent: Lent) -> Self {
        Self(Memory::Lent(lent))
    }
}

impl AsRef<[u8]> for ReadBytes {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Memory::Own(bytes) => bytes,
            Memory::Lent(lent) => lent.as_ref(),
        }
    }
}

impl Deref for ReadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_ref()
    }
}

impl DerefMut for ReadBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Memory::Own(bytes) => bytes,
            Memory::Lent(lent) => lent.as_mut(),
        }
    }
}

impl fmt::Debug for ReadBytes {
    /// Their number alone: what an object holds does not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadBytes({} bytes)", self.len())
    }
}
