//! What is known of all endpoints, as a page for programs and people.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::balance::Standing;
use crate::observe::Figures;
use crate::proxy::State;
use crate::site::Site;

/// The state of a proxy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether requests are served.
    pub ready: bool,
    /// The site that new requests go to, from 1.
    pub active_site: Option<usize>,
    /// All sites in their order.
    pub sites: Vec<SiteStatus>,
}

/// One site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// Its place in the order, from 1.
    pub site: usize,
    /// Whether one of its endpoints is up.
    pub up: bool,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its URL.
    pub endpoint: String,
    /// Its share beside others.
    pub weight: u32,
    /// Where it stands, if that was said.
    pub zone: Option<String>,
    /// The addresses of its name, each with its own state.
    pub addresses: Vec<AddressStatus>,
    /// Requests sent to it.
    pub requests: u64,
    /// Answers of 500 and above, and none.
    pub errors: u64,
    /// Requests that were tried elsewhere after it failed them.
    pub retries: u64,
    /// How often it was set aside.
    pub ejections: u64,
    /// Health checks that failed.
    pub health_errors: u64,
    /// Bytes sent to it.
    pub rx_bytes: u64,
    /// Bytes that came from it.
    pub tx_bytes: u64,
    /// Half of the answers began within this time, to a factor of two.
    pub p50_ms: Option<f64>,
    /// All but a hundredth did.
    pub p99_ms: Option<f64>,
}

/// One address of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddressStatus {
    /// The address; `None` until the name was looked up.
    pub address: Option<String>,
    /// `up`, `ejected` or `down`.
    pub state: AddressState,
    /// Requests in flight.
    pub in_flight: usize,
    /// Seconds that it was not up, altogether and the last time.
    pub downtime_seconds: f64,
    /// See `downtime_seconds`.
    pub last_downtime_seconds: f64,
}

/// Whether an address takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressState {
    /// Like any other.
    Up,
    /// If there is no other.
    Ejected,
    /// Not.
    Down,
}

impl EndpointStatus {
    /// Whether one of its addresses is up.
    pub fn is_up(&self) -> bool {
        self.addresses
            .iter()
            .any(|one| one.state == AddressState::Up)
    }

    /// Requests in flight on all of its addresses.
    pub fn in_flight(&self) -> usize {
        self.addresses.iter().map(|one| one.in_flight).sum()
    }
}

pub(crate) fn of(state: &State, ready: bool) -> Status {
    Status {
        ready,
        active_site: state.active(),
        sites: state.sites.iter().map(|site| of_site(site)).collect(),
    }
}

fn of_site(site: &Site) -> SiteStatus {
    let mut endpoints: Vec<EndpointStatus> = Vec::new();
    let mut last = None;
    for backend in site.backends().iter() {
        // The addresses of one endpoint follow one another.
        if last != Some(backend.upstream.clone()) {
            endpoints.push(of_endpoint(backend));
            last = Some(backend.upstream.clone());
        }
        if let Some(endpoint) = endpoints.last_mut() {
            endpoint.addresses.push(of_address(backend));
        }
    }
    SiteStatus {
        site: site.number,
        up: site.is_up(),
        endpoints,
    }
}

fn of_endpoint(backend: &Backend) -> EndpointStatus {
    let figures: &Figures = &backend.meters.figures;
    let quantile = |share| {
        let time = figures.latency.quantile(share)?;
        Some(millis(time))
    };
    EndpointStatus {
        endpoint: backend.upstream.endpoint.to_string(),
        weight: backend.upstream.weight,
        zone: backend.upstream.zone.clone(),
        addresses: Vec::new(),
        requests: figures.requests.load(Relaxed),
        errors: figures.errors.load(Relaxed),
        retries: figures.retries.load(Relaxed),
        ejections: figures.ejections.load(Relaxed),
        health_errors: figures.health_errors.load(Relaxed),
        rx_bytes: figures.rx_bytes.load(Relaxed),
        tx_bytes: figures.tx_bytes.load(Relaxed),
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
    }
}

fn of_address(backend: &Backend) -> AddressStatus {
    let down = backend.downtime();
    let present = down.since.map_or(Duration::ZERO, |since| since.elapsed());
    AddressStatus {
        address: backend.endpoint.address().map(|ip| ip.to_string()),
        state: match backend.slot.standing() {
            Standing::Up => AddressState::Up,
            Standing::Ejected => AddressState::Ejected,
            Standing::Down => AddressState::Down,
        },
        in_flight: backend.slot.in_flight(),
        downtime_seconds: (down.total + present).as_secs_f64(),
        last_downtime_seconds: down.since.map_or(down.last, |_| present).as_secs_f64(),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
