//! Which query parameters an operation has, as the S3 API reference lists them.
//!
//! S3 ignores a parameter that it does not know. Whoever decides about a request and hands it on can't:
//! another server may know it, and do something else than what was decided about.

use super::operation::selects;
use super::{Operation, Query};

/// What SDKs of version 2 and 3 say the name of the operation in.
const OF_ALL: &str = "x-id";
const VERSION: &[&str] = &["versionId"];
const READ: &[&str] = &[
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "versionId",
];

impl Operation {
    /// Whether the operation has a parameter: one that chooses it, or one that it reads.
    pub fn takes_parameter(self, name: &str) -> bool {
        name == OF_ALL || self.parameters().contains(&name) || selects(name, self)
    }

    /// The first parameter of a query that the operation has not.
    pub fn foreign_parameter<'q>(self, query: &'q Query<'_>) -> Option<&'q str> {
        let mut names = query.iter().map(|(name, _)| name);
        names.find(|name| !self.takes_parameter(name))
    }

    /// Without the names of subresources, which [`selects`] knows.
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::ListBuckets => &[
                "bucket-region",
                "continuation-token",
                "max-buckets",
                "prefix",
            ],
            Self::ListDirectoryBuckets => &["continuation-token", "max-directory-buckets"],
            Self::ListObjects => &[
                "delimiter",
                "encoding-type",
                "list-type",
                "marker",
                "max-keys",
                "prefix",
            ],
            Self::ListObjectsV2 => &[
                "continuation-token",
                "delimiter",
                "encoding-type",
                "fetch-owner",
                "list-type",
                "max-keys",
                "prefix",
                "start-after",
            ],
            Self::ListObjectVersions => &[
                "delimiter",
                "encoding-type",
                "key-marker",
                "max-keys",
                "prefix",
                "version-id-marker",
            ],
            Self::ListMultipartUploads => &[
                "delimiter",
                "encoding-type",
                "key-marker",
                "max-uploads",
                "prefix",
                "upload-id-marker",
            ],
            Self::ListenBucketNotification => &["ping", "prefix", "suffix"],
            Self::DeleteObjects => &["delete"],
            Self::CreateBucketMetadataConfiguration => &["metadataConfiguration"],
            Self::CreateBucketMetadataTableConfiguration => &["metadataTable"],
            // MinIO's clients ask for the time of the last change.
            Self::GetBucketLifecycleConfiguration => &["withUpdatedAt"],
            Self::ListBucketAnalyticsConfigurations
            | Self::ListBucketIntelligentTieringConfigurations
            | Self::ListBucketInventoryConfigurations
            | Self::ListBucketMetricsConfigurations => &["continuation-token"],
            Self::GetBucketAnalyticsConfiguration
            | Self::PutBucketAnalyticsConfiguration
            | Self::DeleteBucketAnalyticsConfiguration
            | Self::GetBucketIntelligentTieringConfiguration
            | Self::PutBucketIntelligentTieringConfiguration
            | Self::DeleteBucketIntelligentTieringConfiguration
            | Self::GetBucketInventoryConfiguration
            | Self::PutBucketInventoryConfiguration
            | Self::DeleteBucketInventoryConfiguration
            | Self::GetBucketMetricsConfiguration
            | Self::PutBucketMetricsConfiguration
            | Self::DeleteBucketMetricsConfiguration => &["id"],
            Self::GetObject | Self::HeadObject => READ,
            Self::DeleteObject
            | Self::GetObjectAttributes
            | Self::GetObjectAcl
            | Self::PutObjectAcl
            | Self::GetObjectLegalHold
            | Self::PutObjectLegalHold
            | Self::GetObjectRetention
            | Self::PutObjectRetention
            | Self::GetObjectTagging
            | Self::PutObjectTagging
            | Self::DeleteObjectTagging
            | Self::UpdateObjectEncryption => VERSION,
            Self::RestoreObject => &["restore", "versionId"],
            Self::SelectObjectContent => &["select", "select-type", "versionId"],
            Self::CreateMultipartUpload => &["uploads"],
            Self::UploadPart | Self::UploadPartCopy => &["partNumber", "uploadId"],
            Self::CompleteMultipartUpload | Self::AbortMultipartUpload => &["uploadId"],
            Self::ListParts => &[
                "encoding-type",
                "max-parts",
                "part-number-marker",
                "uploadId",
            ],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(operation: Operation, query: &str) -> Option<String> {
        let query = Query::parse(query).unwrap();
        operation.foreign_parameter(&query).map(str::to_owned)
    }

    #[test]
    fn what_the_sdks_send_belongs_to_its_operation() {
        use Operation as O;
        for (operation, query) in [
            (
                O::GetObject,
                "x-id=GetObject&partNumber=1&versionId=v&response-content-type=a",
            ),
            (
                O::ListObjectsV2,
                "list-type=2&prefix=&delimiter=%2F&encoding-type=url&fetch-owner=true",
            ),
            (O::ListObjects, "marker=a&max-keys=1"),
            (
                O::ListObjectVersions,
                "versions&key-marker=a&version-id-marker=b",
            ),
            (O::ListMultipartUploads, "uploads=&max-uploads=1"),
            (
                O::UploadPartCopy,
                "partNumber=1&uploadId=u&x-id=UploadPartCopy",
            ),
            (O::GetObjectTagging, "tagging&versionId=v"),
            (O::GetBucketInventoryConfiguration, "inventory&id=1"),
            (
                O::ListBucketInventoryConfigurations,
                "inventory&continuation-token=1",
            ),
            (
                O::GetBucketLifecycleConfiguration,
                "lifecycle=&withUpdatedAt=true",
            ),
            (O::SelectObjectContent, "select&select-type=2"),
            (O::PutObject, "x-id=PutObject"),
            (O::PutObject, ""),
        ] {
            assert_eq!(foreign(operation, query), None, "{operation:?} {query}");
        }
    }

    #[test]
    fn a_parameter_of_another_operation_is_foreign() {
        use Operation as O;
        for (operation, query, found) in [
            (O::PutObject, "append&position=0", "append"),
            (O::PutObject, "uploads", "uploads"),
            (O::PutObject, "versionId=v", "versionId"),
            (O::HeadObject, "acl", "acl"),
            (O::GetObject, "lambdaArn=x", "lambdaArn"),
            (O::ListObjectsV2, "list-type=2&metadata=true", "metadata"),
            (O::DeleteBucket, "force", "force"),
            (O::PutBucketAcl, "acl&encryption", "encryption"),
            (O::GetBucketAcl, "acl&id=1", "id"),
            (O::GetObject, "VersionId=v", "VersionId"),
        ] {
            let got = foreign(operation, query);
            assert_eq!(got.as_deref(), Some(found), "{operation:?} {query}");
        }
    }
}
