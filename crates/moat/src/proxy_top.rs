//! `moat proxy top`: the endpoints of a running proxy as a table, anew every second.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Request;
use http_body_util::{BodyExt as _, Limited};
use moat_net::{Body, ClientConfig, Endpoint, HttpClient};
use moat_proxy::Status;
use moat_proxy::status::{AddressState, EndpointStatus};

use crate::cli::ProxyTopArgs;
use crate::print;

const EVERY: Duration = Duration::from_secs(1);
/// A proxy that is this slow to answer is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);
/// A thousand endpoints take some hundred KiB.
const STATUS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Cursor home, and clear what is below.
const HOME: &str = "\x1b[H\x1b[J";
const HEADING: [&str; 11] = [
    "SITE", "ENDPOINT", "STATE", "NOW", "REQ/S", "REQUESTS", "ERRORS", "RETRIES", "EJECTED", "P50",
    "P99",
];

/// Prints the table until it is interrupted, or once.
pub(crate) async fn run(args: ProxyTopArgs) -> Result<ExitCode> {
    let endpoint = Endpoint::parse(&args.url)?;
    if endpoint.is_tls() {
        bail!("the admin listener speaks http: use http://HOST:PORT");
    }
    let client = HttpClient::new(ClientConfig::default());
    let screen = !args.once && std::io::stdout().is_terminal();
    let mut before: Option<(Instant, Status)> = None;
    loop {
        let status = ask(&client, &endpoint).await?;
        let now = Instant::now();
        let last = before.as_ref().map(|(at, status)| (now - *at, status));
        let text = text(&status, last);
        print::out(&if screen {
            format!("{HOME}{text}")
        } else {
            text
        })?;
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        before = Some((now, status));
        tokio::time::sleep(EVERY).await;
    }
}

async fn ask(client: &HttpClient, endpoint: &Endpoint) -> Result<Status> {
    let request = Request::get("/status").body(Body::empty())?;
    let answer = async {
        let response = client
            .send(endpoint, request)
            .await
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), STATUS_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        if !status.is_success() {
            bail!("it answers {status}");
        }
        Ok(serde_json::from_slice(&body)?)
    };
    let within = tokio::time::timeout(PATIENCE, answer).await;
    within
        .unwrap_or_else(|_| bail!("no answer in {PATIENCE:?}"))
        .with_context(|| {
            format!("{endpoint} gives no status of a proxy; start the proxy with --admin ADDR and name that address with --url")
        })
}

fn text(status: &Status, before: Option<(Duration, &Status)>) -> String {
    let mut rows = Vec::new();
    for site in &status.sites {
        let active = if status.active_site == Some(site.site) {
            "*"
        } else {
            ""
        };
        for endpoint in &site.endpoints {
            let rate = before.and_then(|(passed, status)| {
                let old = find(status, site.site, &endpoint.endpoint)?;
                let more = endpoint.requests.saturating_sub(old.requests);
                Some(format!("{:.0}", more as f64 / passed.as_secs_f64()))
            });
            let millis =
                |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
            rows.push(vec![
                format!("{}{active}", site.site),
                endpoint.endpoint.clone(),
                state(endpoint),
                endpoint.in_flight().to_string(),
                rate.unwrap_or_else(|| "-".to_owned()),
                endpoint.requests.to_string(),
                endpoint.errors.to_string(),
                endpoint.retries.to_string(),
                endpoint.ejections.to_string(),
                millis(endpoint.p50_ms),
                millis(endpoint.p99_ms),
            ]);
        }
    }
    let ready = if status.ready { "ready" } else { "not ready" };
    format!("{ready}\n\n{}", print::table(&HEADING, &rows))
}

fn find<'a>(status: &'a Status, site: usize, endpoint: &str) -> Option<&'a EndpointStatus> {
    let site = status.sites.iter().find(|one| one.site == site)?;
    site.endpoints.iter().find(|one| one.endpoint == endpoint)
}

/// `up`, `down`, or how many of the addresses are up.
fn state(endpoint: &EndpointStatus) -> String {
    let up = |state| {
        endpoint
            .addresses
            .iter()
            .filter(|one| one.state == state)
            .count()
    };
    match (up(AddressState::Up), endpoint.addresses.len()) {
        (up, all) if up == all => "up".to_owned(),
        (0, all) if up(AddressState::Down) == all => "down".to_owned(),
        (0, _) => "ejected".to_owned(),
        (up, all) => format!("{up} of {all} up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_rates_and_who_is_active() {
        let status = |requests: u64| -> Status {
            serde_json::from_value(serde_json::json!({
                "ready": true, "active_site": 1,
                "sites": [{"site": 1, "up": true, "endpoints": [{
                    "endpoint": "http://a:1", "weight": 1, "zone": null, "requests": requests, "errors": 2,
                    "retries": 0, "ejections": 0, "health_errors": 0, "rx_bytes": 0, "tx_bytes": 0,
                    "p50_ms": 0.5, "p99_ms": null,
                    "addresses": [
                        {"address": "10.0.0.1", "state": "up", "in_flight": 3, "downtime_seconds": 0.0, "last_downtime_seconds": 0.0},
                        {"address": "10.0.0.2", "state": "down", "in_flight": 1, "downtime_seconds": 0.0, "last_downtime_seconds": 0.0},
                    ],
                }]}],
            }))
            .unwrap()
        };
        let text = text(&status(150), Some((Duration::from_secs(2), &status(50))));
        let line = text.lines().last().unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "1*",
                "http://a:1",
                "1",
                "of",
                "2",
                "up",
                "4",
                "50",
                "150",
                "2",
                "0",
                "0",
                "0.5",
                "ms",
                "-"
            ]
        );
    }
}
