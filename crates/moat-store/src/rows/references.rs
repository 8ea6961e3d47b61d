//! Reference counts and tombstones of blobs.
//!
//! A blob that was never shared has no count row: it has one reference. A blob is freed only on
//! the positive evidence of a tombstone that names it. A disk blob has one while it is being
//! written, too, so that a process that dies leaves evidence of what it left behind.

use moat_types::UnixMillis;

use super::codec::{Damaged, Decoder, Encoder};

const FORMAT: u8 = 1;

/// The number of references to a shared blob, at least 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct References(pub(crate) u64);

impl References {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(FORMAT).number(self.0);
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        let mut from = Decoder::new(row, "reference row");
        if from.u8()? != FORMAT {
            return Err(Damaged("reference row"));
        }
        let count = from.number()?;
        from.end()?;
        Ok(Self(count))
    }
}

/// Why a blob may be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tombstone {
    /// The process with this id is writing it. May be freed once that process is gone.
    Writing {
        process: [u8; 16],
        since: UnixMillis,
    },
    /// Nothing refers to it any more.
    Dead { since: UnixMillis, manifest: bool },
}

impl Tombstone {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(FORMAT);
        match self {
            Self::Writing { process, since } => {
                out.u8(0).fixed(&process).number(since.0.max(0) as u64)
            }
            Self::Dead { since, manifest } => {
                out.u8(1).number(since.0.max(0) as u64).u8(manifest.into())
            }
        };
        out.finish()
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self, Damaged> {
        const WHAT: &str = "tombstone row";
        let mut from = Decoder::new(row, WHAT);
        if from.u8()? != FORMAT {
            return Err(Damaged(WHAT));
        }
        let kind = from.u8()?;
        let process = if kind == 0 { from.fixed()? } else { [0; 16] };
        let since = from.number()?;
        let since = UnixMillis(from.parsed(i64::try_from(since).ok())?);
        let tombstone = match kind {
            0 => Self::Writing { process, since },
            1 => Self::Dead {
                since,
                manifest: from.u8()? != 0,
            },
            _ => return Err(Damaged(WHAT)),
        };
        from.end()?;
        Ok(tombstone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back() {
        assert_eq!(
            References::decode(&References(300).encode()),
            Ok(References(300))
        );
        for tombstone in [
            Tombstone::Writing {
                process: [1; 16],
                since: UnixMillis(9),
            },
            Tombstone::Dead {
                since: UnixMillis(9),
                manifest: true,
            },
        ] {
            assert_eq!(Tombstone::decode(&tombstone.encode()), Ok(tombstone));
        }
    }
}
