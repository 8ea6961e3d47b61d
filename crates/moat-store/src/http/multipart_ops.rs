//! Multipart uploads over HTTP.

use http::StatusCode;
use hyper::body::Incoming;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest, parse_copy_source_range};
use moat_s3::xml::{self as documents, XmlWriter};
use moat_types::{PartNumber, UploadId};

use super::answer::{Answer, empty, iso, set_encryption, set_etag, xml};
use super::body::{RequestBody, small_body};
use super::bucket_ops::{OWNER_ID, OWNER_NAME, write_owner};
use super::call::Call;
use super::checksums::{self, Joiner, set_checksum, write_checksum};
use super::list_ops::shown_class;
use super::object_ops::{copy_source, describe, write_conditions};
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::multipart::{CompleteOptions, NamedPart};
use crate::rows::keys;

/// 10,000 parts with a checksum each.
const COMPLETE_BYTES_MAX: usize = 8 << 20;
/// Parts of a page.
const PARTS_MAX: u64 = 1000;

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    pub(super) async fn create_upload(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let asked = SseRequest::from_write_headers(&call.parts.headers)?;
        let description = describe(call)?;
        let kind = checksums::kind_of_upload(call)?;
        let (id, envelope, context) = self
            .store()
            .create_upload(bucket, key, asked, description, kind)
            .await?;
        let mut document = XmlWriter::document(512);
        document.open_root("InitiateMultipartUploadResult");
        document.text("Bucket", bucket.as_str());
        document.text("Key", key.as_str());
        document.text("UploadId", &id.to_string());
        document.close("InitiateMultipartUploadResult");
        let mut answer = xml(document.finish());
        set_encryption(answer.headers_mut(), &envelope, &context);
        if kind != 0 {
            checksums::set_kind(answer.headers_mut(), kind);
        }
        Ok(answer)
    }

    pub(super) async fn upload_part(&self, call: &Call<'_>, body: Incoming) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let (id, number) = (upload_id(call)?, part_number(call)?);
        refuse_sse_of_part(call)?;
        let customer = CustomerKey::from_headers(&call.parts.headers)?;
        let upload = self.store().upload(bucket, key, id).await?;
        let envelope = upload.row.envelope.clone();
        let body =
            RequestBody::of_part(call, body, upload.row.checksum_kind, self.body_idle_timeout)?;
        let part = self
            .store()
            .put_part(bucket, key, upload, number, customer.as_ref(), body)
            .await?;
        let mut answer = empty(StatusCode::OK);
        set_etag(answer.headers_mut(), &part.etag);
        set_encryption(answer.headers_mut(), &envelope, &[]);
        set_checksum(answer.headers_mut(), part.checksum.as_ref());
        Ok(answer)
    }

    pub(super) async fn upload_part_copy(&self, call: &Call<'_>) -> Result<Answer> {
        let headers = &call.parts.headers;
        let (bucket, key) = (call.bucket()?, call.key()?);
        let (id, number) = (upload_id(call)?, part_number(call)?);
        refuse_sse_of_part(call)?;
        let (source_bucket, source_object) = copy_source(call)?;
        let source_customer = CustomerKey::from_copy_source_headers(headers)?;
        let customer = CustomerKey::from_headers(headers)?;
        let conditions = Conditions::from_copy_source_headers(headers)?;
        let upload = self.store().upload(bucket, key, id).await?;
        let envelope = upload.row.envelope.clone();
        let source = self
            .store()
            .open_object(&source_bucket, &source_object, source_customer.as_ref())
            .await?;
        conditions.for_copy_source(source.row.facts())?;
        let size = source.row.entry.size;
        let range = match call.header("x-amz-copy-source-range")? {
            None => 0..size,
            Some(range) => parse_copy_source_range(range, size)?,
        };
        let source_key = keys::object(&source_bucket, &source_object);
        let part = self
            .store()
            .copy_part(
                bucket,
                key,
                upload,
                number,
                customer.as_ref(),
                source_key,
                &source,
                range.start,
                range.end,
                &Joiner,
            )
            .await?;
        let mut document = XmlWriter::document(384);
        document.open_root("CopyPartResult");
        document.text("LastModified", &iso(part.modified));
        document.text("ETag", &format!("\"{}\"", part.etag));
        if let Some(checksum) = &part.checksum {
            write_checksum(&mut document, checksum);
        }
        document.close("CopyPartResult");
        let mut answer = xml(document.finish());
        set_encryption(answer.headers_mut(), &envelope, &[]);
        Ok(answer)
    }

    pub(super) async fn complete_upload(&self, call: &Call<'_>, body: Incoming) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let id = upload_id(call)?;
        let bytes = small_body(call, body, COMPLETE_BYTES_MAX).await?;
        let request = documents::read_complete_multipart_upload(&bytes)?;
        let named = request
            .parts
            .iter()
            .map(|part| {
                Ok(NamedPart {
                    number: part.number,
                    etag: part.etag.clone(),
                    checksum: checksums::of_named_part(part),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let size = call
            .header("x-amz-mp-object-size")?
            .map(str::parse)
            .transpose();
        let options = CompleteOptions {
            condition: write_conditions(call)?,
            checksum: checksums::stated_for_object(call)?,
            size: size.map_err(|_| {
                Error::new(
                    ErrorCode::InvalidRequest,
                    "x-amz-mp-object-size is not a number.",
                )
            })?,
        };
        let done = self
            .store()
            .complete_upload(bucket, key, id, &named, options, &Joiner)
            .await?;
        let mut document = XmlWriter::document(768);
        document.open_root("CompleteMultipartUploadResult");
        document.text("Location", &location(call));
        document.text("Bucket", bucket.as_str());
        document.text("Key", key.as_str());
        document.text("ETag", &format!("\"{}\"", done.row.entry.etag));
        if let Some(checksum) = &done.checksum {
            write_checksum(&mut document, checksum);
        }
        document.close("CompleteMultipartUploadResult");
        let mut answer = xml(document.finish());
        set_encryption(answer.headers_mut(), &done.row.envelope, &[]);
        Ok(answer)
    }

    pub(super) async fn abort_upload(&self, call: &Call<'_>) -> Result<Answer> {
        self.store()
            .abort_upload(call.bucket()?, call.key()?, upload_id(call)?)
            .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn list_parts(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let upload = self.store().upload(bucket, key, upload_id(call)?).await?;
        let marker = call.number("part-number-marker", 0)?;
        let count_max = call.number("max-parts", PARTS_MAX)?.min(PARTS_MAX) as usize;
        let parts = self.store().parts(upload.id).await?;
        let mut after = parts
            .iter()
            .filter(|(number, _, _)| u64::from(number.number()) > marker);
        let page: Vec<_> = after.by_ref().take(count_max).collect();
        let truncated = after.next().is_some();
        let attributes_key = match upload.row.checksum_kind {
            0 => None,
            _ => Some(
                self.store()
                    .upload_attributes_key(bucket, key, &upload)
                    .await?,
            ),
        };

        let mut document = XmlWriter::document(512 + page.len() * 256);
        document.open_root("ListPartsResult");
        document.text("Bucket", bucket.as_str());
        document.text("Key", key.as_str());
        document.text("UploadId", &upload.id.to_string());
        write_initiator(&mut document);
        write_owner(&mut document);
        document.text("StorageClass", shown_class(&upload.row.storage_class));
        document.number("PartNumberMarker", marker);
        let last = page
            .last()
            .map_or(0, |(number, _, _)| u64::from(number.number()));
        document.number("NextPartNumberMarker", last);
        document.number("MaxParts", count_max as u64);
        document.boolean("IsTruncated", truncated);
        if upload.row.checksum_kind != 0 {
            checksums::write_kind(&mut document, upload.row.checksum_kind);
        }
        for (number, _, row) in page {
            document.open("Part");
            document.number("PartNumber", number.number().into());
            document.text("LastModified", &iso(row.entry.modified));
            document.text("ETag", &format!("\"{}\"", row.entry.etag));
            document.number("Size", row.entry.size);
            if let Some(attributes_key) = &attributes_key {
                let content = row.open(upload.id, *number, attributes_key)?;
                if let Some(checksum) = &content.checksum {
                    checksums::write_value(&mut document, checksum);
                }
            }
            document.close("Part");
        }
        document.close("ListPartsResult");
        let mut answer = xml(document.finish());
        if upload.row.checksum_kind != 0 {
            checksums::set_kind(answer.headers_mut(), upload.row.checksum_kind);
        }
        Ok(answer)
    }
}

pub(super) fn write_initiator(document: &mut XmlWriter) {
    document.open("Initiator");
    document.text("ID", OWNER_ID);
    document.text("DisplayName", OWNER_NAME);
    document.close("Initiator");
}

fn upload_id(call: &Call<'_>) -> Result<UploadId> {
    let text = call.query.get("uploadId").unwrap_or_default();
    UploadId::parse(text).ok_or_else(|| Error::from(ErrorCode::NoSuchUpload).with("UploadId", text))
}

fn part_number(call: &Call<'_>) -> Result<PartNumber> {
    let text = call.query.get("partNumber").unwrap_or_default();
    text.parse().ok().and_then(PartNumber::new).ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            "Part number must be an integer between 1 and 10000, inclusive",
        )
        .with("ArgumentName", "partNumber")
        .with("ArgumentValue", text)
    })
}

/// The encryption of a part is the upload's; S3 refuses a part that names another.
fn refuse_sse_of_part(call: &Call<'_>) -> Result<()> {
    if call.header("x-amz-server-side-encryption")?.is_some() {
        return Err(Error::new(
            ErrorCode::InvalidArgument,
            "x-amz-server-side-encryption header is not supported for this operation.",
        )
        .with("ArgumentName", "x-amz-server-side-encryption"));
    }
    Ok(())
}

/// Where the object can be found, as the client reached us.
fn location(call: &Call<'_>) -> String {
    let host = call.parts.headers.get(http::header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let scheme = if call.secure { "https" } else { "http" };
    format!("{scheme}://{host}{}", call.parts.uri.path())
}
