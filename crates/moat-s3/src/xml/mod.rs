//! S3's XML: writers that append to one buffer, readers that work within limits.
//!
//! Readers take whole bodies: the caller limits their size before it collects them
//! ([`REQUEST_BYTES_MAX`] is S3's own order of size). They skip elements that they don't know,
//! with or without a namespace, and refuse document type declarations and entities beyond the
//! predefined ones, so that a small body can't grow.

mod answers;
mod buckets;
mod list;
mod parse;
mod requests;
mod sts;
mod write;

pub use answers::{
    Checksums, CompletedUpload, CopyResult, DeletedObject, FailedDelete, access_control_policy,
    complete_multipart_upload_result, copy_object_result, copy_part_result, delete_result,
    encryption_configuration, initiate_multipart_upload_result, list_buckets_result,
    location_constraint, versioning_configuration,
};
pub use buckets::{BucketList, read_list_buckets};
pub use list::{
    ListMultipartUploadsPage, ListObjectVersionsPage, ListObjectsPage, ListObjectsV2Page,
    ListPartsPage, ListedObject, ListedPart, ListedUpload, ListedVersion, Owner, VersionKind,
};
pub use requests::{
    BucketEncryption, CompleteMultipartUpload, CompletedPart, CreateBucketConfiguration,
    DELETE_OBJECTS_MAX, DeleteEntry, DeleteRequest, VersioningStatus, read_bucket_encryption,
    read_complete_multipart_upload, read_create_bucket_configuration, read_delete,
    read_versioning_configuration,
};
pub use sts::{StsCredentials, read_sts_credentials};
pub use write::XmlWriter;

/// The largest request document that a server should collect. The largest legitimate ones are
/// CompleteMultipartUpload with 10,000 parts and checksums, and Delete with 1,000 escaped keys of
/// 1 KiB: each stays well under this.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;
