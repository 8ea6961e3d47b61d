//! Figures of one endpoint, over all addresses of its name.
//!
//! They are kept twice: as Prometheus metrics of the process under `moat_proxy_*`, and as plain numbers
//! for the status page, `moat proxy top` and Sidekick's metric names. Recording is a few atomic
//! additions; handles are made once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::Method;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use moat_net::Endpoint;

/// What is counted per endpoint.
pub(crate) struct Meters {
    /// 1 if one of its addresses may be chosen like any other.
    pub(crate) up: Gauge,
    pub(crate) figures: Figures,
    requests: Counter,
    errors: Counter,
    retries: Counter,
    ejections: Counter,
    health_errors: Counter,
    in_flight: Gauge,
    rx_bytes: Counter,
    tx_bytes: Counter,
    seconds: [Histogram; Class::ALL.len()],
}

/// The same as plain numbers.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Requests sent to it.
    pub(crate) requests: AtomicU64,
    /// Requests that it gave no whole answer to, and answers of 500 and above.
    pub(crate) errors: AtomicU64,
    /// Answers of 400 and above, and none: what Sidekick calls an error.
    pub(crate) refused: AtomicU64,
    /// Requests that were tried elsewhere after it failed them.
    pub(crate) retries: AtomicU64,
    /// How often it was set aside.
    pub(crate) ejections: AtomicU64,
    /// Health checks, and those of them that failed.
    pub(crate) probes: AtomicU64,
    pub(crate) health_errors: AtomicU64,
    /// Bytes towards it and from it, heads included.
    pub(crate) rx_bytes: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    pub(crate) latency: Latency,
}

/// Kinds of requests whose latencies differ by nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Head,
    Get,
    Put,
    Post,
    Delete,
    Other,
}

impl Class {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Head, "head"),
        (Self::Get, "get"),
        (Self::Put, "put"),
        (Self::Post, "post"),
        (Self::Delete, "delete"),
        (Self::Other, "other"),
    ];

    pub(crate) fn of(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::GET => Self::Get,
            Method::PUT => Self::Put,
            Method::POST => Self::Post,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }
}

impl Meters {
    pub(crate) fn new(endpoint: &Endpoint, site: usize) -> Self {
        let (endpoint, site) = (endpoint.to_string(), site.to_string());
        macro_rules! labelled {
            ($kind:ident, $name:literal) => {
                $kind!($name, "endpoint" => endpoint.clone(), "site" => site.clone())
            };
        }
        let meters = Self {
            requests: labelled!(counter, "moat_proxy_requests_total"),
            errors: labelled!(counter, "moat_proxy_errors_total"),
            retries: labelled!(counter, "moat_proxy_retries_total"),
            ejections: labelled!(counter, "moat_proxy_ejections_total"),
            health_errors: labelled!(counter, "moat_proxy_health_errors_total"),
            in_flight: labelled!(gauge, "moat_proxy_in_flight"),
            up: labelled!(gauge, "moat_proxy_up"),
            rx_bytes: labelled!(counter, "moat_proxy_rx_bytes_total"),
            tx_bytes: labelled!(counter, "moat_proxy_tx_bytes_total"),
            seconds: Class::ALL.map(|(_, class)| {
                histogram!("moat_proxy_request_seconds", "endpoint" => endpoint.clone(), "site" => site.clone(), "class" => class)
            }),
            figures: Figures::default(),
        };
        // Present from the first scrape on, so that alerts on a missing series work.
        meters.up.set(1.0);
        meters.in_flight.increment(0.0);
        for counter in [
            &meters.requests,
            &meters.errors,
            &meters.retries,
            &meters.ejections,
            &meters.health_errors,
        ] {
            counter.increment(0);
        }
        meters
    }

    /// A request is sent.
    pub(crate) fn begin(&self) {
        self.requests.increment(1);
        self.in_flight.increment(1.0);
        self.figures.requests.fetch_add(1, Relaxed);
    }

    /// A request is over, whatever came of it.
    pub(crate) fn end(&self) {
        self.in_flight.decrement(1.0);
    }

    /// The head of an answer came.
    pub(crate) fn answered(&self, class: Class, after: Duration, status: http::StatusCode) {
        self.seconds[class as usize].record(after.as_secs_f64());
        self.figures.latency.record(after);
        if status.is_server_error() {
            self.errors.increment(1);
            self.figures.errors.fetch_add(1, Relaxed);
        }
        if status.as_u16() >= 400 {
            self.figures.refused.fetch_add(1, Relaxed);
        }
    }

    /// No answer came, or only a part of one.
    pub(crate) fn failed(&self) {
        self.errors.increment(1);
        self.figures.errors.fetch_add(1, Relaxed);
        self.figures.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.increment(1);
        self.figures.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn ejected(&self) {
        self.ejections.increment(1);
        self.figures.ejections.fetch_add(1, Relaxed);
    }

    pub(crate) fn probed(&self, good: bool) {
        self.figures.probes.fetch_add(1, Relaxed);
        if !good {
            self.health_errors.increment(1);
            self.figures.health_errors.fetch_add(1, Relaxed);
        }
    }

    /// Bytes went to the endpoint.
    pub(crate) fn sent(&self, bytes: u64) {
        self.rx_bytes.increment(bytes);
        self.figures.rx_bytes.fetch_add(bytes, Relaxed);
    }

    /// Bytes came from it.
    pub(crate) fn received(&self, bytes: u64) {
        self.tx_bytes.increment(bytes);
        self.figures.tx_bytes.fetch_add(bytes, Relaxed);
    }
}

/// Powers of two of microseconds: the last bucket begins at over an hour.
const BUCKETS: usize = 33;

/// How long answers took, coarsely: each bucket is twice the one before.
#[derive(Debug)]
pub(crate) struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latency {
    fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Relaxed);
    }

    /// The time that this share of answers stayed under, to within a factor of two. `None` without
    /// answers.
    pub(crate) fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|one| one.load(Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        (all > 0).then(|| Duration::from_micros(1 << bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_factor_of_two() {
        let latency = Latency::default();
        assert_eq!(latency.quantile(0.5), None);
        for _ in 0..98 {
            latency.record(Duration::from_micros(700));
        }
        latency.record(Duration::from_millis(90));
        latency.record(Duration::from_secs(10_000_000));
        let at = |share| latency.quantile(share).unwrap();
        assert!((700..=1400).contains(&at(0.5).as_micros()));
        assert!((90..=180).contains(&at(0.99).as_millis()));
        assert!(at(1.0) > Duration::from_secs(3600));
    }

    #[test]
    fn each_class_has_its_histogram() {
        for (index, (class, _)) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index);
        }
        assert_eq!(Class::of(&Method::PATCH), Class::Other);
    }
}
