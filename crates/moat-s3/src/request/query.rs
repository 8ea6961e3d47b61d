//! The query string, decoded once, in the order of the request.

use std::borrow::Cow;

use crate::error::ErrorCode;
use crate::uri::decode_query;

/// The most parameters that one request may have. S3 operations know under twenty, and a
/// presigned URL adds seven; the rest is room for `x-amz-*` headers sent as parameters.
pub const QUERY_PARAMETERS_MAX: usize = 256;

/// Decoded parameters, in order. A name without `=` has the empty value, as S3 reads `?delete`.
/// A bare `+` is a space; see [`decode_query`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Parses what stands after the `?`; empty text is an empty query.
    ///
    /// # Errors
    /// `InvalidURI` if a decoded part is not UTF-8 or there are over
    /// [`QUERY_PARAMETERS_MAX`] parameters.
    pub fn parse(raw: &'a str) -> Result<Self, ErrorCode> {
        let mut pairs = Vec::new();
        for part in raw.split('&').filter(|part| !part.is_empty()) {
            if pairs.len() == QUERY_PARAMETERS_MAX {
                return Err(ErrorCode::InvalidUri);
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode_text(name)?, decode_text(value)?));
        }
        Ok(Self { pairs })
    }

    /// The first value of a parameter. Names are compared as they are, as S3 does.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(n, _)| n == name)?;
        Some(value)
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The first value of a parameter whose name may be written in any case (`X-Amz-*`).
    pub fn get_ignore_case(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .pairs
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// All parameters in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn decode_text(raw: &str) -> Result<Cow<'_, str>, ErrorCode> {
    match decode_query(raw.as_bytes()) {
        Cow::Borrowed(_) => Ok(Cow::Borrowed(raw)),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(Cow::Owned)
            .map_err(|_| ErrorCode::InvalidUri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_order_is_kept() {
        let query = Query::parse("list-type=2&prefix=a%2Fb+c%2B&&delete&x=1&x=2").unwrap();
        assert_eq!(query.get("prefix"), Some("a/b c+"));
        assert_eq!(query.get("delete"), Some(""));
        assert_eq!(query.get("x"), Some("1"));
        assert_eq!(query.get("Prefix"), None);
        let names: Vec<_> = query.iter().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["list-type", "prefix", "delete", "x", "x"]);
    }

    #[test]
    fn invalid_utf8_and_floods_are_refused() {
        assert_eq!(Query::parse("prefix=%ff"), Err(ErrorCode::InvalidUri));
        let flood = "a&".repeat(QUERY_PARAMETERS_MAX + 1);
        assert_eq!(Query::parse(&flood), Err(ErrorCode::InvalidUri));
    }
}
