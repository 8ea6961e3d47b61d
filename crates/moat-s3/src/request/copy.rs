//! `x-amz-copy-source` and the copy directives.

use http::HeaderMap;

use super::header_text;
use crate::error::{ErrorCode, S3Error};
use crate::uri::decode;

/// The source of CopyObject or UploadPartCopy, decoded, names not yet checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopySource {
    /// The source bucket.
    pub bucket: String,
    /// The source key.
    pub key: String,
    /// The version, if one is named.
    pub version_id: Option<String>,
}

impl CopySource {
    /// Reads `x-amz-copy-source`; `None` if the header is not there.
    ///
    /// # Errors
    /// As [`CopySource::parse`].
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, S3Error> {
        header_text(headers, "x-amz-copy-source")?
            .map(Self::parse)
            .transpose()
    }

    /// Parses `[/]bucket/key[?versionId=id]`, URL-encoded. `+` is a plus, as SDKs that encode
    /// write `%2B` and those that don't mean it. The whole value may be encoded, slashes too.
    ///
    /// # Errors
    /// `InvalidArgument` if bucket or key are missing or not UTF-8, or for an access point's ARN.
    pub fn parse(value: &str) -> Result<Self, S3Error> {
        let (path, version_id) = match value.rsplit_once("?versionId=") {
            Some((path, id)) if !id.is_empty() => (path, Some(decode_text(id)?)),
            Some(_) => return Err(invalid("Version id cannot be the empty string")),
            None => (value, None),
        };
        let path = decode_text(path)?;
        let path = path.strip_prefix('/').unwrap_or(&path);
        if path.starts_with("arn:") {
            return Err(invalid("Copying from an access point is not supported."));
        }
        match path.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => Ok(Self {
                bucket: bucket.to_owned(),
                key: key.to_owned(),
                version_id,
            }),
            _ => Err(invalid(
                "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
            )),
        }
    }
}

fn decode_text(raw: &str) -> Result<String, S3Error> {
    String::from_utf8(decode(raw.as_bytes()).into_owned())
        .map_err(|_| invalid("The x-amz-copy-source value is not valid UTF-8 once decoded."))
}

fn invalid(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::InvalidArgument, message)
}

/// Whether metadata or tags come from the source or from the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyDirective {
    /// Keep the source's.
    Copy,
    /// Take the request's.
    Replace,
}

impl CopyDirective {
    /// Reads `x-amz-metadata-directive`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but `COPY` and `REPLACE`.
    pub fn of_metadata(headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::parse(
            header_text(headers, "x-amz-metadata-directive")?,
            "Unknown metadata directive.",
        )
    }

    /// Reads `x-amz-tagging-directive`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything but `COPY` and `REPLACE`.
    pub fn of_tagging(headers: &HeaderMap) -> Result<Self, S3Error> {
        Self::parse(
            header_text(headers, "x-amz-tagging-directive")?,
            "Unknown tagging directive.",
        )
    }

    fn parse(text: Option<&str>, message: &'static str) -> Result<Self, S3Error> {
        match text {
            None => Ok(Self::Copy),
            Some(text) if text.eq_ignore_ascii_case("COPY") => Ok(Self::Copy),
            Some(text) if text.eq_ignore_ascii_case("REPLACE") => Ok(Self::Replace),
            Some(_) => Err(invalid(message)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, bucket: &str, key: &str, version_id: Option<&str>) {
        let expected = CopySource {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            version_id: version_id.map(str::to_owned),
        };
        assert_eq!(CopySource::parse(value), Ok(expected), "{value}");
    }

    #[test]
    fn sources_are_decoded() {
        check("/b/k", "b", "k", None);
        check("b/a//k%20%2B+", "b", "a//k ++", None);
        check("b%2Fa%2Fk", "b", "a/k", None);
        check("%2Fb%2Fk", "b", "k", None);
        check("b/k?versionId=null", "b", "k", Some("null"));
        check("b/k%3FversionId=x", "b", "k?versionId=x", None);
        check("b//k", "b", "/k", None);
    }

    #[test]
    fn incomplete_sources_are_refused() {
        for value in [
            "",
            "/",
            "b",
            "b/",
            "/b/",
            "//k",
            "b/%ff",
            "b/k?versionId=",
            "arn:aws:s3:eu:1:accesspoint/x/object/k",
        ] {
            let error = CopySource::parse(value).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{value}");
        }
    }
}
