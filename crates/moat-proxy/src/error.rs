//! Why a proxy could not be set up.

use crate::ellipses::PatternError;
use crate::gateway::GatewayError;

/// A configuration that no proxy can run with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No upstream was given.
    #[error(
        "the proxy has no upstream: give at least one endpoint, as in https://store.example:9000"
    )]
    NoUpstreams,
    /// One upstream was given twice: it would get two shares of the load.
    #[error("the upstream {0} is given twice")]
    DuplicateUpstream(String),
    /// An https upstream without anything to trust it by.
    #[error(
        "the upstream {0} is https, but no trusted CAs are set: give a CA file or use the system's"
    )]
    NoTls(String),
    /// The path of the health check.
    #[error("the health path {0:?} must begin with / and hold no spaces")]
    HealthPath(String),
    /// A gateway that can't run.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// A gateway whose stores may be anybody: it would give them requests that its own keys signed.
    #[error(
        "certificates of {0} must be checked in gateway mode, since requests to it carry the gateway's own signature: name its CA instead of upstream_insecure"
    )]
    InsecureGateway(String),
    /// A URL that is not an endpoint.
    #[error(transparent)]
    Endpoint(#[from] moat_net::Error),
    /// A range of endpoints that is not understood.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A word behind an endpoint.
    #[error(
        "{0:?} is not an option of an endpoint: use weight=1 to weight=256, or zone=NAME, as in https://store.example:9000 weight=2"
    )]
    EndpointOption(String),
}
