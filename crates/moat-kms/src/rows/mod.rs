//! The rows of the key manager's state: where each stands and what it holds.
//!
//! ```text
//! kms/e/<enclave>              enclave key, sealed by the HSM   (an empty name is the system)
//! kms/k/<enclave>/<key>        key with all its versions        sealed under the enclave key
//! kms/i/<enclave>/<identity>   identity                         sealed under the enclave key
//! kms/h/<identity>             the enclave an identity is of    sealed under the system's key
//! kms/d/<time>/<enclave>/<key> when a key is due for something  empty: the key's row says what
//! kms/p/<enclave>/<policy>     policy                           sealed under the enclave key
//! kms/l/<enclave>/<lake>       what keys guard in a lake        sealed under the enclave key
//! kms/s/<name>                 singletons (audit key, anchor)   sealed under the system's key
//! ```
//!
//! Names can't hold a `/`, so no row can pass for another. Each value begins, once opened, with
//! its format version.

mod identity;
mod key;
mod lake;
mod material;

use bytes::Bytes;
use moat_kms_client::Identity;
use moat_types::{EnclaveName, KeyName, SecretBytes, UnixMillis};

pub(crate) use identity::IdentityRow;
pub use key::Algorithm;
pub(crate) use key::{Deletion, KeyRow, VersionRow};
pub(crate) use lake::{HoldingRow, LakeRow};
pub(crate) use material::Material;

use crate::codec::{Malformed, Reader, Writer};
use crate::policy::Policy;

pub(crate) const ALL_ROWS: &str = "kms/";
/// The newest checkpoints of the audits, one for each node.
pub(crate) const ANCHOR_ROWS: &str = "kms/s/audit-anchor";
const FORMAT: u8 = 1;

/// Where keys, identities and policies live: an enclave, or the system above all enclaves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// Above the enclaves: SysAdmins, and the server's own secrets.
    System,
    /// One enclave.
    Enclave(EnclaveName),
}

impl Scope {
    /// The enclave's name; empty for the system.
    pub fn as_str(&self) -> &str {
        match self {
            Self::System => "",
            Self::Enclave(name) => name.as_str(),
        }
    }

    /// The scope whose row stands at a key.
    pub(crate) fn of_enclave_row(meta_key: &[u8]) -> Option<Self> {
        let name = meta_key.strip_prefix(b"kms/e/")?;
        if name.is_empty() {
            return Some(Self::System);
        }
        let name = std::str::from_utf8(name).ok()?;
        EnclaveName::parse(name).ok().map(Self::Enclave)
    }
}

// The keys of rows are put together without formatting: each operation needs some.

pub(crate) fn enclave_row(scope: &Scope) -> Bytes {
    ["kms/e/", scope.as_str()].concat().into()
}

pub(crate) fn key_row(enclave: &str, key: &str) -> Bytes {
    ["kms/k/", enclave, "/", key].concat().into()
}

pub(crate) fn identity_row(scope: &Scope, identity: &Identity) -> Bytes {
    identity_rows(scope, &identity.to_ascii())
}

/// As [`identity_row`], of a text that may be an identity's or the beginning of one.
pub(crate) fn identity_rows(scope: &Scope, identity: &[u8]) -> Bytes {
    [&b"kms/i/"[..], scope.as_str().as_bytes(), b"/", identity]
        .concat()
        .into()
}

pub(crate) fn home_row(identity: &Identity) -> Bytes {
    [&b"kms/h/"[..], &identity.to_ascii()].concat().into()
}

pub(crate) fn policy_row(scope: &Scope, policy: &str) -> Bytes {
    ["kms/p/", scope.as_str(), "/", policy].concat().into()
}

pub(crate) fn lake_row(enclave: &str, lake: &str) -> Bytes {
    ["kms/l/", enclave, "/", lake].concat().into()
}

/// The beginning of all rows of what is due.
pub(crate) const DUE_ROWS: &str = "kms/d/";

/// When something is due for a key. In order of time, so that what is due comes first.
pub(crate) fn due_row(at: UnixMillis, enclave: &str, key: &str) -> Bytes {
    let at = u64::try_from(at.0).unwrap_or_default();
    format!("{DUE_ROWS}{at:016x}/{enclave}/{key}").into()
}

/// Takes the key of a due row apart: when, in which enclave, which key.
pub(crate) fn parse_due_row(meta_key: &[u8]) -> Option<(UnixMillis, EnclaveName, KeyName)> {
    let text = std::str::from_utf8(meta_key).ok()?.strip_prefix(DUE_ROWS)?;
    let mut parts = text.splitn(3, '/');
    let at = u64::from_str_radix(parts.next()?, 16).ok()?;
    let enclave = EnclaveName::parse(parts.next()?).ok()?;
    let key = KeyName::parse(parts.next()?).ok()?;
    Some((UnixMillis(i64::try_from(at).ok()?), enclave, key))
}

pub(crate) fn singleton_row(name: &str) -> Bytes {
    format!("kms/s/{name}").into()
}

/// A row that is sealed and kept.
pub(crate) trait Row: Sized {
    fn encode(&self) -> Writer;
    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
}

/// Who made something, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// When.
    pub at: UnixMillis,
    /// Who; none if the server itself did.
    pub by: Option<Identity>,
}

impl Origin {
    fn encode(self, writer: &mut Writer) {
        writer.time(self.at);
        match self.by {
            Some(identity) => writer.bytes(identity.as_bytes()),
            None => writer.bytes(&[]),
        };
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let at = reader.time()?;
        let by = match reader.bytes()? {
            [] => None,
            bytes => Some(Identity::from_spki_sha256(
                bytes.try_into().map_err(|_| Malformed)?,
            )),
        };
        Ok(Self { at, by })
    }
}

/// An enclave.
pub(crate) struct EnclaveRow {
    pub(crate) key: SecretBytes,
    pub(crate) created: Origin,
}

impl Row for EnclaveRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.bytes(self.key.expose());
        self.created.encode(&mut writer);
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let key = SecretBytes::new(reader.bytes()?.to_vec());
        let created = Origin::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { key, created })
    }
}

/// The enclave that an identity is of, so that it can't be in two.
pub(crate) struct HomeRow {
    pub(crate) scope: Scope,
}

impl Row for HomeRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.text(self.scope.as_str());
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let scope = match reader.text()? {
            "" => Scope::System,
            name => Scope::Enclave(EnclaveName::parse(name).map_err(|_| Malformed)?),
        };
        reader.end()?;
        Ok(Self { scope })
    }
}

/// A policy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PolicyRow {
    pub(crate) created: Origin,
    pub(crate) policy: Policy,
}

impl Row for PolicyRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        self.created.encode(&mut writer);
        self.policy.encode(&mut writer);
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let created = Origin::decode(&mut reader)?;
        let policy = Policy::decode(&mut reader)?;
        reader.end()?;
        Ok(Self { created, policy })
    }
}

/// The seed of the key that signs audit checkpoints.
pub(crate) struct AuditKeyRow {
    pub(crate) seed: SecretBytes,
}

impl Row for AuditKeyRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.bytes(self.seed.expose());
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let seed = SecretBytes::new(reader.bytes()?.to_vec());
        reader.end()?;
        if seed.expose().len() == 32 {
            Ok(Self { seed })
        } else {
            Err(Malformed)
        }
    }
}

/// The last audit checkpoint that the state knows of.
pub(crate) struct AnchorRow {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
}

impl Row for AnchorRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.u64(self.seq).bytes(&self.hash);
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let seq = reader.u64()?;
        let hash = reader.bytes()?.try_into().map_err(|_| Malformed)?;
        reader.end()?;
        Ok(Self { seq, hash })
    }
}
