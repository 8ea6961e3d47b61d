//! Metrics of one endpoint. Handles are made once; recording is an atomic addition.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use moat_net::Endpoint;

/// What is counted per endpoint, labelled with its URL.
pub(crate) struct Meters {
    /// Requests sent to it, health checks apart.
    pub(crate) requests: Counter,
    /// Requests that it gave no answer to, and answers of 500 and above.
    pub(crate) errors: Counter,
    /// Requests that were tried elsewhere after it failed them.
    pub(crate) retries: Counter,
    /// Failed health checks.
    pub(crate) health_errors: Counter,
    /// Requests whose answer has not ended.
    pub(crate) in_flight: Gauge,
    /// 1 if it may be chosen.
    pub(crate) up: Gauge,
    /// Body bytes towards it and from it.
    pub(crate) rx_bytes: Counter,
    pub(crate) tx_bytes: Counter,
    /// From the request to the head of the answer.
    pub(crate) seconds: Histogram,
}

impl Meters {
    pub(crate) fn new(endpoint: &Endpoint) -> Self {
        let label = endpoint.to_string();
        let meters = Self {
            requests: counter!("moat_proxy_requests_total", "endpoint" => label.clone()),
            errors: counter!("moat_proxy_errors_total", "endpoint" => label.clone()),
            retries: counter!("moat_proxy_retries_total", "endpoint" => label.clone()),
            health_errors: counter!("moat_proxy_health_errors_total", "endpoint" => label.clone()),
            in_flight: gauge!("moat_proxy_in_flight", "endpoint" => label.clone()),
            up: gauge!("moat_proxy_up", "endpoint" => label.clone()),
            rx_bytes: counter!("moat_proxy_rx_bytes_total", "endpoint" => label.clone()),
            tx_bytes: counter!("moat_proxy_tx_bytes_total", "endpoint" => label.clone()),
            seconds: histogram!("moat_proxy_request_seconds", "endpoint" => label),
        };
        // Present from the first scrape on, so that alerts on a missing series work.
        meters.up.set(1.0);
        meters.in_flight.set(0.0);
        meters
    }
}
