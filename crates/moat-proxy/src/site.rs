//! The endpoints of one site, how requests reach them, and what becomes known of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{Gauge, gauge};
use moat_net::client::Preface;
use moat_net::{ClientConfig, ClientError, ClientErrorKind, HttpClient, proxy_protocol};
use moat_types::Random;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::balance::{Balancer, Standing};
use crate::config::{Lookup, ProxyProtocol, SiteConfig};
use crate::health::{self, Outcome};
use crate::observe::Meters;
use crate::probe::{ProbeError, probe_for_ever};
use crate::trace::Tracer;
use crate::{Config, resolve};

/// Endpoints that serve the same buckets.
pub(crate) struct Site {
    /// Its place in the order of sites, from 1: what people call it.
    pub(crate) number: usize,
    pub(crate) config: SiteConfig,
    pub(crate) client: HttpClient,
    /// Keeps no connections, see [`crate::probe`].
    pub(crate) probe_client: HttpClient,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) tracer: Option<Arc<Tracer>>,
    pub(crate) resolve_now: Notify,
    zone: Option<String>,
    proxy_protocol: Option<ProxyProtocol>,
    fail_back_after: Duration,
    dns_ttl: Duration,
    pub(crate) lookup: Lookup,
    backends: ArcSwap<Vec<Arc<Backend>>>,
    balancer: Balancer,
    service: Mutex<Service>,
    up: Gauge,
    tasks: Mutex<Tasks>,
}

/// Whether the site is one to send requests to.
#[derive(Clone, Copy, Debug)]
struct Service {
    up: bool,
    /// Since when it is up again; `None`: it never was away.
    returned: Option<Instant>,
}

#[derive(Default)]
struct Tasks {
    resolver: Option<JoinHandle<()>>,
    probers: Vec<(u64, JoinHandle<()>)>,
    stopped: bool,
}

impl Site {
    /// A site whose backends are those of `before` where they are the same endpoints.
    pub(crate) fn new(number: usize, config: &Config, before: Option<&Self>) -> Self {
        let site = &config.sites[number - 1];
        let client = ClientConfig {
            tls: site.tls.clone(),
            connect_timeout: config.connect_timeout,
            http2: config.upstream_http2,
            dialer: config.dialer.clone(),
            ..ClientConfig::default()
        };
        let probe_client = ClientConfig {
            idle_max: 0,
            connect_timeout: site.health.timeout,
            ..client.clone()
        };
        let alike = |other: &&Self| other.config.health == site.health && other.zone == config.zone;
        let kept = before.filter(alike).map(Self::backends);
        let kept = kept.as_deref().map_or(&[][..], Vec::as_slice);
        let mut backends = Vec::new();
        for upstream in &site.upstreams {
            let old = kept.iter().filter(|one| one.upstream == *upstream);
            let count = backends.len();
            backends.extend(old.cloned());
            if backends.len() == count {
                let meters = before.and_then(|site| site.meters_of(upstream));
                let meters =
                    meters.unwrap_or_else(|| Arc::new(Meters::new(&upstream.endpoint, number)));
                let local = is_local(upstream.zone.as_deref(), config.zone.as_deref());
                let endpoint = upstream.endpoint.clone();
                let backend = Backend::new(upstream, endpoint, meters, local, &site.health);
                backends.push(Arc::new(backend));
            }
        }
        let this = Self {
            number,
            client: HttpClient::new(client),
            probe_client: HttpClient::new(probe_client),
            random: Arc::clone(&config.random),
            tracer: config.tracer.clone(),
            resolve_now: Notify::new(),
            zone: config.zone.clone(),
            proxy_protocol: config.send_proxy_protocol,
            fail_back_after: config.fail_back_after,
            dns_ttl: config.dns_ttl,
            lookup: Arc::clone(&config.lookup),
            backends: ArcSwap::from_pointee(backends),
            balancer: Balancer::new(config.balance, config.slow_start),
            service: Mutex::new(before.map_or(
                Service {
                    up: true,
                    returned: None,
                },
                |site| *site.service(),
            )),
            up: gauge!("moat_proxy_site_up", "site" => number.to_string()),
            tasks: Mutex::default(),
            config: site.clone(),
        };
        this.note_service();
        this
    }

    /// Begins to probe the endpoints and to look up their names.
    pub(crate) fn start(self: &Arc<Self>) {
        for backend in self.backends().iter() {
            self.probe(backend);
        }
        if resolve::is_needed(&self.config.upstreams) {
            let resolver = tokio::spawn(resolve::for_ever(Arc::clone(self), self.dns_ttl));
            self.with_tasks(|tasks| tasks.resolver = Some(resolver));
        }
    }

    /// Ends probing. Requests that run are not touched.
    pub(crate) fn stop(&self) {
        self.with_tasks(|tasks| {
            tasks.stopped = true;
            tasks.resolver.iter().for_each(JoinHandle::abort);
            tasks.probers.iter().for_each(|(_, task)| task.abort());
            tasks.probers.clear();
        });
    }

    fn probe(self: &Arc<Self>, backend: &Arc<Backend>) {
        let task = tokio::spawn(probe_for_ever(Arc::clone(self), Arc::clone(backend)));
        self.with_tasks(|tasks| {
            if tasks.stopped {
                task.abort();
            } else {
                tasks.probers.push((backend.id, task));
            }
        });
    }

    fn with_tasks<T>(&self, act: impl FnOnce(&mut Tasks) -> T) -> T {
        act(&mut self.tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn backends(&self) -> Arc<Vec<Arc<Backend>>> {
        self.backends.load_full()
    }

    /// Replaces the backends. Those that are gone take no new request; what runs on them, goes on.
    pub(crate) fn set_backends(self: &Arc<Self>, wanted: Vec<Arc<Backend>>) {
        let before = self.backends.swap(Arc::new(wanted));
        let now = self.backends();
        let holds = |all: &[Arc<Backend>], id: u64| all.iter().any(|one| one.id == id);
        for gone in before.iter().filter(|one| !holds(&now, one.id)) {
            self.client.close_idle(&gone.endpoint);
            self.with_tasks(|tasks| {
                tasks.probers.retain(|(id, task)| {
                    if *id == gone.id {
                        task.abort();
                    }
                    *id != gone.id
                });
            });
        }
        for new in now.iter().filter(|one| !holds(&before, one.id)) {
            self.probe(new);
        }
        self.note_service();
    }

    fn meters_of(&self, upstream: &crate::Upstream) -> Option<Arc<Meters>> {
        let backends = self.backends();
        let same = |one: &&Arc<Backend>| one.upstream.endpoint == upstream.endpoint;
        backends
            .iter()
            .find(same)
            .map(|one| Arc::clone(&one.meters))
    }

    /// A backend for an endpoint of this site.
    pub(crate) fn backend_for(
        &self,
        upstream: &crate::Upstream,
        endpoint: moat_net::Endpoint,
    ) -> Arc<Backend> {
        let meters = self
            .meters_of(upstream)
            .unwrap_or_else(|| Arc::new(Meters::new(&upstream.endpoint, self.number)));
        let local = is_local(upstream.zone.as_deref(), self.zone.as_deref());
        let health = &self.config.health;
        Arc::new(Backend::new(upstream, endpoint, meters, local, health))
    }

    /// Chooses a backend that was not tried yet and counts a request on it.
    pub(crate) fn begin(&self, tried: &[u64]) -> Option<Arc<Backend>> {
        let backends = self.backends.load();
        let excluded = |backend: &Arc<Backend>| tried.contains(&backend.id);
        self.balancer
            .begin(&backends, excluded, &*self.random)
            .map(Arc::clone)
    }

    /// Whether any endpoint is up.
    pub(crate) fn is_up(&self) -> bool {
        self.backends.load().iter().any(|backend| backend.is_up())
    }

    /// Whether it is up and has been for long enough to be given its requests back.
    pub(crate) fn is_settled(&self) -> bool {
        let service = *self.service();
        service.up
            && service
                .returned
                .is_none_or(|since| since.elapsed() >= self.fail_back_after)
    }

    fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the site came or went.
    fn note_service(&self) {
        let up = self.is_up();
        let mut service = self.service();
        if up && !service.up {
            service.returned = Some(Instant::now());
        }
        service.up = up;
        self.up.set(f64::from(u8::from(up)));
    }

    /// What opens the connection of a probe.
    pub(crate) fn preface_of_probes(&self) -> Option<Preface> {
        Some(Preface(match self.proxy_protocol? {
            ProxyProtocol::V1 => proxy_protocol::encode_v1(None),
            ProxyProtocol::V2 => proxy_protocol::encode_v2(None),
        }))
    }

    /// Takes the outcome of a probe.
    pub(crate) fn probed(&self, backend: &Arc<Backend>, outcome: Result<(), ProbeError>) {
        backend.meters.probed(outcome.is_ok());
        if let Err(ProbeError::Silent(_)) = outcome
            && backend.endpoint != backend.upstream.endpoint
        {
            // The name may stand for another address by now.
            self.resolve_now.notify_one();
        }
        let reason = outcome.as_ref().err().map(ProbeError::text);
        self.judge(
            backend,
            |health| health.probed(outcome.is_ok(), &self.config.health),
            reason,
        );
        let silent = matches!(outcome, Err(ProbeError::Silent(_)));
        backend.set_silent(silent && backend.slot.standing() == Standing::Down);
    }

    /// Takes the outcome of a request.
    pub(crate) fn served(&self, backend: &Arc<Backend>, outcome: Outcome, reason: &str) {
        let spare = outcome != Outcome::Busy || self.can_spare_one();
        self.judge(
            backend,
            |health| health.served(outcome, spare),
            Some(reason),
        );
    }

    /// Takes a failed attempt.
    pub(crate) fn failed(&self, backend: &Arc<Backend>, error: &ClientError) {
        if error.reused() && error.kind() == ClientErrorKind::Closed {
            // The connection that was used last had been closed. All that are kept are older: a request
            // that met them one after the other would use up its attempts.
            self.client.close_idle(&backend.endpoint);
        }
        if health::is_endpoints_fault(error.kind(), error.reused()) {
            self.served(backend, Outcome::Failed, &error.to_string());
        }
    }

    /// Whether more than half of the endpoints stay up without one of them: a burst of 503 from all
    /// of them is overload, and fewer endpoints would make it worse.
    fn can_spare_one(&self) -> bool {
        let backends = self.backends.load();
        let up = backends.iter().filter(|one| one.is_up()).count();
        up.saturating_sub(1) * 2 >= backends.len() && up > 1
    }

    fn judge(
        &self,
        backend: &Arc<Backend>,
        judge: impl FnOnce(&mut health::Health) -> Option<Standing>,
        reason: Option<&str>,
    ) {
        backend.judge(judge, |standing, downtime| {
            self.changed(backend, standing, downtime, reason);
        });
    }

    fn changed(
        &self,
        backend: &Arc<Backend>,
        standing: Standing,
        downtime: Duration,
        reason: Option<&str>,
    ) {
        let (endpoint, address) = (&backend.upstream.endpoint, backend.endpoint.address());
        let site = self.number;
        match standing {
            Standing::Up => {
                tracing::info!(%endpoint, ?address, site, ?downtime, "endpoint is up");
            }
            Standing::Ejected => {
                backend.meters.ejected();
                backend.ejected.notify_one();
                tracing::warn!(%endpoint, ?address, site, reason, "endpoint fails requests and is set aside");
            }
            Standing::Down => {
                self.client.close_idle(&backend.endpoint);
                tracing::warn!(%endpoint, ?address, site, reason, "endpoint is down");
            }
        }
        if let Some(tracer) = &self.tracer {
            tracer.change(backend, standing, downtime, reason);
        }
        let any_up = self
            .backends
            .load()
            .iter()
            .any(|one| one.upstream.endpoint == *endpoint && one.is_up());
        backend.meters.up.set(f64::from(u8::from(any_up)));
        self.note_service();
    }
}

fn is_local(of_endpoint: Option<&str>, own: Option<&str>) -> bool {
    of_endpoint.is_some() && of_endpoint == own
}
