//! What the settings of the proxy mean.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use moat_net::limits::CONNECTIONS_MAX;
use moat_net::tls::Versions;
use moat_net::{Endpoint, TUNNEL_IDLE_TIMEOUT};
use moat_proxy::config::{
    Balance, DNS_TTL, FAIL_BACK_AFTER, PassCertificate, ProxyProtocol, SLOW_START,
};
use moat_proxy::{HealthConfig, Network, Upstream};
use moat_types::SecretString;

use super::gateway::GatewayConfig;
use super::{Reader, TlsFiles, socket_or_off, switch};
use crate::duration;
use crate::folder::DataFolder;

/// Beside 8080, which is taken on most development machines.
const HTTPS_DEFAULT: &str = "0.0.0.0:8090";
/// Loopback alone: what crosses a plain listener can be read on the way, so opening it to a
/// network is a decision that somebody writes down.
const HTTP_DEFAULT: &str = "127.0.0.1:8091";
/// "The process answers": a proxy in front of one store must pass on the store's own answer about
/// its key manager instead of hiding the store.
const HEALTH_PATH_DEFAULT: &str = "/minio/health/live";
/// Under the 30 seconds after which Kubernetes kills.
const DRAIN_DEFAULT: Duration = Duration::from_secs(25);
/// More probes in a row than this are no threshold but a way to say never.
const COUNT_MAX: u32 = 1000;

/// The proxy's part.
#[derive(Debug, Clone)]
pub(crate) struct ProxyConfig {
    pub(crate) listen: Vec<Listen>,
    /// What it does in gateway mode; `None`: requests pass as they are.
    pub(crate) gateway: Option<GatewayConfig>,
    pub(crate) admin: Option<SocketAddr>,
    /// Sites in their order. Empty: the store of the same folder.
    pub(crate) sites: Vec<Vec<Upstream>>,
    pub(crate) health: HealthConfig,
    /// Another health path for the last site.
    pub(crate) last_site_health_path: Option<String>,
    /// `None`: the CA of the folder if there is one.
    pub(crate) upstream_ca: Option<Vec<PathBuf>>,
    /// Whether the CAs of the system are trusted besides.
    pub(crate) system_roots: bool,
    pub(crate) upstream_identity: Option<TlsFiles>,
    pub(crate) insecure: bool,
    /// Certificates of the TLS listeners; the first one is for clients that name none of the others.
    /// Speak HTTP/2 with stores that do.
    pub(crate) upstream_http2: bool,
    /// Of each listener.
    pub(crate) connections_max: usize,
    pub(crate) certificates: Vec<TlsFiles>,
    pub(crate) key_password_file: Option<PathBuf>,
    /// Goes before the file.
    pub(crate) key_password: Option<SecretString>,
    /// CAs whose certificates clients must show; empty: none are asked for.
    pub(crate) client_ca: Vec<PathBuf>,
    pub(crate) pass_certificate: Option<PassCertificate>,
    pub(crate) versions: Versions,
    pub(crate) balance: Balance,
    pub(crate) zone: Option<String>,
    pub(crate) slow_start: Duration,
    pub(crate) fail_back_after: Duration,
    pub(crate) dns_ttl: Duration,
    pub(crate) tunnel_idle: Duration,
    pub(crate) drain: Duration,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) accept_proxy_protocol: Vec<Network>,
    pub(crate) send_proxy_protocol: Option<ProxyProtocol>,
    pub(crate) hide_key_id: bool,
    pub(crate) trace: Trace,
    pub(crate) otlp: Option<Otlp>,
    /// Answer Sidekick's own paths on the listeners.
    pub(crate) sidekick_paths: bool,
    /// Names for a certificate that is made at the start and forgotten at the end.
    pub(crate) auto_tls: Vec<String>,
}

/// One listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) tls: bool,
    /// `None`: all addresses.
    pub(crate) host: Option<IpAddr>,
    pub(crate) port: u16,
}

impl Listen {
    /// Reads `http(s)://[HOST]:PORT`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Self::of_address(tls, rest.strip_suffix('/').unwrap_or(rest))
    }

    /// Reads `[HOST]:PORT`.
    pub(crate) fn of_address(tls: bool, text: &str) -> Option<Self> {
        if let Some(port) = text.strip_prefix(':') {
            let port = port.parse().ok()?;
            let host = None;
            return Some(Self { tls, host, port });
        }
        let text = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let address: SocketAddr = text.parse().ok()?;
        Some(Self::at(tls, address))
    }

    const fn at(tls: bool, address: SocketAddr) -> Self {
        Self {
            tls,
            host: Some(address.ip()),
            port: address.port(),
        }
    }

    /// What to bind, in the order in which it is tried: all addresses are those of both families
    /// where the machine has both.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let hosts = match self.host {
            Some(host) => vec![host],
            None => vec![
                IpAddr::from(std::net::Ipv6Addr::UNSPECIFIED),
                IpAddr::from(std::net::Ipv4Addr::UNSPECIFIED),
            ],
        };
        let with_port = |host| SocketAddr::new(host, self.port);
        hosts.into_iter().map(with_port).collect()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host {
            Some(host) => write!(f, "{scheme}://{}", SocketAddr::new(host, self.port)),
            None => write!(f, "{scheme}://:{}", self.port),
        }
    }
}

/// What is traced, and how it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) filter: moat_proxy::trace::Filter,
    pub(crate) form: moat_proxy::trace::Form,
    /// Whether endpoints that come and go are written, too.
    pub(crate) changes: bool,
}

impl Trace {
    /// Whether anything is written at all.
    pub(crate) const fn is_on(&self) -> bool {
        self.filter.requests || self.filter.probes || self.changes
    }
}

/// The collector that spans go to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Otlp {
    pub(crate) collector: Endpoint,
    /// Empty: those of the system.
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) sample: f64,
}

impl ProxyConfig {
    /// Whether the proxy takes anything from the data folder: its certificate, or the store beside it.
    pub(crate) fn needs_folder(&self, data: &DataFolder) -> bool {
        let own = data.server_tls("proxy");
        let own_certificate = self.auto_tls.is_empty()
            && self.listen.iter().any(|listen| listen.tls)
            && self.certificates.contains(&own);
        own_certificate || self.sites.is_empty()
    }
}

pub(super) fn read(reader: &mut Reader<'_>, data: &DataFolder) -> ProxyConfig {
    let identity = reader.given_pair("proxy.upstream_certificate", "proxy.upstream_private_key");
    let own_ca = reader.list("proxy.upstream_ca", |text| Some(PathBuf::from(text)));
    let ca_only = reader.one("proxy.upstream_ca_only", "off", switch);
    if ca_only && own_ca.is_empty() {
        reader
            .problems
            .push("proxy.upstream_ca_only is on without proxy.upstream_ca; name the CA".into());
    }
    ProxyConfig {
        listen: listeners(reader),
        gateway: super::gateway::read(reader),
        admin: reader.one("proxy.admin_listen", "off", socket_or_off),
        sites: sites(reader),
        health: health(reader),
        last_site_health_path: None,
        upstream_ca: (!own_ca.is_empty()).then_some(own_ca),
        system_roots: !ca_only,
        upstream_identity: identity,
        insecure: reader.one("proxy.upstream_insecure", "off", switch),
        upstream_http2: reader.one("proxy.upstream_http2", "off", switch),
        connections_max: reader
            .optional("proxy.max_connections", |text| {
                text.parse().ok().filter(|count| *count > 0)
            })
            .unwrap_or(CONNECTIONS_MAX),
        certificates: certificates(reader, data),
        key_password_file: reader.optional("proxy.private_key_password_file", |text| {
            Some(PathBuf::from(text))
        }),
        key_password: None,
        client_ca: reader.list("proxy.client_ca", |text| Some(PathBuf::from(text))),
        pass_certificate: pass_certificate(reader),
        versions: versions(reader),
        balance: Balance::LeastInFlight,
        zone: reader.optional("proxy.zone", |text| {
            (!text.is_empty()).then(|| text.to_owned())
        }),
        slow_start: time(reader, "proxy.slow_start", SLOW_START, duration::parse),
        fail_back_after: time(
            reader,
            "proxy.fail_back_after",
            FAIL_BACK_AFTER,
            duration::parse,
        ),
        dns_ttl: time(reader, "proxy.dns_ttl", DNS_TTL, above_zero),
        tunnel_idle: time(reader, "proxy.tunnel_idle", TUNNEL_IDLE_TIMEOUT, above_zero),
        drain: time(reader, "proxy.drain", DRAIN_DEFAULT, above_zero),
        trusted_proxies: reader.list("proxy.trusted_proxies", Network::parse),
        accept_proxy_protocol: reader.list("proxy.accept_proxy_protocol", Network::parse),
        send_proxy_protocol: reader.one("proxy.send_proxy_protocol", "off", |text| match text {
            "off" => Some(None),
            "v1" => Some(Some(ProxyProtocol::V1)),
            "v2" => Some(Some(ProxyProtocol::V2)),
            _ => None,
        }),
        hide_key_id: reader.one("proxy.hide_key_id", "on", switch),
        trace: trace(reader),
        otlp: otlp(reader),
        sidekick_paths: false,
        auto_tls: Vec::new(),
    }
}

fn listeners(reader: &mut Reader<'_>) -> Vec<Listen> {
    let own = reader.list("proxy.listen", Listen::parse);
    let https = reader.one("proxy.listen_https", HTTPS_DEFAULT, socket_or_off);
    let http = reader.one("proxy.listen_http", HTTP_DEFAULT, socket_or_off);
    if reader.raw.get("proxy.listen").is_some() {
        let both = ["proxy.listen_https", "proxy.listen_http"]
            .into_iter()
            .find(|key| reader.raw.get(key).is_some());
        if let Some(other) = both {
            reader.problems.push(format!(
                "proxy.listen and {other} are both given; write all listeners into proxy.listen"
            ));
        }
        return own;
    }
    let two = [(true, https), (false, http)];
    let listen: Vec<_> = two
        .into_iter()
        .filter_map(|(tls, address)| Some(Listen::at(tls, address?)))
        .collect();
    if listen.is_empty() {
        reader.problems.push(
            "proxy.listen_https and proxy.listen_http are both off; the proxy needs one of them"
                .into(),
        );
    }
    listen
}

/// `upstreams` are one site; `sites` are one each.
fn sites(reader: &mut Reader<'_>) -> Vec<Vec<Upstream>> {
    let upstreams: Vec<Upstream> = site_list(reader, "proxy.upstreams").concat();
    let mut sites = site_list(reader, "proxy.sites");
    if !upstreams.is_empty() {
        if !sites.is_empty() {
            reader.problems.push(
                "proxy.upstreams and proxy.sites are both given; write every site into proxy.sites, the preferred one first"
                    .into(),
            );
        }
        sites = vec![upstreams];
    }
    sites
}

fn site_list(reader: &mut Reader<'_>, key: &'static str) -> Vec<Vec<Upstream>> {
    let texts = reader.raw.get(key).map_or(&[][..], |given| &given.values);
    let mut sites = Vec::new();
    for text in texts {
        match Upstream::parse_site(text) {
            Ok(site) if !site.is_empty() => sites.push(site),
            Ok(_) => reader.refuse(key, text),
            // More exact than the form that any value must have.
            Err(error) => reader.problems.push(format!("{key}: {error}")),
        }
    }
    sites
}

fn health(reader: &mut Reader<'_>) -> HealthConfig {
    let plain = HealthConfig::default();
    let interval = time(reader, "proxy.health_interval", plain.interval, above_zero);
    HealthConfig {
        path: reader.one("proxy.health_path", HEALTH_PATH_DEFAULT, |text| {
            text.starts_with('/').then(|| text.to_owned())
        }),
        port: reader.one("proxy.health_port", "0", |text| {
            let port: u16 = text.parse().ok()?;
            Some((port != 0).then_some(port))
        }),
        interval,
        interval_down: plain.interval_down.min(interval),
        timeout: time(reader, "proxy.health_timeout", plain.timeout, above_zero),
        fall: reader
            .optional("proxy.health_fall", count)
            .unwrap_or(plain.fall),
        rise: reader
            .optional("proxy.health_rise", count)
            .unwrap_or(plain.rise),
        optimistic: false,
    }
}

/// Certificates and keys in pairs, by their order.
fn certificates(reader: &mut Reader<'_>, data: &DataFolder) -> Vec<TlsFiles> {
    let certificates = reader.list("proxy.certificate", |text| Some(PathBuf::from(text)));
    let keys = reader.list("proxy.private_key", |text| Some(PathBuf::from(text)));
    if certificates.len() != keys.len() {
        reader.problems.push(format!(
            "proxy.certificate and proxy.private_key must be given together, one key for each certificate: there are {} and {}",
            certificates.len(),
            keys.len()
        ));
    }
    if certificates.is_empty() {
        return vec![data.server_tls("proxy")];
    }
    let pairs = certificates.into_iter().zip(keys);
    pairs
        .map(|(certificate, private_key)| TlsFiles {
            certificate,
            private_key,
        })
        .collect()
}

/// A certificate that no CA was demanded for proves nothing, and listeners ask for none then.
fn pass_certificate(reader: &mut Reader<'_>) -> Option<PassCertificate> {
    let form = reader.one("proxy.pass_client_certificate", "off", |text| match text {
        "off" => Some(None),
        "xfcc" => Some(Some(PassCertificate::Xfcc)),
        "client-cert" => Some(Some(PassCertificate::ClientCert)),
        _ => None,
    });
    if form.is_some() && reader.raw.get("proxy.client_ca").is_none() {
        reader.problems.push(
            "proxy.pass_client_certificate is on without proxy.client_ca; name the CA that clients must show a certificate of"
                .into(),
        );
    }
    form
}

fn versions(reader: &mut Reader<'_>) -> Versions {
    let version = |text: &str| match text {
        "1.2" => Some(12),
        "1.3" => Some(13),
        _ => None,
    };
    let min = reader.one("proxy.tls_min", "1.2", version);
    let max = reader.one("proxy.tls_max", "1.3", version);
    match (min, max) {
        (12, 12) => Versions::Only12,
        (13, 13) => Versions::Only13,
        (12, _) => Versions::Both,
        _ => {
            reader
                .problems
                .push("proxy.tls_min is above proxy.tls_max".into());
            Versions::Both
        }
    }
}

fn trace(reader: &mut Reader<'_>) -> Trace {
    let (requests, probes) = reader.one("proxy.trace", "off", |text| {
        Some(match text {
            "off" => (false, false),
            "all" => (true, true),
            "requests" => (true, false),
            "probes" => (false, true),
            _ => return None,
        })
    });
    let json = reader.one("proxy.trace_format", "text", |text| match text {
        "text" => Some(false),
        "json" => Some(true),
        _ => None,
    });
    let mut trace = Trace::default();
    trace.filter.requests = requests;
    trace.filter.probes = probes;
    trace.form.json = json;
    trace
}

fn otlp(reader: &mut Reader<'_>) -> Option<Otlp> {
    let collector = reader.one("proxy.otlp_endpoint", "off", |text| match text {
        "off" => Some(None),
        url => Endpoint::parse(url).ok().map(Some),
    });
    let ca = reader.list("proxy.otlp_ca", |text| Some(PathBuf::from(text)));
    let sample = reader.one("proxy.otlp_sample", "1", |text| {
        let share: f64 = text.parse().ok()?;
        (0.0..=1.0).contains(&share).then_some(share)
    });
    Some(Otlp {
        collector: collector?,
        ca,
        sample,
    })
}

fn time(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: Duration,
    parse: fn(&str) -> Option<Duration>,
) -> Duration {
    reader.optional(key, parse).unwrap_or(default)
}

fn above_zero(text: &str) -> Option<Duration> {
    duration::parse(text).filter(|duration| !duration.is_zero())
}

fn count(text: &str) -> Option<u32> {
    let count = text.parse().ok()?;
    (1..=COUNT_MAX).contains(&count).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_schemes_and_ports_with_or_without_a_host() {
        let shown = |text| Listen::parse(text).map(|listen| listen.to_string());
        for text in ["https://:8090", "http://127.0.0.1:8091", "https://[::1]:1"] {
            assert_eq!(shown(text).as_deref(), Some(text));
        }
        assert_eq!(
            shown("http://localhost:1/").as_deref(),
            Some("http://127.0.0.1:1")
        );
        for bad in [
            "8090",
            ":8090",
            "ftp://:1",
            "https://",
            "https://name:1",
            "https://:99999",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        let all = Listen::parse("https://:5").unwrap().addresses();
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|address| address.ip().is_unspecified()));
    }
}
