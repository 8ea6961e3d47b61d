//! The mistakes of Sidekick that are not to be made again, each with what guards it. What no other test
//! guards is here.
//!
//! | mistake | guarded by |
//! | --- | --- |
//! | 1. "least" is not the least | `balance.rs`: `a_less_loaded_endpoint_wins_even_if_it_finished_last`, `the_chosen_endpoint_always_has_the_fewest_in_flight` |
//! | 2. a site that goes down between check and choice resets connections | `endpoints_that_vanish_under_load_leave_nobody_without_an_answer` |
//! | 3. metrics of one site only, samples twice | `sites.rs`: `every_site_has_its_metrics_and_a_redirect_is_not_well`; `no_sample_of_the_metrics_is_there_twice` |
//! | 4. path and error unescaped in XML | `answer.rs`: `errors_are_s3_xml_with_escaped_resource` |
//! | 5. `Content-Type` too late | `every_answer_of_the_proxy_itself_says_what_it_is` |
//! | 6. `X-Forwarded-For` of clients believed | `headers.rs`: `forwarded_values_of_the_client_are_replaced` |
//! | 7. secrets in traces | `access_log.rs`, `sites.rs`: `traces_hold_what_was_asked_for_and_no_secret` |
//! | 8. all down after a reload | `sites.rs`: `reloads_under_load_cost_no_request_and_no_count` |
//! | 9. plain and ranged endpoints together | `moat`, `sidekick.rs`: `one_dash_and_values_of_switches_are_go_habits` |
//! | 10. probes follow redirects, use HTTP proxies | `sites.rs`: `every_site_has_its_metrics_and_a_redirect_is_not_well`; `tests/proxy/test_service.py`: `test_no_http_proxy_of_the_environment_is_used` |
//! | 11. traces without limit, clients without timeouts | `a_trace_keeps_the_first_8_kib_of_an_error_and_the_client_gets_all`; `moat-net`, `listener.rs`: `a_dribbling_head_is_cut`, `an_idle_connection_is_closed_but_serves_before`, `a_response_that_nobody_reads_is_cut`, `oversized_and_malformed_heads_get_a_status` |
//! | 12. a client's fault takes an endpoint away | `health.rs`: `a_clients_fault_is_not_the_endpoints`; `faults.rs`: `clients_that_break_off_their_uploads_eject_nobody` |
//! | 13. exit code 1 on SIGTERM | `tests/proxy/test_service.py`: `test_sigterm_lets_a_download_end_and_readiness_goes_first` |

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use moat_net::{Body, ClientErrorKind};
use moat_proxy::trace::{Filter, Form, Tracer};
use moat_proxy::{Config, SiteConfig, Upstream};
use moat_types::SystemClock;
use support::{Front, Notes, Server, client, config, dead_port, get, request, soon, text};

/// One site for each of the lists.
fn sites(of: &[Vec<String>]) -> Config {
    let site = |urls: &Vec<String>| {
        let upstreams = urls.iter().map(|url| Upstream::parse(url).unwrap());
        SiteConfig {
            health: config(&[]).sites[0].health.clone(),
            ..SiteConfig::new(upstreams.collect())
        }
    };
    Config::of_sites(of.iter().map(site).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_vanish_under_load_leave_nobody_without_an_answer() {
    let hello = |_: Request<Body>| async { Response::new(Body::full("hello")) };
    let servers: Vec<_> = (0..4).map(|_| Server::upstream(None, hello)).collect();
    let urls: Vec<_> = servers.iter().map(|one| one.url("http")).collect();
    let front = Front::start(sites(&[urls[..2].to_vec(), urls[2..].to_vec()]), None);
    front.until_up(&[true; 4]).await;
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (client, endpoint) = (client(None), front.plain_endpoint());
            tokio::spawn(async move {
                let mut served = 0_u32;
                loop {
                    let response = match soon(client.send(&endpoint, get("/b/k"))).await {
                        Ok(response) => response,
                        Err(error) => {
                            assert_ne!(error.kind(), ClientErrorKind::Closed, "{error}");
                            panic!("{error}");
                        }
                    };
                    match response.status() {
                        StatusCode::OK => served += 1,
                        status => {
                            let xml = text(response).await;
                            assert!(xml.contains("<Code>ServiceUnavailable</Code>"), "{xml}");
                            return (served, status);
                        }
                    }
                    assert_eq!(text(response).await, "hello");
                }
            })
        })
        .collect();
    front
        .until(|front| front.endpoints().iter().any(|one| one.requests > 100))
        .await;
    // All of both sites at once, while requests are being chosen for.
    for server in servers {
        server.drain.start(Duration::ZERO);
        server.task.abort();
    }
    let mut served = 0;
    for one in clients {
        let (count, status) = soon(one).await.unwrap();
        assert!(status.is_server_error(), "{status}");
        served += count;
    }
    assert!(served > 100);
}

#[tokio::test]
async fn no_sample_of_the_metrics_is_there_twice() {
    moat_net::metrics::install().unwrap();
    let hello = |_: Request<Body>| async { Response::new(Body::full("hello")) };
    let (first, second) = (Server::upstream(None, hello), Server::upstream(None, hello));
    let (one, two) = (first.url("http"), second.url("http"));
    // One endpoint may stand in two sites.
    let front = Front::start(sites(&[vec![one.clone(), two], vec![one]]), None);
    for _ in 0..4 {
        let response = soon(client(None).send(&front.plain_endpoint(), get("/b/k"))).await;
        text(response.unwrap()).await;
    }
    let metrics = front.proxy.metrics();
    let samples = metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(' ').unwrap().0);
    let mut seen = HashSet::new();
    let twice: Vec<_> = samples.filter(|sample| !seen.insert(*sample)).collect();
    assert_eq!(twice, <[&str; 0]>::default(), "{metrics}");
    assert!(seen.len() > 20, "{metrics}");
    let helps = metrics.lines().filter(|line| line.starts_with("# TYPE"));
    let mut types = HashSet::new();
    assert!(
        helps.into_iter().all(|line| types.insert(line)),
        "{metrics}"
    );
}

#[tokio::test]
async fn every_answer_of_the_proxy_itself_says_what_it_is() {
    let nobody = Front::start(
        config(&[format!("http://127.0.0.1:{}", dead_port().await)]),
        None,
    );
    let garbage = support::raw_upstream(async |_| {}).await;
    let silent = Front::start(config(&[garbage.0]), None);
    let customer = Request::builder()
        .uri("/b/k")
        .header("x-amz-server-side-encryption-customer-key", "x")
        .body(Body::empty())
        .unwrap();
    for (front, request, status) in [
        (&nobody, get("/b/k"), 503),
        (&silent, request("PUT", "/b/k", Body::full("x")), 502),
        (&nobody, customer, 400),
    ] {
        let response = soon(client(None).send(&front.plain_endpoint(), request)).await;
        let response = response.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/xml");
        assert!(text(response).await.starts_with("<?xml "));
    }
}

#[tokio::test]
async fn a_trace_keeps_the_first_8_kib_of_an_error_and_the_client_gets_all() {
    const KEPT: usize = 8 * 1024;
    let whole: String = ('a'..='z').cycle().take(100_000).collect();
    let error = whole.clone();
    let upstream = Server::upstream(None, move |_| {
        let error = error.clone();
        async move {
            let mut response = Response::new(Body::full(error));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
    });
    let notes = Notes::default();
    let lines = notes.clone();
    let filter = Filter {
        requests: true,
        ..Filter::default()
    };
    let form = Form {
        json: true,
        verbose: true,
    };
    let sink = Box::new(move |line: &str| lines.add(line));
    let tracer = Tracer::new(filter, form, false, Arc::new(SystemClock), sink);
    let mut config = config(&[upstream.url("http")]);
    config.tracer = Some(Arc::new(tracer));
    let front = Front::start(config, None);
    let response = soon(client(None).send(&front.plain_endpoint(), get("/b/k"))).await;
    assert_eq!(text(response.unwrap()).await, whole);
    front.until(|_| notes.all().len() == 1).await;
    let trace: serde_json::Value = serde_json::from_str(&notes.all()[0]).unwrap();
    assert_eq!(trace["response"]["body"], whole[..KEPT]);
    assert_eq!(trace["stats"]["tx"], 100_000);
}
