//! What a proxy is made of. Complete and typed: nothing here is read from files or environment.

use std::sync::Arc;
use std::time::Duration;

use moat_net::Endpoint;
use moat_net::tls::ClientTls;
use moat_types::{Random, SystemRandom};

use crate::Error;

/// A body, either way, of which nothing moves. S3A readers pause between reads, and a store may
/// gather for a while; five minutes without a byte is neither.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a body is held back for the upstream's `100 Continue` before it is sent anyway, as RFC
/// 9110 section 10.1.1 demands. A second is what curl and Go wait.
pub const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures in a row of real requests after which an endpoint is set aside without waiting for the
/// next probe. One may be a matter of that connection; three in a row, with no success between, are not.
pub const EJECT_AFTER: u32 = 3;
/// How often one request is sent, where that is safe. In a rolling restart a read may meet a kept
/// connection that was just closed, then an endpoint that just went, then one that just came.
pub const ATTEMPTS_MAX: usize = 4;

/// One S3 endpoint.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it listens.
    pub endpoint: Endpoint,
}

impl Upstream {
    /// Parses `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// `Error::Endpoint` with the accepted form.
    pub fn parse(url: &str) -> Result<Self, Error> {
        Ok(Self {
            endpoint: Endpoint::parse(url)?,
        })
    }
}

/// How endpoints are probed.
#[derive(Clone, Debug)]
pub struct HealthConfig {
    /// `GET` of this path must answer 200.
    pub path: String,
    /// From one probe to the next; each wait is stretched by up to a quarter at random, so that
    /// thousands of sidecars don't probe in step.
    pub interval: Duration,
    /// The same while an endpoint is down: its return should be noticed soon.
    pub interval_down: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Failed probes in a row that make an endpoint down.
    pub fall: u32,
    /// Good probes in a row that make it up again.
    pub rise: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: "/minio/health/live".into(),
            interval: Duration::from_secs(5),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            fall: 2,
            rise: 1,
        }
    }
}

/// A proxy.
#[derive(Clone)]
pub struct Config {
    /// The endpoints of one site: all serve the same buckets.
    pub upstreams: Vec<Upstream>,
    /// How they are probed.
    pub health: HealthConfig,
    /// Trust and identity towards https endpoints.
    pub tls: Option<ClientTls>,
    /// For name lookup, TCP and TLS of one attempt.
    pub connect_timeout: Duration,
    /// How long a body may stand still, either way.
    pub body_idle_timeout: Duration,
    /// Drop the KMS key id from HEAD answers given on plain listeners.
    pub hide_key_id_on_plain: bool,
    /// Request ids, jitter and ties.
    pub random: Arc<dyn Random>,
}

impl Config {
    /// A proxy to `upstreams` with all defaults.
    pub fn new(upstreams: Vec<Upstream>) -> Self {
        Self {
            upstreams,
            health: HealthConfig::default(),
            tls: None,
            connect_timeout: moat_net::client::CONNECT_TIMEOUT,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            hide_key_id_on_plain: true,
            random: Arc::new(SystemRandom),
        }
    }
}
