//! Which S3 operation a request is. All operations of the S3 API have a variant, those that no
//! service of ours implements too, so that each can be answered by its proper code.

use http::{HeaderMap, Method};

use super::{Address, Query};
use crate::error::{ErrorCode, S3Error};

macro_rules! operations {
    ($( $(#[$doc:meta])* $variant:ident = $action:literal; )*) => {
        /// An operation of the S3 API, by the name that the API reference gives it.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        #[allow(missing_docs, reason = "the S3 API reference documents each name")]
        pub enum Operation { $( $(#[$doc])* $variant, )* }

        impl Operation {
            /// Every operation, for tables and tests.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// The name in the API reference, as metrics and logs show it.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => stringify!($variant), )* }
            }

            /// The IAM action that a policy must allow. Empty where none is needed. Operations
            /// with a version id have actions of their own (`s3:GetObjectVersion`), and copies
            /// also need `s3:GetObject` on the source: that is for the service to add.
            pub const fn iam_action(self) -> &'static str {
                match self { $( Self::$variant => $action, )* }
            }
        }
    };
}

operations! {
    // Service.
    ListBuckets = "s3:ListAllMyBuckets";
    ListDirectoryBuckets = "s3express:ListAllMyDirectoryBuckets";
    /// A form POST to the root: the STS API.
    Sts = "";
    CorsPreflight = "";
    // Buckets.
    CreateBucket = "s3:CreateBucket";
    HeadBucket = "s3:ListBucket";
    DeleteBucket = "s3:DeleteBucket";
    CreateSession = "s3express:CreateSession";
    GetBucketLocation = "s3:GetBucketLocation";
    ListObjects = "s3:ListBucket";
    ListObjectsV2 = "s3:ListBucket";
    ListObjectVersions = "s3:ListBucketVersions";
    ListMultipartUploads = "s3:ListBucketMultipartUploads";
    DeleteObjects = "s3:DeleteObject";
    PostObject = "s3:PutObject";
    ListenBucketNotification = "s3:ListenBucketNotification";
    // Bucket configuration.
    GetBucketAccelerateConfiguration = "s3:GetAccelerateConfiguration";
    PutBucketAccelerateConfiguration = "s3:PutAccelerateConfiguration";
    GetBucketAcl = "s3:GetBucketAcl";
    PutBucketAcl = "s3:PutBucketAcl";
    GetBucketAnalyticsConfiguration = "s3:GetAnalyticsConfiguration";
    ListBucketAnalyticsConfigurations = "s3:GetAnalyticsConfiguration";
    PutBucketAnalyticsConfiguration = "s3:PutAnalyticsConfiguration";
    DeleteBucketAnalyticsConfiguration = "s3:PutAnalyticsConfiguration";
    GetBucketCors = "s3:GetBucketCORS";
    PutBucketCors = "s3:PutBucketCORS";
    DeleteBucketCors = "s3:PutBucketCORS";
    GetBucketEncryption = "s3:GetEncryptionConfiguration";
    PutBucketEncryption = "s3:PutEncryptionConfiguration";
    DeleteBucketEncryption = "s3:PutEncryptionConfiguration";
    GetBucketIntelligentTieringConfiguration = "s3:GetIntelligentTieringConfiguration";
    ListBucketIntelligentTieringConfigurations = "s3:GetIntelligentTieringConfiguration";
    PutBucketIntelligentTieringConfiguration = "s3:PutIntelligentTieringConfiguration";
    DeleteBucketIntelligentTieringConfiguration = "s3:PutIntelligentTieringConfiguration";
    GetBucketInventoryConfiguration = "s3:GetInventoryConfiguration";
    ListBucketInventoryConfigurations = "s3:GetInventoryConfiguration";
    PutBucketInventoryConfiguration = "s3:PutInventoryConfiguration";
    DeleteBucketInventoryConfiguration = "s3:PutInventoryConfiguration";
    GetBucketLifecycleConfiguration = "s3:GetLifecycleConfiguration";
    PutBucketLifecycleConfiguration = "s3:PutLifecycleConfiguration";
    DeleteBucketLifecycle = "s3:PutLifecycleConfiguration";
    GetBucketLogging = "s3:GetBucketLogging";
    PutBucketLogging = "s3:PutBucketLogging";
    GetBucketMetadataConfiguration = "s3:GetBucketMetadataTableConfiguration";
    CreateBucketMetadataConfiguration = "s3:CreateBucketMetadataTableConfiguration";
    DeleteBucketMetadataConfiguration = "s3:DeleteBucketMetadataTableConfiguration";
    GetBucketMetadataTableConfiguration = "s3:GetBucketMetadataTableConfiguration";
    CreateBucketMetadataTableConfiguration = "s3:CreateBucketMetadataTableConfiguration";
    DeleteBucketMetadataTableConfiguration = "s3:DeleteBucketMetadataTableConfiguration";
    UpdateBucketMetadataInventoryTableConfiguration = "s3:UpdateBucketMetadataInventoryTableConfiguration";
    UpdateBucketMetadataJournalTableConfiguration = "s3:UpdateBucketMetadataJournalTableConfiguration";
    GetBucketMetricsConfiguration = "s3:GetMetricsConfiguration";
    ListBucketMetricsConfigurations = "s3:GetMetricsConfiguration";
    PutBucketMetricsConfiguration = "s3:PutMetricsConfiguration";
    DeleteBucketMetricsConfiguration = "s3:PutMetricsConfiguration";
    GetBucketNotificationConfiguration = "s3:GetBucketNotification";
    PutBucketNotificationConfiguration = "s3:PutBucketNotification";
    GetObjectLockConfiguration = "s3:GetBucketObjectLockConfiguration";
    PutObjectLockConfiguration = "s3:PutBucketObjectLockConfiguration";
    GetBucketOwnershipControls = "s3:GetBucketOwnershipControls";
    PutBucketOwnershipControls = "s3:PutBucketOwnershipControls";
    DeleteBucketOwnershipControls = "s3:PutBucketOwnershipControls";
    GetBucketPolicy = "s3:GetBucketPolicy";
    PutBucketPolicy = "s3:PutBucketPolicy";
    DeleteBucketPolicy = "s3:DeleteBucketPolicy";
    GetBucketPolicyStatus = "s3:GetBucketPolicyStatus";
    GetPublicAccessBlock = "s3:GetBucketPublicAccessBlock";
    PutPublicAccessBlock = "s3:PutBucketPublicAccessBlock";
    DeletePublicAccessBlock = "s3:PutBucketPublicAccessBlock";
    GetBucketReplication = "s3:GetReplicationConfiguration";
    PutBucketReplication = "s3:PutReplicationConfiguration";
    DeleteBucketReplication = "s3:PutReplicationConfiguration";
    GetBucketRequestPayment = "s3:GetBucketRequestPayment";
    PutBucketRequestPayment = "s3:PutBucketRequestPayment";
    GetBucketTagging = "s3:GetBucketTagging";
    PutBucketTagging = "s3:PutBucketTagging";
    DeleteBucketTagging = "s3:PutBucketTagging";
    GetBucketVersioning = "s3:GetBucketVersioning";
    PutBucketVersioning = "s3:PutBucketVersioning";
    GetBucketWebsite = "s3:GetBucketWebsite";
    PutBucketWebsite = "s3:PutBucketWebsite";
    DeleteBucketWebsite = "s3:DeleteBucketWebsite";
    // Objects.
    GetObject = "s3:GetObject";
    HeadObject = "s3:GetObject";
    PutObject = "s3:PutObject";
    CopyObject = "s3:PutObject";
    DeleteObject = "s3:DeleteObject";
    RenameObject = "s3:PutObject";
    GetObjectAttributes = "s3:GetObject";
    GetObjectAcl = "s3:GetObjectAcl";
    PutObjectAcl = "s3:PutObjectAcl";
    GetObjectLegalHold = "s3:GetObjectLegalHold";
    PutObjectLegalHold = "s3:PutObjectLegalHold";
    GetObjectRetention = "s3:GetObjectRetention";
    PutObjectRetention = "s3:PutObjectRetention";
    GetObjectTagging = "s3:GetObjectTagging";
    PutObjectTagging = "s3:PutObjectTagging";
    DeleteObjectTagging = "s3:DeleteObjectTagging";
    GetObjectTorrent = "s3:GetObjectTorrent";
    RestoreObject = "s3:RestoreObject";
    SelectObjectContent = "s3:GetObject";
    UpdateObjectEncryption = "s3:UpdateObjectEncryption";
    // Multipart uploads.
    CreateMultipartUpload = "s3:PutObject";
    UploadPart = "s3:PutObject";
    UploadPartCopy = "s3:PutObject";
    CompleteMultipartUpload = "s3:PutObject";
    AbortMultipartUpload = "s3:AbortMultipartUpload";
    ListParts = "s3:ListMultipartUploadParts";
}

/// The bucket subresources: query parameter, then GET, PUT and DELETE. A GET in two columns is
/// with and without an `id` parameter.
struct Subresource {
    parameter: &'static str,
    get: Option<Operation>,
    list: Option<Operation>,
    put: Option<Operation>,
    delete: Option<Operation>,
}

macro_rules! column {
    (-) => {
        None
    };
    ($variant:ident) => {
        Some(Operation::$variant)
    };
}
macro_rules! subresources {
    ($( $parameter:literal: $get:tt $list:tt $put:tt $delete:tt; )*) => {
        &[ $( Subresource {
            parameter: $parameter,
            get: column!($get),
            list: column!($list),
            put: column!($put),
            delete: column!($delete),
        }, )* ]
    };
}

#[rustfmt::skip]
const BUCKET_SUBRESOURCES: &[Subresource] = subresources! {
    "accelerate": GetBucketAccelerateConfiguration - PutBucketAccelerateConfiguration -;
    "acl": GetBucketAcl - PutBucketAcl -;
    "analytics": GetBucketAnalyticsConfiguration ListBucketAnalyticsConfigurations PutBucketAnalyticsConfiguration DeleteBucketAnalyticsConfiguration;
    "cors": GetBucketCors - PutBucketCors DeleteBucketCors;
    "encryption": GetBucketEncryption - PutBucketEncryption DeleteBucketEncryption;
    "events": ListenBucketNotification - - -;
    "intelligent-tiering": GetBucketIntelligentTieringConfiguration ListBucketIntelligentTieringConfigurations PutBucketIntelligentTieringConfiguration DeleteBucketIntelligentTieringConfiguration;
    "inventory": GetBucketInventoryConfiguration ListBucketInventoryConfigurations PutBucketInventoryConfiguration DeleteBucketInventoryConfiguration;
    "lifecycle": GetBucketLifecycleConfiguration - PutBucketLifecycleConfiguration DeleteBucketLifecycle;
    "location": GetBucketLocation - - -;
    "logging": GetBucketLogging - PutBucketLogging -;
    "metadataConfiguration": GetBucketMetadataConfiguration - - DeleteBucketMetadataConfiguration;
    "metadataInventoryTable": - - UpdateBucketMetadataInventoryTableConfiguration -;
    "metadataJournalTable": - - UpdateBucketMetadataJournalTableConfiguration -;
    "metadataTable": GetBucketMetadataTableConfiguration - - DeleteBucketMetadataTableConfiguration;
    "metrics": GetBucketMetricsConfiguration ListBucketMetricsConfigurations PutBucketMetricsConfiguration DeleteBucketMetricsConfiguration;
    "notification": GetBucketNotificationConfiguration - PutBucketNotificationConfiguration -;
    "object-lock": GetObjectLockConfiguration - PutObjectLockConfiguration -;
    "ownershipControls": GetBucketOwnershipControls - PutBucketOwnershipControls DeleteBucketOwnershipControls;
    "policy": GetBucketPolicy - PutBucketPolicy DeleteBucketPolicy;
    "policyStatus": GetBucketPolicyStatus - - -;
    "publicAccessBlock": GetPublicAccessBlock - PutPublicAccessBlock DeletePublicAccessBlock;
    "replication": GetBucketReplication - PutBucketReplication DeleteBucketReplication;
    "requestPayment": GetBucketRequestPayment - PutBucketRequestPayment -;
    "session": CreateSession - - -;
    "tagging": GetBucketTagging - PutBucketTagging DeleteBucketTagging;
    "uploads": ListMultipartUploads - - -;
    "versioning": GetBucketVersioning - PutBucketVersioning -;
    "versions": ListObjectVersions - - -;
    "website": GetBucketWebsite - PutBucketWebsite DeleteBucketWebsite;
};

#[rustfmt::skip]
const OBJECT_SUBRESOURCES: &[Subresource] = subresources! {
    "acl": GetObjectAcl - PutObjectAcl -;
    "attributes": GetObjectAttributes - - -;
    "encryption": - - UpdateObjectEncryption -;
    "legal-hold": GetObjectLegalHold - PutObjectLegalHold -;
    "renameObject": - - RenameObject -;
    "retention": GetObjectRetention - PutObjectRetention -;
    "tagging": GetObjectTagging - PutObjectTagging DeleteObjectTagging;
    "torrent": GetObjectTorrent - - -;
};

impl Operation {
    /// Finds the operation. Unknown parameters are ignored, as S3 does.
    ///
    /// # Errors
    /// `MethodNotAllowed` if S3 has no such operation, `InvalidArgument` for a part upload that
    /// misses one of its two parameters.
    pub fn resolve(
        method: &Method,
        address: &Address<'_>,
        query: &Query<'_>,
        headers: &HeaderMap,
    ) -> Result<Self, S3Error> {
        if method == Method::OPTIONS {
            return Ok(Self::CorsPreflight);
        }
        match (&address.bucket, &address.key) {
            (None, _) => of_service(method, query),
            (Some(_), None) => of_bucket(method, query, headers),
            (Some(_), Some(_)) => of_object(method, query, headers),
        }
    }

    /// Whether a request about a bucket or an object names more than one operation, as `?acl&tagging`
    /// does: [`Self::resolve`] takes the first one, another server may take the second.
    pub fn is_ambiguous(address: &Address<'_>, query: &Query<'_>) -> bool {
        let table = match (&address.bucket, &address.key) {
            (None, _) => return false,
            (Some(_), None) => BUCKET_SUBRESOURCES,
            (Some(_), Some(_)) => OBJECT_SUBRESOURCES,
        };
        let names = |name: &str| table.iter().any(|row| row.parameter == name);
        query.iter().filter(|(name, _)| names(name)).count() > 1
    }

    /// The code that says "this is not configured", for GETs of configurations that a bucket or
    /// object may lack. `None` where an empty document or something else is the answer.
    pub const fn absent_configuration(self) -> Option<ErrorCode> {
        Some(match self {
            Self::GetBucketAnalyticsConfiguration
            | Self::GetBucketIntelligentTieringConfiguration
            | Self::GetBucketInventoryConfiguration
            | Self::GetBucketMetadataConfiguration
            | Self::GetBucketMetadataTableConfiguration
            | Self::GetBucketMetricsConfiguration
            | Self::DeleteBucketAnalyticsConfiguration
            | Self::DeleteBucketInventoryConfiguration
            | Self::DeleteBucketMetricsConfiguration => ErrorCode::NoSuchConfiguration,
            Self::GetBucketCors => ErrorCode::NoSuchCorsConfiguration,
            Self::GetBucketEncryption => ErrorCode::ServerSideEncryptionConfigurationNotFound,
            Self::GetBucketLifecycleConfiguration => ErrorCode::NoSuchLifecycleConfiguration,
            Self::GetObjectLockConfiguration => ErrorCode::ObjectLockConfigurationNotFound,
            Self::GetObjectLegalHold | Self::GetObjectRetention => {
                ErrorCode::NoSuchObjectLockConfiguration
            }
            Self::GetBucketOwnershipControls => ErrorCode::OwnershipControlsNotFound,
            Self::GetBucketPolicy | Self::GetBucketPolicyStatus => ErrorCode::NoSuchBucketPolicy,
            Self::GetPublicAccessBlock => ErrorCode::NoSuchPublicAccessBlockConfiguration,
            Self::GetBucketReplication => ErrorCode::ReplicationConfigurationNotFound,
            Self::GetBucketTagging => ErrorCode::NoSuchTagSet,
            Self::GetBucketWebsite => ErrorCode::NoSuchWebsiteConfiguration,
            _ => return None,
        })
    }
}

fn of_service(method: &Method, query: &Query<'_>) -> Result<Operation, S3Error> {
    match *method {
        Method::GET | Method::HEAD if query.has("max-directory-buckets") => {
            Ok(Operation::ListDirectoryBuckets)
        }
        Method::GET => Ok(Operation::ListBuckets),
        Method::POST => Ok(Operation::Sts),
        _ => not_allowed(),
    }
}

fn of_bucket(
    method: &Method,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Operation, S3Error> {
    let found = subresource(BUCKET_SUBRESOURCES, query);
    match *method {
        Method::HEAD => Ok(Operation::HeadBucket),
        Method::GET => match found {
            Some(row) => row.for_get(query),
            None if query.get("list-type") == Some("2") => Ok(Operation::ListObjectsV2),
            None => Ok(Operation::ListObjects),
        },
        Method::PUT => found.map_or(Ok(Operation::CreateBucket), |row| allowed(row.put)),
        Method::DELETE => found.map_or(Ok(Operation::DeleteBucket), |row| allowed(row.delete)),
        Method::POST => bucket_post(query, headers),
        _ => not_allowed(),
    }
}

fn bucket_post(query: &Query<'_>, headers: &HeaderMap) -> Result<Operation, S3Error> {
    if query.has("delete") {
        return Ok(Operation::DeleteObjects);
    }
    if query.has("metadataTable") {
        return Ok(Operation::CreateBucketMetadataTableConfiguration);
    }
    if query.has("metadataConfiguration") {
        return Ok(Operation::CreateBucketMetadataConfiguration);
    }
    let form = headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| starts_with_ignore_case(value.as_bytes(), b"multipart/form-data"));
    if form {
        return Ok(Operation::PostObject);
    }
    not_allowed()
}

fn of_object(
    method: &Method,
    query: &Query<'_>,
    headers: &HeaderMap,
) -> Result<Operation, S3Error> {
    let found = subresource(OBJECT_SUBRESOURCES, query);
    match *method {
        Method::HEAD => Ok(Operation::HeadObject),
        Method::GET => match found {
            Some(row) => row.for_get(query),
            None if query.has("uploadId") => Ok(Operation::ListParts),
            None => Ok(Operation::GetObject),
        },
        Method::PUT => match found {
            Some(row) => allowed(row.put),
            None => object_put(query, headers),
        },
        Method::DELETE => match found {
            Some(row) => allowed(row.delete),
            None if query.has("uploadId") => Ok(Operation::AbortMultipartUpload),
            None => Ok(Operation::DeleteObject),
        },
        Method::POST if query.has("uploads") => Ok(Operation::CreateMultipartUpload),
        Method::POST if query.has("uploadId") => Ok(Operation::CompleteMultipartUpload),
        Method::POST if query.has("restore") => Ok(Operation::RestoreObject),
        Method::POST if query.has("select") => Ok(Operation::SelectObjectContent),
        _ => not_allowed(),
    }
}

fn object_put(query: &Query<'_>, headers: &HeaderMap) -> Result<Operation, S3Error> {
    let copies = headers.contains_key("x-amz-copy-source");
    match (query.has("uploadId"), query.has("partNumber")) {
        (true, true) if copies => Ok(Operation::UploadPartCopy),
        (true, true) => Ok(Operation::UploadPart),
        (false, false) if copies => Ok(Operation::CopyObject),
        (false, false) => Ok(Operation::PutObject),
        // Taking this for a PutObject would replace the object by one of its parts.
        _ => Err(S3Error::new(
            ErrorCode::InvalidArgument,
            "An upload of a part needs both uploadId and partNumber.",
        )),
    }
}

impl Subresource {
    fn for_get(&self, query: &Query<'_>) -> Result<Operation, S3Error> {
        match self.list {
            Some(list) if !query.has("id") => Ok(list),
            _ => allowed(self.get),
        }
    }
}

/// Whether a parameter chooses another operation on a bucket or an object.
pub(crate) fn is_subresource(parameter: &str) -> bool {
    let mut rows = BUCKET_SUBRESOURCES.iter().chain(OBJECT_SUBRESOURCES);
    rows.any(|row| row.parameter == parameter)
}

/// Whether a parameter is the name of a subresource that an operation is about.
pub(super) fn selects(parameter: &str, operation: Operation) -> bool {
    let rows = BUCKET_SUBRESOURCES.iter().chain(OBJECT_SUBRESOURCES);
    let mut named = rows.filter(|row| row.parameter == parameter);
    named.any(|row| [row.get, row.list, row.put, row.delete].contains(&Some(operation)))
}

/// The first parameter of the request that names a subresource.
fn subresource(table: &'static [Subresource], query: &Query<'_>) -> Option<&'static Subresource> {
    query
        .iter()
        .find_map(|(name, _)| table.iter().find(|row| row.parameter == name))
}

fn allowed(operation: Option<Operation>) -> Result<Operation, S3Error> {
    operation.map_or_else(not_allowed, Ok)
}

fn not_allowed() -> Result<Operation, S3Error> {
    Err(ErrorCode::MethodNotAllowed.into())
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::BaseDomains;
    use super::*;

    fn resolve(method: &str, uri: &str, headers: &HeaderMap) -> Result<Operation, ErrorCode> {
        let method: Method = method.parse().unwrap();
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let address = Address::parse("h", path, &BaseDomains::default()).unwrap();
        let query = Query::parse(query).unwrap();
        Operation::resolve(&method, &address, &query, headers).map_err(|e| e.code)
    }

    fn check(method: &str, uri: &str, expected: Operation) {
        assert_eq!(
            resolve(method, uri, &HeaderMap::new()),
            Ok(expected),
            "{method} {uri}"
        );
    }

    #[test]
    fn the_operations_of_s3a_boto3_and_mc() {
        use Operation as O;
        check("GET", "/", O::ListBuckets);
        check("POST", "/", O::Sts);
        check("GET", "/b?location=", O::GetBucketLocation);
        check("HEAD", "/b", O::HeadBucket);
        check("PUT", "/b/", O::CreateBucket);
        check("DELETE", "/b", O::DeleteBucket);
        check("GET", "/b/?list-type=2&prefix=uploads", O::ListObjectsV2);
        check("GET", "/b?prefix=a&list-type=1", O::ListObjects);
        check("GET", "/b?versions&prefix=a", O::ListObjectVersions);
        check("GET", "/b?uploads", O::ListMultipartUploads);
        check("POST", "/b/?delete", O::DeleteObjects);
        check("PUT", "/b?encryption", O::PutBucketEncryption);
        check("DELETE", "/b?encryption=", O::DeleteBucketEncryption);
        check("GET", "/b?inventory", O::ListBucketInventoryConfigurations);
        check(
            "GET",
            "/b?inventory&id=1",
            O::GetBucketInventoryConfiguration,
        );
        check("GET", "/b/k?x-id=GetObject", O::GetObject);
        check("GET", "/b/k?partNumber=1", O::GetObject);
        check("GET", "/b/k?uploadId=u", O::ListParts);
        check("PUT", "/b/k?x-id=PutObject", O::PutObject);
        check("PUT", "/b/k?partNumber=1&uploadId=u", O::UploadPart);
        check("POST", "/b/k?uploads", O::CreateMultipartUpload);
        check("POST", "/b/k?uploadId=u", O::CompleteMultipartUpload);
        check("DELETE", "/b/k?uploadId=u", O::AbortMultipartUpload);
        check("DELETE", "/b/k?versionId=v", O::DeleteObject);
        check("GET", "/b/k?tagging", O::GetObjectTagging);
        check("OPTIONS", "/b/k", O::CorsPreflight);
    }

    #[test]
    fn a_copy_source_makes_a_copy() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", HeaderValue::from_static("b/s"));
        assert_eq!(resolve("PUT", "/b/k", &headers), Ok(Operation::CopyObject));
        assert_eq!(
            resolve("PUT", "/b/k?uploadId=u&partNumber=2", &headers),
            Ok(Operation::UploadPartCopy)
        );
    }

    #[test]
    fn a_form_is_a_post_object() {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            HeaderValue::from_static("Multipart/form-data; boundary=x"),
        );
        assert_eq!(resolve("POST", "/b", &headers), Ok(Operation::PostObject));
    }

    #[test]
    fn what_s3_does_not_have_is_not_allowed() {
        let none = HeaderMap::new();
        for (method, uri) in [
            ("PUT", "/"),
            ("DELETE", "/"),
            ("POST", "/b"),
            ("POST", "/b/k"),
            ("PATCH", "/b/k"),
            ("PUT", "/b?location"),
            ("DELETE", "/b?versioning"),
            ("PUT", "/b?uploads"),
            ("DELETE", "/b/k?acl"),
        ] {
            assert_eq!(
                resolve(method, uri, &none),
                Err(ErrorCode::MethodNotAllowed),
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn half_a_part_upload_never_replaces_the_object() {
        let none = HeaderMap::new();
        for uri in ["/b/k?uploadId=u", "/b/k?partNumber=1"] {
            assert_eq!(resolve("PUT", uri, &none), Err(ErrorCode::InvalidArgument));
        }
    }

    #[test]
    fn absent_configurations_are_404s() {
        for operation in Operation::ALL {
            if let Some(code) = operation.absent_configuration() {
                assert_eq!(code.status(), 404, "{operation:?}");
            }
        }
    }
}
