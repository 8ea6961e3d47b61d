//! Building answers: headers of objects and their encryption, documents, errors.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use moat_net::Body;
use moat_s3::error::{ErrorDocument, to_xml};
use moat_s3::time::http_date;
use moat_s3::xml::Owner;

use crate::error::Error;
use crate::rows::{Attributes, Entry, Envelope, Scheme};

pub(super) const SSE: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
pub(super) const SSE_KEY_ID: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
const SSE_CONTEXT: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-context");
const SSE_CUSTOMER_ALGORITHM: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");
const SSE_CUSTOMER_MD5: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");

/// The owner of everything, until there are accounts.
pub(super) const OWNER: Owner<'static> = Owner {
    id: "02d6176db174dc93cb1b899f7c6078f08654445fe8cf1b6ce98d8855f66bdbf4",
    display_name: "moat",
};

pub(super) type Answer = Response<Body>;

/// An answer with a status and no body.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = status;
    answer
}

/// A document.
pub(super) fn xml(document: Vec<u8>) -> Answer {
    let mut answer = Response::new(Body::full(document));
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml"),
    );
    answer
}

/// Sets a header whose value may not be valid; such a value is left out.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: impl AsRef<[u8]>) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_ref()) {
        headers.insert(name, value);
    }
}

pub(super) fn set_etag(headers: &mut HeaderMap, etag: &str) {
    set(headers, header::ETAG, format!("\"{etag}\""));
}

/// Says how an object is encrypted. S3 sends these on every answer about an object's content.
pub(super) fn set_encryption(headers: &mut HeaderMap, envelope: &Envelope, context: &[u8]) {
    match &envelope.scheme {
        Scheme::S3 => set(headers, SSE, "AES256"),
        Scheme::Kms { named } => {
            set(headers, SSE, "aws:kms");
            set(headers, SSE_KEY_ID, named);
            if !context.is_empty() {
                set(headers, SSE_CONTEXT, context);
            }
        }
        Scheme::Customer { key_md5 } => {
            set(headers, SSE_CUSTOMER_ALGORITHM, "AES256");
            set(headers, SSE_CUSTOMER_MD5, key_md5);
        }
    }
}

/// What GET and HEAD say of an object beside its size and encryption.
pub(super) fn set_object(headers: &mut HeaderMap, entry: &Entry, attributes: &Attributes) {
    set_etag(headers, &entry.etag);
    set(
        headers,
        header::LAST_MODIFIED,
        http_date(entry.modified).as_str(),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("binary/octet-stream"),
    );
    for (name, value) in &attributes.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            set(headers, name, value);
        }
    }
    let metadata = moat_s3::request::UserMetadata::from_entries(attributes.metadata.clone());
    let missing = metadata.write_headers(headers);
    if missing > 0 {
        set(
            headers,
            HeaderName::from_static("x-amz-missing-meta"),
            missing.to_string(),
        );
    }
    if !entry.storage_class.is_empty() {
        set(
            headers,
            HeaderName::from_static("x-amz-storage-class"),
            &entry.storage_class,
        );
    }
}

/// The ids that every answer carries.
pub(super) fn set_ids(headers: &mut HeaderMap, request_id: &str, host_id: &str) {
    set(headers, REQUEST_ID, request_id);
    set(headers, HOST_ID, host_id);
    headers.insert(header::SERVER, HeaderValue::from_static("Moat"));
}

/// What an error looks like to the client.
pub(super) struct ErrorPage<'a> {
    pub(super) error: &'a Error,
    pub(super) resource: &'a str,
    pub(super) request_id: &'a str,
    pub(super) host_id: &'a str,
    /// HEAD answers have no body; two headers stand in for it, as MinIO's clients know them.
    pub(super) head: bool,
}

impl ErrorPage<'_> {
    pub(super) fn answer(&self) -> Answer {
        let public = &self.error.public;
        let status = public.code.status();
        let bodiless = self.head || status == StatusCode::NOT_MODIFIED;
        let mut answer = if bodiless {
            empty(status)
        } else {
            let extra: Vec<(&'static str, &str)> = self
                .error
                .extra
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let document = to_xml(&ErrorDocument {
                code: public.code,
                message: &public.message,
                resource: self.resource,
                request_id: self.request_id,
                host_id: self.host_id,
                extra: &extra,
            });
            let mut answer = xml(document);
            *answer.status_mut() = status;
            answer
        };
        let headers = answer.headers_mut();
        if self.head {
            set(
                headers,
                HeaderName::from_static("x-minio-error-code"),
                public.code.as_str(),
            );
            let description = format!("\"{}\"", public.message);
            set(
                headers,
                HeaderName::from_static("x-minio-error-desc"),
                description,
            );
        }
        for (name, value) in &self.error.headers {
            set(headers, HeaderName::from_static(name), value);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}
