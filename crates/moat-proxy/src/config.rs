//! What a proxy is made of. Complete and typed: nothing here is read from files or environment.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use moat_net::Endpoint;
use moat_net::client::Dialer;
use moat_net::tls::ClientTls;
use moat_types::{Random, SystemRandom};

use crate::gateway::GatewayConfig;
use crate::otlp::SpanExporter;
use crate::trace::Tracer;
use crate::{Error, ellipses};

/// A body, either way, of which nothing moves. S3A readers pause between reads, and a store may
/// gather for a while; five minutes without a byte is neither.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a read may be without the head of its answer. A LIST of a large bucket on slow disks takes
/// a minute; a read that says nothing for five is lost, whatever the endpoint's health says.
pub const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// How long anything else may be. CompleteMultipartUpload and CopyObject of terabytes work for many
/// minutes, some stores without the white space that keeps the connection moving; SDKs give up sooner.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often a request that waits looks whether its endpoint still answers probes. With the default
/// probes a frozen endpoint is known to be one after some 13 seconds.
pub const LIVENESS_CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a body is held back for the upstream's `100 Continue` before it is sent anyway, as RFC
/// 9110 section 10.1.1 demands. A second is what curl and Go wait.
pub const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// Failures in a row of real requests after which an endpoint is set aside without waiting for the
/// next probe. One may be a matter of that connection; three in a row, with no success between, are not.
pub const EJECT_AFTER: u32 = 3;
/// Answers of 503 in a row after which an endpoint is set aside for a moment. One client that reads
/// too fast gets some of them from a healthy server, but others get other answers between.
pub const EJECT_AFTER_BUSY: u32 = 10;
/// The longest that ejections in a row keep an endpoint from being probed back into use.
pub const EJECTION_MAX: Duration = Duration::from_secs(30);
/// How often one request is sent, where that is safe. In a rolling restart a read may meet a kept
/// connection that was just closed, then an endpoint that just went, then one that just came.
pub const ATTEMPTS_MAX: usize = 4;
/// For how long a request looks for an endpoint that takes a connection. Most SDKs have a connect
/// timeout of 1 to 60 seconds and try again by themselves.
pub const CONNECT_ATTEMPTS_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of a request's body that are kept while it is sent, so that an upload of which only a part
/// has left can begin anew elsewhere. More would be memory times connections for little gain.
pub const REPLAY_BYTES_MAX: u64 = 64 * 1024;
/// How long DNS answers are used. Kubernetes' own are good for 30 seconds.
pub const DNS_TTL: Duration = Duration::from_secs(30);
/// Over this time an endpoint that came back gets its full share again: its caches are cold.
pub const SLOW_START: Duration = Duration::from_secs(10);
/// How long a preferred site must be well before it gets its requests back.
pub const FAIL_BACK_AFTER: Duration = Duration::from_secs(30);
/// Weights above this would starve their neighbours rather than balance.
pub const WEIGHT_MAX: u32 = 256;

/// One S3 endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where it listens. A name may have several addresses: each is balanced and probed by itself.
    pub endpoint: Endpoint,
    /// Its share beside others: twice the weight, twice the requests in flight.
    pub weight: u32,
    /// Where it stands, if that is of interest; see [`Config::zone`].
    pub zone: Option<String>,
    /// Stands before the path of its health check; empty, or beginning with `/`.
    pub health_prefix: String,
}

impl Upstream {
    /// An endpoint like any other.
    pub const fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            weight: 1,
            zone: None,
            health_prefix: String::new(),
        }
    }

    /// Parses `http://host:port` or `https://host:port`.
    ///
    /// # Errors
    /// `Error::Endpoint` with the accepted form.
    pub fn parse(url: &str) -> Result<Self, Error> {
        Ok(Self::new(Endpoint::parse(url)?))
    }

    /// Parses the endpoints of one site as operators write them: separated by commas, with ranges
    /// such as `{1...4}`, each followed by `weight=N` and `zone=NAME` if they matter.
    ///
    /// # Errors
    /// What in the text is not understood, with the accepted form.
    pub fn parse_site(text: &str) -> Result<Vec<Self>, Error> {
        let mut upstreams = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let mut words = item.split_ascii_whitespace();
            let pattern = words.next().unwrap_or_default();
            let mut model = Options::default();
            for word in words {
                model.take(word)?;
            }
            for url in ellipses::expand(pattern)? {
                upstreams.push(Self {
                    weight: model.weight,
                    zone: model.zone.clone(),
                    ..Self::parse(&url)?
                });
            }
        }
        Ok(upstreams)
    }
}

struct Options {
    weight: u32,
    zone: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            weight: 1,
            zone: None,
        }
    }
}

impl Options {
    fn take(&mut self, word: &str) -> Result<(), Error> {
        let bad = || Error::EndpointOption(word.to_owned());
        match word.split_once('=').ok_or_else(bad)? {
            ("weight", number) => {
                let weight = number.parse().map_err(|_| bad())?;
                if weight == 0 || weight > WEIGHT_MAX {
                    return Err(bad());
                }
                self.weight = weight;
            }
            ("zone", name) if !name.is_empty() => self.zone = Some(name.to_owned()),
            _ => return Err(bad()),
        }
        Ok(())
    }
}

/// How endpoints are probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthConfig {
    /// `GET` of this path must answer 200.
    pub path: String,
    /// Another port than that of the endpoint.
    pub port: Option<u16>,
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
    /// Probe only endpoints that are not up; those that are, speak by their requests.
    pub optimistic: bool,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: "/minio/health/live".into(),
            port: None,
            interval: Duration::from_secs(5),
            interval_down: Duration::from_secs(1),
            timeout: Duration::from_secs(3),
            fall: 2,
            rise: 1,
            optimistic: false,
        }
    }
}

/// Endpoints that serve the same buckets. The sites of a proxy are tried in their order.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// Its endpoints.
    pub upstreams: Vec<Upstream>,
    /// How they are probed.
    pub health: HealthConfig,
    /// Trust and identity towards https endpoints.
    pub tls: Option<ClientTls>,
}

impl SiteConfig {
    /// A site with all defaults.
    pub fn new(upstreams: Vec<Upstream>) -> Self {
        Self {
            upstreams,
            health: HealthConfig::default(),
            tls: None,
        }
    }
}

/// What the proxy does with a request besides carrying it.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Nothing: signatures stay those of the client.
    #[default]
    Transparent,
    /// It ends the client's signature and signs anew.
    Gateway(Arc<GatewayConfig>),
}

/// Which of the endpoints that are up takes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest requests in flight, in relation to its weight.
    #[default]
    LeastInFlight,
    /// Any.
    Random,
}

/// The form in which upstreams are told the client's address before a connection's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The header in which upstreams are told the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassCertificate {
    /// `X-Forwarded-Client-Cert`, with hash, subject and names.
    Xfcc,
    /// `Client-Cert` of RFC 9440, with the certificate itself.
    ClientCert,
}

/// Sidekick's own paths on the main listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidekickPaths {
    /// What `/v1/certificates` answers: the PEM of a certificate that nobody could know otherwise.
    pub certificate: Option<String>,
}

/// Finds the addresses of a host. The machine's resolver, unless a test plays its part.
pub type Lookup = Arc<dyn Fn(String) -> LookupFuture + Send + Sync>;
/// What [`Lookup`] gives.
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

fn system_lookup() -> Lookup {
    Arc::new(|host| {
        Box::pin(async move {
            // The port has no say in the answer.
            let answers = tokio::net::lookup_host((host, 0)).await?;
            Ok(answers.map(|answer| answer.ip()).collect())
        })
    })
}

/// A proxy.
#[derive(Clone)]
pub struct Config {
    /// Sites, the preferred one first.
    pub sites: Vec<SiteConfig>,
    /// What happens to requests.
    pub mode: Mode,
    /// How requests are spread over the endpoints of a site.
    pub balance: Balance,
    /// Where the proxy stands: endpoints of this zone are used as long as one of them is up.
    pub zone: Option<String>,
    /// See [`SLOW_START`]; zero switches it off.
    pub slow_start: Duration,
    /// See [`FAIL_BACK_AFTER`].
    pub fail_back_after: Duration,
    /// See [`DNS_TTL`].
    pub dns_ttl: Duration,
    /// How names of endpoints are looked up.
    pub lookup: Lookup,
    /// Opens connections in the place of TCP. `None` but in simulations.
    pub dialer: Option<Dialer>,
    /// For name lookup, TCP and TLS of one attempt.
    pub connect_timeout: Duration,
    /// How long a body may stand still, either way.
    pub body_idle_timeout: Duration,
    /// See [`READ_TIMEOUT`].
    pub read_timeout: Duration,
    /// See [`WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`moat_net::TUNNEL_IDLE_TIMEOUT`].
    pub tunnel_idle_timeout: Duration,
    /// See [`LIVENESS_CHECK_EVERY`].
    pub liveness_check_every: Duration,
    /// Drop the KMS key id from HEAD answers given on plain listeners.
    pub hide_key_id_on_plain: bool,
    /// Speak HTTP/2 with endpoints: with https ones that choose it, with http ones always.
    pub upstream_http2: bool,
    /// Proxies before this one whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Say the client's address to upstreams in a PROXY header. Each request then has a connection
    /// of its own.
    pub send_proxy_protocol: Option<ProxyProtocol>,
    /// Tell upstreams the certificate that a client showed. Only certificates that a listener demands of
    /// a CA prove anything.
    pub pass_certificate: Option<PassCertificate>,
    /// Answer Sidekick's paths. They hide the objects `health` and `certificates` of a bucket `v1`.
    pub sidekick_paths: Option<SidekickPaths>,
    /// Who is told about each request and probe.
    pub tracer: Option<Arc<Tracer>>,
    /// Who is told about each request in the form of OpenTelemetry.
    pub spans: Option<Arc<SpanExporter>>,
    /// Request ids, jitter and ties.
    pub random: Arc<dyn Random>,
}

impl Config {
    /// A proxy to the endpoints of one site with all defaults.
    pub fn new(upstreams: Vec<Upstream>) -> Self {
        Self::of_sites(vec![SiteConfig::new(upstreams)])
    }

    /// A proxy to sites with all defaults.
    pub fn of_sites(sites: Vec<SiteConfig>) -> Self {
        Self {
            sites,
            mode: Mode::default(),
            balance: Balance::default(),
            zone: None,
            slow_start: SLOW_START,
            fail_back_after: FAIL_BACK_AFTER,
            dns_ttl: DNS_TTL,
            lookup: system_lookup(),
            dialer: None,
            connect_timeout: moat_net::client::CONNECT_TIMEOUT,
            body_idle_timeout: BODY_IDLE_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            tunnel_idle_timeout: moat_net::TUNNEL_IDLE_TIMEOUT,
            liveness_check_every: LIVENESS_CHECK_EVERY,
            hide_key_id_on_plain: true,
            upstream_http2: false,
            trusted_proxies: Vec::new(),
            send_proxy_protocol: None,
            pass_certificate: None,
            sidekick_paths: None,
            tracer: None,
            spans: None,
            random: Arc::new(SystemRandom),
        }
    }
}

/// Addresses that begin with the same bits, as in `10.0.0.0/8`; a single address is one with all bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `ADDRESS` or `ADDRESS/BITS`. Bits behind the prefix must be zero, as a safeguard against
    /// a prefix that is shorter than what was meant.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
        // An IPv4 address in its IPv6 form would match nothing, since addresses are looked at as IPv4.
        if bits > all || address.to_canonical() != address {
            return None;
        }
        let network = Self { address, bits };
        (network.prefix_of(address) == network.value_of(address)).then_some(network)
    }

    /// Whether `address` is one of them. An IPv4 address counts as itself in its IPv6 form, too.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && self.prefix_of(address) == self.prefix_of(self.address)
    }

    fn value_of(&self, address: IpAddr) -> u128 {
        match address {
            // In the upper bits, so that both kinds count theirs from the left.
            IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    fn prefix_of(&self, address: IpAddr) -> u128 {
        let behind = 128 - self.bits;
        self.value_of(address)
            .checked_shr(behind)
            .and_then(|value| value.checked_shl(behind))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_written_with_commas_ranges_and_options() {
        let site = Upstream::parse_site("https://a{1...2}:9000 weight=3 zone=x, https://b:9000 ,")
            .unwrap();
        let shown: Vec<_> = site
            .iter()
            .map(|one| (one.endpoint.to_string(), one.weight, one.zone.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                ("https://a1:9000".into(), 3, Some("x")),
                ("https://a2:9000".into(), 3, Some("x")),
                ("https://b:9000".into(), 1, None),
            ]
        );
        for bad in [
            "https://a weight=0",
            "https://a weight=257",
            "https://a weight",
            "https://a zone=",
            "https://a colour=red",
            "https://a{1..2}",
            "a:9000",
        ] {
            assert!(Upstream::parse_site(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_hold_the_addresses_of_their_prefix() {
        let holds = |network: &str, address: &str| {
            Network::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.9.9.9"));
        assert!(holds("10.0.0.0/8", "::ffff:10.9.9.9"));
        assert!(!holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7"));
        assert!(!holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "1.2.3.4"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("fd00::/8", "fd12::1"));
        for bad in [
            "::ffff:10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "x",
            "",
            "10.0.0.0/-1",
        ] {
            assert!(Network::parse(bad).is_none(), "{bad}");
        }
    }
}
