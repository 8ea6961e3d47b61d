//! The proxy: one service behind all its listeners, and an admin listener beside them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use moat_net::tls::{
    ClientAuth, ClientIdentity, ClientTls, ClientTlsConfig, Roots, ServerIdentity, ServerTls,
    ServerTlsConfig,
};
use moat_net::{ClientConfig, Drain, Limits, Listener, ListenerConfig, Workers};
use moat_pki::{
    CA_VALIDITY, CaRequest, CertificateAuthority, KeyAlgorithm, LEAF_VALIDITY, LeafRequest,
    PrivateKey, SubjectName, Usage,
};
use moat_proxy::config::SidekickPaths;
use moat_proxy::otlp::{ExporterConfig, QUEUE_SPANS_MAX, SpanExporter};
use moat_proxy::trace::Tracer;
use moat_proxy::{Admin, Config as Settings, Mode, Proxy, SiteConfig, Upstream};
use moat_types::{SystemClock, SystemRandom};
use zeroize::Zeroizing;

use super::{Bound, bind, net_endpoint};
use crate::config::{Listen, ProxyConfig, TlsFiles};
use crate::endpoint::Endpoint;
use crate::files;
use crate::folder::DataFolder;
use crate::print;
use crate::systemd::Sockets;

/// The flags that choose other addresses.
pub(crate) const FLAGS: &str = "--listen, --proxy-https or --proxy-http";
const ADMIN_FLAG: &str = "--admin";
/// How long the last spans may take to reach a collector. A service that is told to end has some
/// seconds beyond its drain.
const SPANS_WITHIN: Duration = Duration::from_secs(3);

/// A bound proxy.
pub(crate) struct ProxyServer {
    listeners: Vec<(bool, Bound<Proxy>)>,
    admin: Option<Bound<Admin>>,
    handle: ProxyHandle,
}

/// What a running proxy is told from outside.
#[derive(Clone)]
pub(crate) struct ProxyHandle {
    proxy: Arc<Proxy>,
    tls: Option<ServerTls>,
}

impl ProxyServer {
    /// Binds the listeners, loads the certificates and begins to probe the stores; `store` is used
    /// where no upstream is configured. Must be called inside a runtime.
    pub(crate) fn open(
        config: &ProxyConfig,
        data: &DataFolder,
        store: Endpoint,
        sockets: &mut Sockets,
    ) -> Result<Self> {
        let mut settings = settings(config, data, store)?;
        let tls = if config.listen.iter().any(|listen| listen.tls) {
            Some(server_tls(config, &mut settings)?)
        } else {
            None
        };
        let workers = Workers::per_processor().context("starting the proxy's threads")?;
        let mut bound = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            let listener = bind_one(listen, tls.clone(), config.connections_max, sockets)?;
            let listener = listener.with_h2c().on_workers(&workers);
            bound.push((listen.tls, accept_proxy_headers(listener, config)));
        }
        let admin = config
            .admin
            .map(|address| bind(address, None, Limits::default(), ADMIN_FLAG))
            .transpose()?;
        let proxy = Arc::new(Proxy::new(settings)?);
        let listeners = bound.into_iter().map(|(tls, listener)| {
            let service = Arc::clone(&proxy);
            (tls, Bound { listener, service })
        });
        Ok(Self {
            listeners: listeners.collect(),
            admin: admin.map(|listener| Bound {
                listener,
                service: Arc::new(Admin::new(Arc::clone(&proxy))),
            }),
            handle: ProxyHandle { proxy, tls },
        })
    }

    /// Where it listens, in the order of the configuration: with TLS or without, and the address.
    pub(crate) fn addresses(&self) -> Vec<(bool, SocketAddr)> {
        let each = self.listeners.iter();
        each.map(|(tls, bound)| (*tls, bound.address())).collect()
    }

    /// Where it first listens with TLS.
    pub(crate) fn https_address(&self) -> Option<SocketAddr> {
        self.first(true)
    }

    /// Where it first listens without TLS.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.first(false)
    }

    fn first(&self, tls: bool) -> Option<SocketAddr> {
        let (_, bound) = self.listeners.iter().find(|(kind, _)| *kind == tls)?;
        Some(bound.address())
    }

    /// Where the admin listener is.
    pub(crate) fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Bound::address)
    }

    /// For what is told to it while it runs.
    pub(crate) fn handle(&self) -> ProxyHandle {
        self.handle.clone()
    }

    /// Serves all listeners until drained. The admin listener goes last, to say that the proxy drains.
    pub(crate) async fn serve(self, drain: Drain) {
        let mut serving = tokio::task::JoinSet::new();
        for (_, bound) in self.listeners {
            serving.spawn(bound.serve(drain.clone()));
        }
        let proxy = Arc::clone(&self.handle.proxy);
        let told = drain.clone();
        serving.spawn(async move {
            told.started().await;
            proxy.begin_to_drain();
        });
        let admin_drain = Drain::new();
        let admin = self
            .admin
            .map(|bound| tokio::spawn(bound.serve(admin_drain.clone())));
        while serving.join_next().await.is_some() {}
        self.handle.proxy.flush_spans(SPANS_WITHIN).await;
        admin_drain.start(Duration::ZERO);
        if let Some(admin) = admin {
            let _ = admin.await;
        }
    }
}

impl ProxyHandle {
    /// Takes a new configuration into use: sites, health checks, trust, and the content of all
    /// certificate files. Listeners stay as they are.
    pub(crate) fn reload(
        &self,
        config: &ProxyConfig,
        data: &DataFolder,
        store: Endpoint,
    ) -> Result<()> {
        let mut settings = settings(config, data, store)?;
        if config.auto_tls.is_empty() {
            if let Some(tls) = &self.tls {
                tls.reload()?;
            }
        } else if let Some(paths) = &mut settings.sidekick_paths {
            // Its key lives in this process alone, so the certificate stays until the end.
            paths.certificate = self.proxy.shown_certificate();
        }
        Ok(self.proxy.reload(settings)?)
    }
}

/// Everything but what listens.
fn settings(config: &ProxyConfig, data: &DataFolder, store: Endpoint) -> Result<Settings> {
    let sites = if config.sites.is_empty() {
        vec![vec![Upstream::new(net_endpoint(&store)?)]]
    } else {
        config.sites.clone()
    };
    let tls = client_tls(config, data, &sites, config.upstream_ca.as_deref())?;
    let count = sites.len();
    let site = |(index, upstreams): (usize, Vec<Upstream>)| {
        let mut health = config.health.clone();
        if let Some(path) = &config.last_site_health_path
            && index + 1 == count
        {
            health.path.clone_from(path);
        }
        SiteConfig {
            upstreams,
            health,
            tls: tls.clone(),
        }
    };
    let mut sites: Vec<_> = sites.into_iter().enumerate().map(site).collect();
    let mode = mode(config, data, &mut sites)?;
    let mut settings = Settings::of_sites(sites);
    settings.mode = mode;
    settings.balance = config.balance;
    settings.zone.clone_from(&config.zone);
    settings.slow_start = config.slow_start;
    settings.fail_back_after = config.fail_back_after;
    settings.dns_ttl = config.dns_ttl;
    settings.tunnel_idle_timeout = config.tunnel_idle;
    settings.trusted_proxies.clone_from(&config.trusted_proxies);
    settings.send_proxy_protocol = config.send_proxy_protocol;
    settings.pass_certificate = config.pass_certificate;
    settings.upstream_http2 = config.upstream_http2;
    settings.hide_key_id_on_plain = config.hide_key_id;
    settings.sidekick_paths = config.sidekick_paths.then(SidekickPaths::default);
    settings.tracer = tracer(config).map(Arc::new);
    settings.spans = spans(config)?.map(Arc::new);
    Ok(settings)
}

/// The mode, and in gateway mode the sites of its further stores after those of the first.
fn mode(config: &ProxyConfig, data: &DataFolder, sites: &mut Vec<SiteConfig>) -> Result<Mode> {
    let Some(gateway) = &config.gateway else {
        return Ok(Mode::Transparent);
    };
    let mut places = Vec::with_capacity(1 + gateway.stores.len());
    places.push(0..sites.len());
    for store in &gateway.stores {
        let mut health = config.health.clone();
        if let Some(path) = &store.health_path {
            health.path.clone_from(path);
        }
        let own = (!store.ca.is_empty()).then_some(&*store.ca);
        let upstreams = std::slice::from_ref(&store.upstreams);
        let tls = client_tls(
            config,
            data,
            upstreams,
            own.or(config.upstream_ca.as_deref()),
        )?;
        places.push(sites.len()..sites.len() + 1);
        sites.push(SiteConfig {
            upstreams: store.upstreams.clone(),
            health,
            tls,
        });
    }
    let sts_tls = gateway.asks_sts_over_tls();
    let sts_tls = sts_tls.then(|| trust(config, data, config.upstream_ca.as_deref(), true));
    let client = ClientConfig {
        tls: sts_tls.transpose()?,
        ..ClientConfig::default()
    };
    let settings = super::gateway::settings(gateway, &places, &client)?;
    Ok(Mode::Gateway(Arc::new(settings)))
}

fn tracer(config: &ProxyConfig) -> Option<Tracer> {
    let trace = &config.trace;
    trace.is_on().then(|| {
        Tracer::new(
            trace.filter.clone(),
            trace.form,
            trace.changes,
            Arc::new(SystemClock),
            print::in_background(),
        )
    })
}

/// A reload makes another one; the one before sends what it has and ends with the last request that
/// began under it.
fn spans(config: &ProxyConfig) -> Result<Option<SpanExporter>> {
    let Some(otlp) = &config.otlp else {
        return Ok(None);
    };
    let tls = otlp.collector.is_tls().then(|| {
        ClientTls::load(ClientTlsConfig {
            roots: Roots {
                system: otlp.ca.is_empty(),
                files: otlp.ca.clone(),
                pem: Vec::new(),
            },
            ..ClientTlsConfig::default()
        })
    });
    let settings = ExporterConfig {
        collector: otlp.collector.clone(),
        tls: tls.transpose()?,
        sample: otlp.sample,
        queue_spans_max: QUEUE_SPANS_MAX,
    };
    let (clock, random) = (Arc::new(SystemClock), Arc::new(SystemRandom));
    Ok(Some(SpanExporter::start(settings, clock, random)))
}

/// Trust in the CA that was given, or our own if there is one, and for stores that were named in
/// those of the system: stores of others are fronted too.
fn client_tls(
    config: &ProxyConfig,
    data: &DataFolder,
    sites: &[Vec<Upstream>],
    ca: Option<&[PathBuf]>,
) -> Result<Option<ClientTls>> {
    let any_tls = sites.iter().flatten().any(|one| one.endpoint.is_tls());
    if !any_tls {
        return Ok(None);
    }
    // Our own store needs no CAs of the system, and reading them takes a part of the start.
    trust(config, data, ca, !config.sites.is_empty()).map(Some)
}

fn trust(
    config: &ProxyConfig,
    data: &DataFolder,
    ca: Option<&[PathBuf]>,
    others: bool,
) -> Result<ClientTls> {
    let own = || Some(data.ca_certificate()).filter(|path| path.exists());
    let roots = Roots {
        system: others && config.system_roots,
        files: ca.map_or_else(|| own().into_iter().collect(), <[_]>::to_vec),
        pem: Vec::new(),
    };
    let identity = config.upstream_identity.as_ref();
    let settings = ClientTlsConfig {
        roots,
        identity: identity.map(|files| ClientIdentity::Files {
            certificate: files.certificate.clone(),
            key: files.private_key.clone(),
        }),
        insecure: config.insecure,
        versions: config.versions,
    };
    Ok(ClientTls::load(settings)?)
}

fn server_tls(config: &ProxyConfig, settings: &mut Settings) -> Result<ServerTls> {
    let certificates = if config.auto_tls.is_empty() {
        identities(config)?
    } else {
        let (identity, pem) = self_made(&config.auto_tls)?;
        if let Some(paths) = &mut settings.sidekick_paths {
            paths.certificate = Some(pem);
        }
        vec![identity]
    };
    Ok(ServerTls::with(ServerTlsConfig {
        certificates,
        client_auth: ClientAuth::None,
        client_ca: config.client_ca.clone(),
        versions: config.versions,
    })?)
}

fn identities(config: &ProxyConfig) -> Result<Vec<ServerIdentity>> {
    let password = match (&config.key_password, &config.key_password_file) {
        (Some(password), _) => Some(password.clone()),
        (None, Some(path)) => Some(files::read_password(path)?),
        (None, None) => None,
    };
    let identity = |pair: &TlsFiles| ServerIdentity::Files {
        certificate: pair.certificate.clone(),
        key: pair.private_key.clone(),
        password: password.clone(),
    };
    Ok(config.certificates.iter().map(identity).collect())
}

/// A certificate for these names by a CA that is forgotten at once, and the PEM that clients may trust.
fn self_made(names: &[String]) -> Result<(ServerIdentity, String)> {
    let subject = |name: &String| {
        SubjectName::parse(name)
            .with_context(|| format!("{name:?} is neither a name nor an address"))
    };
    let names: Vec<_> = names.iter().map(subject).collect::<Result<_>>()?;
    let (clock, random) = (&SystemClock, &SystemRandom);
    let request = CaRequest {
        common_name: "moat proxy, made at its start".to_owned(),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: CA_VALIDITY,
        permitted: Vec::new(),
    };
    let authority = CertificateAuthority::create(&request, clock, random)?;
    let request = LeafRequest {
        common_name: names.first().map(ToString::to_string).unwrap_or_default(),
        usage: Usage::Server,
        names,
        validity: LEAF_VALIDITY,
    };
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
    let issued = authority.issue(&request, &key, clock, random)?;
    let identity = ServerIdentity::Der {
        chain: issued.chain().into_iter().map(Bytes::from).collect(),
        key_pkcs8: Zeroizing::new(key.to_pkcs8().expose().to_vec()),
    };
    Ok((identity, authority.certificate_pem()))
}

fn accept_proxy_headers(listener: Listener, config: &ProxyConfig) -> Listener {
    if config.accept_proxy_protocol.is_empty() {
        return listener;
    }
    let networks = config.accept_proxy_protocol.clone();
    let from = move |address| networks.iter().any(|network| network.contains(address));
    listener.with_proxy_protocol(Arc::new(from))
}

/// Binds a listener, or takes it over from systemd.
fn bind_one(
    listen: &Listen,
    tls: Option<ServerTls>,
    connections_max: usize,
    sockets: &mut Sockets,
) -> Result<Listener> {
    let tls = tls.filter(|_| listen.tls);
    let mut last = None;
    for address in listen.addresses() {
        let config = ListenerConfig {
            address,
            tls: tls.clone(),
            limits: Limits {
                connections_max,
                ..Limits::default()
            },
        };
        if let Some(socket) = sockets.take(listen.port) {
            return Ok(Listener::take_over(socket, config)?);
        }
        match Listener::bind(config) {
            Ok(listener) => return Ok(listener),
            // A machine without IPv6 listens on IPv4 alone.
            Err(moat_net::Error::AddressInUse { address, source }) => {
                last = Some(moat_net::Error::AddressInUse { address, source });
                break;
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => bail!("{error} ({FLAGS})"),
        None => bail!("{listen} has no address to listen on ({FLAGS})"),
    }
}
