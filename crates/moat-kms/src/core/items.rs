//! What is asked of keys, and what comes of it.

use moat_types::{KeyName, KeyVersion, SecretBytes};

/// A data key to be made.
#[derive(Clone, Copy, Debug)]
pub struct Generate<'a> {
    /// The KMS key that wraps it.
    pub key: &'a KeyName,
    /// The version that does; the latest if none is named.
    pub version: Option<KeyVersion>,
    /// What is to be given again to decrypt.
    pub context: &'a [u8],
    /// How long it is, in bytes.
    pub length: usize,
}

/// A small secret to be encrypted.
#[derive(Clone, Copy, Debug)]
pub struct Encrypt<'a> {
    /// The KMS key.
    pub key: &'a KeyName,
    /// Its version; the latest if none is named.
    pub version: Option<KeyVersion>,
    /// What is to be given again to decrypt.
    pub context: &'a [u8],
    /// The secret.
    pub plaintext: &'a SecretBytes,
}

/// A ciphertext to be decrypted.
#[derive(Clone, Copy, Debug)]
pub struct Decrypt<'a> {
    /// The KMS key.
    pub key: &'a KeyName,
    /// The version that it must have been made under, if one is named.
    pub version: Option<KeyVersion>,
    /// What was given to encrypt.
    pub context: &'a [u8],
    /// The ciphertext.
    pub ciphertext: &'a [u8],
}

/// A message to be authenticated.
#[derive(Clone, Copy, Debug)]
pub struct Mac<'a> {
    /// The KMS key.
    pub key: &'a KeyName,
    /// Its version; the latest if none is named.
    pub version: Option<KeyVersion>,
    /// The message.
    pub message: &'a [u8],
}

/// A new data key.
#[derive(Clone, Debug)]
pub struct DataKey {
    /// The version that wraps it.
    pub version: KeyVersion,
    /// The key.
    pub plaintext: SecretBytes,
    /// The key, wrapped.
    pub ciphertext: Vec<u8>,
}

/// What was encrypted.
#[derive(Clone, Debug)]
pub struct Encrypted {
    /// The version that was used.
    pub version: KeyVersion,
    /// The ciphertext; it names the version.
    pub ciphertext: Vec<u8>,
}

/// What was decrypted.
#[derive(Clone, Debug)]
pub struct Decrypted {
    /// The version it was encrypted under.
    pub version: KeyVersion,
    /// The secret.
    pub plaintext: SecretBytes,
}

/// A message authentication code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MacCode {
    /// The version that made it.
    pub version: KeyVersion,
    /// The code: HMAC-SHA-256, 32 bytes.
    pub code: Vec<u8>,
}

/// The longest data key, as MinKMS has it.
pub const DATA_KEY_BYTES_MAX: usize = 1024;
/// A data key's length where none is asked for.
pub const DATA_KEY_BYTES: usize = 32;
/// The longest plaintext of `encrypt`, and the longest message of `mac`: what fits into the body
/// of a request to KES. They are for keys and small secrets, not for data.
pub const PLAINTEXT_BYTES_MAX: usize = 1 << 20;
/// The longest context: S3 limits an encryption context to the size of a header.
pub const CONTEXT_BYTES_MAX: usize = 16 << 10;
/// Items of one batch: as many lines as may wait for the audit at once.
pub const BATCH_ITEMS_MAX: usize = 4096;

/// What all items of batches have.
pub(super) trait Item {
    fn key(&self) -> &KeyName;
    fn context(&self) -> Option<&[u8]>;
}

impl Item for Generate<'_> {
    fn key(&self) -> &KeyName {
        self.key
    }

    fn context(&self) -> Option<&[u8]> {
        Some(self.context)
    }
}

impl Item for Encrypt<'_> {
    fn key(&self) -> &KeyName {
        self.key
    }

    fn context(&self) -> Option<&[u8]> {
        Some(self.context)
    }
}

impl Item for Decrypt<'_> {
    fn key(&self) -> &KeyName {
        self.key
    }

    fn context(&self) -> Option<&[u8]> {
        Some(self.context)
    }
}

impl Item for Mac<'_> {
    fn key(&self) -> &KeyName {
        self.key
    }

    fn context(&self) -> Option<&[u8]> {
        None
    }
}
