//! Answers to health probes, in the form that MinIO's clients know: a status and no body.

use http::{Response, StatusCode};

use crate::Body;

/// The prefix of MinIO's health paths, which load balancers and operators have in their files.
pub const PREFIX: &str = "/minio/health/";

/// A health path after [`PREFIX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `live`: the process answers.
    Live,
    /// `ready`: it can also do its work.
    Ready,
    /// `cluster`: writes have their quorum.
    Cluster,
    /// `cluster/read`: reads have their quorum.
    ClusterRead,
}

impl Probe {
    /// The probe that `path` asks for, if it is one.
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path.strip_prefix(PREFIX)? {
            "live" => Self::Live,
            "ready" => Self::Ready,
            "cluster" => Self::Cluster,
            "cluster/read" => Self::ClusterRead,
            _ => return None,
        })
    }
}

/// 200 or 503, without a body.
pub fn answer(healthy: bool) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    if !healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_four_paths_are_probes() {
        assert_eq!(Probe::of_path("/minio/health/live"), Some(Probe::Live));
        assert_eq!(
            Probe::of_path("/minio/health/cluster/read"),
            Some(Probe::ClusterRead)
        );
        assert_eq!(Probe::of_path("/minio/health/live/"), None);
        assert_eq!(Probe::of_path("/minio/health"), None);
        assert_eq!(answer(false).status(), 503);
    }
}
