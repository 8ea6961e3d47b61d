//! The Prometheus recorder of the process and its text.

use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderValue, Response, header::CONTENT_TYPE};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{Body, Error};

/// Bucket bounds of all `*_seconds` histograms: from a metadata read to a slow multipart.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0,
];
/// How often samples that nobody scraped are folded into their histograms, which bounds their memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder that the `metrics` macros write to. Once per process; later calls do
/// nothing. Samples recorded before are lost.
///
/// # Errors
/// `Error::MetricsRecorder` if somebody installed another recorder.
pub fn install() -> Result<(), Error> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)
        .map_err(|_| Error::MetricsRecorder)?
        // Seconds as well, under a name that others gave.
        .set_buckets_for_metric(Matcher::Suffix("_response_time".into()), &SECONDS)
        .map_err(|_| Error::MetricsRecorder)?
        .install_recorder()
        .map_err(|_| Error::MetricsRecorder)?;
    let _ = HANDLE.set(handle);
    Ok(())
}

/// All metrics in Prometheus' text format; empty before [`install`].
pub fn render() -> String {
    HANDLE
        .get()
        .map(PrometheusHandle::render)
        .unwrap_or_default()
}

/// The metrics whose names begin with `prefix`.
pub fn render_prefix(prefix: &str) -> String {
    let wanted = |line: &&str| {
        let name = line
            .strip_prefix("# TYPE ")
            .or_else(|| line.strip_prefix("# HELP "))
            .unwrap_or(line);
        name.starts_with(prefix)
    };
    let all = render();
    all.lines()
        .filter(wanted)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// [`render`] as a response.
pub fn response() -> Response<Body> {
    text_response(render())
}

/// Metrics in text as a response.
pub fn text_response(text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// Folds samples into histograms from time to time, so that a server that nobody scrapes keeps
/// its memory. Runs for ever; spawn it once per process.
pub async fn upkeep() {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        if let Some(handle) = HANDLE.get() {
            handle.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_samples_are_rendered() {
        install().unwrap();
        install().unwrap();
        metrics::counter!("moat_test_total", "label" => "x").increment(2);
        assert!(render().contains("moat_test_total{label=\"x\"} 2"));
        metrics::histogram!("other_response_time").record(0.2);
        let other = render_prefix("other_");
        assert!(other.contains("# TYPE other_response_time histogram\n"));
        assert!(other.contains("other_response_time_count 1\n"));
        assert!(!other.contains("moat_test_total"));
    }
}
