//! The rows of the benchmark: what each of them does, over how many connections, and in which
//! unit its figures are read.

use std::str::FromStr;

use crate::content::{BIG_BYTES, MIDDLE_BYTES, RANGE_BYTES, SMALL_BYTES};

/// Keys in the folder tree that LIST walks.
pub(crate) const TREE_KEYS: usize = 10_000;
/// Keys in one folder of it.
pub(crate) const FOLDER_KEYS: usize = 100;
/// Keys on a page of a LIST.
pub(crate) const PAGE_KEYS: usize = 1_000;
/// Parts of the huge object, of `BIG_BYTES` each: 1 GiB.
pub(crate) const HUGE_PARTS: usize = 16;
/// Small objects to read: enough that no two connections read the same one all the time.
pub(crate) const SMALL_OBJECTS: usize = 1_000;
/// Middle-sized objects to read.
pub(crate) const MIDDLE_OBJECTS: usize = 64;
/// Big objects to read: one for each connection.
pub(crate) const BIG_OBJECTS: usize = 8;

/// What `make bench` uses where a row is not about one client alone.
const CONNECTIONS: usize = 8;

/// One row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Row {
    PutSmall,
    GetSmall,
    HeadFound,
    HeadMissing,
    PutBigAlone,
    PutBig,
    GetBigAlone,
    GetBig,
    PutMiddle,
    GetMiddle,
    Range,
    ListTree,
    ListFolder,
    CopyHuge,
    CopySmall,
    Spark,
}

/// What one operation of a row amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// One request or job.
    Operation,
    /// So many bytes of content.
    Bytes(u64),
    /// So many keys.
    Keys(u64),
}

/// Objects that have to be there before a row can run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stock {
    Small,
    Middle,
    Big,
    Tree,
    Huge,
}

impl Row {
    /// All rows, in the order of the table. Rows that leave much behind come last.
    pub(crate) const ALL: [Self; 16] = [
        Self::PutSmall,
        Self::GetSmall,
        Self::HeadFound,
        Self::HeadMissing,
        Self::PutBigAlone,
        Self::PutBig,
        Self::GetBigAlone,
        Self::GetBig,
        Self::PutMiddle,
        Self::GetMiddle,
        Self::Range,
        Self::ListTree,
        Self::ListFolder,
        Self::CopyHuge,
        Self::CopySmall,
        Self::Spark,
    ];

    /// The name on the command line and in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::PutSmall => "put-4k-c8",
            Self::GetSmall => "get-4k-c8",
            Self::HeadFound => "head-200-c8",
            Self::HeadMissing => "head-404-c8",
            Self::PutBigAlone => "put-64m-c1",
            Self::PutBig => "put-64m-c8",
            Self::GetBigAlone => "get-64m-c1",
            Self::GetBig => "get-64m-c8",
            Self::PutMiddle => "put-256k-c8",
            Self::GetMiddle => "get-256k-c8",
            Self::Range => "range-128k-c8",
            Self::ListTree => "list-10000",
            Self::ListFolder => "list-folder",
            Self::CopyHuge => "copy-1g",
            Self::CopySmall => "copy-4k-c8",
            Self::Spark => "spark-job-c8",
        }
    }

    /// How many connections work at once.
    pub(crate) const fn connections(self) -> usize {
        match self {
            Self::PutBigAlone
            | Self::GetBigAlone
            | Self::ListTree
            | Self::ListFolder
            | Self::CopyHuge => 1,
            _ => CONNECTIONS,
        }
    }

    /// What one operation amounts to.
    pub(crate) const fn unit(self) -> Unit {
        match self {
            Self::PutBigAlone | Self::PutBig | Self::GetBigAlone | Self::GetBig => {
                Unit::Bytes(BIG_BYTES as u64)
            }
            Self::PutMiddle | Self::GetMiddle => Unit::Bytes(MIDDLE_BYTES as u64),
            Self::ListTree => Unit::Keys(TREE_KEYS as u64),
            _ => Unit::Operation,
        }
    }

    /// What it reads.
    pub(crate) const fn stock(self) -> Option<Stock> {
        match self {
            Self::GetSmall | Self::HeadFound | Self::CopySmall => Some(Stock::Small),
            Self::GetBigAlone | Self::GetBig | Self::Range => Some(Stock::Big),
            Self::GetMiddle => Some(Stock::Middle),
            Self::ListTree | Self::ListFolder => Some(Stock::Tree),
            Self::CopyHuge => Some(Stock::Huge),
            _ => None,
        }
    }

    /// Whether what it wrote is removed behind it, to keep the disk from filling.
    pub(crate) const fn cleans_up(self) -> bool {
        matches!(
            self,
            Self::PutBigAlone | Self::PutBig | Self::PutMiddle | Self::CopyHuge
        )
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|row| row.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|row| row.name()).collect();
            format!("no such row; there are {}", names.join(", "))
        })
    }
}

/// Path of small object number `index`.
pub(crate) fn small_path(index: usize) -> String {
    format!("/small/{:04}", index % SMALL_OBJECTS)
}

/// Path of middle-sized object number `index`.
pub(crate) fn middle_path(index: usize) -> String {
    format!("/middle/{:02}", index % MIDDLE_OBJECTS)
}

/// Path of big object number `index`.
pub(crate) fn big_path(index: usize) -> String {
    format!("/big/{}", index % BIG_OBJECTS)
}

/// Path of key number `index` of the tree.
pub(crate) fn tree_path(index: usize) -> String {
    format!(
        "/tree/d{:02}/k{:02}",
        index / FOLDER_KEYS,
        index % FOLDER_KEYS
    )
}

/// The first and last byte of ranged read number `index`: aligned, spread over the object.
pub(crate) fn range(index: usize) -> (usize, usize) {
    let slots = BIG_BYTES / RANGE_BYTES;
    // A step that is prime to the number of slots visits all of them, far from the last each time.
    let first = index.wrapping_mul(197) % slots * RANGE_BYTES;
    (first, first + RANGE_BYTES - 1)
}

/// Bytes of small object number `index`, and so on for the other sizes.
pub(crate) const fn stock_bytes(stock: Stock) -> usize {
    match stock {
        Stock::Small => SMALL_BYTES,
        Stock::Middle => MIDDLE_BYTES,
        Stock::Big | Stock::Huge => BIG_BYTES,
        Stock::Tree => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for row in Row::ALL {
            assert_eq!(row.name().parse(), Ok(row));
        }
        assert!("put".parse::<Row>().is_err());
    }

    #[test]
    fn ranges_lie_inside_and_cover_the_object() {
        let slots = BIG_BYTES / RANGE_BYTES;
        let mut firsts: Vec<usize> = (0..slots).map(|i| range(i).0).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), slots);
        assert_eq!(
            firsts.last().map(|first| first + RANGE_BYTES),
            Some(BIG_BYTES)
        );
    }

    #[test]
    fn the_tree_has_the_keys_that_the_rows_expect() {
        let last = tree_path(TREE_KEYS - 1);
        assert_eq!(last, "/tree/d99/k99");
        assert_eq!(TREE_KEYS % PAGE_KEYS, 0);
    }
}
