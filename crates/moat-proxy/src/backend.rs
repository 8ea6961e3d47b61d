//! One address of one endpoint: its load, its health, its figures.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moat_net::Endpoint;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::balance::{HasSlot, Slot, Standing};
use crate::health::Health;
use crate::observe::Meters;
use crate::{HealthConfig, Upstream};

static IDS: AtomicU64 = AtomicU64::new(1);

/// Where requests can go.
pub(crate) struct Backend {
    /// Tells backends apart for as long as the process lives.
    pub(crate) id: u64,
    /// As it was configured.
    pub(crate) upstream: Upstream,
    /// The same at one address, if its host is a name with addresses.
    pub(crate) endpoint: Endpoint,
    /// Where its health path is.
    pub(crate) probe_endpoint: Endpoint,
    /// Shared by all addresses of an endpoint.
    pub(crate) meters: Arc<Meters>,
    pub(crate) slot: Slot,
    /// Wakes its prober.
    pub(crate) ejected: Notify,
    state: Mutex<State>,
    /// Whether it is down and gives no answer even to probes.
    silent: AtomicBool,
}

#[derive(Default)]
struct State {
    health: Health,
    down: Downtime,
}

/// When it was down, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Downtime {
    pub(crate) since: Option<Instant>,
    pub(crate) last: Duration,
    pub(crate) total: Duration,
}

impl Backend {
    pub(crate) fn new(
        upstream: &Upstream,
        endpoint: Endpoint,
        meters: Arc<Meters>,
        local: bool,
        health: &HealthConfig,
    ) -> Self {
        Self {
            id: IDS.fetch_add(1, Relaxed),
            upstream: upstream.clone(),
            probe_endpoint: match health.port {
                Some(port) => endpoint.with_port(port),
                None => endpoint.clone(),
            },
            endpoint,
            meters,
            slot: Slot::new(upstream.weight, local),
            ejected: Notify::new(),
            state: Mutex::default(),
            silent: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.slot.standing() == Standing::Up
    }

    /// Whether it is down and gives no answer even to probes. What waits for it waits in vain.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Relaxed);
    }

    pub(crate) fn quarantine(&self, config: &HealthConfig) -> Duration {
        self.state().health.quarantine(config)
    }

    pub(crate) fn downtime(&self) -> Downtime {
        self.state().down
    }

    /// Has `judge` change the health. If the standing changed, it is in force when this returns, and
    /// `changed` was called with it and how long the endpoint had been down. All under one lock, so
    /// that changes take effect in their order.
    pub(crate) fn judge(
        &self,
        judge: impl FnOnce(&mut Health) -> Option<Standing>,
        changed: impl FnOnce(Standing, Duration),
    ) {
        let mut state = self.state();
        let Some(standing) = judge(&mut state.health) else {
            return;
        };
        self.slot.set_standing(standing);
        let down = &mut state.down;
        match (standing, down.since) {
            (Standing::Up, Some(since)) => {
                down.last = since.elapsed();
                down.total += down.last;
                down.since = None;
            }
            (Standing::Up, None) => {}
            (_, None) => down.since = Some(Instant::now()),
            (_, Some(_)) => {}
        }
        changed(standing, down.last);
    }
}

impl HasSlot for Arc<Backend> {
    fn slot(&self) -> &Slot {
        &self.slot
    }
}
