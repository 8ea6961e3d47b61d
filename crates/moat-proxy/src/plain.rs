//! The two rules of plain listeners, for any store behind.

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

const KMS_KEY_ID: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const CUSTOMER: &str = "x-amz-server-side-encryption-customer-";
const COPY_SOURCE_CUSTOMER: &str = "x-amz-copy-source-server-side-encryption-customer-";

/// Whether a request carries an SSE-C header: a key, or what belongs to one.
///
/// The key has crossed the network in the clear by then. Passing it on would hide that behind an
/// https upstream, so it is refused here as S3 and MinIO refuse it.
pub(crate) fn carries_customer_key(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with(CUSTOMER) || name.starts_with(COPY_SOURCE_CUSTOMER)
    })
}

/// The same, but also of headers that a presigned URL carries in its query.
pub(crate) fn carries_customer_key_anywhere(head: &Parts) -> bool {
    let Some(query) = head.uri.query() else {
        return carries_customer_key(&head.headers);
    };
    let names = query.split('&').map(|part| {
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        moat_s3::uri::decode_query(name.as_bytes()).to_ascii_lowercase()
    });
    // Nearly all queries are spared the decoding.
    let may = query.len() >= CUSTOMER.len() && query.contains(['c', 'C', '%']);
    carries_customer_key(&head.headers)
        || may
            && names.into_iter().any(|name| {
                name.starts_with(CUSTOMER.as_bytes())
                    || name.starts_with(COPY_SOURCE_CUSTOMER.as_bytes())
            })
}

/// Drops the KMS key id from a HEAD answer, and from no other.
///
/// S3A copies the id of the source into its CopyObject, and SDK v1 refuses any request with a key id
/// on an http endpoint: without it a rename works. Answers to PUT, UploadPart and GET must keep it,
/// or SDK v1 compares their ETag with an MD5 that it is not.
pub(crate) fn hide_key_id(method: &Method, headers: &mut HeaderMap) {
    if method == Method::HEAD {
        headers.remove(KMS_KEY_ID);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn customer_keys_in_a_presigned_query_are_found() {
        for (uri, carries) in [
            (
                "/b/k?X-Amz-Server-Side-Encryption-Customer-Key=1&X-Amz-Signature=a",
                true,
            ),
            (
                "/b/k?a=1&x-amz-copy-source-server-side-encryption-customer-algorithm=AES256",
                true,
            ),
            ("/b/k?x-amz-server-side-encryption-%63ustomer-key=1", true),
            (
                "/b/k?prefix=x-amz-server-side-encryption-customer-key",
                false,
            ),
            ("/b/k?list-type=2", false),
            ("/b/k", false),
        ] {
            let head = Request::get(uri).body(()).unwrap().into_parts().0;
            assert_eq!(carries_customer_key_anywhere(&head), carries, "{uri}");
        }
    }

    #[test]
    fn customer_key_headers_are_found_by_their_prefixes() {
        for (name, carries) in [
            ("x-amz-server-side-encryption-customer-algorithm", true),
            ("x-amz-server-side-encryption-customer-key", true),
            (
                "x-amz-copy-source-server-side-encryption-customer-key-md5",
                true,
            ),
            ("x-amz-server-side-encryption", false),
            ("x-amz-server-side-encryption-aws-kms-key-id", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            assert_eq!(carries_customer_key(&headers), carries, "{name}");
        }
    }
}
