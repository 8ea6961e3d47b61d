//! Puts answers into the client's words: the bucket's name, the URL and the region that the client knows.
//!
//! `Location` says where the client finds what it made, so it is made of the client's own request; one
//! that would send the client to the store is taken out. What stands in XML is changed by [`names`];
//! objects are never looked into.
//!
//! [`names`]: super::names

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body as _;
use moat_net::Body;
use moat_s3::request::Operation;
use moat_s3::xml::location_constraint;

use super::names::Translated;

const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
const BUCKET_ARN: HeaderName = HeaderName::from_static("x-amz-bucket-arn");

/// A bucket's name behind the gateway and before it.
#[derive(Clone, Debug)]
pub(super) struct Rename {
    pub(super) upstream: String,
    pub(super) client: String,
}

impl Rename {
    pub(super) fn new(upstream: &str, client: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            client: client.to_owned(),
        }
    }
}

/// What a client calls what it asked about.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// Of the bucket and of the source of a copy, where the store calls them otherwise.
    pub(super) renames: Vec<Rename>,
    /// The client's name of the bucket.
    pub(super) bucket: Option<String>,
    /// Scheme and host that the client asked at.
    pub(super) origin: String,
    /// The path that it asked for, as it wrote it.
    pub(super) path: String,
    /// The region that clients must sign for, if it matters to the gateway.
    pub(super) region: Option<String>,
}

impl Words {
    /// Whether the body of an answer may have to be changed, which it can't be in another coding.
    pub(super) fn may_change_body(&self, operation: Operation) -> bool {
        !self.renames.is_empty()
            || operation == Operation::CompleteMultipartUpload
            || (operation == Operation::GetBucketLocation && self.region.is_some())
    }

    /// Translates an answer to `operation`.
    pub(super) fn translate(
        &self,
        operation: Operation,
        response: Response<Body>,
    ) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        self.translate_headers(operation, &mut head);
        if let (Operation::GetBucketLocation, Some(region), StatusCode::OK) =
            (operation, &self.region, head.status)
        {
            head.headers.remove(CONTENT_LENGTH);
            return Response::from_parts(head, Body::full(location_constraint(region)));
        }
        let may_hold_names = (!head.status.is_success() || answers_with_names(operation))
            && (self.may_change_body(operation) || head.status.is_redirection())
            && is_xml(&head.headers)
            && !head.headers.contains_key(CONTENT_ENCODING)
            && !body.is_end_stream();
        if !may_hold_names {
            return Response::from_parts(head, body);
        }
        head.headers.remove(CONTENT_LENGTH);
        Response::from_parts(head, Body::stream(Translated::new(body, self.clone())))
    }

    fn translate_headers(&self, operation: Operation, head: &mut Parts) {
        if let (Some(region), Some(told)) = (&self.region, head.headers.get_mut(BUCKET_REGION))
            && let Ok(region) = HeaderValue::from_str(region)
        {
            *told = region;
        }
        if !self.renames.is_empty() {
            // Names a bucket of which the client knows nothing, and nobody needs it.
            head.headers.remove(BUCKET_ARN);
        }
        if !head.headers.contains_key(LOCATION) {
            return;
        }
        let bucket = self.bucket.as_deref().unwrap_or_default();
        let location = match operation {
            Operation::CreateBucket => format!("/{bucket}"),
            _ => self.url(),
        };
        if head.status.is_redirection() {
            tracing::warn!(
                status = head.status.as_u16(),
                "the storage endpoint sends the gateway elsewhere: is this its region and address?"
            );
            head.headers.remove(LOCATION);
        } else if let Ok(location) = HeaderValue::from_str(&location) {
            head.headers.insert(LOCATION, location);
        }
    }

    /// The URL of what was asked about, without a query.
    pub(super) fn url(&self) -> String {
        [&self.origin[..], &self.path].concat()
    }
}

const fn answers_with_names(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::ListObjects
            | Operation::ListObjectsV2
            | Operation::ListObjectVersions
            | Operation::ListMultipartUploads
            | Operation::ListParts
            | Operation::CreateMultipartUpload
            | Operation::CompleteMultipartUpload
    )
}

fn is_xml(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|text| text.contains("xml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        Words {
            renames: vec![Rename::new("lake-7", "lake"), Rename::new("x", "y")],
            bucket: Some("lake".to_owned()),
            origin: "https://lake.s3.test:8443".to_owned(),
            path: "/a%20b&c".to_owned(),
            region: Some("home-1".to_owned()),
        }
    }

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(*name, value);
        }
        response
    }

    #[test]
    fn a_location_is_where_the_client_asked_and_never_at_the_store() {
        let location = |operation, status, value| {
            let answer = words().translate(operation, answer(status, &[("location", value)]));
            let value = answer.headers().get("location")?;
            Some(value.to_str().unwrap().to_owned())
        };
        let at = |text: &str| Some(text.to_owned());
        let create = Operation::CreateBucket;
        assert_eq!(location(create, 200, "/lake-7"), at("/lake"));
        let aws = "http://lake-7.s3.amazonaws.com/";
        assert_eq!(location(create, 200, aws), at("/lake"));
        assert_eq!(
            location(Operation::PutObject, 200, "http://10.0.0.1:9000/lake-7/k"),
            at("https://lake.s3.test:8443/a%20b&c")
        );
        assert_eq!(location(Operation::GetObject, 307, aws), None);
    }

    #[tokio::test]
    async fn the_region_is_the_one_that_the_gateway_wants() {
        use http_body_util::BodyExt as _;

        let told = [("x-amz-bucket-region", "eu-1"), ("x-amz-bucket-arn", "a")];
        let head = words().translate(Operation::HeadBucket, answer(200, &told));
        assert_eq!(head.headers()["x-amz-bucket-region"], "home-1");
        assert!(!head.headers().contains_key("x-amz-bucket-arn"));
        let location = words().translate(Operation::GetBucketLocation, answer(200, &[]));
        let body = location.into_body().collect().await.unwrap().to_bytes();
        assert!(body.ends_with(b">home-1</LocationConstraint>"), "{body:?}");
        let any = Words {
            region: None,
            renames: Vec::new(),
            ..words()
        };
        let head = any.translate(Operation::HeadBucket, answer(200, &told));
        assert_eq!(head.headers()["x-amz-bucket-region"], "eu-1");
        assert_eq!(head.headers()["x-amz-bucket-arn"], "a");
    }
}
