//! The proxy as a service, its sites in their order, and its reload.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Method, Request, Response};
use moat_net::health::{self, Probe};
use moat_net::tls::ClientTls;
use moat_net::{Body, Peer, Service};

use crate::backend::Backend;
use crate::budget::Budget;
use crate::config::Mode;
use crate::gateway::Gateway;
use crate::site::Site;
use crate::status::{self, Status};
use crate::{Config, Error, SiteConfig, Upstream, exchange, sidekick};

/// A load balancer. One value serves TLS and plain listeners at once; what differs is decided by
/// [`Peer::tls`].
pub struct Proxy {
    state: ArcSwap<State>,
    draining: AtomicBool,
}

impl Proxy {
    /// Sets up a proxy and begins to probe its endpoints. Must be called inside a tokio runtime, and
    /// after [`moat_net::metrics::install`] if metrics are wanted.
    ///
    /// # Errors
    /// What in `config` no proxy can run with.
    pub fn new(config: Config) -> Result<Self, Error> {
        check(&config)?;
        let state = State::new(config, None);
        state.start();
        Ok(Self {
            state: ArcSwap::from_pointee(state),
            draining: AtomicBool::new(false),
        })
    }

    /// Takes another configuration into use. Endpoints that are in both keep what is known of them, so
    /// that there is no moment without one that is up; requests that run are not touched.
    ///
    /// # Errors
    /// What in `config` no proxy can run with; then nothing changes.
    pub fn reload(&self, config: Config) -> Result<(), Error> {
        check(&config)?;
        let before = self.state.load_full();
        // First, so that no probe of the old ones speaks after those of the new ones.
        before.stop();
        let state = State::new(config, Some(&before));
        state.start();
        self.state.store(Arc::new(state));
        Ok(())
    }

    /// Whether requests can be served: at least one endpoint is up, and the proxy is not about to end.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Relaxed) && self.is_up()
    }

    /// Whether at least one endpoint is up.
    pub fn is_up(&self) -> bool {
        self.state.load().sites.iter().any(|site| site.is_up())
    }

    /// Has [`Self::is_ready`] say no from now on, so that balancers before this one look elsewhere.
    pub fn begin_to_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Waits until the spans of requests that have ended are exported, but no longer than `within`.
    pub async fn flush_spans(&self, within: Duration) {
        let state = self.state.load_full();
        if let Some(spans) = &state.config.spans {
            spans.flush(within).await;
        }
    }

    /// What is known of all endpoints.
    pub fn status(&self) -> Status {
        status::of(&self.state.load(), self.is_ready())
    }

    /// What `/v1/certificates` answers.
    pub fn shown_certificate(&self) -> Option<String> {
        let state = self.state.load();
        let paths = state.config.sidekick_paths.as_ref()?;
        paths.certificate.clone()
    }

    /// All metrics, those of the process and those under Sidekick's names.
    pub fn metrics(&self) -> String {
        let mut text = moat_net::metrics::render();
        text.push_str(&sidekick::metrics(&self.state.load()));
        text
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.load().stop();
    }
}

impl Service for Proxy {
    async fn call(&self, peer: &Arc<Peer>, request: Request<Body>) -> Response<Body> {
        let state = self.state.load_full();
        if state.gateway.is_some()
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && Probe::of_path(request.uri().path()).is_some()
        {
            // Of its own: nobody signs these, and what is behind is for the gateway to judge.
            return health::answer(self.is_ready());
        }
        if let Some(paths) = &state.config.sidekick_paths
            && let Some(answer) = sidekick::answer(self, paths, &request)
        {
            return answer;
        }
        exchange::answer(&state, peer, request).await
    }
}

fn check(config: &Config) -> Result<(), Error> {
    if config.sites.is_empty() {
        return Err(Error::NoUpstreams);
    }
    if let Mode::Gateway(gateway) = &config.mode {
        gateway.check()?;
        config.sites.iter().try_for_each(check_trust)?;
    }
    // One endpoint may stand in several sites: the same cluster, asked another health path.
    config.sites.iter().try_for_each(check_site)
}

/// A gateway gives its own signature to whoever answers, so it must know who that is.
fn check_trust(site: &SiteConfig) -> Result<(), Error> {
    if !site.tls.as_ref().is_some_and(ClientTls::is_insecure) {
        return Ok(());
    }
    let loopback = |upstream: &Upstream| {
        let endpoint = &upstream.endpoint;
        endpoint.host() == "localhost"
            || endpoint
                .address()
                .is_some_and(|address| address.is_loopback())
    };
    match site
        .upstreams
        .iter()
        .find(|one| one.endpoint.is_tls() && !loopback(one))
    {
        Some(upstream) => Err(Error::InsecureGateway(upstream.endpoint.to_string())),
        None => Ok(()),
    }
}

fn check_site(site: &SiteConfig) -> Result<(), Error> {
    if site.upstreams.is_empty() {
        return Err(Error::NoUpstreams);
    }
    let mut seen = HashSet::new();
    for upstream in &site.upstreams {
        let endpoint = &upstream.endpoint;
        if !seen.insert(endpoint) {
            return Err(Error::DuplicateUpstream(endpoint.to_string()));
        }
        if endpoint.is_tls() && site.tls.is_none() {
            return Err(Error::NoTls(endpoint.to_string()));
        }
        let path = format!("{}{}", upstream.health_prefix, site.health.path);
        if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
            return Err(Error::HealthPath(path));
        }
    }
    Ok(())
}

/// What requests share until the next reload.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) sites: Vec<Arc<Site>>,
    pub(crate) budget: Budget,
    /// What ends and makes signatures, in gateway mode.
    pub(crate) gateway: Option<Gateway>,
    /// The site that took the last request; only for the log.
    active: AtomicUsize,
}

impl State {
    fn new(config: Config, before: Option<&Self>) -> Self {
        let site = |index: usize| {
            let same_place = before.and_then(|state| state.sites.get(index));
            Arc::new(Site::new(
                index + 1,
                &config,
                same_place.map(|site| &**site),
            ))
        };
        let gateway = match &config.mode {
            Mode::Transparent => None,
            Mode::Gateway(gateway) => {
                let before = before.and_then(|state| state.gateway.as_ref());
                Some(Gateway::new(gateway, before))
            }
        };
        Self {
            gateway,
            sites: (0..config.sites.len()).map(site).collect(),
            budget: Budget::new(),
            active: AtomicUsize::new(0),
            config,
        }
    }

    fn start(&self) {
        self.sites.iter().for_each(Site::start);
    }

    fn stop(&self) {
        self.sites.iter().for_each(|site| site.stop());
    }

    /// Chooses an endpoint of `sites` (`None`: of all) that was not tried yet: of the first site that is up and settled, else of the
    /// first that is up, else of the first that has an endpoint left to try.
    pub(crate) fn begin(&self, sites: Option<Range<usize>>, tried: &[u64]) -> Option<Flight> {
        let sites = sites.map_or(&*self.sites, |range| &self.sites[range]);
        if let [only] = sites {
            return Flight::begin(only, tried);
        }
        let rules: [fn(&Site) -> bool; 3] = [Site::is_settled, Site::is_up, |_| true];
        for rule in rules {
            let may = sites.iter().filter(|site| rule(site));
            if let Some(flight) = may.clone().find_map(|site| Flight::begin(site, tried)) {
                self.note_active(flight.site.number);
                return Some(flight);
            }
        }
        None
    }

    fn note_active(&self, site: usize) {
        let before = self.active.swap(site, Relaxed);
        if before != site && before != 0 {
            tracing::warn!(from = before, to = site, "requests go to another site");
        }
    }

    /// The site that new requests go to, as far as one look tells.
    pub(crate) fn active(&self) -> Option<usize> {
        let first = |rule: fn(&Site) -> bool| self.sites.iter().find(|site| rule(site));
        let site = first(Site::is_settled).or_else(|| first(Site::is_up))?;
        Some(site.number)
    }
}

/// One request on one backend, counted until this is dropped.
pub(crate) struct Flight {
    pub(crate) site: Arc<Site>,
    pub(crate) backend: Arc<Backend>,
}

impl Flight {
    fn begin(site: &Arc<Site>, tried: &[u64]) -> Option<Self> {
        let backend = site.begin(tried)?;
        backend.meters.begin();
        Some(Self {
            site: Arc::clone(site),
            backend,
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.backend.meters.end();
        self.backend.slot.finish();
    }
}
