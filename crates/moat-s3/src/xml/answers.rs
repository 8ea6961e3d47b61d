//! Writers of the answers that are no pages of a list.

use moat_types::UnixMillis;

use super::XmlWriter;
use super::list::Owner;
use super::requests::{BucketEncryption, VersioningStatus};
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::error::ErrorCode;
use crate::request::{KMS_ALGORITHM, SSE_S3_ALGORITHM};
use crate::time::iso_millis;

/// The checksum of an object in an answer; the text is base64, for composites with `-PARTS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checksums<'a> {
    /// The algorithm.
    pub algorithm: ChecksumAlgorithm,
    /// The value.
    pub text: &'a str,
    /// The type, where the answer names it.
    pub checksum_type: Option<ChecksumType>,
}

impl XmlWriter {
    /// `<ETag>"..."</ETag>`, from the tag without quotes.
    pub(super) fn etag(&mut self, etag: &str) {
        self.open("ETag");
        self.raw("&quot;");
        self.escaped(etag);
        self.raw("&quot;");
        self.close("ETag");
    }

    pub(super) fn time(&mut self, name: &str, at: UnixMillis) {
        self.open(name);
        self.raw(&iso_millis(at));
        self.close(name);
    }

    pub(super) fn checksum(&mut self, checksum: Option<&Checksums<'_>>) {
        if let Some(checksum) = checksum {
            self.text(checksum.algorithm.element_name(), checksum.text);
            if let Some(kind) = checksum.checksum_type {
                self.text("ChecksumType", kind.name());
            }
        }
    }

    pub(super) fn owner(&mut self, element: &str, owner: &Owner<'_>) {
        self.open(element);
        self.text("ID", owner.id);
        self.text("DisplayName", owner.display_name);
        self.close(element);
    }
}

/// `ListAllMyBucketsResult`. `continuation_token` is set if there are more buckets.
pub fn list_buckets_result<'a>(
    owner: &Owner<'_>,
    buckets: impl IntoIterator<Item = (&'a str, UnixMillis)>,
    prefix: Option<&str>,
    continuation_token: Option<&str>,
) -> Vec<u8> {
    let mut xml = XmlWriter::document(1024);
    xml.open_root("ListAllMyBucketsResult");
    xml.owner("Owner", owner);
    xml.open("Buckets");
    for (name, created) in buckets {
        xml.open("Bucket");
        xml.text("Name", name);
        xml.time("CreationDate", created);
        xml.close("Bucket");
    }
    xml.close("Buckets");
    xml.optional("Prefix", prefix);
    xml.optional("ContinuationToken", continuation_token);
    xml.close("ListAllMyBucketsResult");
    xml.finish()
}

/// `LocationConstraint`; empty for `us-east-1`, as S3 answers.
pub fn location_constraint(region: &str) -> Vec<u8> {
    let mut xml = XmlWriter::document(128);
    xml.open_root("LocationConstraint");
    if region != "us-east-1" {
        xml.escaped(region);
    }
    xml.close("LocationConstraint");
    xml.finish()
}

/// `InitiateMultipartUploadResult`.
pub fn initiate_multipart_upload_result(bucket: &str, key: &str, upload_id: &str) -> Vec<u8> {
    let mut xml = XmlWriter::document(256 + key.len());
    xml.open_root("InitiateMultipartUploadResult");
    xml.text("Bucket", bucket);
    xml.text("Key", key);
    xml.text("UploadId", upload_id);
    xml.close("InitiateMultipartUploadResult");
    xml.finish()
}

/// The facts of a completed upload.
#[derive(Clone, Copy, Debug)]
pub struct CompletedUpload<'a> {
    /// The URL of the object.
    pub location: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The ETag without quotes.
    pub etag: &'a str,
    /// The checksum of the object, if it has one.
    pub checksum: Option<Checksums<'a>>,
}

/// `CompleteMultipartUploadResult`.
pub fn complete_multipart_upload_result(upload: &CompletedUpload<'_>) -> Vec<u8> {
    let mut xml = XmlWriter::document(512 + upload.key.len() + upload.location.len());
    xml.open_root("CompleteMultipartUploadResult");
    xml.text("Location", upload.location);
    xml.text("Bucket", upload.bucket);
    xml.text("Key", upload.key);
    xml.etag(upload.etag);
    xml.checksum(upload.checksum.as_ref());
    xml.close("CompleteMultipartUploadResult");
    xml.finish()
}

/// The facts of a copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyResult<'a> {
    /// The ETag without quotes.
    pub etag: &'a str,
    /// The time of the copy.
    pub last_modified: UnixMillis,
    /// The checksum, if there is one.
    pub checksum: Option<Checksums<'a>>,
}

/// `CopyObjectResult`.
pub fn copy_object_result(copy: &CopyResult<'_>) -> Vec<u8> {
    copy_result("CopyObjectResult", copy)
}

/// `CopyPartResult`.
pub fn copy_part_result(copy: &CopyResult<'_>) -> Vec<u8> {
    copy_result("CopyPartResult", copy)
}

fn copy_result(root: &str, copy: &CopyResult<'_>) -> Vec<u8> {
    let mut xml = XmlWriter::document(384);
    xml.open_root(root);
    xml.time("LastModified", copy.last_modified);
    xml.etag(copy.etag);
    xml.checksum(copy.checksum.as_ref());
    xml.close(root);
    xml.finish()
}

/// A deleted entry of DeleteObjects.
#[derive(Clone, Copy, Debug)]
pub struct DeletedObject<'a> {
    /// The key.
    pub key: &'a str,
    /// The version that the request named.
    pub version_id: Option<&'a str>,
    /// The delete marker that was made or removed; outside versioned buckets `None`.
    pub delete_marker_version_id: Option<&'a str>,
}

/// An entry of DeleteObjects that failed.
#[derive(Clone, Copy, Debug)]
pub struct FailedDelete<'a> {
    /// The key.
    pub key: &'a str,
    /// The version that the request named.
    pub version_id: Option<&'a str>,
    /// The row of the table.
    pub code: ErrorCode,
    /// The message.
    pub message: &'a str,
}

/// `DeleteResult`. For a quiet request `deleted` is empty.
pub fn delete_result<'a>(
    deleted: impl IntoIterator<Item = DeletedObject<'a>>,
    failed: impl IntoIterator<Item = FailedDelete<'a>>,
) -> Vec<u8> {
    let mut xml = XmlWriter::document(1024);
    xml.open_root("DeleteResult");
    for entry in deleted {
        xml.open("Deleted");
        xml.text("Key", entry.key);
        xml.optional("VersionId", entry.version_id);
        if let Some(marker) = entry.delete_marker_version_id {
            xml.boolean("DeleteMarker", true);
            xml.text("DeleteMarkerVersionId", marker);
        }
        xml.close("Deleted");
    }
    for entry in failed {
        xml.open("Error");
        xml.text("Key", entry.key);
        xml.optional("VersionId", entry.version_id);
        xml.text("Code", entry.code.as_str());
        xml.text("Message", entry.message);
        xml.close("Error");
    }
    xml.close("DeleteResult");
    xml.finish()
}

/// `ServerSideEncryptionConfiguration`, with the key id as it was named.
pub fn encryption_configuration(rule: &BucketEncryption) -> Vec<u8> {
    let mut xml = XmlWriter::document(512);
    xml.open_root("ServerSideEncryptionConfiguration");
    xml.open("Rule");
    xml.open("ApplyServerSideEncryptionByDefault");
    let bucket_key_enabled = match rule {
        BucketEncryption::S3 => {
            xml.text("SSEAlgorithm", SSE_S3_ALGORITHM);
            false
        }
        BucketEncryption::Kms {
            key_id,
            bucket_key_enabled,
        } => {
            xml.text("SSEAlgorithm", KMS_ALGORITHM);
            xml.optional("KMSMasterKeyID", key_id.as_ref().map(|id| id.named()));
            *bucket_key_enabled
        }
    };
    xml.close("ApplyServerSideEncryptionByDefault");
    xml.boolean("BucketKeyEnabled", bucket_key_enabled);
    xml.close("Rule");
    xml.close("ServerSideEncryptionConfiguration");
    xml.finish()
}

/// `VersioningConfiguration`; empty for a bucket that was never versioned.
pub fn versioning_configuration(status: Option<VersioningStatus>) -> Vec<u8> {
    let mut xml = XmlWriter::document(256);
    xml.open_root("VersioningConfiguration");
    xml.optional("Status", status.map(VersioningStatus::as_str));
    xml.close("VersioningConfiguration");
    xml.finish()
}

/// `AccessControlPolicy` of the canned ACL `private`: the owner has full control.
pub fn access_control_policy(owner: &Owner<'_>) -> Vec<u8> {
    let mut xml = XmlWriter::document(512);
    xml.open_root("AccessControlPolicy");
    xml.owner("Owner", owner);
    xml.open("AccessControlList");
    xml.open("Grant");
    xml.raw("<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">");
    xml.text("ID", owner.id);
    xml.text("DisplayName", owner.display_name);
    xml.close("Grantee");
    xml.text("Permission", "FULL_CONTROL");
    xml.close("Grant");
    xml.close("AccessControlList");
    xml.close("AccessControlPolicy");
    xml.finish()
}

#[cfg(test)]
mod tests {
    use super::super::requests::read_bucket_encryption;
    use super::*;
    use crate::request::KmsKeyId;

    const AT: UnixMillis = UnixMillis(1_700_000_000_000);
    const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    const NS: &str = " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"";

    fn check(root: &str, body: Vec<u8>, inner: &str) {
        let expected = format!("{HEAD}<{root}{NS}>{inner}</{root}>");
        assert_eq!(String::from_utf8(body).unwrap(), expected);
    }

    #[test]
    fn buckets_and_location() {
        let owner = Owner {
            id: "o",
            display_name: "O",
        };
        check(
            "ListAllMyBucketsResult",
            list_buckets_result(&owner, [("b", AT)], None, None),
            "<Owner><ID>o</ID><DisplayName>O</DisplayName></Owner><Buckets><Bucket><Name>b</Name>\
             <CreationDate>2023-11-14T22:13:20.000Z</CreationDate></Bucket></Buckets>",
        );
        check("LocationConstraint", location_constraint("us-east-1"), "");
        check("LocationConstraint", location_constraint("eu"), "eu");
    }

    #[test]
    fn multipart_and_copies() {
        check(
            "InitiateMultipartUploadResult",
            initiate_multipart_upload_result("b", "a&b", "u"),
            "<Bucket>b</Bucket><Key>a&amp;b</Key><UploadId>u</UploadId>",
        );
        let checksum = Checksums {
            algorithm: ChecksumAlgorithm::Crc32,
            text: "AAAAAA==-2",
            checksum_type: Some(ChecksumType::Composite),
        };
        check(
            "CompleteMultipartUploadResult",
            complete_multipart_upload_result(&CompletedUpload {
                location: "http://h/b/k",
                bucket: "b",
                key: "k",
                etag: "e-2",
                checksum: Some(checksum),
            }),
            "<Location>http://h/b/k</Location><Bucket>b</Bucket><Key>k</Key>\
             <ETag>&quot;e-2&quot;</ETag><ChecksumCRC32>AAAAAA==-2</ChecksumCRC32>\
             <ChecksumType>COMPOSITE</ChecksumType>",
        );
        let copy = CopyResult {
            etag: "e",
            last_modified: AT,
            checksum: None,
        };
        let inner =
            "<LastModified>2023-11-14T22:13:20.000Z</LastModified><ETag>&quot;e&quot;</ETag>";
        check("CopyObjectResult", copy_object_result(&copy), inner);
        check("CopyPartResult", copy_part_result(&copy), inner);
    }

    #[test]
    fn deletes_list_results_and_errors() {
        let deleted = DeletedObject {
            key: "k",
            version_id: None,
            delete_marker_version_id: Some("m"),
        };
        let failed = FailedDelete {
            key: "x",
            version_id: Some("v"),
            code: ErrorCode::AccessDenied,
            message: "Access Denied.",
        };
        check(
            "DeleteResult",
            delete_result([deleted], [failed]),
            "<Deleted><Key>k</Key><DeleteMarker>true</DeleteMarker><DeleteMarkerVersionId>m\
             </DeleteMarkerVersionId></Deleted><Error><Key>x</Key><VersionId>v</VersionId>\
             <Code>AccessDenied</Code><Message>Access Denied.</Message></Error>",
        );
    }

    #[test]
    fn encryption_rules_read_back_as_they_were() {
        for rule in [
            BucketEncryption::S3,
            BucketEncryption::Kms {
                key_id: None,
                bucket_key_enabled: false,
            },
            BucketEncryption::Kms {
                key_id: Some(KmsKeyId::parse("arn:aws:kms:k1").unwrap()),
                bucket_key_enabled: true,
            },
        ] {
            assert_eq!(
                read_bucket_encryption(&encryption_configuration(&rule)).unwrap(),
                rule
            );
        }
    }

    #[test]
    fn versioning_is_empty_unless_set() {
        check(
            "VersioningConfiguration",
            versioning_configuration(None),
            "",
        );
        check(
            "VersioningConfiguration",
            versioning_configuration(Some(VersioningStatus::Enabled)),
            "<Status>Enabled</Status>",
        );
    }

    #[test]
    fn acls_are_well_formed() {
        let body = access_control_policy(&Owner {
            id: "o",
            display_name: "O",
        });
        let root =
            super::super::parse::parse(&body, "AccessControlPolicy", &["Owner", "ID"], 50).unwrap();
        assert_eq!(
            root.only("Owner").unwrap().unwrap().trimmed("ID").unwrap(),
            Some("o")
        );
    }
}
