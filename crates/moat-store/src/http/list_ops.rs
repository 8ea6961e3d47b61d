//! Listings: objects in both versions of the call, versions, uploads; and bulk delete.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::body::Incoming;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::uri::{self, Slash};
use moat_s3::xml::{self as documents, XmlWriter};
use moat_types::{ObjectKey, UploadId};

use super::answer::{Answer, iso, xml};
use super::body::small_body;
use super::bucket_ops::write_owner;
use super::call::Call;
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::list::{ListQuery, Listed, Listing, UploadQuery};

/// Entries of a page where none are asked for, and the most that S3 documents.
const ENTRIES_DEFAULT: u64 = 1000;
/// The most that a page holds here: Hadoop's S3A asks for 5,000, and gets them.
const ENTRIES_MAX: u64 = 5000;
/// A thousand keys of a kilobyte each, all escaped, and their frames.
const DELETE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a listed key in XML: a first guess for the document's buffer.
const BYTES_PER_ENTRY: usize = 320;

/// `encoding-type` of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
}

impl Encoding {
    fn of(call: &Call<'_>) -> Result<Self> {
        match call.query.get("encoding-type") {
            None | Some("") => Ok(Self::None),
            Some(value) if value.eq_ignore_ascii_case("url") => Ok(Self::Url),
            Some(value) => Err(Error::new(
                ErrorCode::InvalidArgument,
                "Invalid Encoding Method specified in Request",
            )
            .with("ArgumentName", "encoding-type")
            .with("ArgumentValue", value)),
        }
    }

    fn write(self, document: &mut XmlWriter, name: &str, text: &str) {
        match self {
            Self::None => document.text(name, text),
            Self::Url => document.text(name, &uri::encode(text.as_bytes(), Slash::Keep)),
        }
    }

    fn declare(self, document: &mut XmlWriter) {
        if self == Self::Url {
            document.text("EncodingType", "url");
        }
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
        let encoding = Encoding::of(call)?;
        let query = ListQuery {
            prefix: text(call, "prefix"),
            delimiter: text(call, "delimiter"),
            after: text(call, "marker"),
            entries_max: entries_max(call, "max-keys")?,
        };
        let bucket = call.bucket()?;
        let listing = self.store().list(bucket, &query).await?;
        let mut document = begin_listing(&listing, "ListBucketResult", bucket.as_str());
        encoding.write(&mut document, "Prefix", &query.prefix);
        encoding.write(&mut document, "Marker", &query.after);
        document.number("MaxKeys", query.entries_max as u64);
        if !query.delimiter.is_empty() {
            encoding.write(&mut document, "Delimiter", &query.delimiter);
        }
        encoding.declare(&mut document);
        document.boolean("IsTruncated", listing.next_after.is_some());
        // S3 gives NextMarker only with a delimiter; without one it is the last key anyway.
        if let Some(next) = listing
            .next_after
            .as_ref()
            .filter(|_| !query.delimiter.is_empty())
        {
            encoding.write(&mut document, "NextMarker", next);
        }
        write_entries(&mut document, &listing, encoding, Owner::Shown, "Contents")?;
        document.close("ListBucketResult");
        Ok(xml(document.finish()))
    }

    pub(super) async fn list_objects_v2(&self, call: &Call<'_>) -> Result<Answer> {
        let encoding = Encoding::of(call)?;
        let token = call.query.get("continuation-token");
        let start_after = text(call, "start-after");
        let after = match token {
            None => start_after.clone(),
            Some(token) => decode_token(token)?,
        };
        let query = ListQuery {
            prefix: text(call, "prefix"),
            delimiter: text(call, "delimiter"),
            after,
            entries_max: entries_max(call, "max-keys")?,
        };
        let bucket = call.bucket()?;
        let listing = self.store().list(bucket, &query).await?;
        let owner = match call.query.get("fetch-owner") {
            Some(value) if value.eq_ignore_ascii_case("true") => Owner::Shown,
            _ => Owner::Hidden,
        };
        let mut document = begin_listing(&listing, "ListBucketResult", bucket.as_str());
        encoding.write(&mut document, "Prefix", &query.prefix);
        document.number("KeyCount", listing.entries.len() as u64);
        document.number("MaxKeys", query.entries_max as u64);
        if !query.delimiter.is_empty() {
            encoding.write(&mut document, "Delimiter", &query.delimiter);
        }
        encoding.declare(&mut document);
        document.boolean("IsTruncated", listing.next_after.is_some());
        if let Some(token) = token {
            document.text("ContinuationToken", token);
        }
        if let Some(next) = &listing.next_after {
            document.text("NextContinuationToken", &encode_token(next));
        }
        if !start_after.is_empty() {
            encoding.write(&mut document, "StartAfter", &start_after);
        }
        write_entries(&mut document, &listing, encoding, owner, "Contents")?;
        document.close("ListBucketResult");
        Ok(xml(document.finish()))
    }

    /// Every object has one version here, which S3 calls `null`: tools that clean up buckets
    /// list versions and delete each.
    pub(super) async fn list_versions(&self, call: &Call<'_>) -> Result<Answer> {
        let encoding = Encoding::of(call)?;
        let query = ListQuery {
            prefix: text(call, "prefix"),
            delimiter: text(call, "delimiter"),
            after: text(call, "key-marker"),
            entries_max: entries_max(call, "max-keys")?,
        };
        let bucket = call.bucket()?;
        let listing = self.store().list(bucket, &query).await?;
        let mut document = begin_listing(&listing, "ListVersionsResult", bucket.as_str());
        encoding.write(&mut document, "Prefix", &query.prefix);
        encoding.write(&mut document, "KeyMarker", &query.after);
        document.text("VersionIdMarker", &text(call, "version-id-marker"));
        document.number("MaxKeys", query.entries_max as u64);
        if !query.delimiter.is_empty() {
            encoding.write(&mut document, "Delimiter", &query.delimiter);
        }
        encoding.declare(&mut document);
        document.boolean("IsTruncated", listing.next_after.is_some());
        if let Some(next) = &listing.next_after {
            encoding.write(&mut document, "NextKeyMarker", next);
            document.text("NextVersionIdMarker", "null");
        }
        write_entries(&mut document, &listing, encoding, Owner::Shown, "Version")?;
        document.close("ListVersionsResult");
        Ok(xml(document.finish()))
    }

    pub(super) async fn list_uploads(&self, call: &Call<'_>) -> Result<Answer> {
        let encoding = Encoding::of(call)?;
        let marker = text(call, "upload-id-marker");
        let query = UploadQuery {
            prefix: text(call, "prefix"),
            delimiter: text(call, "delimiter"),
            key_marker: text(call, "key-marker"),
            upload_marker: UploadId::parse(&marker),
            entries_max: entries_max(call, "max-uploads")?,
        };
        let bucket = call.bucket()?;
        let listing = self.store().list_uploads(bucket, &query).await?;
        let mut document = XmlWriter::document(512 + listing.uploads.len() * 512);
        document.open_root("ListMultipartUploadsResult");
        document.text("Bucket", bucket.as_str());
        encoding.write(&mut document, "KeyMarker", &query.key_marker);
        document.text("UploadIdMarker", &marker);
        if let Some((key, id)) = listing.last.as_ref().filter(|_| listing.truncated) {
            encoding.write(&mut document, "NextKeyMarker", key);
            document.text(
                "NextUploadIdMarker",
                &id.map(|id| id.to_string()).unwrap_or_default(),
            );
        }
        encoding.write(&mut document, "Prefix", &query.prefix);
        if !query.delimiter.is_empty() {
            encoding.write(&mut document, "Delimiter", &query.delimiter);
        }
        encoding.declare(&mut document);
        document.number("MaxUploads", query.entries_max as u64);
        document.boolean("IsTruncated", listing.truncated);
        for (key, id, row) in &listing.uploads {
            document.open("Upload");
            encoding.write(&mut document, "Key", key);
            document.text("UploadId", &id.to_string());
            super::multipart_ops::write_initiator(&mut document);
            write_owner(&mut document);
            document.text("StorageClass", shown_class(&row.storage_class));
            document.text("Initiated", &iso(row.initiated));
            document.close("Upload");
        }
        for prefix in &listing.prefixes {
            write_prefix(&mut document, encoding, prefix);
        }
        document.close("ListMultipartUploadsResult");
        Ok(xml(document.finish()))
    }

    pub(super) async fn delete_objects(&self, call: &Call<'_>, body: Incoming) -> Result<Answer> {
        let bytes = small_body(call, body, DELETE_BYTES_MAX).await?;
        let request = documents::read_delete(&bytes)?;
        let mut keys = Vec::with_capacity(request.objects.len());
        let mut refused: Vec<(&str, ErrorCode)> = Vec::new();
        for object in &request.objects {
            match ObjectKey::parse(&object.key) {
                _ if object.version_id.as_deref().is_some_and(|id| id != "null") => {
                    refused.push((&object.key, ErrorCode::NoSuchVersion));
                }
                Ok(key) => keys.push(key),
                Err(_) => refused.push((&object.key, ErrorCode::KeyTooLong)),
            }
        }
        self.store().delete_objects(call.bucket()?, &keys).await?;
        let mut document = XmlWriter::document(128 + request.objects.len() * 96);
        document.open_root("DeleteResult");
        if !request.quiet {
            for key in &keys {
                document.open("Deleted");
                document.text("Key", key.as_str());
                document.close("Deleted");
            }
        }
        for (key, code) in refused {
            document.open("Error");
            document.text("Key", key);
            document.text("Code", code.as_str());
            document.text("Message", code.message());
            document.close("Error");
        }
        document.close("DeleteResult");
        Ok(xml(document.finish()))
    }
}

fn begin_listing(listing: &Listing, root: &str, bucket: &str) -> XmlWriter {
    let mut document = XmlWriter::document(512 + listing.entries.len() * BYTES_PER_ENTRY);
    document.open_root(root);
    document.text("Name", bucket);
    document
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Shown,
    Hidden,
}

/// Objects first, then common prefixes, as S3 orders the elements.
fn write_entries(
    document: &mut XmlWriter,
    listing: &Listing,
    encoding: Encoding,
    owner: Owner,
    element: &str,
) -> Result<()> {
    for entry in &listing.entries {
        let Listed::Object(page, row) = entry else {
            continue;
        };
        let (key, object) = listing.object(*page, *row)?;
        document.open(element);
        encoding.write(document, "Key", key);
        if element == "Version" {
            document.text("VersionId", "null");
            document.boolean("IsLatest", true);
        }
        document.text(
            "LastModified",
            moat_s3::time::iso_millis(object.modified).as_str(),
        );
        document.open("ETag");
        document.escaped("\"");
        document.escaped(object.etag);
        document.escaped("\"");
        document.close("ETag");
        if object.checksum_kind != 0 {
            super::checksums::write_kind(document, object.checksum_kind);
        }
        document.number("Size", object.size);
        if owner == Owner::Shown {
            write_owner(document);
        }
        document.text("StorageClass", shown_class(object.storage_class));
        document.close(element);
    }
    for entry in &listing.entries {
        if let Listed::Prefix(prefix) = entry {
            write_prefix(document, encoding, prefix);
        }
    }
    Ok(())
}

fn write_prefix(document: &mut XmlWriter, encoding: Encoding, prefix: &str) {
    document.open("CommonPrefixes");
    encoding.write(document, "Prefix", prefix);
    document.close("CommonPrefixes");
}

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
