//! Random 128-bit ids. They name things that are never renamed: a blob, an epoch, an upload,
//! a version. Text form: 32 lower-case hex digits.

use std::fmt;

use crate::Random;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Draws a new id.
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; 16];
                random.fill(&mut bytes);
                Self(bytes)
            }

            /// The id made of these 16 bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes, as they stand in rows and associated data.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Parses 32 hex digits of either case; anything else is `None`.
            pub fn parse(text: &str) -> Option<Self> {
                let mut bytes = [0; 16];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id! {
    /// An immutable blob of sealed bytes.
    BlobId
}
id! {
    /// An epoch key: the key-encryption key of one (bucket, KMS key) for some time.
    EpochId
}
id! {
    /// A multipart upload.
    UploadId
}
id! {
    /// The metadata of one data lake, whichever and however many stores serve it.
    LakeId
}
id! {
    /// One write of an object. Unique even where S3 shows the version as `null`.
    VersionId
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemRandom;

    #[test]
    fn text_form_round_trips_and_rejects_other_lengths() {
        let id = BlobId::random(&SystemRandom);
        assert_eq!(BlobId::parse(&id.to_string()), Some(id));
        assert_eq!(BlobId::parse("00"), None);
        assert_eq!(BlobId::parse(&format!("{id}00")), None);
        assert_eq!(BlobId::parse(&"g".repeat(32)), None);
    }
}
