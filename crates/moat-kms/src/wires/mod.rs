//! Which protocol a request speaks, decided by its path: every front listens on the one port.
//!
//! | path | front |
//! | --- | --- |
//! | `/v1/kms`, `/v1/kms/...`, `/v1/db`, `/v1/debug/...`, `/v1/rpc/...`, `/v1/health/metrics` | MinKMS ([`minkms`]) |
//! | `/v1/key/...`, `/v1/policy/...`, `/v1/identity/...`, `/v1/log/...`, `/v1/status`, `/v1/ready`, `/v1/metrics`, `/v1/api` | KES ([`kes`]) |
//! | everything else: `/v1/enclaves/...`, `/v1/identities`, `/v1/policies`, `/v1/audit`, `/metrics` | native (`http`) |
//!
//! No path belongs to two of them: where the native API names a collection it takes the plural
//! (`/v1/policies`), KES the singular (`/v1/policy/...`). Three paths are asked for by clients of
//! several protocols, and the native front answers them all:
//!
//! - `/version`: JSON with exactly the members that MinKMS clients know, because they refuse
//!   others; KES clients read `version` and `commit` of it and ignore the rest.
//! - `/v1/health/live` and `/v1/health/ready`, whose body nobody reads.
//!
//! A path is compared as it came. No client escapes the characters of these words, and a path that
//! does is one that no front knows.

pub(crate) mod body;
pub(crate) mod kes;
pub(crate) mod minkms;

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderName, Request, Response};
use moat_kms_client::Identity;
use moat_meta::MetaStore;
use moat_net::access_log::{self, Access};
use moat_net::{Body, Peer, RequestIds, Service};
use moat_types::{EnclaveName, Random};

use crate::core::{Caller, Core};
use body::Bodies;
use kes::KesFront;

/// The enclave of an installation that has only one.
const KES_ENCLAVE: &str = "moat";

/// The header of every answer that names its request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the server says about itself.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// The release.
    pub version: String,
    /// The commit that it was built from; may be empty.
    pub commit: String,
    /// The address under which clients reach this node.
    pub host: String,
}

/// All fronts of a key manager as one service of a listener.
pub struct KmsServer<M>(Arc<Front<M>>);

impl<M: MetaStore> KmsServer<M> {
    /// The fronts of `core`. Their listener must ask for client certificates
    /// ([`moat_net::tls::ClientAuth::Requested`]).
    pub fn new(core: Arc<Core<M>>, info: ServerInfo, random: Arc<dyn Random>) -> Self {
        let enclave = EnclaveName::parse(KES_ENCLAVE).expect("it is a word");
        Self::with_kes_enclave(core, info, random, enclave)
    }

    /// As [`KmsServer::new`]; KES clients whose identity is of no enclave work in `enclave`.
    pub fn with_kes_enclave(
        core: Arc<Core<M>>,
        info: ServerInfo,
        random: Arc<dyn Random>,
        enclave: EnclaveName,
    ) -> Self {
        Self(Arc::new(Front {
            core,
            info,
            request_ids: RequestIds::new(random),
            started: Instant::now(),
            kes: KesFront::new(enclave),
            bodies: Bodies::default(),
        }))
    }

    /// Limits how many bytes of requests one identity may have under way at once, and so the
    /// largest request; [`BODIES_BYTES_MAX`](body::BODIES_BYTES_MAX) if it is never called.
    #[must_use]
    pub fn with_size_limit(self, bytes_max: usize) -> Self {
        self.0.bodies.set_bytes_max(bytes_max);
        self
    }
}

impl<M: MetaStore> Service for KmsServer<M> {
    async fn call(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let request_id = self.0.request_ids.next();
        let (head, body) = request.into_parts();
        let mut bytes_in = 0;
        let exchange = Exchange {
            peer,
            head: &head,
            request_id: &request_id,
            bytes_in: &mut bytes_in,
        };
        let response = match Wire::of_path(head.uri.path()) {
            Wire::Native => crate::http::answer(&self.0, exchange, body).await,
            Wire::Minkms => minkms::answer(&self.0, exchange, body).await,
            Wire::Kes => kes::answer(&self.0, exchange, body).await,
        };
        if access_log::enabled() {
            let access = Access {
                request_id: &request_id,
                method: &head.method,
                path: head.uri.path(),
                query: head.uri.query(),
                status: response.status(),
                bytes_in,
                bytes_out: http_body::Body::size_hint(response.body()).lower(),
                duration: started.elapsed(),
            };
            access.log(peer);
        }
        response
    }
}

/// What every front works with.
pub(crate) struct Front<M> {
    pub(crate) core: Arc<Core<M>>,
    pub(crate) info: ServerInfo,
    request_ids: RequestIds,
    /// When this server began to serve.
    pub(crate) started: Instant,
    pub(crate) kes: KesFront,
    pub(crate) bodies: Bodies,
}

/// One request, without its body.
pub(crate) struct Exchange<'a> {
    pub(crate) peer: &'a Arc<Peer>,
    pub(crate) head: &'a http::request::Parts,
    pub(crate) request_id: &'a str,
    /// For the access log: bytes of the body that were read.
    pub(crate) bytes_in: &'a mut u64,
}

impl Exchange<'_> {
    /// Who asks; `None` without a client certificate.
    pub(crate) fn caller(&self) -> Option<Caller> {
        let key = self.peer.client_key.as_ref()?;
        Some(Caller {
            identity: Identity::from_spki_sha256(key.spki_sha256),
            source: self.peer.addr_text().clone(),
            request_id: self.request_id.into(),
        })
    }
}

/// The protocol of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wire {
    Native,
    Minkms,
    Kes,
}

impl Wire {
    fn of_path(path: &str) -> Self {
        let Some(rest) = path.strip_prefix("/v1/") else {
            return Self::Native;
        };
        let (first, more) = rest.split_once('/').unwrap_or((rest, ""));
        match (first, more) {
            ("kms" | "db" | "debug" | "rpc", _) | ("health", "metrics") => Self::Minkms,
            ("key" | "policy" | "identity" | "log" | "status" | "ready" | "metrics" | "api", _) => {
                Self::Kes
            }
            _ => Self::Native,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_belongs_to_one_protocol() {
        for (wire, paths) in [
            (
                Wire::Minkms,
                "/v1/kms /v1/kms/ /v1/kms/lake /v1/db /v1/debug/log /v1/debug/pprof /v1/health/metrics",
            ),
            (
                Wire::Kes,
                "/v1/key/create/k /v1/key/list /v1/key/list/ /v1/policy/read/p /v1/identity/self/describe \
                 /v1/log/audit /v1/status /v1/ready /v1/metrics /v1/api",
            ),
            (
                Wire::Native,
                "/version /metrics /v1/health/live /v1/health/ready /v1/enclaves /v1/enclaves/key/keys \
                 /v1/identities /v1/policies/p /v1/audit / /v1 /v1/ /v2/key/create/k /v1/keys /%76%31/kms",
            ),
        ] {
            for path in paths.split_whitespace() {
                assert_eq!(Wire::of_path(path), wire, "{path}");
            }
        }
    }
}
