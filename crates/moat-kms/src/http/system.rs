//! What concerns the whole key manager: the keys that seal its state, and backups.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use moat_kms_client::wire;
use moat_meta::MetaStore;
use moat_net::Body;

use super::answer::{self, Refusal, json};
use crate::core::{Caller, Core};

type Answer = Result<Response<Body>, Refusal>;

pub(super) async fn hsm_status<M: MetaStore>(core: &Arc<Core<M>>, caller: &Caller) -> Answer {
    let status = core.hsm_status(caller).await?;
    let keys = status.keys.into_iter().map(|key| wire::HsmKeyInfo {
        id: key.id,
        about: key.about,
        current: key.current,
        enclaves: key.enclaves,
        problem: key.problem,
    });
    json(&wire::HsmStatus {
        keys: keys.collect(),
    })
}

pub(super) async fn rotate_hsm<M: MetaStore>(
    core: &Arc<Core<M>>,
    caller: &Caller,
    request: wire::RotateHsm,
) -> Answer {
    let done = core.rotate_hsm(caller, request.to.as_deref()).await?;
    json(&wire::HsmRotation {
        id: done.id,
        about: done.about,
        enclaves: done.enclaves,
    })
}

pub(super) async fn backup<M: MetaStore>(core: &Arc<Core<M>>, caller: &Caller) -> Answer {
    let (file, _) = core.backup(caller).await?;
    let mut response = answer::empty(StatusCode::OK);
    *response.body_mut() = Body::full(file);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, octets);
    Ok(response)
}
