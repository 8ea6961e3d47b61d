//! Which endpoints are up: active probes with thresholds, and ejection by failing requests.
//!
//! An endpoint begins as usable, so that a proxy that starts before its first probe returned answers
//! no 503; requests that meet a dead endpoint are tried on the next one. A reload keeps that property.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use moat_net::{Body, ClientErrorKind};
use moat_types::Random;
use tokio::task::JoinHandle;

use crate::HealthConfig;
use crate::balance::Standing;
use crate::config::EJECT_AFTER;
use crate::proxy::Site;

/// What is known of one endpoint's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    standing: Standing,
    /// Whether any probe has returned.
    probed: bool,
    /// Probes in a row that contradict the present state.
    against: u32,
    /// Requests in a row that failed by the endpoint's fault.
    failures: u32,
}

impl Health {
    /// Whether the endpoint is up.
    pub fn is_up(&self) -> bool {
        self.standing == Standing::Up
    }

    /// Takes the result of a probe. Returns the new standing if it changed.
    pub fn probed(&mut self, good: bool, config: &HealthConfig) -> Option<Standing> {
        let first = !std::mem::replace(&mut self.probed, true);
        let (agrees, wanted) = match good {
            true => (self.is_up(), Standing::Up),
            false => (self.standing == Standing::Down, Standing::Down),
        };
        if agrees {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let needed = match (good, self.standing) {
            (true, _) => config.rise,
            // Requests have said the same before.
            (false, Standing::Ejected) => 1,
            (false, _) => config.fall,
        };
        // The first probe decides at once: nothing speaks for the state that was assumed.
        if self.against >= needed || first {
            self.turn(wanted)
        } else {
            None
        }
    }

    /// Takes the result of a real request: whether it failed by the endpoint's fault. Returns the new
    /// standing if it changed.
    pub fn served(&mut self, failed: bool) -> Option<Standing> {
        if !failed {
            self.failures = 0;
            return None;
        }
        self.failures += 1;
        if self.failures >= EJECT_AFTER && self.is_up() {
            self.turn(Standing::Ejected)
        } else {
            None
        }
    }

    fn turn(&mut self, standing: Standing) -> Option<Standing> {
        self.standing = standing;
        self.against = 0;
        self.failures = 0;
        Some(standing)
    }
}

/// Whether an error says something about the endpoint. What a client did wrong, and connections
/// closed for idleness, do not.
pub(crate) fn is_endpoints_fault(kind: ClientErrorKind, reused: bool) -> bool {
    match kind {
        ClientErrorKind::Connect
        | ClientErrorKind::ConnectTimeout
        | ClientErrorKind::Tls
        | ClientErrorKind::ResponseTimeout => true,
        ClientErrorKind::Closed | ClientErrorKind::NotSent => !reused,
        _ => false,
    }
}

/// Stops probing when dropped.
pub(crate) struct Probers(Vec<JoinHandle<()>>);

impl Drop for Probers {
    fn drop(&mut self) {
        for prober in &self.0 {
            prober.abort();
        }
    }
}

/// Probes all endpoints of a site, each in a task of its own.
pub(crate) fn probe_all(site: &Arc<Site>) -> Probers {
    let spawn = |index| tokio::spawn(probe_for_ever(Arc::clone(site), index));
    Probers((0..site.endpoints.len()).map(spawn).collect())
}

async fn probe_for_ever(site: Arc<Site>, index: usize) {
    let config = &site.config.health;
    loop {
        let outcome = probe(&site, index).await;
        site.probed(index, outcome);
        let every = |up| {
            if up {
                config.interval
            } else {
                config.interval_down
            }
        };
        let up = site.is_up(index);
        tokio::select! {
            () = tokio::time::sleep(jittered(every(up), &*site.config.random)) => {}
            // Ejected meanwhile: the long wait for a healthy endpoint no longer fits. It still waits
            // a while, or an endpoint that answers probes but no requests would come and go.
            () = site.endpoints[index].ejected.notified() => {
                tokio::time::sleep(jittered(config.interval_down, &*site.config.random)).await;
            }
        }
    }
}

/// `Err` says why the endpoint is not well.
async fn probe(site: &Site, index: usize) -> Result<(), String> {
    let config = &site.config.health;
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = config
        .path
        .parse::<Uri>()
        .map_err(|error| error.to_string())?;
    // A connection of its own: a probe shall also see whether new connections are accepted.
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    let answer = site
        .probe_client
        .send(&site.endpoints[index].endpoint, request);
    match tokio::time::timeout(config.timeout, answer).await {
        Ok(Ok(response)) if response.status() == StatusCode::OK => Ok(()),
        Ok(Ok(response)) => Err(format!("its health path answers {}", response.status())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer to a probe in {:?}", config.timeout)),
    }
}

/// `base` and up to a quarter more.
fn jittered(base: Duration, random: &dyn Random) -> Duration {
    let mut bytes = [0; 2];
    random.fill(&mut bytes);
    let share = f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX);
    base.mul_f64(1.0 + share / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HealthConfig {
        HealthConfig {
            fall: 2,
            rise: 2,
            ..HealthConfig::default()
        }
    }

    #[test]
    fn the_first_probe_decides_at_once() {
        let mut health = Health::default();
        assert!(health.is_up());
        assert_eq!(health.probed(false, &config()), Some(Standing::Down));
    }

    #[test]
    fn later_probes_need_as_many_in_a_row_as_the_thresholds_say() {
        let mut health = Health::default();
        assert_eq!(health.probed(true, &config()), None);
        assert_eq!(health.probed(false, &config()), None);
        assert_eq!(health.probed(true, &config()), None);
        assert_eq!(health.probed(false, &config()), None);
        assert_eq!(health.probed(false, &config()), Some(Standing::Down));
        assert_eq!(health.probed(true, &config()), None);
        assert_eq!(health.probed(true, &config()), Some(Standing::Up));
    }

    #[test]
    fn requests_eject_only_after_failures_in_a_row() {
        let mut health = Health::default();
        for _ in 1..EJECT_AFTER {
            assert_eq!(health.served(true), None);
        }
        assert_eq!(health.served(false), None);
        for _ in 1..EJECT_AFTER {
            assert_eq!(health.served(true), None);
        }
        assert_eq!(health.served(true), Some(Standing::Ejected));
        assert_eq!(health.served(true), None);
        assert_eq!(health.probed(true, &config()), Some(Standing::Up));
    }

    #[test]
    fn a_probe_settles_what_requests_began() {
        let mut health = Health::default();
        assert_eq!(health.probed(true, &config()), None);
        for _ in 1..EJECT_AFTER {
            assert_eq!(health.served(true), None);
        }
        assert_eq!(health.served(true), Some(Standing::Ejected));
        assert_eq!(health.probed(false, &config()), Some(Standing::Down));
    }

    #[test]
    fn a_clients_fault_is_not_the_endpoints() {
        assert!(is_endpoints_fault(ClientErrorKind::Connect, false));
        assert!(is_endpoints_fault(ClientErrorKind::Closed, false));
        assert!(!is_endpoints_fault(ClientErrorKind::Closed, true));
        assert!(!is_endpoints_fault(ClientErrorKind::RequestBody, false));
        assert!(!is_endpoints_fault(ClientErrorKind::BadAnswer, false));
    }
}
