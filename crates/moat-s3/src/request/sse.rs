//! Server-side encryption headers: what the client asks for on writes, which key it brings on
//! reads. Codes follow S3; where S3 refuses what S3A or MinIO clients really send, we are lenient
//! (a key id without the algorithm header means SSE-KMS).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderMap;
use md5::{Digest, Md5};
use moat_types::{KeyName, SecretBytes};
use subtle::ConstantTimeEq;

use super::header_text;
use crate::error::{ErrorCode, S3Error};

const SSE: &str = "x-amz-server-side-encryption";
const SSE_KMS_KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const SSE_CONTEXT: &str = "x-amz-server-side-encryption-context";
const SSE_BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
const CUSTOMER_PREFIX: &str = "x-amz-server-side-encryption-customer-";
const COPY_CUSTOMER_PREFIX: &str = "x-amz-copy-source-server-side-encryption-customer-";

/// The value of `x-amz-server-side-encryption` for SSE-S3, and the SSE-C algorithm.
pub const SSE_S3_ALGORITHM: &str = "AES256";
/// The value of `x-amz-server-side-encryption` for SSE-KMS.
pub const KMS_ALGORITHM: &str = "aws:kms";
/// Dual-layer encryption, which is refused: one layer under another name would be a lie.
pub const DSSE_ALGORITHM: &str = "aws:kms:dsse";

/// SSE-C keys are AES-256 keys.
const CUSTOMER_KEY_BYTES: usize = 32;
/// The longest key id as named: a full ARN with an alias of the longest length.
const KEY_ID_BYTES_MAX: usize = 2048;
/// The longest context header; KMS limits the context itself to 8 KiB.
const CONTEXT_BYTES_MAX: usize = 8192;

/// What a write asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SseRequest {
    /// No header: the bucket's rule decides.
    None,
    /// SSE-S3.
    S3,
    /// SSE-KMS.
    Kms {
        /// The key; `None` is the default key.
        key_id: Option<KmsKeyId>,
        /// The encryption context, if one was given.
        context: Option<EncryptionContext>,
        /// `x-amz-server-side-encryption-bucket-key-enabled`, if it was given.
        bucket_key_enabled: Option<bool>,
    },
    /// SSE-C.
    Customer(CustomerKey),
}

impl SseRequest {
    /// Reads the headers of a request that writes: PUT, copy, create of a multipart upload.
    ///
    /// # Errors
    /// `InvalidArgument` for a combination or value that makes no sense, `NotImplemented` for
    /// dual-layer encryption, and the errors of [`CustomerKey`] and [`KmsKeyId`].
    pub fn from_write_headers(headers: &HeaderMap) -> Result<Self, S3Error> {
        let algorithm = header_text(headers, SSE)?;
        let key_id = header_text(headers, SSE_KMS_KEY_ID)?;
        let context = header_text(headers, SSE_CONTEXT)?;
        if let Some(customer_key) = CustomerKey::from_headers(headers)? {
            if algorithm.is_some() || key_id.is_some() || context.is_some() {
                return invalid(
                    "Server Side Encryption with Customer provided key is incompatible with the \
                     encryption method specified",
                );
            }
            return Ok(Self::Customer(customer_key));
        }
        match algorithm {
            Some(KMS_ALGORITHM) => kms_request(headers, key_id, context),
            None if key_id.is_some() || context.is_some() => kms_request(headers, key_id, context),
            None => Ok(Self::None),
            Some(SSE_S3_ALGORITHM) if key_id.is_some() || context.is_some() => invalid(
                "Server Side Encryption with AWS KMS managed key requires HTTP header \
                 x-amz-server-side-encryption : aws:kms",
            ),
            Some(SSE_S3_ALGORITHM) => Ok(Self::S3),
            Some(DSSE_ALGORITHM) => Err(dsse_refused()),
            Some(_) => invalid("The encryption method specified is not supported"),
        }
    }

    /// Reads the headers of GET and HEAD: only an SSE-C key has a meaning there.
    ///
    /// # Errors
    /// `InvalidArgument` if SSE-S3 or SSE-KMS headers are there (S3 refuses them on reads), and
    /// the errors of [`CustomerKey`].
    pub fn customer_key_of_read(headers: &HeaderMap) -> Result<Option<CustomerKey>, S3Error> {
        for name in [SSE, SSE_KMS_KEY_ID, SSE_CONTEXT] {
            if headers.contains_key(name) {
                return invalid(format!(
                    "{name} header is not supported for this operation."
                ));
            }
        }
        CustomerKey::from_headers(headers)
    }
}

fn kms_request(
    headers: &HeaderMap,
    key_id: Option<&str>,
    context: Option<&str>,
) -> Result<SseRequest, S3Error> {
    let bucket_key_enabled = match header_text(headers, SSE_BUCKET_KEY)? {
        None => None,
        Some(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Some(_) => {
            return invalid(
                "x-amz-server-side-encryption-bucket-key-enabled must be true or false",
            );
        }
    };
    Ok(SseRequest::Kms {
        key_id: key_id
            .filter(|id| !id.is_empty())
            .map(KmsKeyId::parse)
            .transpose()?,
        context: context.map(sse_context_parse).transpose()?,
        bucket_key_enabled,
    })
}

/// The answer to dual-layer encryption, in headers and in bucket rules.
pub(crate) fn dsse_refused() -> S3Error {
    S3Error::new(
        ErrorCode::NotImplemented,
        "Dual-layer server-side encryption (aws:kms:dsse) is not offered. Use aws:kms.",
    )
}

/// Whether any server-side encryption header is there, those for a copy's source included.
pub fn has_sse_headers(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        name.starts_with(SSE) || name.starts_with(COPY_CUSTOMER_PREFIX)
    })
}

/// A KMS key id as the client or a bucket rule named it, and the key that it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KmsKeyId {
    named: String,
    key_name: KeyName,
}

impl KmsKeyId {
    /// Takes `NAME`, `alias/NAME`, `arn:aws:kms:NAME` (MinIO's form), and full ARNs
    /// `arn:aws:kms:REGION:ACCOUNT:key/NAME` and `...:alias/NAME`.
    ///
    /// # Errors
    /// `InvalidRequest` for spaces at an end; `KMS.NotFoundException` for a text that cannot be
    /// the name of a key.
    pub fn parse(text: &str) -> Result<Self, S3Error> {
        if text.trim() != text {
            return Err(S3Error::new(
                ErrorCode::InvalidRequest,
                "The KMS key id must not begin or end with a space.",
            ));
        }
        let parsed = (text.len() <= KEY_ID_BYTES_MAX)
            .then(|| KeyName::parse(name_in(text)).ok())
            .flatten();
        match parsed {
            Some(key_name) => Ok(Self {
                named: text.to_owned(),
                key_name,
            }),
            None => Err(S3Error::new(
                ErrorCode::KmsNotFound,
                "Invalid keyId: it is neither a key name nor an ARN of a key.",
            )),
        }
    }

    /// The text as it was given. Answers repeat it, as suites and S3A compare it.
    pub fn named(&self) -> &str {
        &self.named
    }

    /// The key.
    pub const fn key_name(&self) -> &KeyName {
        &self.key_name
    }
}

/// The key name inside a key id; the text itself if it has no known prefix.
fn name_in(text: &str) -> &str {
    let resource = match text.strip_prefix("arn:") {
        None => text,
        Some(arn) => {
            // partition, "kms", then either the name (MinIO) or region, account, resource.
            let mut parts = arn.splitn(5, ':');
            let (_, service) = (parts.next(), parts.next());
            match (service, parts.next(), parts.next(), parts.next()) {
                (Some("kms"), Some(name), None, None) => name,
                (Some("kms"), Some(_), Some(_), Some(resource)) => resource,
                _ => "",
            }
        }
    };
    resource
        .strip_prefix("key/")
        .or_else(|| resource.strip_prefix("alias/"))
        .unwrap_or(resource)
}

/// An encryption context: as sent, and its entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncryptionContext {
    /// The base64 text of the header, which answers repeat.
    pub header: String,
    /// The decoded entries in order of their names.
    pub entries: BTreeMap<String, String>,
}

/// Parses the base64 of a JSON object whose values are texts.
///
/// # Errors
/// `InvalidArgument` if it is anything else or longer than [`CONTEXT_BYTES_MAX`] bytes.
pub fn sse_context_parse(header: &str) -> Result<EncryptionContext, S3Error> {
    let entries = (header.len() <= CONTEXT_BYTES_MAX)
        .then(|| BASE64.decode(header).ok())
        .flatten()
        .and_then(|json| serde_json::from_slice(&json).ok());
    match entries {
        Some(entries) => Ok(EncryptionContext {
            header: header.to_owned(),
            entries,
        }),
        None => invalid(
            "The header 'x-amz-server-side-encryption-context' shall be a Base64-encoded UTF-8 \
             string holding JSON which represents a string-string map",
        ),
    }
}

/// An SSE-C key that passed its checks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomerKey {
    /// The 32 bytes of the key.
    pub key: SecretBytes,
    /// Base64 of the key's MD5, which answers repeat. It is not a secret.
    pub md5_base64: String,
}

impl CustomerKey {
    /// Reads `x-amz-server-side-encryption-customer-{algorithm,key,key-MD5}`. Whether the
    /// connection may carry such a key is the caller's check: see [`CustomerKey::needs_tls`].
    ///
    /// # Errors
    /// `InvalidArgument` if one is missing, the algorithm is not `AES256`, the key is not the
    /// base64 of 32 bytes, or the MD5 is not the key's.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, S3Error> {
        Self::from_prefixed(headers, CUSTOMER_PREFIX)
    }

    /// Reads `x-amz-copy-source-server-side-encryption-customer-*`.
    ///
    /// # Errors
    /// As [`CustomerKey::from_headers`].
    pub fn from_copy_source_headers(headers: &HeaderMap) -> Result<Option<Self>, S3Error> {
        Self::from_prefixed(headers, COPY_CUSTOMER_PREFIX)
    }

    /// The answer to SSE-C headers that came over plain HTTP.
    pub fn needs_tls() -> S3Error {
        S3Error::new(
            ErrorCode::InvalidRequest,
            "Requests specifying Server Side Encryption with Customer provided keys must be made \
             over a secure connection.",
        )
    }

    /// Whether any SSE-C header is there, well formed or not, a copy source's included.
    pub fn is_in(headers: &HeaderMap) -> bool {
        headers.keys().any(|name| {
            name.as_str().starts_with(CUSTOMER_PREFIX)
                || name.as_str().starts_with(COPY_CUSTOMER_PREFIX)
        })
    }

    fn from_prefixed(headers: &HeaderMap, prefix: &str) -> Result<Option<Self>, S3Error> {
        if !headers.keys().any(|name| name.as_str().starts_with(prefix)) {
            return Ok(None);
        }
        let value = |name: &str| header_text(headers, &[prefix, name].concat());
        if value("algorithm")? != Some(SSE_S3_ALGORITHM) {
            return invalid(
                "Requests specifying Server Side Encryption with Customer provided keys must \
                 provide a valid encryption algorithm.",
            );
        }
        let Some(encoded) = value("key")? else {
            return invalid(
                "Requests specifying Server Side Encryption with Customer provided keys must \
                 provide an appropriate secret key.",
            );
        };
        let Some(md5) = value("key-md5")? else {
            return invalid(
                "Requests specifying Server Side Encryption with Customer provided keys must \
                 provide the client calculated MD5 of the secret key.",
            );
        };
        Self::checked(encoded, md5).map(Some)
    }

    fn checked(encoded: &str, md5_base64: &str) -> Result<Self, S3Error> {
        let key = SecretBytes::new(BASE64.decode(encoded).unwrap_or_default());
        if key.expose().len() != CUSTOMER_KEY_BYTES {
            return invalid("The secret key was invalid for the specified algorithm.");
        }
        let md5 = BASE64.encode(Md5::digest(key.expose()));
        if !bool::from(md5.as_bytes().ct_eq(md5_base64.as_bytes())) {
            return invalid(
                "The calculated MD5 hash of the key did not match the hash that was provided.",
            );
        }
        Ok(Self {
            key,
            md5_base64: md5,
        })
    }
}

fn invalid<T>(message: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, S3Error> {
    Err(S3Error::new(ErrorCode::InvalidArgument, message))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn customer(prefix: &str, algorithm: &str, key: &[u8], md5_of: &[u8]) -> HeaderMap {
        headers(&[
            (&format!("{prefix}algorithm"), algorithm),
            (&format!("{prefix}key"), &BASE64.encode(key)),
            (
                &format!("{prefix}key-MD5"),
                &BASE64.encode(Md5::digest(md5_of)),
            ),
        ])
    }

    fn code(result: Result<impl std::fmt::Debug, S3Error>) -> ErrorCode {
        result.unwrap_err().code
    }

    #[test]
    fn none_s3_and_kms_are_told_apart() {
        let read = |pairs: &[(&str, &str)]| SseRequest::from_write_headers(&headers(pairs));
        assert_eq!(read(&[]), Ok(SseRequest::None));
        assert_eq!(read(&[(SSE, "AES256")]), Ok(SseRequest::S3));
        let SseRequest::Kms {
            key_id, context, ..
        } = read(&[
            (SSE, "aws:kms"),
            (SSE_KMS_KEY_ID, "arn:aws:kms:tenant-a"),
            (SSE_CONTEXT, &BASE64.encode(r#"{"b":"2","a":"1"}"#)),
        ])
        .unwrap()
        else {
            panic!("not KMS");
        };
        assert_eq!(key_id.unwrap().key_name().as_str(), "tenant-a");
        assert_eq!(context.unwrap().entries["a"], "1");
        assert!(matches!(
            read(&[(SSE_KMS_KEY_ID, "k")]),
            Ok(SseRequest::Kms {
                key_id: Some(_),
                ..
            })
        ));
        assert!(matches!(
            read(&[(SSE, "aws:kms")]),
            Ok(SseRequest::Kms {
                key_id: None,
                context: None,
                bucket_key_enabled: None
            })
        ));
    }

    #[test]
    fn bad_values_and_combinations_have_their_codes() {
        let read = |pairs: &[(&str, &str)]| code(SseRequest::from_write_headers(&headers(pairs)));
        assert_eq!(read(&[(SSE, "aes256")]), ErrorCode::InvalidArgument);
        assert_eq!(read(&[(SSE, "")]), ErrorCode::InvalidArgument);
        assert_eq!(read(&[(SSE, "aws:kms:dsse")]), ErrorCode::NotImplemented);
        assert_eq!(
            read(&[(SSE, "AES256"), (SSE_KMS_KEY_ID, "k")]),
            ErrorCode::InvalidArgument
        );
        assert_eq!(
            read(&[(SSE, "aws:kms"), (SSE_KMS_KEY_ID, "a/b")]),
            ErrorCode::KmsNotFound
        );
        for context in ["{}", "", &BASE64.encode("[]"), &BASE64.encode(r#"{"a":1}"#)] {
            assert_eq!(
                read(&[(SSE, "aws:kms"), (SSE_CONTEXT, context)]),
                ErrorCode::InvalidArgument
            );
        }
        let mut both = customer(CUSTOMER_PREFIX, "AES256", &[7; 32], &[7; 32]);
        both.insert(SSE, HeaderValue::from_static("AES256"));
        assert_eq!(
            code(SseRequest::from_write_headers(&both)),
            ErrorCode::InvalidArgument
        );
        let kms = headers(&[(SSE, "aws:kms")]);
        assert_eq!(
            code(SseRequest::customer_key_of_read(&kms)),
            ErrorCode::InvalidArgument
        );
    }

    #[test]
    fn customer_keys_are_checked() {
        let good = customer(CUSTOMER_PREFIX, "AES256", &[7; 32], &[7; 32]);
        let key = CustomerKey::from_headers(&good).unwrap().unwrap();
        assert_eq!(key.key.expose(), [7; 32]);
        assert!(!format!("{key:?}").contains("[7"));
        assert_eq!(CustomerKey::from_copy_source_headers(&good), Ok(None));
        assert!(CustomerKey::is_in(&good) && has_sse_headers(&good));
        for bad in [
            customer(CUSTOMER_PREFIX, "AES128", &[7; 32], &[7; 32]),
            customer(CUSTOMER_PREFIX, "AES256", &[7; 31], &[7; 31]),
            customer(CUSTOMER_PREFIX, "AES256", &[7; 32], &[8; 32]),
            headers(&[("x-amz-server-side-encryption-customer-key", "AAAA")]),
        ] {
            assert_eq!(
                code(CustomerKey::from_headers(&bad)),
                ErrorCode::InvalidArgument
            );
        }
        let source = customer(COPY_CUSTOMER_PREFIX, "AES256", &[9; 32], &[9; 32]);
        assert!(
            CustomerKey::from_copy_source_headers(&source)
                .unwrap()
                .is_some()
        );
        assert_eq!(
            SseRequest::from_write_headers(&source),
            Ok(SseRequest::None)
        );
    }

    #[test]
    fn every_form_of_key_id_means_the_same_key() {
        for named in [
            "my-key",
            "alias/my-key",
            "arn:aws:kms:my-key",
            "arn:aws:kms:eu-west-1:123456789012:key/my-key",
            "arn:aws:kms:::key/my-key",
            "arn:aws:kms:eu-west-1:123456789012:alias/my-key",
        ] {
            let id = KmsKeyId::parse(named).unwrap();
            assert_eq!((id.named(), id.key_name().as_str()), (named, "my-key"));
        }
        for bad in [
            "",
            "a b",
            "arn:aws:s3:my-key",
            "arn:aws:kms",
            "arn:aws:kms:a:b",
            "a:b",
            "key/",
        ] {
            assert_eq!(code(KmsKeyId::parse(bad)), ErrorCode::KmsNotFound, "{bad}");
        }
        assert_eq!(code(KmsKeyId::parse(" my-key")), ErrorCode::InvalidRequest);
    }
}
