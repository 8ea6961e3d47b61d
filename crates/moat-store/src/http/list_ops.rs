//! Listings: objects in both versions of the call, versions, uploads; and bulk delete.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::Body;
use moat_s3::ErrorCode;
use moat_s3::xml::{
    DeletedObject, FailedDelete, ListMultipartUploadsPage, ListObjectVersionsPage, ListObjectsPage,
    ListObjectsV2Page, ListedObject, ListedUpload, ListedVersion, Owner, VersionKind,
    delete_result, read_delete,
};
use moat_types::{ObjectKey, UploadId};

use super::answer::{Answer, OWNER, xml};
use super::body::small_body;
use super::call::Call;
use super::checksums;
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::list::{ListQuery, Listed, Listing, UploadQuery};

/// Entries of a page where none are asked for, and the most that S3 documents.
const ENTRIES_DEFAULT: u64 = 1000;
/// The most that a page holds here: Hadoop's S3A asks for 5,000, and gets them.
const ENTRIES_MAX: u64 = 5000;
/// A thousand keys of a kilobyte each, all escaped, and their frames.
const DELETE_BYTES_MAX: usize = 8 << 20;
/// Whether names in the answer are percent-encoded.
fn encoding_url(call: &Call<'_>) -> Result<bool> {
    match call.query.get("encoding-type") {
        None | Some("") => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("url") => Ok(true),
        Some(value) => Err(Error::new(
            ErrorCode::InvalidArgument,
            "Invalid Encoding Method specified in Request",
        )
        .with("ArgumentName", "encoding-type")
        .with("ArgumentValue", value)),
    }
}

fn entries_max(call: &Call<'_>, name: &str) -> Result<usize> {
    let value = call.number(name, ENTRIES_DEFAULT)?;
    if value > i32::MAX as u64 {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            format!("Argument {name} must be an integer between 0 and 2147483647"),
        ));
    }
    Ok(value.min(ENTRIES_MAX) as usize)
}

fn text(call: &Call<'_>, name: &str) -> String {
    call.query.get(name).unwrap_or_default().to_owned()
}

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    pub(super) async fn list_objects(&self, call: &Call<'_>) -> Result<Answer> {
        let query = list_query(call, call.query.get("marker").unwrap_or_default())?;
        let bucket = call.bucket()?;
        let listing = self.store.list(bucket, &query).await?;
        let (objects, prefixes) = shown(&listing, Some(OWNER))?;
        let page = ListObjectsPage {
            bucket: bucket.as_str(),
            prefix: &query.prefix,
            delimiter: call.query.get("delimiter").filter(|text| !text.is_empty()),
            marker: &query.after,
            // S3 gives NextMarker only with a delimiter; without one it is the last key anyway.
            next_marker: listing
                .next_after
                .as_deref()
                .filter(|_| !query.delimiter.is_empty()),
            max_keys: query.entries_max as u64,
            is_truncated: listing.next_after.is_some(),
            encoding_url: encoding_url(call)?,
            objects: &objects,
            common_prefixes: &prefixes,
        };
        Ok(xml(page.to_xml()))
    }

    pub(super) async fn list_objects_v2(&self, call: &Call<'_>) -> Result<Answer> {
        let token = call.query.get("continuation-token");
        let start_after = call
            .query
            .get("start-after")
            .filter(|text| !text.is_empty());
        let after = match token {
            None => start_after.unwrap_or_default().to_owned(),
            Some(token) => decode_token(token)?,
        };
        let query = list_query(call, &after)?;
        let bucket = call.bucket()?;
        let listing = self.store.list(bucket, &query).await?;
        let fetch_owner = call.query.get("fetch-owner");
        let owner = fetch_owner
            .filter(|value| value.eq_ignore_ascii_case("true"))
            .map(|_| OWNER);
        let (objects, prefixes) = shown(&listing, owner)?;
        let next_token = listing.next_after.as_deref().map(encode_token);
        let page = ListObjectsV2Page {
            bucket: bucket.as_str(),
            prefix: &query.prefix,
            delimiter: call.query.get("delimiter").filter(|text| !text.is_empty()),
            start_after,
            continuation_token: token,
            next_continuation_token: next_token.as_deref(),
            max_keys: query.entries_max as u64,
            is_truncated: listing.next_after.is_some(),
            encoding_url: encoding_url(call)?,
            objects: &objects,
            common_prefixes: &prefixes,
        };
        Ok(xml(page.to_xml()))
    }

    /// Every object has one version here, which S3 calls `null`: tools that clean up buckets
    /// list versions and delete each.
    pub(super) async fn list_versions(&self, call: &Call<'_>) -> Result<Answer> {
        let query = list_query(call, call.query.get("key-marker").unwrap_or_default())?;
        let bucket = call.bucket()?;
        let listing = self.store.list(bucket, &query).await?;
        let (objects, prefixes) = shown(&listing, Some(OWNER))?;
        let versions: Vec<ListedVersion<'_>> = objects.iter().map(null_version).collect();
        let page = ListObjectVersionsPage {
            bucket: bucket.as_str(),
            prefix: &query.prefix,
            delimiter: call.query.get("delimiter").filter(|text| !text.is_empty()),
            key_marker: &query.after,
            version_id_marker: call.query.get("version-id-marker").unwrap_or_default(),
            next: listing.next_after.as_deref().map(|key| (key, NULL_VERSION)),
            max_keys: query.entries_max as u64,
            is_truncated: listing.next_after.is_some(),
            encoding_url: encoding_url(call)?,
            versions: &versions,
            common_prefixes: &prefixes,
        };
        Ok(xml(page.to_xml()))
    }

    pub(super) async fn list_uploads(&self, call: &Call<'_>) -> Result<Answer> {
        let marker = call.query.get("upload-id-marker").unwrap_or_default();
        let query = UploadQuery {
            prefix: text(call, "prefix"),
            delimiter: text(call, "delimiter"),
            key_marker: text(call, "key-marker"),
            upload_marker: UploadId::parse(marker),
            entries_max: entries_max(call, "max-uploads")?,
        };
        let bucket = call.bucket()?;
        let listing = self.store.list_uploads(bucket, &query).await?;
        let ids: Vec<String> = listing
            .uploads
            .iter()
            .map(|(_, id, _)| id.to_string())
            .collect();
        let uploads: Vec<ListedUpload<'_>> = listing
            .uploads
            .iter()
            .zip(&ids)
            .map(|((key, _, row), id)| ListedUpload {
                key,
                upload_id: id,
                initiated: row.initiated,
                owner: OWNER,
                storage_class: shown_class(&row.storage_class),
                checksum: checksums::algorithm_and_type(row.checksum_kind),
            })
            .collect();
        let prefixes: Vec<&str> = listing.prefixes.iter().map(String::as_str).collect();
        let last_id = listing
            .last
            .as_ref()
            .and_then(|(_, id)| id.map(|id| id.to_string()));
        let next = listing.last.as_ref().filter(|_| listing.truncated);
        let page = ListMultipartUploadsPage {
            bucket: bucket.as_str(),
            prefix: &query.prefix,
            delimiter: call.query.get("delimiter").filter(|text| !text.is_empty()),
            key_marker: &query.key_marker,
            upload_id_marker: marker,
            next: next.map(|(key, _)| (key.as_str(), last_id.as_deref().unwrap_or_default())),
            max_uploads: query.entries_max as u64,
            is_truncated: listing.truncated,
            encoding_url: encoding_url(call)?,
            uploads: &uploads,
            common_prefixes: &prefixes,
        };
        Ok(xml(page.to_xml()))
    }

    pub(super) async fn delete_objects(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        let bytes = small_body(call, body, DELETE_BYTES_MAX).await?;
        let request = read_delete(&bytes)?;
        let mut keys = Vec::with_capacity(request.objects.len());
        let mut failed = Vec::new();
        for object in &request.objects {
            let code = match ObjectKey::parse(&object.key) {
                _ if object
                    .version_id
                    .as_deref()
                    .is_some_and(|id| id != NULL_VERSION) =>
                {
                    ErrorCode::NoSuchVersion
                }
                Ok(key) => {
                    keys.push(key);
                    continue;
                }
                Err(_) => ErrorCode::KeyTooLong,
            };
            failed.push(FailedDelete {
                key: &object.key,
                version_id: object.version_id.as_deref(),
                code,
                message: code.message(),
            });
        }
        self.store.delete_objects(call.bucket()?, &keys).await?;
        let deleted = keys
            .iter()
            .filter(|_| !request.quiet)
            .map(|key| DeletedObject {
                key: key.as_str(),
                version_id: None,
                delete_marker_version_id: None,
            });
        Ok(xml(delete_result(deleted, failed)))
    }
}

/// The version id of objects outside versioned buckets.
const NULL_VERSION: &str = "null";

fn list_query(call: &Call<'_>, after: &str) -> Result<ListQuery> {
    Ok(ListQuery {
        prefix: text(call, "prefix"),
        delimiter: text(call, "delimiter"),
        after: after.to_owned(),
        entries_max: entries_max(call, "max-keys")?,
    })
}

/// The entries of a listing in the two lists that S3 answers with.
fn shown<'a>(
    listing: &'a Listing,
    owner: Option<Owner<'static>>,
) -> Result<(Vec<ListedObject<'a>>, Vec<&'a str>)> {
    let mut objects = Vec::with_capacity(listing.entries.len());
    let mut prefixes = Vec::new();
    for entry in &listing.entries {
        match entry {
            Listed::Prefix(prefix) => prefixes.push(prefix.as_str()),
            Listed::Object(page, row) => {
                let (key, object) = listing.object(*page, *row)?;
                objects.push(ListedObject {
                    key,
                    last_modified: object.modified,
                    etag: object.etag,
                    size: object.size,
                    storage_class: shown_class(object.storage_class),
                    owner,
                    checksum: checksums::algorithm_and_type(object.checksum_kind),
                });
            }
        }
    }
    Ok((objects, prefixes))
}

fn null_version<'a>(object: &ListedObject<'a>) -> ListedVersion<'a> {
    ListedVersion {
        key: object.key,
        version_id: NULL_VERSION,
        is_latest: true,
        last_modified: object.last_modified,
        owner: OWNER,
        kind: VersionKind::Version {
            etag: object.etag,
            size: object.size,
            storage_class: object.storage_class,
            checksum: object.checksum,
        },
    }
}

/// The storage class as answers name it.
pub(super) fn shown_class(stored: &str) -> &str {
    if stored.is_empty() {
        "STANDARD"
    } else {
        stored
    }
}

/// Continuation tokens are opaque to clients; ours say where the page ended.
fn encode_token(after: &str) -> String {
    URL_SAFE_NO_PAD.encode(after)
}

fn decode_token(token: &str) -> Result<String> {
    let decoded = URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|b| String::from_utf8(b).ok());
    decoded.filter(|after| !after.is_empty()).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            "The continuation token provided is incorrect",
        )
    })
}
