//! The KES front: what a MinIO server with `MINIO_KMS_KES_*` speaks.

use http::Response;
use hyper::body::Incoming;
use moat_meta::MetaStore;
use moat_net::Body;

use super::{Exchange, Front};

/// Answers a request on a path of KES.
pub(crate) async fn answer<M: MetaStore>(
    front: &Front<M>,
    exchange: Exchange<'_>,
    body: Incoming,
) -> Response<Body> {
    crate::http::answer(front, exchange, body).await
}
