//! `moat doctor`: what is wrong between this machine and an endpoint, and the fix. The checks run
//! from the outside in, and stop where the next one could only repeat the same problem.

pub(crate) mod advice;
mod report;
mod s3;
mod trust;
mod wire;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::{Method, Response, StatusCode};
use moat_pki::SubjectName;
use moat_s3::time::parse_http_date;
use moat_types::{Clock, SystemClock, UnixMillis};
use rustls::{AlertDescription, InvalidMessage, PeerIncompatible, ProtocolVersion};

use crate::cli::DoctorArgs;
use crate::clock_check::show;
use crate::endpoint::Endpoint;
use crate::print;
use report::Report;
use trust::Roots;
use wire::Failure;

/// S3 refuses requests whose time is off by more.
const SKEW_REFUSED: Duration = Duration::from_secs(15 * 60);
/// From here on it is mentioned: dates have whole seconds and the network takes its time.
const SKEW_NOTED: Duration = Duration::from_secs(60);

/// Runs all checks and prints what they found.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let endpoint =
        Endpoint::parse(&args.url).map_err(|reason| anyhow!("{}: {reason}", args.url))?;
    let roots = Roots::load(args.ca.as_deref())?;
    let credentials = s3::credentials(args.credentials.as_deref())?;
    let mut report = Report::default();
    examine(&endpoint, &roots, credentials, &args, &mut report).await;
    if args.json {
        print::json(&report.json())?;
    } else {
        print::out(&report.text())?;
    }
    Ok(if report.is_fine() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn examine(
    endpoint: &Endpoint,
    roots: &Roots,
    credentials: Option<moat_s3::sigv4::Credentials>,
    args: &DoctorArgs,
    report: &mut Report,
) {
    let Some(address) = reach(endpoint, report).await else {
        return;
    };
    let trusted = !endpoint.tls || check_tls(endpoint, address, roots, report).await;
    if !endpoint.tls {
        explain_plain_http(args.s3a, report);
    }
    let Some(live) = check_live(endpoint, address, report).await else {
        return;
    };
    check_clock(&live, SystemClock.now(), report);
    check_ready(endpoint, address, report).await;
    let region = s3::region(args.region.as_deref());
    match credentials {
        Some(_) if !trusted => report.note(
            "credentials",
            "the credentials were not tried, because the certificate is not to be trusted",
            Vec::new(),
        ),
        Some(credentials) => {
            let probe = s3::Probe::new(endpoint, address, credentials, &region, args);
            probe.run(report).await;
        }
        None => report.note(
            "credentials",
            "no credentials were given, so nothing was asked of S3 itself",
            vec![
                "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --credentials FILE."
                    .into(),
            ],
        ),
    }
    if args.s3a {
        s3a_settings(endpoint, roots, &region, report);
    }
}

/// Resolves the host and opens a connection; the address that answered.
async fn reach(endpoint: &Endpoint, report: &mut Report) -> Option<SocketAddr> {
    let addresses = match resolve(endpoint).await {
        Ok(addresses) => addresses,
        Err(error) => {
            report.problem(
                "dns",
                format!("the name {} does not resolve: {error:#}", endpoint.host),
                vec!["Check the spelling, DNS and /etc/hosts on this machine (in a container: inside the container).".into()],
            );
            return None;
        }
    };
    let mut failures = Vec::new();
    for address in addresses {
        match wire::connect(address).await {
            Ok(_) => {
                report.fine("connect", format!("{address} accepts connections"));
                return Some(address);
            }
            Err(failure) => failures.push(format!("{address}: {failure}")),
        }
    }
    let refused = failures.iter().any(|text| text.contains("refused"));
    report.problem(
        "connect",
        format!("no connection to {endpoint}: {}", failures.join("; ")),
        if refused {
            vec![
                "Nothing listens there. Is the server running, is this its port, and does it listen on this address".into(),
                "and not only on 127.0.0.1 (moat: --store-listen, --proxy-https, --proxy-http)?".into(),
            ]
        } else {
            vec!["A firewall or a wrong address is the usual cause: packets get no answer.".into()]
        },
    );
    None
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    if let SubjectName::Ip(address) = endpoint.host {
        return Ok(vec![SocketAddr::new(address, endpoint.port)]);
    }
    let lookup = tokio::net::lookup_host((endpoint.host.to_string(), endpoint.port));
    let found = tokio::time::timeout(wire::STEP_TIMEOUT, lookup)
        .await
        .context("no answer from DNS")??;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() {
        return Err(anyhow!("there is no address"));
    }
    Ok(addresses)
}

/// Makes a TLS handshake and judges the certificate; whether a client would go on.
async fn check_tls(
    endpoint: &Endpoint,
    address: SocketAddr,
    roots: &Roots,
    report: &mut Report,
) -> bool {
    match wire::handshake(endpoint, address).await {
        Ok(tls) => {
            let version = match tls.version {
                ProtocolVersion::TLSv1_3 => "TLS 1.3",
                _ => "TLS 1.2",
            };
            report.fine("tls", format!("{version} handshake done"));
            trust::judge(endpoint, &tls, roots, SystemClock.now(), report)
        }
        Err(failure) => {
            let (text, fix) = explain_handshake(endpoint, &failure);
            report.problem("tls", text, fix);
            false
        }
    }
}

fn explain_handshake(endpoint: &Endpoint, failure: &Failure) -> (String, Vec<String>) {
    let plain = Endpoint {
        tls: false,
        ..endpoint.clone()
    };
    match failure {
        Failure::Tls(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => (
            format!("{endpoint} does not speak TLS on this port"),
            vec![format!("Use {plain}, or the server's https port.")],
        ),
        Failure::Tls(
            rustls::Error::AlertReceived(
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure,
            )
            | rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
        ) => (
            format!("{endpoint} and this client share no TLS version or cipher ({failure})"),
            vec![
                "The server must offer TLS 1.2 or 1.3 with a cipher that is still considered safe."
                    .into(),
            ],
        ),
        Failure::Tls(rustls::Error::AlertReceived(AlertDescription::UnrecognisedName)) => (
            format!(
                "{endpoint} has no certificate for the name {}",
                endpoint.host
            ),
            vec!["Use a name that the server knows, or add this one to its certificate.".into()],
        ),
        other => (
            format!("the TLS handshake with {endpoint} failed: {other}"),
            Vec::new(),
        ),
    }
}

fn explain_plain_http(s3a: bool, report: &mut Report) {
    report.note(
        "plain-http",
        "the endpoint is plain http: whatever crosses it can be read on the way, and SSE-C is refused on it",
        if s3a { advice::plain_http_sdk_v1() } else { Vec::new() },
    );
}

/// Asks whether the server lives; the answer, if there was one.
async fn check_live(
    endpoint: &Endpoint,
    address: SocketAddr,
    report: &mut Report,
) -> Option<Response<bytes::Bytes>> {
    const CHECK: &str = "live";
    match wire::send(endpoint, address, Method::GET, "/minio/health/live", &[]).await {
        Ok(answer) => {
            match answer.status() {
                StatusCode::OK => report.fine(CHECK, "the server says that it is alive"),
                StatusCode::BAD_REQUEST if speaks_tls(endpoint, address).await => {
                    say_use_https(endpoint, report);
                    return None;
                }
                StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => report.note(
                    CHECK,
                    format!("/minio/health/live answers {}: the server is neither Moat nor MinIO", answer.status()),
                    Vec::new(),
                ),
                status => report.problem(
                    CHECK,
                    format!("/minio/health/live answers {status}: the server is overloaded, or its proxy reaches no store"),
                    Vec::new(),
                ),
            }
            Some(answer)
        }
        Err(_) if speaks_tls(endpoint, address).await => {
            say_use_https(endpoint, report);
            None
        }
        Err(Failure::Tls(rustls::Error::AlertReceived(AlertDescription::CertificateRequired))) => {
            report.problem(
                CHECK,
                format!("{endpoint} asks for a client certificate: it is a key manager, or a store with mutual TLS"),
                vec!["S3 clients do not use the key manager's port (7373); they use the store (9000) or the proxy (8090).".into()],
            );
            None
        }
        Err(failure) => {
            report.problem(
                CHECK,
                format!("{endpoint} does not answer HTTP: {failure}"),
                Vec::new(),
            );
            None
        }
    }
}

/// Whether a port that was addressed with plain HTTP speaks TLS in truth.
async fn speaks_tls(endpoint: &Endpoint, address: SocketAddr) -> bool {
    let secured = Endpoint {
        tls: true,
        ..endpoint.clone()
    };
    !endpoint.tls && wire::handshake(&secured, address).await.is_ok()
}

fn say_use_https(endpoint: &Endpoint, report: &mut Report) {
    let secured = Endpoint {
        tls: true,
        ..endpoint.clone()
    };
    report.problem(
        "live",
        format!("{endpoint} speaks TLS on this port"),
        vec![format!("Use {secured}.")],
    );
}

fn check_clock(answer: &Response<bytes::Bytes>, now: UnixMillis, report: &mut Report) {
    const CHECK: &str = "clock";
    let date = answer
        .headers()
        .get("date")
        .and_then(|value| value.to_str().ok())
        .and_then(parse_http_date);
    let Some(date) = date else {
        report.note(
            CHECK,
            "the answer has no Date header, so the clocks could not be compared",
            Vec::new(),
        );
        return;
    };
    let off = Duration::from_millis(now.0.abs_diff(date.0));
    let text = format!(
        "this machine's clock says {}, the server's {}",
        show(now),
        show(date)
    );
    if off > SKEW_REFUSED {
        report.problem(
            CHECK,
            format!("{text}: S3 refuses every request (RequestTimeTooSkewed) from 15 minutes on"),
            vec![
                "Synchronise both machines with the same time service (timedatectl set-ntp true)."
                    .into(),
            ],
        );
    } else if off > SKEW_NOTED {
        report.note(
            CHECK,
            text,
            vec!["From 15 minutes on S3 refuses requests; synchronise the clocks.".into()],
        );
    } else {
        report.fine(CHECK, "the clocks agree");
    }
}

/// Asks whether the store can work, which it can't without its key manager.
async fn check_ready(endpoint: &Endpoint, address: SocketAddr, report: &mut Report) {
    const CHECK: &str = "ready";
    let answer = match wire::send(endpoint, address, Method::GET, "/minio/health/ready", &[]).await
    {
        Ok(answer) => answer,
        Err(failure) => {
            report.problem(
                CHECK,
                format!("/minio/health/ready does not answer: {failure}"),
                Vec::new(),
            );
            return;
        }
    };
    match answer.status() {
        StatusCode::OK => report.fine(CHECK, "the server is ready, its key manager answers"),
        // Said already, for the live path.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {}
        status => {
            let said = s3::error_text(answer.body());
            report.problem(
                CHECK,
                format!("the server is not ready ({status}{said}): it can't get keys from its key manager"),
                vec![
                    "Nothing that is encrypted can be read or written until it can. On the server's machine:".into(),
                    "moat kms status --data DIR, and the store's log, say whether the key manager is down, refuses".into(),
                    "the store's certificate, or has the default key disabled.".into(),
                ],
            );
        }
    }
}

fn s3a_settings(endpoint: &Endpoint, roots: &Roots, region: &str, report: &mut Report) {
    let mut lines = advice::s3a(endpoint, region);
    if endpoint.tls {
        let truststore = match &roots.given {
            Some(ca) => ca.with_file_name("truststore.p12"),
            None => "DIR/trust/truststore.p12".into(),
        };
        lines.extend(advice::jvm(&truststore));
    }
    report.note("s3a", "settings for Spark and Hadoop S3A:", lines);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(now: i64) -> String {
        let answer = Response::builder()
            .header("date", "Thu, 01 Jan 1970 01:00:00 GMT")
            .body(bytes::Bytes::new())
            .unwrap();
        let mut report = Report::default();
        check_clock(&answer, UnixMillis(now * 1000), &mut report);
        report.text()
    }

    #[test]
    fn clock_skew_is_a_problem_from_where_s3_refuses() {
        assert!(clock(3600 + 30).starts_with("ok"));
        assert!(clock(3600 - 120).starts_with("note"));
        assert!(clock(3600 + 901).starts_with("PROBLEM"));
        assert!(clock(0).contains("RequestTimeTooSkewed"));
    }

    #[test]
    fn a_plain_port_is_told_from_a_weak_one() {
        let endpoint = Endpoint::parse("https://h:9000").unwrap();
        let failure = Failure::Tls(rustls::Error::InvalidMessage(
            InvalidMessage::InvalidContentType,
        ));
        let (text, fix) = explain_handshake(&endpoint, &failure);
        assert!(text.contains("does not speak TLS") && fix[0].contains("http://h:9000"));
        let failure = Failure::Tls(rustls::Error::AlertReceived(
            AlertDescription::ProtocolVersion,
        ));
        assert!(
            explain_handshake(&endpoint, &failure)
                .0
                .contains("share no TLS version")
        );
    }
}
