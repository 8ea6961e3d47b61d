//! Headers that a presigned URL carries as query parameters.
//!
//! The presigners of the Go and JavaScript SDKs move `x-amz-*` headers into the query ("hoist"
//! them), where the signature covers them; S3 then reads `?x-amz-meta-a=1` as that header.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Query;

/// Parameters of the signature itself, lower case without the prefix.
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

/// Adds the hoisted headers of a presigned request to its headers. A header that was sent as such
/// wins. Only for requests whose presigned signature has been verified: else anybody could add
/// headers to a link.
pub fn restore_hoisted_headers(query: &Query<'_>, headers: &mut HeaderMap) {
    for (name, value) in query.iter() {
        let name = name.to_ascii_lowercase();
        let is_hoisted = name
            .strip_prefix("x-amz-")
            .is_some_and(|rest| !OF_THE_SIGNATURE.contains(&rest));
        if !is_hoisted {
            continue;
        }
        // What could not have been a header was never hoisted from one.
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name),
            HeaderValue::from_bytes(value.as_bytes()),
        ) {
            headers.entry(name).or_insert(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hoisted_headers_come_back_and_sent_ones_win() {
        let query = Query::parse(
            "X-Amz-Date=20130524T000000Z&X-Amz-Signature=aa&x-amz-meta-a=1%202&X-Amz-Acl=private\
             &x-amz-meta-b=query&x-amz-meta-c=%0A&prefix=x",
        )
        .unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-meta-b", HeaderValue::from_static("header"));
        restore_hoisted_headers(&query, &mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-amz-meta-a"], "1 2");
        assert_eq!(headers["x-amz-acl"], "private");
        assert_eq!(headers["x-amz-meta-b"], "header");
    }
}
