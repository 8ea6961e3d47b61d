//! The table of S3 error codes as data: code text, HTTP status, default message.
//!
//! Choosing a row is the job of the service; this file only knows what a row says. Codes, statuses
//! and the sense of the messages follow the "Error responses" page of the S3 API reference, the
//! STS and KMS references, and for a few codes what the SDKs and `mc` look for.

use http::StatusCode;

use crate::xml::XmlWriter;

macro_rules! error_codes {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $message:literal; )*) => {
        /// An S3 error code. The variant's documentation is its default message.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $( $(#[$doc])* #[doc = $message] $variant, )*
        }

        impl ErrorCode {
            /// Every code, for tables and tests.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// The text of `<Code>`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $code, )* }
            }

            /// The number of the HTTP status.
            const fn status_number(self) -> u16 {
                match self { $( Self::$variant => $status, )* }
            }

            /// The message for a client where the service has nothing more exact to say.
            pub const fn message(self) -> &'static str {
                match self { $( Self::$variant => $message, )* }
            }
        }
    };
}

error_codes! {
    // Access and signatures.
    AccessDenied = "AccessDenied", 403, "Access Denied.";
    AccountProblem = "AccountProblem", 403, "There is a problem with your account that prevents the operation from completing successfully.";
    AllAccessDisabled = "AllAccessDisabled", 403, "All access to this resource has been disabled.";
    AuthorizationHeaderMalformed = "AuthorizationHeaderMalformed", 400, "The authorization header that you provided is not valid.";
    AuthorizationQueryParametersError = "AuthorizationQueryParametersError", 400, "The authorization query parameters that you provided are not valid.";
    CredentialsNotSupported = "CredentialsNotSupported", 400, "This request does not support credentials.";
    ExpiredToken = "ExpiredToken", 400, "The provided token has expired.";
    InvalidAccessKeyId = "InvalidAccessKeyId", 403, "The AWS access key ID that you provided does not exist in our records.";
    InvalidSecurity = "InvalidSecurity", 403, "The provided security credentials are not valid.";
    InvalidToken = "InvalidToken", 400, "The provided token is malformed or otherwise not valid.";
    MissingSecurityHeader = "MissingSecurityHeader", 400, "Your request is missing a required header.";
    NotSignedUp = "NotSignedUp", 403, "Your account is not signed up for this service.";
    RequestTimeTooSkewed = "RequestTimeTooSkewed", 403, "The difference between the request time and the server's time is too large.";
    SignatureDoesNotMatch = "SignatureDoesNotMatch", 403, "The request signature that the server calculated does not match the signature that you provided. Check your secret access key and signing method.";
    TokenRefreshRequired = "TokenRefreshRequired", 400, "The provided token must be refreshed.";

    // Bodies, digests, framing.
    BadDigest = "BadDigest", 400, "The Content-MD5 or checksum value that you specified did not match what the server received.";
    EntityTooLarge = "EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed object size.";
    EntityTooSmall = "EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed object size.";
    ExpectedPayloadTooLong = "MaxMessageLengthExceeded", 400, "Your request was too large.";
    IncompleteBody = "IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    InvalidChunkSizeError = "InvalidChunkSizeError", 403, "Only the last chunk is allowed to have a size less than 8192 bytes.";
    InvalidDigest = "InvalidDigest", 400, "The Content-MD5 or checksum value that you specified is not valid.";
    MalformedTrailerError = "MalformedTrailerError", 400, "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MissingContentLength = "MissingContentLength", 411, "You must provide the Content-Length HTTP header.";
    MissingRequestBodyError = "MissingRequestBodyError", 400, "Request body is empty.";
    RequestTimeout = "RequestTimeout", 400, "Your socket connection to the server was not read from or written to within the timeout period.";
    UnexpectedContent = "UnexpectedContent", 400, "This request contains unsupported content.";
    XAmzContentChecksumMismatch = "XAmzContentChecksumMismatch", 400, "The provided checksum value does not match what was computed.";
    XAmzContentSHA256Mismatch = "XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was computed.";

    // Request form.
    InlineDataTooLarge = "InlineDataTooLarge", 400, "The inline data exceeds the maximum allowed size.";
    InvalidArgument = "InvalidArgument", 400, "The specified argument was not valid.";
    InvalidAttributeName = "InvalidAttributeName", 400, "The specified attribute name is not valid.";
    InvalidBucketName = "InvalidBucketName", 400, "The specified bucket is not valid.";
    InvalidEncryptionAlgorithmError = "InvalidEncryptionAlgorithmError", 400, "The encryption request that you specified is not valid. Supported values are AES256 and aws:kms.";
    InvalidHostHeader = "InvalidHostHeader", 400, "The host headers provided in the request used the incorrect style addressing.";
    InvalidHttpMethod = "InvalidHttpMethod", 400, "The HTTP method is not valid.";
    InvalidLocationConstraint = "InvalidLocationConstraint", 400, "The specified location constraint is not valid.";
    InvalidObjectName = "InvalidObjectName", 400, "The specified object name is not valid.";
    InvalidPartNumber = "InvalidPartNumber", 416, "The requested part number is not satisfiable.";
    InvalidRange = "InvalidRange", 416, "The requested range is not satisfiable.";
    InvalidRequest = "InvalidRequest", 400, "The request is not valid.";
    InvalidSessionException = "InvalidSessionException", 400, "The session is no longer valid.";
    InvalidSignature = "InvalidSignature", 400, "The request signature that you provided does not match.";
    InvalidStorageClass = "InvalidStorageClass", 400, "The storage class that you specified is not valid.";
    InvalidTag = "InvalidTag", 400, "Your request contains tag input that is not valid.";
    InvalidTargetBucketForLogging = "InvalidTargetBucketForLogging", 400, "The target bucket for logging does not exist or is not owned by you.";
    InvalidUri = "InvalidURI", 400, "The specified URI couldn't be parsed.";
    KeyTooLong = "KeyTooLongError", 400, "Your key is too long.";
    MalformedAclError = "MalformedACLError", 400, "The ACL that you provided was not well formed or did not validate against our published schema.";
    MalformedPolicy = "MalformedPolicy", 400, "Your policy contains a principal or statement that is not valid.";
    MalformedPostRequest = "MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data.";
    MalformedXml = "MalformedXML", 400, "The XML that you provided was not well formed or did not validate against our published schema.";
    MaxPostPreDataLengthExceeded = "MaxPostPreDataLengthExceededError", 400, "Your POST request fields preceding the upload file were too large.";
    MetadataTooLarge = "MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size.";
    MethodNotAllowed = "MethodNotAllowed", 405, "The specified method is not allowed against this resource.";
    MissingAttachment = "MissingAttachment", 400, "A SOAP attachment was expected, but none was found.";
    NotImplemented = "NotImplemented", 501, "A header or query that you provided requested a function that is not implemented.";
    PermanentRedirect = "PermanentRedirect", 301, "The bucket that you are attempting to access must be addressed using the specified endpoint.";
    PolicyTooLarge = "PolicyTooLarge", 400, "The bucket policy exceeds the maximum allowed document size.";
    RequestHeaderSectionTooLarge = "RequestHeaderSectionTooLarge", 400, "The request header and query parameters used to make the request exceed the maximum allowed size.";
    RequestIsNotMultiPartContent = "RequestIsNotMultiPartContent", 412, "A bucket POST request must be of the enclosure type multipart/form-data.";
    TooManyBuckets = "TooManyBuckets", 400, "You have attempted to create more buckets than are allowed for an account.";
    TooManyTags = "BadRequest", 400, "Object tags cannot be greater than 10.";
    UnsupportedArgument = "UnsupportedArgument", 400, "The request contained an unsupported argument.";
    UserKeyMustBeSpecified = "UserKeyMustBeSpecified", 400, "The bucket POST request must contain the specified field name.";

    // Names and state.
    BucketAlreadyExists = "BucketAlreadyExists", 409, "The requested bucket name is not available. Select a different name and try again.";
    BucketAlreadyOwnedByYou = "BucketAlreadyOwnedByYou", 409, "Your previous request to create the named bucket succeeded and you already own it.";
    BucketNotEmpty = "BucketNotEmpty", 409, "The bucket that you tried to delete is not empty.";
    ConditionalRequestConflict = "ConditionalRequestConflict", 409, "A conflicting operation occurred during the request to this resource. Retry the request.";
    IllegalVersioningConfiguration = "IllegalVersioningConfigurationException", 400, "The versioning configuration specified in the request is not valid.";
    InvalidBucketState = "InvalidBucketState", 409, "The request is not valid for the current state of the bucket.";
    InvalidObjectState = "InvalidObjectState", 403, "The operation is not valid for the current state of the object.";
    InvalidPart = "InvalidPart", 400, "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag.";
    InvalidPartOrder = "InvalidPartOrder", 400, "The list of parts was not in ascending order. The parts list must be specified in order by part number.";
    NoSuchBucket = "NoSuchBucket", 404, "The specified bucket does not exist.";
    NoSuchKey = "NoSuchKey", 404, "The specified key does not exist.";
    NoSuchUpload = "NoSuchUpload", 404, "The specified multipart upload does not exist. The upload ID might not be valid, or the multipart upload might have been aborted or completed.";
    NoSuchVersion = "NoSuchVersion", 404, "The version ID specified in the request does not match an existing version.";
    NotModified = "NotModified", 304, "Not Modified.";
    ObjectNotInActiveTier = "ObjectNotInActiveTierError", 403, "The source object of the COPY action is not in the active tier.";
    OperationAborted = "OperationAborted", 409, "A conflicting conditional operation is currently in progress against this resource. Try again.";
    PreconditionFailed = "PreconditionFailed", 412, "At least one of the preconditions that you specified did not hold.";
    RestoreAlreadyInProgress = "RestoreAlreadyInProgress", 409, "The object restore is already in progress.";

    // Configurations that a bucket or object does not have.
    InvalidRetentionPeriod = "InvalidRetentionPeriod", 400, "The retention period specified is not valid.";
    NoSuchAccessPoint = "NoSuchAccessPoint", 404, "The specified access point does not exist.";
    NoSuchBucketPolicy = "NoSuchBucketPolicy", 404, "The bucket policy does not exist.";
    NoSuchConfiguration = "NoSuchConfiguration", 404, "The specified configuration does not exist.";
    NoSuchCorsConfiguration = "NoSuchCORSConfiguration", 404, "The CORS configuration does not exist.";
    NoSuchLifecycleConfiguration = "NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist.";
    NoSuchObjectLockConfiguration = "NoSuchObjectLockConfiguration", 404, "The specified object does not have an object lock configuration.";
    NoSuchPublicAccessBlockConfiguration = "NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found.";
    NoSuchTagSet = "NoSuchTagSet", 404, "The TagSet does not exist.";
    NoSuchWebsiteConfiguration = "NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration.";
    ObjectLockConfigurationNotFound = "ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket.";
    OwnershipControlsNotFound = "OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found.";
    ReplicationConfigurationNotFound = "ReplicationConfigurationNotFoundError", 404, "There is no replication configuration for this bucket.";
    ServerSideEncryptionConfigurationNotFound = "ServerSideEncryptionConfigurationNotFoundError", 404, "The server-side encryption configuration was not found.";
    AccessControlListNotSupported = "AccessControlListNotSupported", 400, "The bucket does not allow ACLs.";

    // Key management, as S3 passes KMS conditions on.
    /// Said as S3 says it: S3A and the SDKs know this code as one that a retry does not help.
    KmsAccessDenied = "AccessDenied", 403, "The key manager refused the use of the KMS key.";
    KmsDisabled = "KMS.DisabledException", 400, "The request was rejected because the specified KMS key is not enabled.";
    KmsInvalidState = "KMS.InvalidStateException", 400, "The request was rejected because the state of the specified KMS key does not allow it.";
    KmsKeyUsage = "KMS.InvalidKeyUsageException", 400, "The request was rejected because the specified KMS key cannot be used for this.";
    KmsNotFound = "KMS.NotFoundException", 400, "The request was rejected because the specified KMS key does not exist.";
    /// A 503, so that clients retry with back-off: the outage of a key manager passes.
    KmsUnavailable = "ServiceUnavailable", 503, "The key manager cannot be reached. Reduce your request rate and try again.";

    // The server's own condition.
    BandwidthLimitExceeded = "BandwidthLimitExceeded", 503, "The bandwidth limit has been exceeded.";
    InternalError = "InternalError", 500, "An internal error occurred. Try again.";
    /// Damaged or tampered data; see [`ErrorCode::is_retried_by_clients`] for why it is a 400.
    ObjectDamaged = "ObjectDamaged", 400, "The stored data of this object is damaged or was tampered with. Reading it again will not help; restore it from a copy.";
    ServiceUnavailable = "ServiceUnavailable", 503, "Service is unable to handle the request. Try again.";
    SlowDown = "SlowDown", 503, "Reduce your request rate.";
    StorageFull = "InsufficientStorage", 507, "The storage is full. Delete data or add capacity, then try again.";

    // STS.
    IdpCommunicationError = "IDPCommunicationError", 400, "The identity provider could not be reached.";
    IdpRejectedClaim = "IDPRejectedClaim", 403, "The identity provider rejected the token.";
    InvalidAction = "InvalidAction", 400, "The action or operation requested is not valid.";
    InvalidClientTokenId = "InvalidClientTokenId", 403, "The access key or certificate provided does not exist.";
    InvalidIdentityToken = "InvalidIdentityToken", 400, "The web identity token is not valid.";
    InvalidParameterValue = "InvalidParameterValue", 400, "A value that is not valid or out of range was supplied for a parameter.";
    MalformedPolicyDocument = "MalformedPolicyDocument", 400, "The policy document was malformed.";
    MissingParameter = "MissingParameter", 400, "A required parameter was not supplied.";
    PackedPolicyTooLarge = "PackedPolicyTooLarge", 400, "The session policies and tags are too large.";
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_number()).expect("the table holds valid statuses")
    }

    /// Whether the usual clients send the same request again after this answer.
    ///
    /// AWS SDK v1 and v2 and boto3 retry 500, 502, 503 and 504, throttling codes by name, and
    /// `RequestTimeout`. Hadoop S3A adds a policy of its own on top: it fails at once on 400, 403,
    /// 404, 405 and 412, but retries idempotent calls on statuses that it has no class for, 422
    /// among them. So damage is a plain 400 with a code of ours: 403 and 404 would mean something
    /// else to S3A (no permission; the file is absent, so create it), 422 and 5xx would be retried
    /// for minutes. 507 is retried by S3A, which is right: space can be made.
    pub const fn is_retried_by_clients(self) -> bool {
        self.status_number() >= 500 && self.status_number() != 501
            || matches!(self, Self::RequestTimeout)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A code with the message for the client. The cause is the service's to log, not to send.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code}: {message}")]
pub struct S3Error {
    /// The row of the table.
    pub code: ErrorCode,
    /// A sentence for the client, saying what to do where that is known.
    pub message: std::borrow::Cow<'static, str>,
}

impl S3Error {
    /// A code with a message more exact than the default one.
    pub fn new(code: ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<ErrorCode> for S3Error {
    fn from(code: ErrorCode) -> Self {
        Self::new(code, code.message())
    }
}

/// Everything that stands in an error document.
#[derive(Clone, Copy, Debug)]
pub struct ErrorDocument<'a> {
    /// The row of the table.
    pub code: ErrorCode,
    /// The message for the client.
    pub message: &'a str,
    /// The path or bucket that the request was about.
    pub resource: &'a str,
    /// The id that the log line carries too.
    pub request_id: &'a str,
    /// The server's name; `x-amz-id-2`.
    pub host_id: &'a str,
    /// Further elements, as `("Key", "a/b")` or `("Region", "eu-1")`.
    pub extra: &'a [(&'static str, &'a str)],
}

/// The `<Error>` document.
pub fn to_xml(error: &ErrorDocument<'_>) -> Vec<u8> {
    let mut xml = XmlWriter::document(256 + error.message.len() + error.resource.len());
    xml.open("Error");
    xml.text("Code", error.code.as_str());
    xml.text("Message", error.message);
    for (name, value) in error.extra {
        xml.text(name, value);
    }
    xml.text("Resource", error.resource);
    xml.text("RequestId", error.request_id);
    xml.text("HostId", error.host_id);
    xml.close("Error");
    xml.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_valid_status_and_a_sentence() {
        for code in ErrorCode::ALL {
            let status = code.status().as_u16();
            assert!((300..600).contains(&status), "{code}");
            assert!(code.message().ends_with('.'), "{code}");
            assert!(!code.as_str().contains(' '), "{code}");
        }
    }

    #[test]
    fn codes_that_share_a_text_share_a_status() {
        for a in ErrorCode::ALL {
            for b in ErrorCode::ALL {
                if a.as_str() == b.as_str() {
                    assert_eq!(a.status(), b.status(), "{a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn damage_is_not_retried_and_outages_are() {
        assert!(!ErrorCode::ObjectDamaged.is_retried_by_clients());
        assert!(!ErrorCode::KmsDisabled.is_retried_by_clients());
        assert!(!ErrorCode::NotImplemented.is_retried_by_clients());
        assert!(ErrorCode::KmsUnavailable.is_retried_by_clients());
        assert!(ErrorCode::SlowDown.is_retried_by_clients());
    }

    #[test]
    fn the_document_escapes_what_the_client_sent() {
        let xml = to_xml(&ErrorDocument {
            code: ErrorCode::NoSuchKey,
            message: ErrorCode::NoSuchKey.message(),
            resource: "/b/<&>",
            request_id: "R1",
            host_id: "H1",
            extra: &[("Key", "<&>")],
        });
        assert_eq!(
            String::from_utf8(xml).unwrap(),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>\
             <Message>The specified key does not exist.</Message><Key>&lt;&amp;&gt;</Key>\
             <Resource>/b/&lt;&amp;&gt;</Resource><RequestId>R1</RequestId><HostId>H1</HostId></Error>"
        );
    }
}
