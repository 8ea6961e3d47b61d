//! Which bucket and key a request means: path style or virtual-host style, decoded once.

use std::borrow::Cow;

use crate::error::ErrorCode;
use crate::uri::decode;

/// How the bucket was named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressStyle {
    /// `/bucket/key`.
    Path,
    /// `bucket.domain` and `/key`.
    VirtualHost,
}

/// The domains under which a host names a bucket, as in `bucket.s3.example.org`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BaseDomains(Vec<String>);

impl BaseDomains {
    /// Takes names such as `s3.example.org`, of any case and without a port.
    pub fn new<T: AsRef<str>>(domains: impl IntoIterator<Item = T>) -> Self {
        Self(
            domains
                .into_iter()
                .map(|domain| domain.as_ref().trim_matches('.').to_ascii_lowercase())
                .filter(|domain| !domain.is_empty())
                .collect(),
        )
    }

    /// The bucket that `host` (with or without a port) names, if it lies under a base domain.
    fn bucket_in<'h>(&self, host: &'h str) -> Option<&'h str> {
        let name = without_port(host);
        self.0.iter().find_map(|domain| {
            let cut = name.len().checked_sub(domain.len() + 1)?;
            let (bucket, tail) = (name.get(..cut)?, name.get(cut..)?);
            let matches = tail.strip_prefix('.')?.eq_ignore_ascii_case(domain);
            (matches && !bucket.is_empty()).then_some(bucket)
        })
    }
}

/// The host without `:port`; the brackets of an IPv6 address stay.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// The bucket and key of a request, decoded but not yet checked against the naming rules.
///
/// The key is taken as it stands: `//`, `.` and `..` are ordinary characters of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address<'a> {
    /// `None` for a request about the service.
    pub bucket: Option<Cow<'a, str>>,
    /// `None` for a request about the bucket (`/bucket` and `/bucket/` alike).
    pub key: Option<Cow<'a, str>>,
    /// Where the bucket's name stood.
    pub style: AddressStyle,
}

impl<'a> Address<'a> {
    /// Reads the host (as the client sent it) and the raw path of the request.
    ///
    /// # Errors
    /// `InvalidURI` if the path does not begin with `/` or does not decode to UTF-8.
    pub fn parse(
        host: &'a str,
        raw_path: &'a str,
        domains: &BaseDomains,
    ) -> Result<Self, ErrorCode> {
        let path = raw_path.strip_prefix('/').ok_or(ErrorCode::InvalidUri)?;
        if let Some(bucket) = domains.bucket_in(host) {
            return Ok(Self {
                bucket: Some(lower_case(bucket)),
                key: decode_nonempty(path)?,
                style: AddressStyle::VirtualHost,
            });
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        Ok(Self {
            bucket: decode_nonempty(bucket)?,
            key: decode_nonempty(key)?,
            style: AddressStyle::Path,
        })
    }

    /// The bucket, if the host names it.
    pub fn host_bucket(&self) -> Option<&str> {
        match self.style {
            AddressStyle::VirtualHost => self.bucket.as_deref(),
            AddressStyle::Path => None,
        }
    }
}

/// Host names have no case, bucket names are lower case.
fn lower_case(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

fn decode_nonempty(raw: &str) -> Result<Option<Cow<'_, str>>, ErrorCode> {
    if raw.is_empty() {
        return Ok(None);
    }
    match decode(raw.as_bytes()) {
        Cow::Borrowed(_) => Ok(Some(Cow::Borrowed(raw))),
        Cow::Owned(bytes) => String::from_utf8(bytes)
            .map(|text| Some(Cow::Owned(text)))
            .map_err(|_| ErrorCode::InvalidUri),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, path: &str, bucket: Option<&str>, key: Option<&str>) {
        let domains = BaseDomains::new(["S3.example.org", "s3.local"]);
        let address = Address::parse(host, path, &domains).unwrap();
        assert_eq!(address.bucket.as_deref(), bucket, "{host} {path}");
        assert_eq!(address.key.as_deref(), key, "{host} {path}");
    }

    #[test]
    fn path_style() {
        check("localhost:9000", "/", None, None);
        check("localhost:9000", "/bucket", Some("bucket"), None);
        check("localhost:9000", "/bucket/", Some("bucket"), None);
        check("localhost:9000", "/bucket/a/b", Some("bucket"), Some("a/b"));
        check("s3.local", "/bucket/k", Some("bucket"), Some("k"));
        check("[::1]:9000", "/bucket/k", Some("bucket"), Some("k"));
    }

    #[test]
    fn virtual_host_style() {
        check("bucket.s3.local:9000", "/", Some("bucket"), None);
        check("a.b.S3.example.ORG", "/k/", Some("a.b"), Some("k/"));
        check("Bucket.s3.local", "/k", Some("bucket"), Some("k"));
        check("bucket.xs3.local", "/b/k", Some("b"), Some("k"));
        check(".s3.local", "/b/k", Some("b"), Some("k"));
    }

    #[test]
    fn only_a_host_names_the_host_bucket() {
        let domains = BaseDomains::new(["s3.local"]);
        let bucket = |host, path| {
            let address = Address::parse(host, path, &domains).unwrap();
            address.host_bucket().map(str::to_owned)
        };
        assert_eq!(bucket("b.s3.local:9000", "/k").as_deref(), Some("b"));
        assert_eq!(bucket("s3.local", "/b/k"), None);
    }

    #[test]
    fn keys_are_never_normalised() {
        check("h", "/b//a/.././/x", Some("b"), Some("/a/.././/x"));
        check("h", "/b/a%2Fb+c%20d%25", Some("b"), Some("a/b+c d%"));
        check("h", "/b/%zz", Some("b"), Some("%zz"));
        check("h", "//k", None, Some("k"));
    }

    #[test]
    fn paths_that_are_not_utf8_are_refused() {
        let none = BaseDomains::default();
        for path in ["/b/%ff", "/%ff/k", "b/k", "*", ""] {
            assert_eq!(
                Address::parse("h", path, &none),
                Err(ErrorCode::InvalidUri),
                "{path}"
            );
        }
    }
}
