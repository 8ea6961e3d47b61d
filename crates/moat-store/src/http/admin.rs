//! What only root may ask of a store, beside S3. Below `/minio/`, which no bucket can be called.
//!
//! `POST /minio/moat/v1/rewrap?bucket=B&from=CURSOR&limit=N` wraps a page of epoch keys under the
//! latest versions of their KMS keys, and answers JSON: `examined`, `rewrapped`, `refused` (bucket, key,
//! version, reason), `versions` by key, and `next`, the cursor of the next page, while there is one.

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode, header};
use moat_blob::BlobStore;
use moat_meta::MetaStore;
use moat_net::Body;
use moat_s3::ErrorCode;
use moat_s3::request::Query;
use moat_s3::sigv4::RequestParts;
use moat_types::BucketName;
use serde_json::json;

use super::answer::Answer;
use super::service::S3Service;
use crate::error::{Error, Result};
use crate::rewrap::{REWRAP_PAGE_MAX, RewrapPage};

/// The path of a page of rewrapping.
pub(super) const REWRAP_PATH: &str = "/minio/moat/v1/rewrap";

impl<M: MetaStore, B: BlobStore> S3Service<M, B> {
    /// Answers a request on [`REWRAP_PATH`].
    pub(super) async fn rewrap(&self, request: &Parts) -> Result<Answer> {
        let parts = RequestParts::new(&request.method, &request.uri, &request.headers);
        // Root is the only principal; a request without its signature ends here.
        self.authenticate_root(&parts)?;
        if request.method != Method::POST {
            return Err(ErrorCode::MethodNotAllowed.into());
        }
        let query = Query::parse(parts.query)?;
        let bad = |what: &str| Error::new(ErrorCode::InvalidArgument, what.to_owned());
        let bucket = match query.get("bucket") {
            Some(name) => {
                Some(BucketName::parse(name).map_err(|_| Error::from(ErrorCode::NoSuchBucket))?)
            }
            None => None,
        };
        let from = match query.get("from") {
            Some(cursor) => {
                let bytes = hex::decode(cursor).map_err(|_| bad("from is not a cursor"))?;
                Some(Bytes::from(bytes))
            }
            None => None,
        };
        let limit = match query.get("limit") {
            Some(limit) => limit.parse().map_err(|_| bad("limit is not a number"))?,
            None => REWRAP_PAGE_MAX,
        };
        let page = self
            .store
            .rewrap_epochs(bucket.as_ref(), from, limit)
            .await?;
        Ok(json_answer(&page))
    }
}

fn json_answer(page: &RewrapPage) -> Response<Body> {
    let refused: Vec<_> = page
        .refused
        .iter()
        .map(|(bucket, key, version, reason)| {
            json!({
                "bucket": bucket.as_str(), "key": key.as_str(), "version": version.number(),
                "reason": reason,
            })
        })
        .collect();
    let versions: serde_json::Map<_, _> = page
        .versions
        .iter()
        .map(|(key, version)| (key.as_str().to_owned(), json!(version.number())))
        .collect();
    let text = json!({
        "examined": page.examined, "rewrapped": page.rewrapped, "refused": refused,
        "versions": versions, "next": page.next.as_ref().map(hex::encode),
    });
    let mut answer = Response::new(Body::full(text.to_string()));
    *answer.status_mut() = StatusCode::OK;
    let kind = header::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
