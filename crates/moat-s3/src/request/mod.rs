//! From an HTTP request to typed S3 values: which operation, on which bucket and key, and what
//! its headers ask for. Parsers only; what is then done is the service's business.

mod address;
mod condition;
mod copy;
mod hoisted;
mod metadata;
mod operation;
mod parameters;
mod query;
mod range;
mod sse;

pub use address::{Address, AddressStyle, BaseDomains};
pub use condition::{ConditionOutcome, Conditions, EtagCondition, ObjectFacts};
pub use copy::{CopyDirective, CopySource};
pub use hoisted::Hoisting;
pub use metadata::{META_PREFIX, USER_METADATA_BYTES_MAX, UserMetadata};
pub use operation::Operation;
pub(crate) use operation::is_subresource;
pub use query::{QUERY_PARAMETERS_MAX, Query};
pub use range::{ByteRange, parse_copy_source_range, parse_range};
pub(crate) use sse::dsse_refused;
pub use sse::{
    CustomerKey, DSSE_ALGORITHM, EncryptionContext, KMS_ALGORITHM, KmsKeyId, SSE_S3_ALGORITHM,
    SseRequest, has_sse_headers, sse_context_parse,
};

use http::HeaderMap;

use crate::error::{ErrorCode, S3Error};

/// The value of a header that must be text if it is there. Only the first of several counts.
///
/// # Errors
/// `InvalidArgument` if the bytes are not visible ASCII or UTF-8.
pub fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, S3Error> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(S3Error::new(
            ErrorCode::InvalidArgument,
            format!("The value of header {name} is not valid UTF-8."),
        )),
    }
}
