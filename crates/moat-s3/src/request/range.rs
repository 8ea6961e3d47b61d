//! `Range` and `x-amz-copy-source-range`.
//!
//! S3 serves one range. A `Range` of another unit, of several ranges, or malformed is ignored and
//! the whole object comes back (RFC 9110 section 14.2 allows both); one that begins past the end
//! is `InvalidRange`. A copy range must be exact instead: `bytes=first-last` inside the source.

use std::ops::Range;

use crate::error::{ErrorCode, S3Error};

/// A range as asked for, before the object's size is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// `bytes=first-last`, both included.
    Bounded {
        /// The first byte.
        first: u64,
        /// The last byte, at least `first`.
        last: u64,
    },
    /// `bytes=first-`.
    From(u64),
    /// `bytes=-length`: the last bytes.
    Suffix(u64),
}

impl ByteRange {
    /// The bytes to send of an object of `size` bytes.
    ///
    /// # Errors
    /// `InvalidRange` (416) if no byte of the object lies in the range. That holds for every
    /// range of an empty object.
    pub fn resolve(self, size: u64) -> Result<Range<u64>, ErrorCode> {
        let range = match self {
            Self::Bounded { first, last } => first..last.saturating_add(1).min(size),
            Self::From(first) => first..size,
            Self::Suffix(length) => size.saturating_sub(length)..size,
        };
        if range.is_empty() {
            return Err(ErrorCode::InvalidRange);
        }
        Ok(range)
    }
}

/// Parses `Range`; `None` means that the header is to be ignored.
pub fn parse_range(value: &str) -> Option<ByteRange> {
    let (unit, spec) = value.trim().split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    match (first.trim(), last.trim()) {
        ("", length) => number(length).map(ByteRange::Suffix),
        (first, "") => number(first).map(ByteRange::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(ByteRange::Bounded { first, last })
        }
    }
}

/// Parses `x-amz-copy-source-range` for a source of `size` bytes.
///
/// # Errors
/// `InvalidArgument` if it is not `bytes=first-last` or ends past the source, as S3 answers.
pub fn parse_copy_source_range(value: &str, size: u64) -> Result<Range<u64>, S3Error> {
    let exact = value
        .strip_prefix("bytes=")
        .and_then(|spec| spec.split_once('-'))
        .and_then(|(first, last)| Some((number(first)?, number(last)?)))
        .filter(|(first, last)| first <= last);
    let Some((first, last)) = exact else {
        return Err(S3Error::new(
            ErrorCode::InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first \
             and last are the zero-based offsets of the first and last bytes to copy",
        ));
    };
    if last >= size {
        return Err(S3Error::new(
            ErrorCode::InvalidArgument,
            format!("Range specified is not valid for source object of size: {size}"),
        ));
    }
    Ok(first..last + 1)
}

/// A decimal number. More digits than fit mean "past any end".
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, size: u64, expected: Option<Result<Range<u64>, ErrorCode>>) {
        let got = parse_range(value).map(|range| range.resolve(size));
        assert_eq!(got, expected, "{value} of {size}");
    }

    #[test]
    fn single_ranges_are_cut_at_the_end() {
        check("bytes=0-0", 10, Some(Ok(0..1)));
        check("bytes=2-5", 10, Some(Ok(2..6)));
        check("bytes=8-100", 10, Some(Ok(8..10)));
        check("bytes=8-", 10, Some(Ok(8..10)));
        check("bytes=-3", 10, Some(Ok(7..10)));
        check("bytes=-30", 10, Some(Ok(0..10)));
        check("Bytes = 1 - 2 ", 10, Some(Ok(1..3)));
        check("bytes=0-99999999999999999999999", 10, Some(Ok(0..10)));
    }

    #[test]
    fn ranges_without_a_byte_are_unsatisfiable() {
        for value in [
            "bytes=10-",
            "bytes=10-11",
            "bytes=-0",
            "bytes=99999999999999999999999-",
        ] {
            check(value, 10, Some(Err(ErrorCode::InvalidRange)));
        }
        check("bytes=0-", 0, Some(Err(ErrorCode::InvalidRange)));
        check("bytes=-1", 0, Some(Err(ErrorCode::InvalidRange)));
    }

    #[test]
    fn malformed_and_multiple_ranges_are_ignored() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=0-1,3-4",
            "lines=1-2",
            "bytes=+1-2",
            "bytes=1-2-3",
        ] {
            check(value, 10, None);
        }
    }

    #[test]
    fn copy_ranges_are_exact() {
        assert_eq!(parse_copy_source_range("bytes=0-9", 10), Ok(0..10));
        for value in [
            "bytes=0-10",
            "bytes=1-",
            "bytes=-1",
            "0-9",
            "bytes=9-1",
            "bytes=0-1,2-3",
            "",
        ] {
            let error = parse_copy_source_range(value, 10).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{value}");
        }
    }
}
