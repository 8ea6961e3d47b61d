//! The row of a lake: what the keys of an enclave guard in it, as its stores counted last.

use moat_kms_client::Identity;
use moat_types::{KeyName, UnixMillis};

use super::Row;
use crate::codec::{Malformed, Reader, Writer};

const FORMAT: u8 = 1;

/// What keys guard in a lake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LakeRow {
    /// When a store last told something.
    pub(crate) reported: UnixMillis,
    pub(crate) holdings: Vec<HoldingRow>,
}

/// What one key guards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HoldingRow {
    pub(crate) key: KeyName,
    pub(crate) buckets: u64,
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) counted: UnixMillis,
    /// The store that counted.
    pub(crate) by: Identity,
}

impl Row for LakeRow {
    fn encode(&self) -> Writer {
        let mut writer = Writer::new(FORMAT);
        writer.time(self.reported);
        for holding in &self.holdings {
            writer
                .text(holding.key.as_str())
                .u64(holding.buckets)
                .u64(holding.objects)
                .u64(holding.bytes)
                .time(holding.counted)
                .bytes(holding.by.as_bytes());
        }
        writer
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, FORMAT)?;
        let reported = reader.time()?;
        let mut holdings = Vec::new();
        while !reader.is_empty() {
            holdings.push(HoldingRow {
                key: KeyName::parse(reader.text()?).map_err(|_| Malformed)?,
                buckets: reader.u64()?,
                objects: reader.u64()?,
                bytes: reader.u64()?,
                counted: reader.time()?,
                by: {
                    let hash = reader.bytes()?.try_into().map_err(|_| Malformed)?;
                    Identity::from_spki_sha256(hash)
                },
            });
        }
        Ok(Self { reported, holdings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_half_a_holding_is_refused() {
        let holding = |name: &str| HoldingRow {
            key: KeyName::parse(name).unwrap(),
            buckets: 1,
            objects: 2,
            bytes: u64::MAX,
            counted: UnixMillis(4),
            by: Identity::from_spki_sha256([5; 32]),
        };
        let row = LakeRow {
            reported: UnixMillis(7),
            holdings: vec![holding("a"), holding("b")],
        };
        let encoded = row.encode();
        let bytes = encoded.as_slice();
        assert_eq!(LakeRow::decode(bytes), Ok(row.clone()));
        let head = 1 + 8;
        let one = (bytes.len() - head) / 2;
        for cut in 0..bytes.len() {
            let whole = cut == head || cut == head + one;
            assert_eq!(LakeRow::decode(&bytes[..cut]).is_ok(), whole, "{cut}");
        }
    }
}
