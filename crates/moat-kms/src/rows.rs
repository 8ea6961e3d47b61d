//! The rows of the key manager's state: where each stands and what it holds.
//!
//! ```text
//! kms/e/<enclave>              enclave key, sealed by the HSM   (an empty name is the system)
//! kms/k/<enclave>/<key>        key with all its versions        sealed under the enclave key
//! kms/i/<enclave>/<identity>   identity                         sealed under the enclave key
//! kms/h/<identity>             the enclave an identity is of    sealed under the system's key
//! kms/p/<enclave>/<policy>     policy                           sealed under the enclave key
//! kms/s/<name>                 singletons (audit key, anchor)   sealed under the system's key
//! ```
//!
//! Names can't hold a `/`, so no row can pass for another. Each value begins, once opened, with
//! its format version.

use bytes::Bytes;
use moat_kms_client::{Identity, Privilege};
use moat_types::{EnclaveName, KeyName, KeyVersion, SecretBytes, UnixMillis};

use crate::codec::{Malformed, Reader, Writer};
use crate::policy::Policy;

pub(crate) const ALL_ROWS: &str = "kms/";
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
}

pub(crate) fn enclave_row(scope: &Scope) -> Bytes {
    format!("kms/e/{}", scope.as_str()).into()
}

pub(crate) fn key_row(enclave: &str, key: &str) -> Bytes {
    format!("kms/k/{enclave}/{key}").into()
}

pub(crate) fn identity_row(scope: &Scope, identity: &str) -> Bytes {
    format!("kms/i/{}/{identity}", scope.as_str()).into()
}

pub(crate) fn home_row(identity: &Identity) -> Bytes {
    format!("kms/h/{identity}").into()
}

pub(crate) fn policy_row(scope: &Scope, policy: &str) -> Bytes {
    format!("kms/p/{}/{policy}", scope.as_str()).into()
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

/// The cipher of a key version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// AES-256-GCM.
    Aes256,
}

impl Algorithm {
    /// The name that the wires use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Aes256 => 1,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Aes256),
            _ => None,
        }
    }
}

/// A key with its versions.
#[derive(Clone)]
pub(crate) struct KeyRow {
    pub(crate) created: Origin,
    /// By whom and when it was disabled, if it is.
    pub(crate) disabled: Option<Origin>,
    /// In ascending order of number; never empty.
    pub(crate) versions: Vec<VersionRow>,
}

#[derive(Clone)]
pub(crate) struct VersionRow {
    pub(crate) number: KeyVersion,
    pub(crate) algorithm: Algorithm,
    pub(crate) created: Origin,
    pub(crate) material: SecretBytes,
}

impl KeyRow {
    pub(crate) fn latest(&self) -> &VersionRow {
        self.versions.last().expect("a key has a version")
    }

    pub(crate) fn version(&self, number: KeyVersion) -> Option<&VersionRow> {
        let at = self.versions.binary_search_by_key(&number, |v| v.number);
        at.ok().map(|at| &self.versions[at])
    }
}

impl Row for KeyRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        self.created.encode(&mut writer);
        writer.u8(u8::from(self.disabled.is_some()));
        if let Some(disabled) = self.disabled {
            disabled.encode(&mut writer);
        }
        writer.u32(self.versions.len() as u32);
        for version in &self.versions {
            writer
                .u32(version.number.number())
                .u8(version.algorithm.code());
            version.created.encode(&mut writer);
            writer.bytes(version.material.expose());
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let created = Origin::decode(&mut reader)?;
        let disabled = match reader.u8()? {
            0 => None,
            1 => Some(Origin::decode(&mut reader)?),
            _ => return Err(Malformed),
        };
        let mut versions = Vec::new();
        for _ in 0..reader.u32()? {
            versions.push(VersionRow {
                number: KeyVersion::new(reader.u32()?).ok_or(Malformed)?,
                algorithm: Algorithm::from_code(reader.u8()?).ok_or(Malformed)?,
                created: Origin::decode(&mut reader)?,
                material: SecretBytes::new(reader.bytes()?.to_vec()),
            });
        }
        reader.end()?;
        let ascending = versions.is_sorted_by(|a, b| a.number < b.number);
        if versions.is_empty() || !ascending {
            return Err(Malformed);
        }
        Ok(Self {
            created,
            disabled,
            versions,
        })
    }
}

/// An identity of one enclave, or of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IdentityRow {
    pub(crate) privilege: Privilege,
    pub(crate) policy: Option<KeyName>,
    pub(crate) created: Origin,
}

impl Row for IdentityRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.u8(match self.privilege {
            Privilege::SysAdmin => 1,
            Privilege::Admin => 2,
            Privilege::User => 3,
        });
        writer.text(self.policy.as_ref().map_or("", KeyName::as_str));
        self.created.encode(&mut writer);
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let privilege = match reader.u8()? {
            1 => Privilege::SysAdmin,
            2 => Privilege::Admin,
            3 => Privilege::User,
            _ => return Err(Malformed),
        };
        let policy = match reader.text()? {
            "" => None,
            name => Some(KeyName::parse(name).map_err(|_| Malformed)?),
        };
        let created = Origin::decode(&mut reader)?;
        reader.end()?;
        Ok(Self {
            privilege,
            policy,
            created,
        })
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
