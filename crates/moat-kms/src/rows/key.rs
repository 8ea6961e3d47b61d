//! The row of a key: its versions and what was decided about it.
//!
//! Format 1 knew only AES-256-GCM keys that the key manager drew itself; it is still read.

use std::time::Duration;

use moat_types::{KeyVersion, SecretBytes, UnixMillis};

use super::{Material, Origin, Row};
use crate::codec::{Malformed, Reader, Writer};

const FORMAT_1: u8 = 1;
const FORMAT: u8 = 2;
/// For so many versions there is room at once; a count is believed only as far as versions follow.
const VERSIONS_AT_ONCE: u32 = 1000;

/// What a key version is for. All have 32 bytes of material.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Algorithm {
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    ChaCha20,
    /// HMAC-SHA-256: message authentication codes only.
    HmacSha256,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &[Self] = &[Self::Aes256, Self::ChaCha20, Self::HmacSha256];

    /// The name that the wires use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::ChaCha20 => "ChaCha20",
            Self::HmacSha256 => "HMAC-SHA256",
        }
    }

    /// Parses the names that the wires, KES key stores and people use, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        const NAMES: &[(&str, Algorithm)] = &[
            ("AES256", Algorithm::Aes256),
            ("AES-256-GCM", Algorithm::Aes256),
            ("AES256-GCM_SHA256", Algorithm::Aes256),
            ("ChaCha20", Algorithm::ChaCha20),
            ("ChaCha20-Poly1305", Algorithm::ChaCha20),
            ("XCHACHA20-POLY1305", Algorithm::ChaCha20),
            ("HMAC-SHA256", Algorithm::HmacSha256),
            ("HMAC_256", Algorithm::HmacSha256),
        ];
        let found = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(_, algorithm)| *algorithm)
    }

    /// Whether keys of it encrypt.
    pub const fn encrypts(self) -> bool {
        !matches!(self, Self::HmacSha256)
    }

    const fn code(self) -> u8 {
        match self {
            Self::Aes256 => 1,
            Self::ChaCha20 => 2,
            Self::HmacSha256 => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.code() == code)
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key with its versions.
#[derive(Clone)]
pub(crate) struct KeyRow {
    pub(crate) created: Origin,
    /// By whom and when it was disabled, if it is. Apart, as what follows, because few keys have
    /// either and thousands of rows are kept opened.
    pub(crate) disabled: Option<Box<Origin>>,
    /// When it is going to be deleted, if it is.
    pub(crate) deletion: Option<Box<Deletion>>,
    /// How often it gets a new version, if it does so by itself.
    pub(crate) rotation: Option<Duration>,
    /// Whether its material may be read by those who may export.
    pub(crate) exportable: bool,
    /// The number that the next version gets: numbers of destroyed versions are not given again.
    pub(crate) next: KeyVersion,
    /// In ascending order of number; never empty.
    pub(crate) versions: Vec<VersionRow>,
}

/// A deletion that waits out its grace period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Deletion {
    /// Who asked for it, and when.
    pub(crate) requested: Origin,
    /// When it takes place.
    pub(crate) due: UnixMillis,
}

#[derive(Clone)]
pub(crate) struct VersionRow {
    pub(crate) number: KeyVersion,
    pub(crate) algorithm: Algorithm,
    pub(crate) created: Origin,
    /// Whether the material came from elsewhere; then it may have encrypted things there.
    pub(crate) imported: bool,
    pub(crate) material: Material,
    /// A key for message authentication codes that was imported beside the material.
    pub(crate) mac_material: Option<SecretBytes>,
}

impl KeyRow {
    pub(crate) fn new(first: VersionRow) -> Self {
        Self {
            created: first.created,
            disabled: None,
            deletion: None,
            rotation: None,
            exportable: false,
            next: first.number.next(),
            versions: vec![first],
        }
    }

    pub(crate) fn latest(&self) -> &VersionRow {
        self.versions.last().expect("a key has a version")
    }

    pub(crate) fn version(&self, number: KeyVersion) -> Option<&VersionRow> {
        let at = self.versions.binary_search_by_key(&number, |v| v.number);
        at.ok().map(|at| &self.versions[at])
    }

    /// When the next version is due, if the key rotates by itself.
    pub(crate) fn rotation_due(&self) -> Option<UnixMillis> {
        let interval = i64::try_from(self.rotation?.as_millis()).unwrap_or(i64::MAX);
        Some(UnixMillis(
            self.latest().created.at.0.saturating_add(interval),
        ))
    }
}

impl Row for KeyRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        self.created.encode(&mut writer);
        writer.u8(u8::from(self.disabled.is_some()));
        if let Some(disabled) = &self.disabled {
            disabled.encode(&mut writer);
        }
        writer.u8(u8::from(self.deletion.is_some()));
        if let Some(deletion) = &self.deletion {
            deletion.requested.encode(&mut writer);
            writer.time(deletion.due);
        }
        let rotation = self.rotation.map_or(0, |every| every.as_millis());
        writer
            .u64(u64::try_from(rotation).unwrap_or(u64::MAX))
            .u8(u8::from(self.exportable))
            .u32(self.next.number());
        writer.u32(self.versions.len() as u32);
        for version in &self.versions {
            writer
                .u32(version.number.number())
                .u8(version.algorithm.code());
            version.created.encode(&mut writer);
            writer
                .u8(u8::from(version.imported))
                .bytes(version.material.expose())
                .bytes(version.mac_material.as_ref().map_or(&[], |m| m.expose()));
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut reader, format) = Reader::versioned(bytes)?;
        if !(FORMAT_1..=FORMAT).contains(&format) {
            return Err(Malformed);
        }
        let created = Origin::decode(&mut reader)?;
        let disabled = decode_if(&mut reader, Origin::decode)?.map(Box::new);
        let (mut deletion, mut rotation, mut exportable, mut next) = (None, None, false, None);
        if format > FORMAT_1 {
            deletion = decode_if(&mut reader, |reader| {
                Ok(Deletion {
                    requested: Origin::decode(reader)?,
                    due: reader.time()?,
                })
            })?
            .map(Box::new);
            rotation = match reader.u64()? {
                0 => None,
                millis => Some(Duration::from_millis(millis)),
            };
            exportable = reader.flag()?;
            next = Some(KeyVersion::new(reader.u32()?).ok_or(Malformed)?);
        }
        // Opened rows are kept by the thousand, and almost every key has one version: no room for more.
        let count = reader.u32()?;
        let mut versions = Vec::with_capacity(count.min(VERSIONS_AT_ONCE) as usize);
        for _ in 0..count {
            versions.push(decode_version(&mut reader, format)?);
        }
        reader.end()?;
        let ascending = versions.is_sorted_by(|a: &VersionRow, b| a.number < b.number);
        let last = versions.last().ok_or(Malformed)?.number;
        let next = match next {
            Some(next) => next,
            None => {
                KeyVersion::new(last.number().checked_add(1).ok_or(Malformed)?).ok_or(Malformed)?
            }
        };
        if !ascending || next <= last {
            return Err(Malformed);
        }
        Ok(Self {
            created,
            disabled,
            deletion,
            rotation,
            exportable,
            next,
            versions,
        })
    }
}

fn decode_version(reader: &mut Reader<'_>, format: u8) -> Result<VersionRow, Malformed> {
    let number = KeyVersion::new(reader.u32()?).ok_or(Malformed)?;
    let algorithm = Algorithm::from_code(reader.u8()?).ok_or(Malformed)?;
    let created = Origin::decode(reader)?;
    let imported = format > FORMAT_1 && reader.flag()?;
    let material = Material::new(SecretBytes::new(reader.bytes()?.to_vec()));
    let mac_material = match format {
        FORMAT_1 => None,
        _ => Some(reader.bytes()?).filter(|bytes| !bytes.is_empty()),
    };
    Ok(VersionRow {
        number,
        algorithm,
        created,
        imported,
        material,
        mac_material: mac_material.map(|bytes| SecretBytes::new(bytes.to_vec())),
    })
}

/// What stands behind a flag, if the flag is set.
fn decode_if<T>(
    reader: &mut Reader<'_>,
    decode: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if reader.flag()? {
        decode(reader).map(Some)
    } else {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(at: i64) -> Origin {
        Origin {
            at: UnixMillis(at),
            by: None,
        }
    }

    fn version(number: u32) -> VersionRow {
        VersionRow {
            number: KeyVersion::new(number).unwrap(),
            algorithm: Algorithm::ChaCha20,
            created: origin(1000),
            imported: true,
            material: Material::new(SecretBytes::new(vec![7; 32])),
            mac_material: Some(SecretBytes::new(vec![8; 32])),
        }
    }

    #[test]
    fn a_row_of_the_first_format_is_still_read() {
        let mut old = Writer::new(FORMAT_1);
        origin(5).encode(&mut old);
        old.u8(1);
        origin(6).encode(&mut old);
        old.u32(2);
        for number in [1, 2] {
            old.u32(number).u8(1);
            origin(5).encode(&mut old);
            old.bytes(&[number as u8; 32]);
        }
        let row = KeyRow::decode(old.as_slice()).unwrap();
        assert_eq!(row.disabled.as_deref(), Some(&origin(6)));
        assert_eq!(row.next.number(), 3);
        assert_eq!(row.latest().material.expose(), [2; 32]);
        assert!(!row.latest().imported && row.latest().mac_material.is_none());
        let again = KeyRow::decode(row.encode().as_slice()).unwrap();
        assert_eq!(again.encode().as_slice(), row.encode().as_slice());
    }

    #[test]
    fn a_row_keeps_everything_and_any_cut_is_refused() {
        let mut row = KeyRow::new(version(1));
        row.versions.push(version(4));
        row.next = KeyVersion::new(9).unwrap();
        row.exportable = true;
        row.rotation = Some(Duration::from_secs(60));
        row.deletion = Some(Box::new(Deletion {
            requested: origin(1),
            due: UnixMillis(2),
        }));
        let encoded = row.encode();
        let read = KeyRow::decode(encoded.as_slice()).unwrap();
        assert_eq!(read.deletion, row.deletion);
        assert_eq!(read.rotation_due(), Some(UnixMillis(61_000)));
        assert_eq!(read.encode().as_slice(), encoded.as_slice());
        for cut in 0..encoded.as_slice().len() {
            assert!(KeyRow::decode(&encoded.as_slice()[..cut]).is_err(), "{cut}");
        }
        row.next = KeyVersion::new(4).unwrap();
        assert!(KeyRow::decode(row.encode().as_slice()).is_err());
    }

    #[test]
    fn algorithms_are_found_by_every_name() {
        for algorithm in Algorithm::ALL {
            assert_eq!(Algorithm::parse(algorithm.as_str()), Some(*algorithm));
            assert_eq!(Algorithm::from_code(algorithm.code()), Some(*algorithm));
        }
        assert_eq!(
            Algorithm::parse("aes256-gcm_sha256"),
            Some(Algorithm::Aes256)
        );
        assert_eq!(Algorithm::parse(""), None);
    }
}
