//! GET, HEAD, PUT, COPY and DELETE of objects.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::Body;
use moat_s3::ErrorCode;
use moat_s3::request::{
    ConditionOutcome, Conditions, CopyDirective, CopySource, CustomerKey, SseRequest, UserMetadata,
    parse_range,
};
use moat_s3::xml::{CopyResult, copy_object_result};
use moat_types::{BucketName, ObjectKey};

use super::answer::{Answer, SSE_KEY_ID, empty, set, set_encryption, set_etag, set_object, xml};
use super::body::RequestBody;
use super::call::Call;
use super::checksums::{checksum_header, set_checksum, shown_checksum};
use super::service::S3Service;
use crate::copy::CopyRequest;
use crate::error::{Error, Result};
use crate::objects::{Description, OpenObject, Written};
use crate::rows::{Body as StoredBody, DefaultEncryption, Scheme};

/// Content headers that belong to the object and come back with it.
const CONTENT_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CACHE_CONTROL,
    header::EXPIRES,
];

const REDIRECT: HeaderName = HeaderName::from_static("x-amz-website-redirect-location");

/// The storage classes that S3 knows. All are the same here; the name is kept and echoed.
const STORAGE_CLASSES: [&str; 11] = [
    "STANDARD",
    "REDUCED_REDUNDANCY",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER",
    "DEEP_ARCHIVE",
    "OUTPOSTS",
    "GLACIER_IR",
    "SNOW",
    "EXPRESS_ONEZONE",
];

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    pub(super) async fn get_object(&self, call: &Call<'_>) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        call.refuse_other_versions()?;
        let customer = customer_key_of_read(call)?;
        let conditions = Conditions::from_headers(&call.parts.headers)?;
        // A row that was read may be replaced before its bytes are: then what is there now is
        // the answer. Each turn means that a write succeeded.
        for _ in 0..crate::store::CONFLICT_TRIES_MAX {
            let object = self
                .store
                .open_object(bucket, key, customer.as_ref())
                .await?;
            self.judge_read(&conditions, &object)?;
            let answer = self.answer_object(call, &object).await;
            if !matches!(&answer, Err(error) if error.code() == ErrorCode::ObjectDamaged) {
                return answer;
            }
            let current = self.store.object(bucket, key).await?;
            if current.is_some_and(|(bytes, _)| bytes == object.bytes) {
                return answer;
            }
        }
        Err(crate::store::too_many_conflicts())
    }

    fn judge_read(&self, conditions: &Conditions, object: &OpenObject) -> Result<()> {
        match conditions.for_read(object.row.facts()) {
            ConditionOutcome::Proceed => Ok(()),
            ConditionOutcome::PreconditionFailed => Err(ErrorCode::PreconditionFailed.into()),
            ConditionOutcome::NotModified => {
                let mut error = Error::from(ErrorCode::NotModified);
                let entry = &object.row.entry;
                error.headers.push(("etag", format!("\"{}\"", entry.etag)));
                let modified = moat_s3::time::http_date(entry.modified);
                error
                    .headers
                    .push(("last-modified", modified.as_str().to_owned()));
                Err(error)
            }
        }
    }

    async fn answer_object(&self, call: &Call<'_>, object: &OpenObject) -> Result<Answer> {
        let size = object.row.entry.size;
        let (range, partial) = self.wanted_range(call, object).await?;
        let mut answer = empty(StatusCode::OK);
        let headers = answer.headers_mut();
        set_object(headers, &object.row.entry, &object.attributes);
        set_encryption(headers, &object.row.envelope, &object.context);
        // The checksum is that of the whole object.
        if !partial && wants_checksum(call)? {
            set_checksum(headers, object.attributes.checksum.as_ref());
        }
        if object.attributes.parts > 0 && call.query.has("partNumber") {
            let count = object.attributes.parts.to_string();
            set(
                headers,
                HeaderName::from_static("x-amz-mp-parts-count"),
                count,
            );
        }
        override_headers(call, headers);
        set(
            headers,
            header::CONTENT_LENGTH,
            (range.end - range.start).to_string(),
        );
        if partial {
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            set(headers, header::CONTENT_RANGE, shown);
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        if call.parts.method == Method::HEAD {
            self.hide_key_id(call, object, answer.headers_mut()).await?;
            return Ok(answer);
        }
        if range.is_empty() {
            return Ok(answer);
        }
        let pieces = self.store.pieces(object, range.start, range.end).await?;
        let source = self.store.read(object.row.body, pieces).await?;
        *answer.body_mut() = Body::stream(source);
        Ok(answer)
    }

    /// The bytes to send, and whether that makes the answer a 206.
    async fn wanted_range(
        &self,
        call: &Call<'_>,
        object: &OpenObject,
    ) -> Result<(std::ops::Range<u64>, bool)> {
        let size = object.row.entry.size;
        let range = call.header("range")?.and_then(parse_range);
        if call.query.has("partNumber") {
            if range.is_some() {
                return Err(Error::new(
                    ErrorCode::InvalidRequest,
                    "Cannot specify both Range header and partNumber query parameter",
                ));
            }
            return self.part_range(call.number("partNumber", 1)?, object).await;
        }
        match range {
            None => Ok((0..size, false)),
            Some(range) => match range.resolve(size) {
                Ok(range) => Ok((range, true)),
                Err(code) => {
                    let mut error = Error::from(code).with("ActualObjectSize", size.to_string());
                    error
                        .headers
                        .push(("content-range", format!("bytes */{size}")));
                    Err(error)
                }
            },
        }
    }

    async fn part_range(
        &self,
        number: u64,
        object: &OpenObject,
    ) -> Result<(std::ops::Range<u64>, bool)> {
        let size = object.row.entry.size;
        let StoredBody::Manifest { id } = object.row.body else {
            return if number == 1 {
                Ok((0..size, size > 0))
            } else {
                Err(no_such_part())
            };
        };
        // Part numbers of the upload may have gaps; readers count the parts from 1.
        let segments = self.store.manifest(id, object).await?;
        let (mut at, mut found, mut ordinal, mut last) = (0, None, 0, 0);
        for segment in &segments {
            if segment.part != last {
                (last, ordinal) = (segment.part, ordinal + 1);
            }
            if ordinal == number {
                let start = found.map_or(at, |range: std::ops::Range<u64>| range.start);
                found = Some(start..at + segment.length);
            }
            at += segment.length;
        }
        found.map(|range| (range, true)).ok_or_else(no_such_part)
    }

    /// Spark's S3A copies the key id of a HEAD answer into its next request, which SDK v1 then
    /// refuses to send over plain HTTP. So HEAD on a plain connection does not name the bucket's
    /// default key (`docs/design/0003-plain-http.md`).
    async fn hide_key_id(
        &self,
        call: &Call<'_>,
        object: &OpenObject,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        let Scheme::Kms { .. } = object.row.envelope.scheme else {
            return Ok(());
        };
        if call.secure {
            return Ok(());
        }
        let bucket = self.store.bucket_row(call.bucket()?).await?;
        let default = match &bucket.encryption {
            Some(DefaultEncryption::Kms { named, .. }) if !named.is_empty() => {
                moat_s3::request::KmsKeyId::parse(named)?.key_name().clone()
            }
            _ => self.store.settings.default_key.clone(),
        };
        if object
            .row
            .envelope
            .epoch
            .as_ref()
            .is_some_and(|(key, _)| *key == default)
        {
            headers.remove(SSE_KEY_ID);
        }
        Ok(())
    }

    pub(super) async fn put_object(&self, call: &Call<'_>, body: Body) -> Result<Answer> {
        let (bucket, key) = (call.bucket()?, call.key()?);
        let asked = SseRequest::from_write_headers(&call.parts.headers)?;
        let description = describe(call)?;
        let conditions = write_conditions(call)?;
        let body = RequestBody::of_object(call, body, self.body_idle_timeout)?;
        let written = self
            .store
            .put_object(bucket, key, asked, description, &conditions, body)
            .await?;
        let mut answer = empty(StatusCode::OK);
        set_written(answer.headers_mut(), &written);
        set_checksum(answer.headers_mut(), written.attributes.checksum.as_ref());
        Ok(answer)
    }

    pub(super) async fn copy_object(&self, call: &Call<'_>) -> Result<Answer> {
        let headers = &call.parts.headers;
        let (source_bucket, source_object) = copy_source(call)?;
        let replace = match CopyDirective::of_metadata(headers)? {
            CopyDirective::Copy => None,
            CopyDirective::Replace => Some(describe(call)?),
        };
        let written = self
            .store
            .copy_object(CopyRequest {
                source_bucket: &source_bucket,
                source_object: &source_object,
                source_customer: CustomerKey::from_copy_source_headers(headers)?,
                source_condition: Conditions::from_copy_source_headers(headers)?,
                bucket: call.bucket()?,
                object: call.key()?,
                asked: SseRequest::from_write_headers(headers)?,
                replace,
                storage_class: storage_class(call)?,
                condition: write_conditions(call)?,
            })
            .await?;
        let document = copy_object_result(&CopyResult {
            etag: &written.row.entry.etag,
            last_modified: written.row.entry.modified,
            checksum: written
                .attributes
                .checksum
                .as_ref()
                .and_then(shown_checksum),
        });
        let mut answer = xml(document);
        set_encryption(
            answer.headers_mut(),
            &written.row.envelope,
            &written.context,
        );
        Ok(answer)
    }

    pub(super) async fn delete_object(&self, call: &Call<'_>) -> Result<Answer> {
        call.refuse_other_versions()?;
        let conditions = write_conditions(call)?;
        self.store
            .delete_object(call.bucket()?, call.key()?, &conditions)
            .await?;
        Ok(empty(StatusCode::NO_CONTENT))
    }
}

fn no_such_part() -> Error {
    ErrorCode::InvalidPartNumber.into()
}

pub(super) fn customer_key_of_read(call: &Call<'_>) -> Result<Option<CustomerKey>> {
    Ok(SseRequest::customer_key_of_read(&call.parts.headers)?)
}

/// Conditions of a write: S3 knows the two ETag headers there, and ignores the dates.
pub(super) fn write_conditions(call: &Call<'_>) -> Result<Conditions> {
    let conditions = Conditions::from_headers(&call.parts.headers)?;
    Ok(Conditions {
        if_modified_since: None,
        if_unmodified_since: None,
        ..conditions
    })
}

/// What the headers of a write say of the object.
pub(super) fn describe(call: &Call<'_>) -> Result<Description> {
    refuse_unsupported(call)?;
    let mut headers = Vec::new();
    for name in CONTENT_HEADERS.iter().chain([&REDIRECT]) {
        let values: Vec<&[u8]> = call
            .parts
            .headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if values.is_empty() {
            continue;
        }
        let value = values.join(&b", "[..]);
        let value = if name == header::CONTENT_ENCODING {
            stored_encoding(&value)
        } else {
            value
        };
        if !value.is_empty() {
            headers.push((name.as_str().to_owned(), value));
        }
    }
    let metadata = UserMetadata::from_headers(&call.parts.headers)?;
    let metadata = metadata
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_vec()))
        .collect();
    Ok(Description {
        headers,
        metadata,
        storage_class: storage_class(call)?,
    })
}

/// `aws-chunked` is about the transfer; what remains is about the object.
fn stored_encoding(value: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    let kept: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    kept.join(",").into_bytes()
}

/// The storage class to keep: empty for `STANDARD`.
pub(super) fn storage_class(call: &Call<'_>) -> Result<String> {
    match call.header("x-amz-storage-class")? {
        None | Some("STANDARD") => Ok(String::new()),
        Some(class) if STORAGE_CLASSES.contains(&class) => Ok(class.to_owned()),
        Some(_) => Err(ErrorCode::InvalidStorageClass.into()),
    }
}

/// Requests whose promise could not be kept are refused, not silently reduced.
fn refuse_unsupported(call: &Call<'_>) -> Result<()> {
    let refuse = |code, message: &'static str| Err(Error::new(code, message));
    if call.header("x-amz-tagging")?.is_some() {
        return refuse(
            ErrorCode::NotImplemented,
            "Object tags are not supported yet.",
        );
    }
    for name in [
        "x-amz-object-lock-mode",
        "x-amz-object-lock-retain-until-date",
        "x-amz-object-lock-legal-hold",
    ] {
        if call.header(name)?.is_some() {
            return refuse(
                ErrorCode::InvalidRequest,
                "Bucket is missing Object Lock Configuration",
            );
        }
    }
    match call.header("x-amz-acl")? {
        None | Some("private" | "bucket-owner-full-control" | "bucket-owner-read") => Ok(()),
        Some(_) => refuse(
            ErrorCode::AccessControlListNotSupported,
            "The bucket does not allow ACLs other than private.",
        ),
    }
}

fn wants_checksum(call: &Call<'_>) -> Result<bool> {
    Ok(call
        .header(checksum_header::MODE)?
        .is_some_and(|m| m.eq_ignore_ascii_case("enabled")))
}

/// `response-content-type` and its like replace what is stored.
fn override_headers(call: &Call<'_>, headers: &mut HeaderMap) {
    for (parameter, name) in [
        ("response-content-type", header::CONTENT_TYPE),
        ("response-content-language", header::CONTENT_LANGUAGE),
        ("response-expires", header::EXPIRES),
        ("response-cache-control", header::CACHE_CONTROL),
        ("response-content-disposition", header::CONTENT_DISPOSITION),
        ("response-content-encoding", header::CONTENT_ENCODING),
    ] {
        if let Some(value) = call.query.get(parameter) {
            set(headers, name, value);
        }
    }
}

fn set_written(headers: &mut HeaderMap, written: &Written) {
    set_etag(headers, &written.row.entry.etag);
    set_encryption(headers, &written.row.envelope, &written.context);
}

/// Source bucket and key of a copy.
pub(super) fn copy_source(call: &Call<'_>) -> Result<(BucketName, ObjectKey)> {
    let source = CopySource::from_headers(&call.parts.headers)?.ok_or_else(|| {
        Error::new(
            ErrorCode::InvalidArgument,
            "The x-amz-copy-source header is missing.",
        )
    })?;
    if let Some(id) = source.version_id.filter(|id| id != "null") {
        return Err(Error::from(ErrorCode::NoSuchVersion).with("VersionId", id));
    }
    let bucket = BucketName::parse(&source.bucket)
        .map_err(|_| Error::from(ErrorCode::NoSuchBucket).with("BucketName", source.bucket))?;
    let key = ObjectKey::parse(&source.key)
        .map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))?;
    Ok((bucket, key))
}
