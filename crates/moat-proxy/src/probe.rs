//! Active health checks: one task for each backend asks its health path from time to time.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use moat_net::Body;
use moat_types::Random;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::site::Site;

/// MinIO answers 200 on its health paths before its storage is there, and says so in this header.
const SERVER_STATUS: HeaderName = HeaderName::from_static("x-minio-server-status");

/// Why an endpoint is not well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProbeError {
    /// It answers, but not what it should.
    Unwell(String),
    /// It does not answer.
    Silent(String),
}

impl ProbeError {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Unwell(text) | Self::Silent(text) => text,
        }
    }
}

/// Probes `backend` for ever. Ends when the site's tasks are aborted.
pub(crate) async fn probe_for_ever(site: Arc<Site>, backend: Arc<Backend>) {
    loop {
        let began = Instant::now();
        let outcome = probe(&site, &backend).await;
        if let Some(tracer) = &site.tracer {
            tracer.probe(
                &backend,
                &site.config.health.path,
                &outcome,
                began.elapsed(),
            );
        }
        site.probed(&backend, outcome);
        wait(&site, &backend).await;
    }
}

/// Waits until the next probe is due.
async fn wait(site: &Site, backend: &Backend) {
    let config = &site.config.health;
    let pause = |base| tokio::time::sleep(jittered(base, &*site.random));
    let up = backend.is_up();
    let base = if up {
        config.interval
    } else {
        config.interval_down
    };
    tokio::select! {
        // Not by chance, so that a simulation can be run again.
        biased;
        // The wait for a healthy endpoint no longer fits. Some wait must be, or an endpoint that answers
        // probes but no requests would come and go.
        () = backend.ejected.notified() => pause(backend.quarantine(config)).await,
        () = pause(base), if !(up && config.optimistic) => {}
    }
}

async fn probe(site: &Site, backend: &Backend) -> Result<(), ProbeError> {
    let config = &site.config.health;
    let unwell = |text: String| Err(ProbeError::Unwell(text));
    let path = format!("{}{}", backend.upstream.health_prefix, config.path);
    let Ok(uri) = path.parse::<Uri>() else {
        return unwell(format!("{path} is no path"));
    };
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    // A connection of its own: a probe shall also see whether new connections are accepted.
    request
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(preface) = site.preface_of_probes() {
        request.extensions_mut().insert(preface);
    }
    let answer = site.probe_client.send(&backend.probe_endpoint, request);
    match tokio::time::timeout(config.timeout, answer).await {
        Ok(Ok(response)) => judge(response),
        Ok(Err(error)) => Err(ProbeError::Silent(error.to_string())),
        Err(_) => Err(ProbeError::Silent(format!(
            "no answer to a probe in {:?}",
            config.timeout
        ))),
    }
}

fn judge(response: Response<Body>) -> Result<(), ProbeError> {
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(ProbeError::Unwell(format!(
            "its health path answers {status}"
        )));
    }
    match response.headers().get(SERVER_STATUS) {
        Some(status) if status.as_bytes().eq_ignore_ascii_case(b"offline") => {
            let text = "its health path answers 200, but that its storage is offline";
            Err(ProbeError::Unwell(text.into()))
        }
        _ => Ok(()),
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
    use moat_types::SystemRandom;

    use super::*;

    #[test]
    fn waits_are_stretched_by_up_to_a_quarter() {
        let waits: Vec<_> = (0..200)
            .map(|_| jittered(Duration::from_secs(4), &SystemRandom).as_secs_f64())
            .collect();
        assert!(waits.iter().all(|wait| (4.0..=5.0).contains(wait)));
        assert!(waits.iter().any(|wait| *wait < 4.3));
        assert!(waits.iter().any(|wait| *wait > 4.7));
    }

    #[test]
    fn a_minio_without_its_storage_is_not_well() {
        let mut response = Response::new(Body::empty());
        assert_eq!(judge(response), Ok(()));
        response = Response::new(Body::empty());
        response
            .headers_mut()
            .insert(SERVER_STATUS, HeaderValue::from_static("offline"));
        assert!(judge(response).is_err());
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        assert!(judge(response).is_err());
    }
}
