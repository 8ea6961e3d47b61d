//! Answers of the proxy itself: S3 error XML, a request id, and nothing about what is behind.

use std::borrow::Cow;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use moat_net::Body;
use moat_s3::authenticate::Refused;
use moat_s3::error::{ErrorDocument, to_xml};
use moat_s3::{ErrorCode, S3Error};

/// Short, because what is behind usually comes back within one probe, and some SDKs really wait
/// as long as they are told.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-minio-error-code");
const ERROR_DESCRIPTION: HeaderName = HeaderName::from_static("x-minio-error-desc");
/// Stands in `HostId`: which kind of server answered, since the store's answers have their own.
const HOST_ID: &str = "moat-proxy";

/// Why the proxy answers in the upstream's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A customer key on a plain listener.
    CustomerKeyOnPlain,
    /// No endpoint is up, or none could be reached. Nothing was sent.
    NoUpstream,
    /// The upstream took the request and gave no answer; it may have acted on it.
    NoAnswer,
    /// The upstream took the request and is silent, for longer than any request takes.
    Timeout,
    /// The client's own body failed.
    IncompleteBody,
    /// The request has a form that can't be passed on.
    BadRequest,
    /// The gateway does not take it.
    Denied(Box<Refused>),
}

impl Refusal {
    fn error(&self) -> (StatusCode, S3Error) {
        let error = match self {
            Self::CustomerKeyOnPlain => S3Error::new(
                ErrorCode::InvalidRequest,
                "Requests with customer-provided encryption keys (SSE-C) must use https: this listener is plain http. Use the https endpoint.",
            ),
            Self::NoUpstream => S3Error::new(
                ErrorCode::ServiceUnavailable,
                "No storage endpoint can be reached at the moment. Try again.",
            ),
            Self::NoAnswer => {
                let error = S3Error::new(
                    ErrorCode::ServiceUnavailable,
                    "The storage endpoint closed the connection before it answered. Try again.",
                );
                return (StatusCode::BAD_GATEWAY, error);
            }
            Self::Timeout => {
                let error = S3Error::new(
                    ErrorCode::ServiceUnavailable,
                    "The storage endpoint does not answer. Try again.",
                );
                return (StatusCode::GATEWAY_TIMEOUT, error);
            }
            Self::IncompleteBody => ErrorCode::IncompleteBody.into(),
            Self::BadRequest => ErrorCode::InvalidRequest.into(),
            Self::Denied(refused) => refused.error.clone(),
        };
        (error.code.status(), error)
    }

    fn extra(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Denied(refused) => {
                let (name, value) = refused.extra.as_ref()?;
                Some((name, value))
            }
            _ => None,
        }
    }

    /// The answer to `method` on `path`. HEAD gets no body, as S3 does it.
    /// Two headers stand in for it there, as MinIO's clients know them.
    pub(crate) fn response(&self, method: &Method, path: &str, request_id: &str) -> Response<Body> {
        let (status, error) = self.error();
        let is_head = method == Method::HEAD;
        let body = if is_head {
            Body::empty()
        } else {
            Body::full(document(&error, self.extra(), path, request_id))
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if is_head && matches!(self, Self::Denied(_)) {
            headers.insert(ERROR_CODE, HeaderValue::from_static(error.code.as_str()));
            if let Ok(text) = HeaderValue::from_str(&format!("\"{}\"", error.message)) {
                headers.insert(ERROR_DESCRIPTION, text);
            }
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        // What is not offered now is not offered in a second.
        if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
            headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

fn document(
    error: &S3Error,
    extra: Option<(&'static str, &str)>,
    path: &str,
    request_id: &str,
) -> Vec<u8> {
    let message: &Cow<'static, str> = &error.message;
    to_xml(&ErrorDocument {
        code: error.code,
        message,
        resource: path,
        request_id,
        host_id: HOST_ID,
        extra: extra.as_slice(),
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn text(refusal: Refusal, method: Method) -> (StatusCode, String) {
        let response = refusal.response(&method, "/b/<k>", "0123456789ABCDEF");
        let status = response.status();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn errors_are_s3_xml_with_escaped_resource() {
        let (status, xml) = text(Refusal::NoUpstream, Method::GET).await;
        assert_eq!(status, 503);
        assert!(xml.contains("<Code>ServiceUnavailable</Code>"), "{xml}");
        assert!(xml.contains("<Resource>/b/&lt;k&gt;</Resource>"), "{xml}");
        assert!(
            xml.contains("<RequestId>0123456789ABCDEF</RequestId>"),
            "{xml}"
        );
    }

    #[tokio::test]
    async fn head_gets_the_status_only() {
        assert_eq!(
            text(Refusal::NoAnswer, Method::HEAD).await,
            (StatusCode::BAD_GATEWAY, String::new())
        );
    }

    #[test]
    fn only_passing_conditions_ask_for_a_retry() {
        for (refusal, retry) in [
            (Refusal::CustomerKeyOnPlain, false),
            (Refusal::NoUpstream, true),
            (Refusal::NoAnswer, true),
            (Refusal::Timeout, true),
            (Refusal::IncompleteBody, false),
            (Refusal::BadRequest, false),
            (
                Refusal::Denied(Box::new(S3Error::from(ErrorCode::NotImplemented).into())),
                false,
            ),
        ] {
            let response = refusal.response(&Method::PUT, "/", "A");
            assert_eq!(
                response.headers().contains_key(RETRY_AFTER),
                retry,
                "{refusal:?}"
            );
        }
    }
}
