//! What a request may hold. Policies and rules decide by what the gateway reads in it; a store that reads
//! something else in it would do what nobody decided about. So nothing goes on that is not known, and
//! nothing that two servers could read differently.

use http::{HeaderMap, HeaderName};
use moat_s3::request::{Operation, Query};
use moat_s3::{ErrorCode, S3Error};

/// The name under which MinIO and those like it have their administration and their metrics, with the
/// signatures of S3. No bucket can have it there.
const RESERVED_BUCKET: &str = "minio";
/// What MinIO's clients may ask with DeleteBucket; a policy must allow it by an action of its own.
pub(super) const FORCE_DELETE: HeaderName = HeaderName::from_static("x-minio-force-delete");
/// A parameter of MinIO's lists that adds user metadata and tags, which are the objects' own: a policy on
/// lists is none on them. Other stores ignore it, and so must its clients be able to do.
const LEFT_OUT: &str = "metadata";

/// Headers of single vendors. With some of them a store takes ciphertext as it is, reads into archives,
/// or copies: by rules that are not S3's.
const VENDORS: [&str; 8] = [
    "x-minio-", "x-goog-", "x-rgw-", "x-oss-", "x-obs-", "x-cos-", "x-emc-", "ibm-",
];
/// Headers that make of a request something that nobody decided about: other methods, as some frameworks
/// take them; uploads that add to an object or move one, and archives that a store unpacks under any keys.
const OTHER_REQUESTS: [&str; 6] = [
    "x-http-method",
    "x-method-override",
    "x-amz-write-offset-bytes",
    "x-amz-rename-source",
    "x-amz-meta-snowball-auto-extract",
    "x-amz-meta-minio-snowball",
];
/// What rules and policies speak of. Of these families every member is known, and none comes twice.
const FAMILIES: [(&str, &[&str]); 5] = [
    (
        "x-amz-server-side-encryption",
        &[
            "",
            "-aws-kms-key-id",
            "-bucket-key-enabled",
            "-context",
            "-customer-algorithm",
            "-customer-key",
            "-customer-key-md5",
        ],
    ),
    (
        "x-amz-copy-source",
        &[
            "",
            "-if-match",
            "-if-modified-since",
            "-if-none-match",
            "-if-unmodified-since",
            "-range",
            "-server-side-encryption-customer-algorithm",
            "-server-side-encryption-customer-key",
            "-server-side-encryption-customer-key-md5",
        ],
    ),
    (
        "x-amz-object-lock",
        &["-legal-hold", "-mode", "-retain-until-date"],
    ),
    (
        "x-amz-grant",
        &[
            "-full-control",
            "-read",
            "-read-acp",
            "-write",
            "-write-acp",
        ],
    ),
    ("x-amz-acl", &[""]),
];

/// Whether a name can be only that of a bucket, old buckets with capitals and underscores included. A
/// store that decodes `/a%2Fb` would take it for the object `b` of `a`, which is neither what the
/// policies were asked nor what the rules are about.
///
/// # Errors
/// `InvalidBucketName`, or `AllAccessDisabled` for what is no bucket but a store's own API.
pub(super) fn check_bucket(name: &str) -> Result<(), S3Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !(name.bytes().all(plain) && name.bytes().any(|b| b.is_ascii_alphanumeric())) {
        return Err(ErrorCode::InvalidBucketName.into());
    }
    if name == RESERVED_BUCKET {
        return Err(S3Error::new(
            ErrorCode::AllAccessDisabled,
            "The administration of a store is not reached through this gateway. Ask the store itself.",
        ));
    }
    Ok(())
}

/// Takes out what only some stores know and clients can do without.
pub(super) fn without_extensions(operation: Operation, query: &str) -> String {
    let lists = matches!(
        operation,
        Operation::ListObjects | Operation::ListObjectsV2 | Operation::ListObjectVersions
    );
    let is_left_out =
        |part: &&str| lists && part.split('=').next().is_some_and(|name| name == LEFT_OUT);
    let kept: Vec<_> = query.split('&').filter(|part| !is_left_out(part)).collect();
    kept.join("&")
}

/// Checks the parameters that go to the store.
///
/// # Errors
/// `NotImplemented` for one that the operation has not, `InvalidRequest` for one that comes twice.
pub(super) fn check_query(operation: Operation, query: &Query<'_>) -> Result<(), S3Error> {
    if let Some(name) = operation.foreign_parameter(query) {
        return Err(S3Error::new(
            ErrorCode::NotImplemented,
            format!(
                "{} has no parameter {name:?}, and this gateway passes on only what it knows.",
                operation.name()
            ),
        ));
    }
    let names: Vec<_> = query.iter().map(|(name, _)| name).collect();
    for (at, name) in names.iter().enumerate() {
        if names[..at].contains(name) {
            return Err(S3Error::new(
                ErrorCode::InvalidRequest,
                format!("The parameter {name:?} comes twice."),
            ));
        }
    }
    Ok(())
}

/// Checks the headers of the client, those of a link included.
///
/// # Errors
/// `NotImplemented` for what is not known, `InvalidRequest` for what is said twice.
pub(super) fn check_headers(operation: Operation, headers: &HeaderMap) -> Result<(), S3Error> {
    for name in headers.keys() {
        let text = name.as_str();
        let of = |prefix: &&str| text.starts_with(prefix);
        let forced = operation == Operation::DeleteBucket && *name == FORCE_DELETE;
        if (VENDORS.iter().any(of) && !forced) || OTHER_REQUESTS.iter().any(of) {
            return Err(not_known(text));
        }
        let family = FAMILIES.iter().find(|(family, _)| of(family));
        if let Some((family, members)) = family {
            if !members.contains(&&text[family.len()..]) {
                return Err(not_known(text));
            }
            // Each grant is a list of its own, which adds up.
            if headers.get_all(name).iter().count() > 1 && *family != "x-amz-grant" {
                return Err(S3Error::new(
                    ErrorCode::InvalidRequest,
                    format!("The header {text} comes twice."),
                ));
            }
        }
    }
    Ok(())
}

fn not_known(header: &str) -> S3Error {
    S3Error::new(
        ErrorCode::NotImplemented,
        format!(
            "This gateway does not pass on the header {header}: its users' rights and its encryption rules are not about what it asks for."
        ),
    )
}

/// Checks the document of a RestoreObject: one that puts what is restored elsewhere makes objects of
/// which neither policies nor rules were asked.
///
/// # Errors
/// `MalformedXML` for what is no text, `NotImplemented` for another place.
pub(super) fn check_restore(document: &[u8]) -> Result<(), S3Error> {
    let text = std::str::from_utf8(document).map_err(|_| ErrorCode::MalformedXml)?;
    if text.contains("OutputLocation") || text.contains("SelectParameters") {
        return Err(S3Error::new(
            ErrorCode::NotImplemented,
            "This gateway does not carry requests that restore objects to another place.",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_of_known_families_and_of_nobody_s_pass() {
        let check = |operation, names: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(*name, HeaderValue::from_static("1"));
            }
            check_headers(operation, &headers).map_err(|error| error.code)
        };
        let put = Operation::PutObject;
        let known: Vec<String> = FAMILIES
            .iter()
            .flat_map(|(family, members)| members.iter().map(move |m| format!("{family}{m}")))
            .collect();
        for name in &known {
            let mut headers = HeaderMap::new();
            headers.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("1"),
            );
            assert_eq!(check_headers(put, &headers), Ok(()), "{name}");
        }
        for name in [
            "x-amz-meta-a",
            "x-amz-checksum-crc64nvme",
            "x-amz-sdk-checksum-algorithm",
            "x-amz-new-thing",
            "amz-sdk-request",
            "x-request-id",
        ] {
            assert_eq!(check(put, &[name]), Ok(()), "{name}");
        }
        for name in [
            "x-minio-source-replication-request",
            "x-minio-force-delete",
            "x-minio-extract",
            "x-goog-copy-source",
            "x-http-method-override",
            "x-amz-write-offset-bytes",
            "x-amz-rename-source-if-match",
            "x-amz-meta-snowball-auto-extract",
            "x-amz-meta-minio-snowball-prefix",
            "x-amz-server-side-encryption-off",
            "x-amz-copy-source-all",
            "x-amz-object-lock-none",
            "x-amz-acl-2",
        ] {
            assert_eq!(
                check(put, &[name]),
                Err(ErrorCode::NotImplemented),
                "{name}"
            );
        }
        let sse = "x-amz-server-side-encryption";
        assert_eq!(check(put, &[sse, sse]), Err(ErrorCode::InvalidRequest));
        let grant = "x-amz-grant-read";
        assert_eq!(check(put, &[grant, grant]), Ok(()));
        let force = ["x-minio-force-delete"];
        assert_eq!(check(Operation::DeleteBucket, &force), Ok(()));
    }

    #[test]
    fn parameters_are_known_and_come_once() {
        let check = |operation, query: &str| {
            check_query(operation, &Query::parse(query).unwrap()).map_err(|error| error.code)
        };
        let list = Operation::ListObjectsV2;
        assert_eq!(check(list, "list-type=2&prefix=a"), Ok(()));
        assert_eq!(
            check(list, "list-type=2&prefix=a&prefix=b"),
            Err(ErrorCode::InvalidRequest)
        );
        assert_eq!(
            check(list, "list-type=2&new"),
            Err(ErrorCode::NotImplemented)
        );
        let without = without_extensions(list, "list-type=2&metadata=true&prefix=metadata");
        assert_eq!(without, "list-type=2&prefix=metadata");
        assert_eq!(
            without_extensions(Operation::GetObject, "metadata"),
            "metadata"
        );
    }

    #[test]
    fn nothing_is_restored_elsewhere() {
        let days = b"<RestoreRequest><Days>1</Days></RestoreRequest>";
        assert_eq!(check_restore(days), Ok(()));
        let elsewhere = b"<RestoreRequest><x:OutputLocation xmlns:x='u'/></RestoreRequest>";
        let code = |document: &[u8]| check_restore(document).map_err(|error| error.code);
        assert_eq!(code(elsewhere), Err(ErrorCode::NotImplemented));
        assert_eq!(code(b"\xff\xfe<\0"), Err(ErrorCode::MalformedXml));
    }

    #[test]
    fn names_are_those_of_buckets_alone() {
        let code = |name| check_bucket(name).map_err(|error| error.code);
        for good in ["a", "Old_Bucket", "a.b-c", "minio-data", "admin"] {
            assert_eq!(code(good), Ok(()), "{good}");
        }
        for bad in ["..", "a/b", "a%2Fb", "a b", "\u{e9}"] {
            assert_eq!(code(bad), Err(ErrorCode::InvalidBucketName), "{bad}");
        }
        assert_eq!(code("minio"), Err(ErrorCode::AllAccessDisabled));
    }
}
