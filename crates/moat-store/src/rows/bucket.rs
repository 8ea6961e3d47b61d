//! The row of a bucket.

use moat_types::UnixMillis;

use super::codec::{Damaged, Decoder, Encoder};

const FORMAT: u8 = 1;
const WHAT: &str = "bucket row";

/// The bucket's rule for objects whose request names no encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DefaultEncryption {
    S3,
    /// `named` is the key id as the rule wrote it; empty means the store's default key.
    Kms {
        named: String,
        bucket_key: bool,
    },
}

/// The row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketRow {
    pub(crate) created: UnixMillis,
    /// Being deleted: new objects are refused while the bucket is checked for emptiness.
    pub(crate) deleting: bool,
    pub(crate) encryption: Option<DefaultEncryption>,
    /// The region given at creation, empty if none.
    pub(crate) region: String,
}

impl BucketRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(FORMAT)
            .number(self.created.0.max(0) as u64)
            .u8(self.deleting.into())
            .text(&self.region);
        match &self.encryption {
            None => out.u8(0),
            Some(DefaultEncryption::S3) => out.u8(1),
            Some(DefaultEncryption::Kms { named, bucket_key }) => {
                out.u8(2).text(named).u8((*bucket_key).into())
            }
        };
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let created = from.number()?;
        let created = UnixMillis(from.parsed(i64::try_from(created).ok())?);
        let deleting = from.u8()? != 0;
        let region = from.text()?.to_owned();
        let encryption = match from.u8()? {
            0 => None,
            1 => Some(DefaultEncryption::S3),
            2 => Some(DefaultEncryption::Kms {
                named: from.text()?.to_owned(),
                bucket_key: from.u8()? != 0,
            }),
            _ => return Err(Damaged(WHAT)),
        };
        from.end()?;
        Ok(Self {
            created,
            deleting,
            encryption,
            region,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_kind_read_back() {
        for encryption in [
            None,
            Some(DefaultEncryption::S3),
            Some(DefaultEncryption::Kms {
                named: "k".into(),
                bucket_key: true,
            }),
        ] {
            let row = BucketRow {
                created: UnixMillis(5),
                deleting: false,
                encryption,
                region: "eu-west-1".into(),
            };
            assert_eq!(BucketRow::decode(&row.encode()), Ok(row));
        }
    }
}
