//! Headers that a presigned URL carries as query parameters.
//!
//! Presigners move headers into the query ("hoist" them), where the signature covers them: those
//! of the Go and JavaScript SDKs the `x-amz-*` headers, boto's version 2 presigner the content
//! type and the digest too. S3 then reads `?x-amz-meta-a=1` as that header.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Query;

/// Parameters of a version 4 signature itself, lower case without the prefix.
const OF_THE_SIGNATURE: [&str; 8] = [
    "algorithm",
    "content-sha256",
    "credential",
    "date",
    "expires",
    "security-token",
    "signature",
    "signedheaders",
];

/// Which parameters are hoisted headers; this depends on the version of the signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hoisting {
    /// `x-amz-*`, `content-type` and `content-md5`.
    Version2,
    /// `x-amz-*` without the parameters of the signature.
    Version4,
}

impl Hoisting {
    /// Adds the hoisted headers of a presigned request to its headers. A header that was sent as
    /// such wins, and of a repeated parameter the first. Only for requests whose presigned
    /// signature has been verified: else anybody could add headers to a link.
    pub fn restore(self, query: &Query<'_>, headers: &mut HeaderMap) {
        // What could not have been a header was never hoisted from one.
        for (name, value) in self.headers_in(query).flatten() {
            headers.entry(name).or_insert(value);
        }
    }

    /// The hoisted headers in order; an error stands for one that no header can have been.
    pub(crate) fn headers_in<'q>(
        self,
        query: &'q Query<'_>,
    ) -> impl Iterator<Item = Result<(HeaderName, HeaderValue), NotAHeader>> + 'q {
        let hoisted = query.iter().filter(move |(name, _)| self.includes(name));
        hoisted.map(|(name, value)| {
            let value = value.trim_matches([' ', '\t']).as_bytes();
            let name = HeaderName::try_from(name).map_err(|_| NotAHeader)?;
            let value = HeaderValue::from_bytes(value).map_err(|_| NotAHeader)?;
            Ok((name, value))
        })
    }

    fn includes(self, parameter: &str) -> bool {
        let is_any_of =
            |names: &[&str], text: &str| names.iter().any(|name| text.eq_ignore_ascii_case(name));
        match (self, suffix_of_amz(parameter)) {
            (Self::Version2, None) => is_any_of(&["content-type", "content-md5"], parameter),
            (Self::Version2, Some(_)) => true,
            (Self::Version4, None) => false,
            (Self::Version4, Some(suffix)) => !is_any_of(&OF_THE_SIGNATURE, suffix),
        }
    }
}

/// A hoisted parameter whose name or value no header can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAHeader;

fn suffix_of_amz(parameter: &str) -> Option<&str> {
    const PREFIX: &str = "x-amz-";
    let (prefix, suffix) = parameter.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hoisted_headers_come_back_and_sent_ones_win() {
        let query = Query::parse(
            "X-Amz-Date=20130524T000000Z&X-Amz-Signature=aa&x-amz-meta-a=1%202&X-Amz-Acl=private\
             &x-amz-meta-b=query&x-amz-meta-c=%0A&prefix=x&content-type=a&x-amz-meta-a=3",
        )
        .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-b", HeaderValue::from_static("header"));
        Hoisting::Version4.restore(&query, &mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-amz-meta-a"], "1 2");
        assert_eq!(headers["x-amz-acl"], "private");
        assert_eq!(headers["x-amz-meta-b"], "header");
    }

    #[test]
    fn version_2_hoists_the_content_type_and_digest_as_well() {
        let query = Query::parse(
            "Expires=1&Content-Type=%20text/plain%20&content-md5=x&x-amz-security-token=t&\u{e9}=1",
        )
        .unwrap();
        let mut headers = HeaderMap::new();
        Hoisting::Version2.restore(&query, &mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(headers["content-md5"], "x");
        assert_eq!(headers["x-amz-security-token"], "t");
    }
}
