//! The row of an identity.
//!
//! Format 1 knew neither service accounts nor tags; it is still read.

use std::collections::BTreeMap;

use moat_kms_client::{Identity, Privilege};
use moat_types::KeyName;

use super::{Origin, Row};
use crate::codec::{Malformed, Reader, Writer};

const FORMAT_1: u8 = 1;
const FORMAT: u8 = 2;

/// An identity of one enclave, or of the system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct IdentityRow {
    pub(crate) privilege: Privilege,
    pub(crate) policy: Option<KeyName>,
    pub(crate) created: Origin,
    /// Whose rights it has, if it is a service account. Its own privilege is then a user's.
    pub(crate) parent: Option<Identity>,
    /// The service accounts that have the rights of this one.
    pub(crate) accounts: Vec<Identity>,
    pub(crate) tags: BTreeMap<String, String>,
}

impl IdentityRow {
    pub(crate) const fn new(
        privilege: Privilege,
        policy: Option<KeyName>,
        created: Origin,
    ) -> Self {
        Self {
            privilege,
            policy,
            created,
            parent: None,
            accounts: Vec::new(),
            tags: BTreeMap::new(),
        }
    }
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
        writer.bytes(self.parent.as_ref().map_or(&[], |parent| parent.as_bytes()));
        writer.u32(self.accounts.len() as u32);
        for account in &self.accounts {
            writer.bytes(account.as_bytes());
        }
        writer.u32(self.tags.len() as u32);
        for (name, value) in &self.tags {
            writer.text(name).text(value);
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, format) = Reader::versioned(bytes)?;
        if !(FORMAT_1..=FORMAT).contains(&format) {
            return Err(Malformed);
        }
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
        let mut row = Self::new(privilege, policy, Origin::decode(&mut reader)?);
        if format > FORMAT_1 {
            row.parent = match reader.bytes()? {
                [] => None,
                bytes => Some(decode_identity(bytes)?),
            };
            for _ in 0..reader.u32()? {
                row.accounts.push(decode_identity(reader.bytes()?)?);
            }
            for _ in 0..reader.u32()? {
                let name = reader.text()?.to_owned();
                row.tags.insert(name, reader.text()?.to_owned());
            }
        }
        reader.end()?;
        Ok(row)
    }
}

fn decode_identity(bytes: &[u8]) -> Result<Identity, Malformed> {
    let hash = bytes.try_into().map_err(|_| Malformed)?;
    Ok(Identity::from_spki_sha256(hash))
}

#[cfg(test)]
mod tests {
    use moat_types::UnixMillis;

    use super::*;

    #[test]
    fn rows_keep_everything_and_old_ones_are_read() {
        let origin = Origin {
            at: UnixMillis(5),
            by: None,
        };
        let mut old = Writer::new(FORMAT_1);
        old.u8(3).text("p");
        origin.encode(&mut old);
        let mut row = IdentityRow::decode(old.as_slice()).unwrap();
        assert_eq!(
            row,
            IdentityRow::new(Privilege::User, Some(KeyName::parse("p").unwrap()), origin)
        );
        row.parent = Some(Identity::from_spki_sha256([1; 32]));
        row.accounts = vec![
            Identity::from_spki_sha256([2; 32]),
            Identity::from_spki_sha256([3; 32]),
        ];
        row.tags.insert("team".into(), "lake".into());
        let encoded = row.encode();
        assert_eq!(IdentityRow::decode(encoded.as_slice()), Ok(row));
        for cut in 0..encoded.as_slice().len() {
            assert!(
                IdentityRow::decode(&encoded.as_slice()[..cut]).is_err(),
                "{cut}"
            );
        }
    }
}
