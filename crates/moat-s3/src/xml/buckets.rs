//! Reads the answer to ListBuckets (S3 API reference, "ListBuckets").

use moat_types::UnixMillis;

use super::parse::{malformed, parse};
use crate::error::S3Error;
use crate::time::parse_iso;

/// A page has 10,000 buckets at most; each is an element that holds name, date, region and ARN.
const ELEMENTS_MAX: usize = 60_000;

/// A page of the buckets of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketList {
    /// The canonical user id and the name of the owner, if the answer tells them.
    pub owner: Option<(String, String)>,
    /// Names and dates of creation, as they came.
    pub buckets: Vec<(String, UnixMillis)>,
    /// What to ask for the next page with, if there is one.
    pub continuation_token: Option<String>,
}

/// Reads a `ListAllMyBucketsResult`. A bucket without a date, or with one that is none, is as old as
/// time itself: its name is what matters.
///
/// # Errors
/// `MalformedXML` if it is something else, or a bucket has no name.
pub fn read_list_buckets(answer: &[u8]) -> Result<BucketList, S3Error> {
    const KNOWN: &[&str] = &[
        "Owner",
        "ID",
        "DisplayName",
        "Buckets",
        "Bucket",
        "Name",
        "CreationDate",
        "ContinuationToken",
    ];
    let root = parse(answer, "ListAllMyBucketsResult", KNOWN, ELEMENTS_MAX)?;
    let owner = match root.only("Owner")? {
        Some(owner) => {
            let text = |name| owner.trimmed(name).map(Option::unwrap_or_default);
            Some((text("ID")?.to_owned(), text("DisplayName")?.to_owned()))
        }
        None => None,
    };
    let mut buckets = Vec::new();
    if let Some(listed) = root.only("Buckets")? {
        for bucket in listed.all("Bucket") {
            let name = bucket.trimmed("Name")?.filter(|name| !name.is_empty());
            let created = bucket.trimmed("CreationDate")?.and_then(parse_iso);
            let name = name.ok_or_else(malformed)?.to_owned();
            buckets.push((name, created.unwrap_or(UnixMillis(0))));
        }
    }
    let token = root.trimmed("ContinuationToken")?;
    Ok(BucketList {
        owner,
        buckets,
        continuation_token: token.filter(|text| !text.is_empty()).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Owner, list_buckets_result};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let owner = Owner {
            id: "abc",
            display_name: "a & b",
        };
        let buckets = [("cold", UnixMillis(1_000)), ("warm", UnixMillis(2_500))];
        let xml = list_buckets_result(&owner, buckets, None, Some("warm"));
        let read = read_list_buckets(&xml).unwrap();
        assert_eq!(read.owner, Some(("abc".to_owned(), "a & b".to_owned())));
        let expected = buckets.map(|(name, created)| (name.to_owned(), created));
        assert_eq!(read.buckets, expected);
        assert_eq!(read.continuation_token.as_deref(), Some("warm"));
    }

    #[test]
    fn other_stores_tell_less_or_more() {
        let answer = b"<ListAllMyBucketsResult><Buckets>\
            <Bucket><Name>a</Name><BucketRegion>eu-1</BucketRegion></Bucket>\
            <Bucket><CreationDate>yesterday</CreationDate><Name>b</Name></Bucket></Buckets></ListAllMyBucketsResult>";
        let read = read_list_buckets(answer).unwrap();
        let names: Vec<_> = read.buckets.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((read.owner, read.continuation_token), (None, None));
        let empty = b"<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>";
        assert_eq!(read_list_buckets(empty).unwrap(), BucketList::default());
        for bad in [
            &b"<ListBucketResult/>"[..],
            b"<html></html>",
            b"<ListAllMyBucketsResult><Buckets><Bucket/></Buckets></ListAllMyBucketsResult>",
        ] {
            assert!(read_list_buckets(bad).is_err());
        }
    }
}
