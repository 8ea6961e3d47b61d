//! The proxy as a service, and the state that its requests share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Request, Response};
use hyper::body::Incoming;
use moat_net::{Body, ClientConfig, ClientError, Endpoint, HttpClient, Peer, Service};
use tokio::sync::Notify;

use crate::balance::{Balancer, Standing};
use crate::health::{self, Health, Probers};
use crate::observe::Meters;
use crate::{Config, Error, exchange};

/// A transparent load balancer. One value serves TLS and plain listeners at once; what differs is
/// decided by [`Peer::tls`].
pub struct Proxy {
    site: Arc<Site>,
    _probers: Probers,
}

impl Proxy {
    /// Sets up a proxy and begins to probe its endpoints. Must be called inside a tokio runtime, and
    /// after [`moat_net::metrics::install`] if metrics are wanted.
    ///
    /// # Errors
    /// What in `config` no proxy can run with.
    pub fn new(config: Config) -> Result<Self, Error> {
        check(&config)?;
        let site = Arc::new(Site::new(config));
        let probers = health::probe_all(&site);
        Ok(Self {
            site,
            _probers: probers,
        })
    }

    /// Whether at least one endpoint is up: the proxy's own readiness.
    pub fn is_ready(&self) -> bool {
        self.site.balancer.any_up()
    }

    /// Each endpoint, whether it is up, and its requests in flight.
    pub fn status(&self) -> Vec<(Endpoint, bool, usize)> {
        let loads = self.site.balancer.loads();
        let endpoints = self.site.endpoints.iter();
        endpoints
            .zip(loads)
            .map(|(one, load)| {
                (
                    one.endpoint.clone(),
                    load.standing == Standing::Up,
                    load.in_flight,
                )
            })
            .collect()
    }
}

impl Service for Proxy {
    async fn call(&self, peer: &Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        exchange::answer(&self.site, peer, request).await
    }
}

fn check(config: &Config) -> Result<(), Error> {
    if config.upstreams.is_empty() {
        return Err(Error::NoUpstreams);
    }
    let mut seen = HashSet::new();
    for upstream in &config.upstreams {
        let endpoint = &upstream.endpoint;
        if !seen.insert(endpoint) {
            return Err(Error::DuplicateUpstream(endpoint.to_string()));
        }
        if endpoint.is_tls() && config.tls.is_none() {
            return Err(Error::NoTls(endpoint.to_string()));
        }
    }
    let path = &config.health.path;
    if !path.starts_with('/') || path.parse::<http::Uri>().is_err() {
        return Err(Error::HealthPath(path.clone()));
    }
    Ok(())
}

/// Endpoints that serve the same buckets, and how requests reach them.
pub(crate) struct Site {
    pub(crate) config: Config,
    pub(crate) endpoints: Vec<EndpointState>,
    pub(crate) client: HttpClient,
    /// Keeps no connections, see [`health`].
    pub(crate) probe_client: HttpClient,
    balancer: Balancer,
}

/// One endpoint and what is known of it, apart from its load.
pub(crate) struct EndpointState {
    pub(crate) endpoint: Endpoint,
    pub(crate) meters: Meters,
    pub(crate) ejected: Notify,
    health: Mutex<Health>,
}

impl Site {
    fn new(config: Config) -> Self {
        let state = |upstream: &crate::Upstream| EndpointState {
            meters: Meters::new(&upstream.endpoint),
            endpoint: upstream.endpoint.clone(),
            ejected: Notify::new(),
            health: Mutex::default(),
        };
        let client = ClientConfig {
            tls: config.tls.clone(),
            connect_timeout: config.connect_timeout,
            ..ClientConfig::default()
        };
        let probe_client = ClientConfig {
            idle_max: 0,
            ..client.clone()
        };
        Self {
            endpoints: config.upstreams.iter().map(state).collect(),
            client: HttpClient::new(client),
            probe_client: HttpClient::new(probe_client),
            balancer: Balancer::new(config.upstreams.len()),
            config,
        }
    }

    pub(crate) fn endpoint(&self, flight: &Flight) -> &EndpointState {
        &self.endpoints[flight.index]
    }

    pub(crate) fn is_up(&self, index: usize) -> bool {
        self.with_health(index, |health| health.is_up())
    }

    fn with_health<T>(&self, index: usize, act: impl FnOnce(&mut Health) -> T) -> T {
        let health = &self.endpoints[index].health;
        act(&mut health.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the outcome of a probe.
    pub(crate) fn probed(&self, index: usize, outcome: Result<(), String>) {
        let endpoint = &self.endpoints[index];
        if outcome.is_err() {
            endpoint.meters.health_errors.increment(1);
        }
        self.with_health(index, |health| {
            let change = health.probed(outcome.is_ok(), &self.config.health);
            self.apply(index, change, outcome.err().as_deref());
        });
    }

    /// Takes the outcome of a request.
    fn served(&self, index: usize, failure: Option<&ClientError>) {
        self.with_health(index, |health| {
            let change = health.served(failure.is_some());
            let reason = failure
                .filter(|_| change.is_some())
                .map(ToString::to_string);
            self.apply(index, change, reason.as_deref());
        });
    }

    /// Called with the endpoint's health locked, so that changes take effect in their order.
    fn apply(&self, index: usize, change: Option<Standing>, reason: Option<&str>) {
        let Some(standing) = change else {
            return;
        };
        let state = &self.endpoints[index];
        let endpoint = &state.endpoint;
        self.balancer.set_standing(index, standing);
        match standing {
            Standing::Up => {
                state.meters.up.set(1.0);
                tracing::info!(%endpoint, "endpoint is up");
            }
            Standing::Ejected => {
                state.meters.up.set(0.0);
                state.ejected.notify_one();
                tracing::warn!(%endpoint, reason, "endpoint fails requests and is set aside");
            }
            Standing::Down => {
                state.meters.up.set(0.0);
                self.client.close_idle(endpoint);
                tracing::warn!(%endpoint, reason, "endpoint is down");
            }
        }
    }
}

/// One request on one endpoint, counted until this is dropped.
pub(crate) struct Flight {
    site: Arc<Site>,
    index: usize,
}

impl Flight {
    /// Chooses an endpoint that was not tried yet. `None` if none is up.
    pub(crate) fn begin(site: &Arc<Site>, tried: &[usize]) -> Option<Self> {
        let index = site.balancer.begin(tried, &*site.config.random)?;
        site.endpoints[index].meters.in_flight.increment(1.0);
        Some(Self {
            site: Arc::clone(site),
            index,
        })
    }

    pub(crate) const fn index(&self) -> usize {
        self.index
    }

    /// The endpoint gave an answer, whatever it says.
    pub(crate) fn answered(&self, response: &Response<Body>) {
        self.site.served(self.index, None);
        if response.status().is_server_error() {
            self.site.endpoints[self.index].meters.errors.increment(1);
        }
    }

    /// The endpoint gave no answer.
    pub(crate) fn failed(&self, error: &ClientError) {
        let state = &self.site.endpoints[self.index];
        state.meters.errors.increment(1);
        tracing::debug!(endpoint = %state.endpoint, %error, "no answer");
        if health::is_endpoints_fault(error.kind(), error.reused()) {
            self.site.served(self.index, Some(error));
        }
    }

    /// The answer's body ended early. Says nothing about the next request, so it ejects nobody.
    pub(crate) fn failed_in_body(&self) {
        self.site.endpoints[self.index].meters.errors.increment(1);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.site.endpoints[self.index]
            .meters
            .in_flight
            .decrement(1.0);
        self.site.balancer.finish(self.index);
    }
}
