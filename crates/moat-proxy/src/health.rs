//! Which endpoints are up: active probes with thresholds, and ejection by failing requests.
//!
//! An endpoint begins as usable, so that a proxy that starts before its first probe returned answers
//! no 503; requests that meet a dead endpoint are tried on the next one. A reload keeps that property.

use std::time::Duration;

use moat_net::ClientErrorKind;

use crate::HealthConfig;
use crate::balance::Standing;
use crate::config::{EJECT_AFTER, EJECT_AFTER_BUSY, EJECTION_MAX};

/// Good answers in a row after which earlier ejections are forgotten.
const FORGIVEN_AFTER: u32 = 100;

/// What a request says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, whatever it says.
    Answered,
    /// An answer of 503: too much to do, or parts are missing.
    Busy,
    /// No answer, by the endpoint's fault.
    Failed,
}

/// What is known of one endpoint's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    standing: Standing,
    /// Whether any probe has returned, or a request was answered.
    known: bool,
    /// Probes in a row that contradict the present state.
    against: u32,
    /// Requests in a row that failed by the endpoint's fault.
    failures: u32,
    /// Answers of 503 in a row.
    busy: u32,
    /// Ejections since it last worked for a while.
    ejections: u32,
    answered: u32,
}

impl Health {
    /// Whether the endpoint is up.
    pub fn is_up(&self) -> bool {
        self.standing == Standing::Up
    }

    /// Takes the result of a probe. Returns the new standing if it changed.
    pub fn probed(&mut self, good: bool, config: &HealthConfig) -> Option<Standing> {
        let first = !std::mem::replace(&mut self.known, true);
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
        // The first probe decides at once, unless requests have said something: nothing else speaks for
        // the state that was assumed. An endpoint that answers and is just being restarted is no dead one.
        if self.against >= needed || (first && self.standing != Standing::Ejected) {
            self.turn(wanted)
        } else {
            None
        }
    }

    /// Takes the outcome of a real request. Returns the new standing if it changed. `spare`: whether
    /// the site can do without this endpoint for a while; it can't do without many that are busy.
    pub fn served(&mut self, outcome: Outcome, spare: bool) -> Option<Standing> {
        match outcome {
            Outcome::Answered => {
                self.known = true;
                (self.failures, self.busy) = (0, 0);
                self.answered += 1;
                if self.answered >= FORGIVEN_AFTER {
                    (self.answered, self.ejections) = (0, 0);
                }
                return None;
            }
            Outcome::Busy => {
                self.failures = 0;
                self.busy += 1;
            }
            Outcome::Failed => self.failures += 1,
        }
        self.answered = 0;
        let burst = self.busy >= EJECT_AFTER_BUSY && spare;
        if (self.failures >= EJECT_AFTER || burst) && self.is_up() {
            self.ejections += 1;
            self.turn(Standing::Ejected)
        } else {
            None
        }
    }

    /// How long an ejected endpoint waits for the probe that may bring it back: longer each time, or an
    /// endpoint that answers probes but no requests would come and go.
    pub fn quarantine(&self, config: &HealthConfig) -> Duration {
        let doublings = self.ejections.saturating_sub(1).min(16);
        config
            .interval_down
            .saturating_mul(1 << doublings)
            .min(EJECTION_MAX.max(config.interval_down))
    }

    fn turn(&mut self, standing: Standing) -> Option<Standing> {
        self.standing = standing;
        self.against = 0;
        self.failures = 0;
        self.busy = 0;
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

    fn fails(health: &mut Health, times: u32) -> Option<Standing> {
        (0..times).fold(None, |_, _| health.served(Outcome::Failed, true))
    }

    #[test]
    fn the_first_probe_decides_at_once() {
        let mut health = Health::default();
        assert!(health.is_up());
        assert_eq!(health.probed(false, &config()), Some(Standing::Down));
    }

    #[test]
    fn a_first_probe_does_not_outweigh_an_answered_request() {
        let mut health = Health::default();
        assert_eq!(health.served(Outcome::Answered, true), None);
        assert_eq!(health.probed(false, &config()), None);
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
        assert_eq!(fails(&mut health, EJECT_AFTER - 1), None);
        assert_eq!(health.served(Outcome::Answered, true), None);
        assert_eq!(fails(&mut health, EJECT_AFTER - 1), None);
        assert_eq!(fails(&mut health, 1), Some(Standing::Ejected));
        assert_eq!(fails(&mut health, 1), None);
        assert_eq!(health.probed(true, &config()), None);
        assert_eq!(health.probed(true, &config()), Some(Standing::Up));
    }

    #[test]
    fn a_probe_settles_what_requests_began() {
        let mut health = Health::default();
        assert_eq!(health.probed(true, &config()), None);
        assert_eq!(fails(&mut health, EJECT_AFTER), Some(Standing::Ejected));
        assert_eq!(health.probed(false, &config()), Some(Standing::Down));
    }

    #[test]
    fn only_a_burst_of_busy_answers_ejects_and_only_if_others_remain() {
        let mut health = Health::default();
        let busy = |health: &mut Health, times, spare| {
            (0..times).fold(None, |_, _| health.served(Outcome::Busy, spare))
        };
        assert_eq!(busy(&mut health, EJECT_AFTER_BUSY - 1, true), None);
        assert_eq!(health.served(Outcome::Answered, true), None);
        assert_eq!(busy(&mut health, EJECT_AFTER_BUSY * 3, false), None);
        assert_eq!(busy(&mut health, 1, true), Some(Standing::Ejected));
    }

    #[test]
    fn each_ejection_lasts_longer_until_it_worked_for_a_while() {
        let config = HealthConfig {
            rise: 1,
            ..config()
        };
        let mut health = Health::default();
        let mut lasts = Vec::new();
        for _ in 0..8 {
            fails(&mut health, EJECT_AFTER);
            lasts.push(health.quarantine(&config).as_secs());
            assert_eq!(health.probed(true, &config), Some(Standing::Up));
        }
        assert_eq!(lasts, [1, 2, 4, 8, 16, 30, 30, 30]);
        for _ in 0..FORGIVEN_AFTER {
            health.served(Outcome::Answered, true);
        }
        fails(&mut health, EJECT_AFTER);
        assert_eq!(health.quarantine(&config).as_secs(), 1);
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
