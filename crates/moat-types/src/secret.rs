//! Values that must not reach a log: they print `REDACTED`, are zeroized when dropped and
//! compared in constant time.

use std::ops::{Deref, DerefMut};
use std::{fmt, io};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Overwrites everything that the vector holds, and the memory behind it that it did hold.
///
/// What `Zeroize` does for vectors writes byte by byte, which takes ten instructions for each:
/// 2,500 for the secrets and answers of one data key. Filled as a whole, which the barrier keeps
/// from being left out as the last use of the memory, they take a hundred.
fn wipe(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.capacity(), 0);
    bytes.fill(0);
    zeroize::optimization_barrier(bytes.as_slice());
    bytes.clear();
}

/// Bytes that hold secrets while they are written or filled. Zeroized when dropped, and so is the
/// memory that they outgrow.
#[derive(Default)]
pub struct SecretBuffer(Vec<u8>);

impl SecretBuffer {
    /// An empty buffer with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// So many zeros, to be filled.
    pub fn zeros(bytes: usize) -> Self {
        Self(vec![0; bytes])
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Appends so many zeros, to be filled.
    pub fn push_zeros(&mut self, bytes: usize) -> &mut [u8] {
        self.make_room(bytes);
        let start = self.0.len();
        self.0.resize(start + bytes, 0);
        &mut self.0[start..]
    }

    fn make_room(&mut self, bytes: usize) {
        if self.0.capacity() - self.0.len() < bytes {
            let mut larger = Vec::with_capacity((self.0.len() + bytes) * 2);
            larger.extend_from_slice(&self.0);
            *self = Self(larger);
        }
    }
}

impl Deref for SecretBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for SecretBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for SecretBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl io::Write for SecretBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SecretBuffer {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

impl ZeroizeOnDrop for SecretBuffer {}

impl fmt::Debug for SecretBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

/// Secret bytes of any length.
#[derive(Clone)]
pub struct SecretBytes(Vec<u8>);

impl Zeroize for SecretBytes {
    fn zeroize(&mut self) {
        wipe(&mut self.0);
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for SecretBytes {}

impl SecretBytes {
    /// Takes ownership; the caller must not keep a copy.
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The secret itself. Name it at each use so that a reader sees where secrets go.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

/// A secret text: a secret access key, an API key, a password.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretString(String);

impl SecretString {
    /// Takes ownership; the caller must not keep a copy.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for SecretString {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}
impl Eq for SecretString {}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REDACTED")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wiped_holds_nothing_in_all_of_its_memory() {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(&[7; 40]);
        bytes.truncate(10);
        let capacity = bytes.capacity();
        wipe(&mut bytes);
        assert!(bytes.is_empty());
        // Wiped in its place: nothing was moved.
        assert_eq!(bytes.capacity(), capacity);

        let mut secret = SecretBytes::new(vec![1, 2]);
        secret.zeroize();
        assert_eq!(secret.expose(), []);
        let mut buffer = SecretBuffer::with_capacity(2);
        buffer.push(b"ab");
        buffer.push_zeros(2)[1] = b'd';
        buffer[2] = b'c';
        buffer.push(b"");
        assert_eq!(
            (&buffer[..], format!("{buffer:?}")),
            (&b"abcd"[..], "REDACTED".into())
        );
    }

    #[test]
    fn secrets_print_redacted_and_compare_by_value() {
        let (a, b) = (SecretBytes::new(vec![1, 2]), SecretBytes::new(vec![1, 2]));
        assert_eq!(a, b);
        assert_ne!(a, SecretBytes::new(vec![1, 2, 3]));
        assert_eq!(
            format!("{a:?} {:?}", SecretString::new("s".into())),
            "REDACTED REDACTED"
        );
    }
}
