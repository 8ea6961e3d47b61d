//! Names that come from outside, checked once. A value of one of these types is well formed.

use std::fmt;
use std::sync::Arc;

/// Why a name was refused. The message may be shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct NameError {
    /// The kind of name, as in "bucket name".
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

const fn refuse<T>(what: &'static str, problem: &'static str) -> Result<T, NameError> {
    Err(NameError { what, problem })
}

macro_rules! text_name {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

/// An S3 bucket name: 3 to 63 of `a-z 0-9 . -`, not an IPv4 address (S3 user guide, "Bucket
/// naming rules").
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName(Arc<str>);
text_name!(BucketName);

impl BucketName {
    /// Checks `text` against S3's rules for general purpose buckets.
    ///
    /// # Errors
    /// `NameError` names the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "bucket name";
        let bytes = text.as_bytes();
        if !(3..=63).contains(&bytes.len()) {
            return refuse(WHAT, "must be 3 to 63 characters long");
        }
        if !bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
        {
            return refuse(
                WHAT,
                "may only hold lower-case letters, digits, dots and hyphens",
            );
        }
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) {
            return refuse(WHAT, "must begin and end with a letter or digit");
        }
        if text.contains("..") {
            return refuse(WHAT, "must not hold two dots in a row");
        }
        if text.parse::<std::net::Ipv4Addr>().is_ok() {
            return refuse(WHAT, "must not look like an IPv4 address");
        }
        Ok(Self(text.into()))
    }
}

/// An S3 object key: 1 to 1,024 bytes of UTF-8, otherwise free.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);
text_name!(ObjectKey);

impl ObjectKey {
    /// The longest key that S3 takes, in bytes of UTF-8.
    pub const BYTES_MAX: usize = 1024;

    /// Checks the length; every UTF-8 text of a fitting length is a key.
    ///
    /// # Errors
    /// `NameError` if `text` is empty or over [`Self::BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        const WHAT: &str = "object key";
        if text.is_empty() {
            return refuse(WHAT, "must not be empty");
        }
        if text.len() > Self::BYTES_MAX {
            return refuse(WHAT, "must be at most 1,024 bytes long");
        }
        Ok(Self(text.into()))
    }
}

/// The name of a KMS key inside its enclave: 1 to 128 of `0-9 A-Z a-z . _ -`, beginning with a
/// letter, a digit or `_`. A superset of what KES and MinKMS document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(Arc<str>);
text_name!(KeyName);

impl KeyName {
    /// Checks `text`.
    ///
    /// # Errors
    /// `NameError` names the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_label("KMS key name", text).map(Self)
    }
}

/// The name of an enclave, a namespace of keys, identities and policies. Same form as [`KeyName`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnclaveName(Arc<str>);
text_name!(EnclaveName);

impl EnclaveName {
    /// Checks `text`.
    ///
    /// # Errors
    /// `NameError` names the rule that is broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        parse_label("enclave name", text).map(Self)
    }
}

fn parse_label(what: &'static str, text: &str) -> Result<Arc<str>, NameError> {
    let bytes = text.as_bytes();
    if !(1..=128).contains(&bytes.len()) {
        return refuse(what, "must be 1 to 128 characters long");
    }
    if !bytes[0].is_ascii_alphanumeric() && bytes[0] != b'_' {
        return refuse(what, "must begin with a letter, a digit or '_'");
    }
    // KES takes names that begin so, and refuses this one.
    if text == "_" {
        return refuse(what, "must not be '_' alone");
    }
    if !bytes
        .iter()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        return refuse(what, "may only hold letters, digits, '.', '_' and '-'");
    }
    Ok(text.into())
}

/// The version of a KMS key, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyVersion(u32);

impl KeyVersion {
    /// The first version of every key.
    pub const FIRST: Self = Self(1);

    /// `None` for 0, which on the wires means "the latest".
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The number, at least 1.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for KeyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a part in a multipart upload: 1 to 10,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PartNumber(u16);

impl PartNumber {
    /// The highest part number that S3 takes.
    pub const MAX: u16 = 10_000;

    /// `None` outside 1 to 10,000.
    pub const fn new(number: u32) -> Option<Self> {
        if number >= 1 && number <= Self::MAX as u32 {
            Some(Self(number as u16))
        } else {
            None
        }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_s3() {
        for good in ["abc", "a-b.c", "0xy", &"a".repeat(63)] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            "a..b",
            "10.0.0.1",
            "",
            &"a".repeat(64),
        ] {
            assert!(BucketName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn object_keys_are_limited_in_bytes_not_characters() {
        assert!(ObjectKey::parse(&"é".repeat(512)).is_ok());
        assert!(ObjectKey::parse(&"é".repeat(513)).is_err());
        assert!(ObjectKey::parse("").is_err());
    }

    #[test]
    fn key_names_cannot_hold_separators() {
        for good in ["tenant-a.key_1", "_key", "7"] {
            assert!(KeyName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "_", "-a", "a/b", "a:b", "a b", ".", &"k".repeat(129)] {
            assert!(KeyName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn part_numbers_are_1_to_10000() {
        assert!(PartNumber::new(0).is_none());
        assert_eq!(
            PartNumber::new(10_000).map(PartNumber::number),
            Some(10_000)
        );
        assert!(PartNumber::new(10_001).is_none());
    }
}
