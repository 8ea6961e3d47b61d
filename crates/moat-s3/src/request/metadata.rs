//! User metadata: the `x-amz-meta-*` headers, kept byte for byte.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{ErrorCode, S3Error};

/// The prefix of user metadata headers.
pub const META_PREFIX: &str = "x-amz-meta-";

/// S3's limit: the names (without the prefix) and values together, in bytes.
pub const USER_METADATA_BYTES_MAX: usize = 2048;

/// Names without the prefix, lower case, in the order of the request; values as they came, be
/// they ASCII, raw UTF-8 or RFC 2047 words. Headers of one name are joined by commas, as S3 does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserMetadata(Vec<(String, Vec<u8>)>);

impl UserMetadata {
    /// Collects the headers.
    ///
    /// # Errors
    /// `MetadataTooLarge` over [`USER_METADATA_BYTES_MAX`] bytes.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, S3Error> {
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for name in headers.keys() {
            let Some(suffix) = name.as_str().strip_prefix(META_PREFIX) else {
                continue;
            };
            let values: Vec<&[u8]> = headers
                .get_all(name)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            let value = values.join(&b',');
            bytes += suffix.len() + value.len();
            entries.push((suffix.to_owned(), value));
        }
        if bytes > USER_METADATA_BYTES_MAX {
            return Err(ErrorCode::MetadataTooLarge.into());
        }
        Ok(Self(entries))
    }

    /// Takes entries that were read back from storage; names without the prefix.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(entries.into_iter().collect())
    }

    /// Names without the prefix, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the headers to an answer. An entry that could not stand in a header is left out and
    /// counted in the result, which becomes `x-amz-missing-meta`.
    pub fn write_headers(&self, headers: &mut HeaderMap) -> usize {
        let mut missing = 0;
        for (name, value) in &self.0 {
            let header_name = HeaderName::try_from([META_PREFIX, name].concat());
            match (header_name, HeaderValue::from_bytes(value)) {
                (Ok(header_name), Ok(value)) => {
                    headers.insert(header_name, value);
                }
                _ => missing += 1,
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn values_round_trip_byte_for_byte() {
        let sent = headers(&[
            ("x-amz-meta-a", b"1"),
            ("x-amz-meta-a", b"2"),
            ("x-amz-meta-utf8", "é".as_bytes()),
            ("x-amz-meta-word", b"=?UTF-8?B?w6k=?="),
            ("x-amz-meta-", b"empty name"),
            ("content-type", b"text/plain"),
        ]);
        let metadata = UserMetadata::from_headers(&sent).unwrap();
        let mut answer = HeaderMap::new();
        assert_eq!(metadata.write_headers(&mut answer), 0);
        assert_eq!(answer.len(), 4);
        assert_eq!(answer["x-amz-meta-a"], "1,2");
        assert_eq!(answer["x-amz-meta-utf8"].as_bytes(), "é".as_bytes());
        assert_eq!(UserMetadata::from_headers(&answer).unwrap(), metadata);
    }

    #[test]
    fn the_limit_counts_names_and_values() {
        let fits = vec![b'v'; USER_METADATA_BYTES_MAX - 1];
        assert!(UserMetadata::from_headers(&headers(&[("x-amz-meta-n", &fits)])).is_ok());
        let over = vec![b'v'; USER_METADATA_BYTES_MAX];
        let error = UserMetadata::from_headers(&headers(&[("x-amz-meta-n", &over)])).unwrap_err();
        assert_eq!(error.code, ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn entries_that_fit_no_header_are_counted() {
        let metadata = UserMetadata::from_entries([("a".to_owned(), vec![b'\n'])]);
        assert_eq!(metadata.write_headers(&mut HeaderMap::new()), 1);
    }
}
