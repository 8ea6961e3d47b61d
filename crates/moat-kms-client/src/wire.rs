//! The bodies of the native REST/JSON API, shared by server and client.
//!
//! Binary values are base64 (standard alphabet, padded). Secret ones are of a type that prints
//! `REDACTED` and is zeroized. Unknown members of a request are refused; unknown members of an
//! answer are ignored, so that an older client reads a newer server.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_types::SecretBytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::{Identity, Privilege};

/// Bytes that are base64 on the wire.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Base64(pub Vec<u8>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64({} bytes)", self.0.len())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Base64Visitor).map(Self)
    }
}

/// Secret bytes that are base64 on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecretBase64(pub SecretBytes);

impl Serialize for SecretBase64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD.encode(self.0.expose()));
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for SecretBase64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_str(Base64Visitor)?;
        Ok(Self(SecretBytes::new(bytes)))
    }
}

struct Base64Visitor;

impl serde::de::Visitor<'_> for Base64Visitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        // The decoder's own message names the offending byte, which may be one of a secret.
        STANDARD
            .decode(text)
            .map_err(|_| E::custom("malformed base64"))
    }
}

/// One page of a listing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listing<T> {
    /// The items, in order of their names.
    pub items: Vec<T>,
    /// The `from` of the next page (the first name that may stand on it); none on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What `GET /version` says. The members are those that the MinKMS clients know, and no others,
/// because they refuse unknown ones.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Version {
    /// The release.
    pub version: String,
    /// The commit that it was built from, if known.
    pub commit: String,
    /// The API: `v1`.
    pub api_version: String,
    /// The address that this node listens on.
    pub host: String,
}

/// Asks for a new enclave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnclave {
    /// Its name.
    pub name: String,
}

/// An enclave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EnclaveInfo {
    /// Its name.
    pub name: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Who made it; empty if the server itself did.
    pub created_by: String,
}

/// Asks for a new key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Its name.
    pub name: String,
    /// What it is for: `AES256` (if it is left out), `ChaCha20` or `HMAC-SHA256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// Whether its material may be read by those who may export. Can't be changed later.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exportable: bool,
    /// How often it gets a new version by itself, in seconds; never if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_seconds: Option<u64>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// Takes in a key whose material comes from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportKey {
    /// What it is for, as for a new key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// 32 bytes.
    pub material: SecretBase64,
    /// The key for message authentication codes that belongs to it, if it had one: 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_material: Option<SecretBase64>,
    /// Whether its material may be read by those who may export.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exportable: bool,
    /// Whether it becomes a new version of a key that is there already.
    #[serde(default, skip_serializing_if = "is_false")]
    pub add_version: bool,
}

/// Decides how often a key gets a new version by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRotation {
    /// In seconds; null for never.
    pub rotation_seconds: Option<u64>,
}

/// The material of a key that was made exportable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportedKey {
    /// Its name.
    pub name: String,
    /// Its versions, oldest first.
    pub versions: Vec<ExportedVersion>,
}

/// The material of one version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExportedVersion {
    /// Its number.
    pub version: u32,
    /// What it is for.
    pub algorithm: String,
    /// The key itself: 32 bytes.
    pub material: SecretBase64,
    /// The key for message authentication codes that was imported beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_material: Option<SecretBase64>,
}

/// A key; never its material.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// Whether it may be used.
    pub enabled: bool,
    /// The latest version: the one that new wraps use.
    pub version: u32,
    /// The algorithm of the latest version.
    pub algorithm: String,
    /// When the key was made (RFC 3339).
    pub created_at: String,
    /// Who made it; empty if the server itself did.
    pub created_by: String,
    /// When it was disabled (RFC 3339), if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<String>,
    /// Who disabled it, if it is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_by: Option<String>,
    /// When it is gone for good (RFC 3339), if it is being deleted. Until then it can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_at: Option<String>,
    /// Who deleted it, if it is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_by: Option<String>,
    /// How many versions it has.
    #[serde(default)]
    pub versions: u32,
    /// Whether its material may be read by those who may export.
    #[serde(default)]
    pub exportable: bool,
    /// How often it gets a new version by itself, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_seconds: Option<u64>,
    /// When it does so next (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_at: Option<String>,
    /// What it guards, as stores reported it; only where one key is asked for. Left out if no store
    /// did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guarded>,
}

/// What a key guards in one lake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Guarded {
    /// The lake: 32 hex digits, drawn when its store was first started.
    pub lake: String,
    /// Buckets that have an object under the key.
    pub buckets: u64,
    /// Objects under it.
    pub objects: u64,
    /// The bytes of those objects, before encryption.
    pub bytes: u64,
    /// When they were counted (RFC 3339).
    pub counted_at: String,
    /// The store that counted.
    pub counted_by: Identity,
}

/// What all keys guard in one lake. A key that is not named guards nothing there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LakeReport {
    /// How long ago the count was finished.
    pub age_ms: u64,
    /// Key by key.
    pub holdings: Vec<Holding>,
}

/// What one key guards in a lake.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// The key.
    pub key: String,
    /// Buckets that have an object under it.
    pub buckets: u64,
    /// Objects under it.
    pub objects: u64,
    /// The bytes of those objects, before encryption.
    pub bytes: u64,
}

/// One version of a key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyVersionInfo {
    /// Its number, from 1.
    pub version: u32,
    /// Its algorithm.
    pub algorithm: String,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// Who made it.
    pub created_by: String,
    /// Whether its material came from elsewhere.
    #[serde(default)]
    pub imported: bool,
}

/// Asks for a data key: random bytes, and the same bytes wrapped under the KMS key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateDataKey {
    /// Associated data that must be given again to decrypt.
    #[serde(default)]
    pub context: Base64,
    /// Length in bytes; 32 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// The version that wraps it; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// A data key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DataKey {
    /// The version that wrapped it.
    pub version: u32,
    /// The key itself.
    pub plaintext: SecretBase64,
    /// Its wrapped form.
    pub ciphertext: Base64,
}

/// Asks to encrypt a small secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Encrypt {
    /// What to encrypt.
    pub plaintext: SecretBase64,
    /// Associated data that must be given again to decrypt.
    #[serde(default)]
    pub context: Base64,
    /// The version to use; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// What was encrypted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ciphertext {
    /// The version that was used.
    pub version: u32,
    /// Opaque; it names its key version itself.
    pub ciphertext: Base64,
}

/// Asks to decrypt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decrypt {
    /// What `generate` or `encrypt` answered.
    pub ciphertext: Base64,
    /// The associated data that was given then.
    #[serde(default)]
    pub context: Base64,
}

/// What was decrypted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plaintext {
    /// The version that it was encrypted under.
    pub version: u32,
    /// The secret.
    pub plaintext: SecretBase64,
}

/// Several requests of one kind, decided one by one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch<T> {
    /// The requests.
    pub items: Vec<T>,
}

/// Asks for a data key, as one of many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateItem {
    /// The KMS key.
    pub key: String,
    /// Associated data that must be given again to decrypt.
    #[serde(default)]
    pub context: Base64,
    /// Length in bytes; 32 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u32>,
    /// The version that wraps it; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Asks to encrypt a small secret, as one of many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptItem {
    /// The KMS key.
    pub key: String,
    /// What to encrypt.
    pub plaintext: SecretBase64,
    /// Associated data that must be given again to decrypt.
    #[serde(default)]
    pub context: Base64,
    /// The version to use; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Asks to decrypt, as one of many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecryptItem {
    /// The KMS key.
    pub key: String,
    /// What `generate` or `encrypt` answered.
    pub ciphertext: Base64,
    /// The associated data that was given then.
    #[serde(default)]
    pub context: Base64,
}

/// Asks for a message authentication code, as one of many.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MacItem {
    /// The KMS key.
    pub key: String,
    /// The message.
    pub message: Base64,
    /// The version to use; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// The answers to a batch, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BatchAnswer<T> {
    /// One for each request.
    pub items: Vec<ItemAnswer<T>>,
}

/// The answer to one item of a batch: one of the two members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ItemAnswer<T> {
    /// What a request of its own would have been answered.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub ok: Option<T>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::Problem>,
}

const fn none<T>() -> Option<T> {
    None
}

/// Asks for a message authentication code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mac {
    /// The message.
    pub message: Base64,
    /// The version to use; the latest if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// A message authentication code.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MacCode {
    /// The version that made it.
    pub version: u32,
    /// HMAC-SHA-256: 32 bytes.
    pub code: Base64,
}

/// Asks whether a message authentication code is that of a message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyMac {
    /// The message.
    pub message: Base64,
    /// The code.
    pub code: Base64,
    /// The version that must have made it; any if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Whether a message authentication code is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MacVerified {
    /// Whether it is.
    pub valid: bool,
    /// The version that made it, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// Asks for a new epoch key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateEpoch {
    /// The bucket that it is for.
    pub bucket: String,
    /// The id that the store drew for the epoch: 32 hex digits.
    pub epoch: String,
}

/// Asks to open a wrapped epoch key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEpoch {
    /// The bucket that it is for.
    pub bucket: String,
    /// The epoch: 32 hex digits.
    pub epoch: String,
    /// The wrapped form that `generate` answered.
    pub wrapped: Base64,
}

/// A leased epoch key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochLease {
    /// The key version that wraps it.
    pub version: u32,
    /// The wrapped form; only in the answer to `generate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<Base64>,
    /// The epoch key: 32 bytes.
    pub key: SecretBase64,
    /// For how long it may be used without asking again.
    pub lease_ttl_ms: u64,
}

/// Makes an identity known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateIdentity {
    /// The identity.
    pub identity: Identity,
    /// Its privilege; `User` if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<Privilege>,
    /// The policy that a user gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether it is a service account of the caller: then it has the caller's rights, and neither
    /// privilege nor policy of its own.
    #[serde(default, skip_serializing_if = "is_false")]
    pub service_account: bool,
    /// What to note about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// An identity that is known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityInfo {
    /// The identity.
    pub identity: Identity,
    /// Its privilege.
    pub privilege: Privilege,
    /// The policy that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When it was made known (RFC 3339).
    pub created_at: String,
    /// Who did that.
    pub created_by: String,
    /// Whose rights it has, if it is a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Identity>,
    /// The service accounts that have its rights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<Identity>,
    /// What was noted about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// Gives an identity a policy, in place of the one it has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssignPolicy {
    /// The policy; none takes it away.
    pub policy: Option<String>,
}

/// Name patterns of one rule: a single pattern, several, or an object with patterns as members.
/// A pattern is a name, a beginning of names that ends in `*`, or `*` alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Patterns {
    /// One pattern.
    One(String),
    /// Several.
    Many(Vec<String>),
    /// The form of the wire: patterns as members, values without meaning.
    Map(BTreeMap<String, serde_json::Value>),
}

impl Patterns {
    /// The patterns.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many, map) = match self {
            Self::One(pattern) => (Some(pattern), None, None),
            Self::Many(patterns) => (None, Some(patterns), None),
            Self::Map(patterns) => (None, None, Some(patterns)),
        };
        one.into_iter()
            .chain(many.into_iter().flatten())
            .chain(map.into_iter().flat_map(BTreeMap::keys))
            .map(String::as_str)
    }
}

/// A policy: which commands on which names. What `deny` names is refused whatever `allow` says;
/// what neither names is refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// Command, such as `KEY:GENERATE`, to name patterns.
    #[serde(default)]
    pub allow: BTreeMap<String, Patterns>,
    /// The same; wins over `allow`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deny: BTreeMap<String, Patterns>,
}

/// A policy and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// Its name.
    pub name: String,
    /// When it was written (RFC 3339).
    pub created_at: String,
    /// Who wrote it.
    pub created_by: String,
    /// Its rules; left out in listings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyDocument>,
}

/// Asks what decides whether an identity may do something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckPolicy {
    /// The command, such as `KEY:GENERATE`.
    pub command: String,
    /// The name of the key, policy, enclave or identity.
    pub name: String,
}

/// What decides whether an identity may do something.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// Its privilege, or that of the identity whose service account it is, if that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<Privilege>,
    /// The policy, if one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// The rule of the policy: `allow` or `deny`, the command and the pattern; none if no rule
    /// matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The same in words.
    pub reason: String,
}

/// A request without members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// An epoch key, wrapped anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RewrappedEpoch {
    /// The version that wraps it now.
    pub version: u32,
    /// The new wrapped form.
    pub wrapped: Base64,
}

/// A key that seals the key manager's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HsmKeyInfo {
    /// Its id, in hex.
    pub id: String,
    /// What it is; absent if the node that answers does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Whether new enclaves are sealed under it.
    pub current: bool,
    /// How many enclaves, the system among them, are sealed under it.
    pub enclaves: u64,
    /// What is wrong with it, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The keys that seal the key manager's state.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HsmStatus {
    /// Those that the node has, and those that the state names.
    pub keys: Vec<HsmKeyInfo>,
}

/// A change of the key that seals the state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateHsm {
    /// A file or a `pkcs11:` URI on the server's machine; without it, the configured key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a change of that key did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HsmRotation {
    /// The id of the key that seals now.
    pub id: String,
    /// What it is.
    pub about: String,
    /// How many enclaves were sealed anew.
    pub enclaves: u64,
}

/// Lines of the audit, and what a reader needs to hold the files against.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// The lines, oldest first, with the members that `moat_kms::audit::AuditLine` documents.
    pub lines: Vec<serde_json::Value>,
    /// The number of the last line that was looked at: the `after` of the next request. Only if
    /// lines after a number were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<u64>,
    /// The key that signs checkpoints.
    pub public_key: Base64,
    /// The number of the newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_seq: Option<u64>,
    /// Its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_hash: Option<Base64>,
}
