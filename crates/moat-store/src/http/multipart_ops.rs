//! Multipart uploads over HTTP.

use bytes::Bytes;
use http::StatusCode;
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::Body;
use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest, parse_copy_source_range};
use moat_s3::xml::{
    Checksums, CompletedUpload, CopyResult, ListPartsPage, ListedPart,
    complete_multipart_upload_result, copy_part_result, initiate_multipart_upload_result,
    read_complete_multipart_upload,
};
use moat_types::{BucketName, ObjectKey, PartNumber, UploadId};

use super::answer::{Answer, OWNER, empty, set_encryption, set_etag, xml};
use super::body::{RequestBody, small_body_about_an_object};
use super::call::Call;
use super::checksums::{self, Joiner, set_checksum, shown_checksum};
use super::list_ops::shown_class;
use super::object_ops::{copy_source, describe, write_conditions};
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::multipart::{CompleteOptions, NamedPart, OpenUpload};
use crate::rows::{Checksum, PartRow, keys};

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
            .store
            .create_upload(bucket, key, asked, description, kind)
            .await?;
        let id = id.to_string();
        let mut answer = xml(initiate_multipart_upload_result(
            bucket.as_str(),
            key.as_str(),
            &id,
        ));
        set_encryption(answer.headers_mut(), &envelope, &context);
        if kind != 0 {
            checksums::set_kind(answer.headers_mut(), kind);
        }
        Ok(answer)
    }

    pub(super) async fn upload_part(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let (id, number) = (upload_id(call)?, part_number(call)?);
        refuse_sse_of_part(call)?;
        let customer = CustomerKey::from_headers(&call.parts.headers)?;
        let upload = self.store.upload(bucket, key, id).await?;
        let envelope = upload.row.envelope.clone();
        let body =
            RequestBody::of_part(call, body, upload.row.checksum_kind, self.body_idle_timeout)?;
        let part = self
            .store
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
        let upload = self.store.upload(bucket, key, id).await?;
        let envelope = upload.row.envelope.clone();
        let source = self
            .store
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
            .store
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
        let document = copy_part_result(&CopyResult {
            etag: &part.etag,
            last_modified: part.modified,
            checksum: part.checksum.as_ref().and_then(shown_checksum),
        });
        let mut answer = xml(document);
        set_encryption(answer.headers_mut(), &envelope, &[]);
        Ok(answer)
    }

    pub(super) async fn complete_upload(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let id = upload_id(call)?;
        let bytes = small_body_about_an_object(call, body, COMPLETE_BYTES_MAX).await?;
        let request = read_complete_multipart_upload(&bytes)?;
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
            .store
            .complete_upload(bucket, key, id, &named, options, &Joiner)
            .await?;
        let document = complete_multipart_upload_result(&CompletedUpload {
            location: &location(call),
            bucket: bucket.as_str(),
            key: key.as_str(),
            etag: &done.row.entry.etag,
            checksum: done.checksum.as_ref().and_then(shown_checksum),
        });
        let mut answer = xml(document);
        set_encryption(answer.headers_mut(), &done.row.envelope, &[]);
        Ok(answer)
    }

    pub(super) async fn abort_upload(&self, call: &Call<'_>) -> Result<Answer> {
        self.store
            .abort_upload(call.bucket()?, call.key()?, upload_id(call)?)
            .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// The checksums of parts, for uploads that have any: they are sealed, so a key is needed.
    async fn part_checksums(
        &self,
        bucket: &BucketName,
        key: &ObjectKey,
        upload: &OpenUpload,
        page: &[&(PartNumber, Bytes, PartRow)],
    ) -> Result<Vec<Option<Checksum>>> {
        if upload.row.checksum_kind == 0 {
            return Ok(vec![None; page.len()]);
        }
        let attributes_key = self
            .store
            .upload_attributes_key(bucket, key, upload)
            .await?;
        page.iter()
            .map(|(number, _, row)| Ok(row.open(upload.id, *number, &attributes_key)?.checksum))
            .collect()
    }

    pub(super) async fn list_parts(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let upload = self.store.upload(bucket, key, upload_id(call)?).await?;
        let marker = call.number("part-number-marker", 0)?;
        let count_max = call.number("max-parts", PARTS_MAX)?.min(PARTS_MAX) as usize;
        let parts = self.store.parts(upload.id).await?;
        let mut after = parts
            .iter()
            .filter(|(number, _, _)| u64::from(number.number()) > marker);
        let page: Vec<_> = after.by_ref().take(count_max).collect();
        let truncated = after.next().is_some();
        let values = self.part_checksums(bucket, key, &upload, &page).await?;
        let listed: Vec<ListedPart<'_>> = page
            .iter()
            .zip(&values)
            .map(|((number, _, row), checksum)| ListedPart {
                number: number.number(),
                last_modified: row.entry.modified,
                etag: &row.entry.etag,
                size: row.entry.size,
                checksum: checksum
                    .as_ref()
                    .and_then(shown_checksum)
                    .map(|shown| Checksums {
                        checksum_type: None,
                        ..shown
                    }),
            })
            .collect();
        let document = ListPartsPage {
            bucket: bucket.as_str(),
            key: key.as_str(),
            upload_id: &upload.id.to_string(),
            owner: OWNER,
            storage_class: shown_class(&upload.row.storage_class),
            part_number_marker: marker,
            next_part_number_marker: page.last().map(|(number, _, _)| number.number().into()),
            max_parts: count_max as u64,
            is_truncated: truncated,
            encoding_url: false,
            checksum: checksums::algorithm_and_type(upload.row.checksum_kind),
            parts: &listed,
        };
        let mut answer = xml(document.to_xml());
        if upload.row.checksum_kind != 0 {
            checksums::set_kind(answer.headers_mut(), upload.row.checksum_kind);
        }
        Ok(answer)
    }
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
