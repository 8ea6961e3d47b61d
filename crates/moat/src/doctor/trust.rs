//! Judges a certificate chain: who vouches for it, for which names, until when.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use moat_pki::{CertificateInfo, pem};
use moat_types::UnixMillis;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;

use super::advice;
use super::report::Report;
use super::wire::Tls;
use crate::clock_check::show;
use crate::endpoint::Endpoint;

/// Where distributions keep the system's CA certificates; the first that exists counts.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A certificate that ends within this time is mentioned: long enough to act, short enough not to
/// nag about certificates that live for a few weeks anyway.
const ENDS_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The certificates that the client trusts.
pub(crate) struct Roots {
    store: RootCertStore,
    /// Where they came from, for messages.
    pub(crate) source: String,
    /// The file that `--ca` gave.
    pub(crate) given: Option<PathBuf>,
}

impl Roots {
    /// Loads `--ca`, else what `AWS_CA_BUNDLE` or `SSL_CERT_FILE` name for other clients, else the
    /// system's bundle. No bundle at all is an empty store.
    pub(crate) fn load(given: Option<&Path>) -> Result<Self> {
        let path = match given {
            Some(path) => Some(path.to_owned()),
            None => ["AWS_CA_BUNDLE", "SSL_CERT_FILE"]
                .iter()
                .find_map(std::env::var_os)
                .map(PathBuf::from)
                .or_else(|| {
                    SYSTEM_BUNDLES
                        .iter()
                        .map(PathBuf::from)
                        .find(|path| path.exists())
                }),
        };
        let mut store = RootCertStore::empty();
        let Some(path) = path else {
            let source = "this system, which has no CA certificates installed".to_owned();
            return Ok(Self {
                store,
                source,
                given: None,
            });
        };
        let bytes =
            std::fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        let certificates =
            pem::decode_certificates(&bytes).with_context(|| path.display().to_string())?;
        store.add_parsable_certificates(certificates.into_iter().map(CertificateDer::from));
        let source = path.display().to_string();
        Ok(Self {
            store,
            source,
            given: given.map(Path::to_owned),
        })
    }
}

/// Adds what is to be said of the chain; true if a client with these roots would connect.
pub(crate) fn judge(
    endpoint: &Endpoint,
    tls: &Tls,
    roots: &Roots,
    now: UnixMillis,
    report: &mut Report,
) -> bool {
    let Some(leaf) = tls
        .chain
        .first()
        .and_then(|der| CertificateInfo::parse(der).ok())
    else {
        report.problem(
            "certificate",
            "the server's certificate can't be read",
            Vec::new(),
        );
        return false;
    };
    let in_time = judge_time(&leaf, now, report);
    let named = judge_name(endpoint, &leaf, report);
    let trusted = judge_issuer(endpoint, tls, &leaf, roots, now, report);
    in_time && named && trusted
}

fn judge_time(leaf: &CertificateInfo, now: UnixMillis, report: &mut Report) -> bool {
    const CHECK: &str = "certificate-time";
    if now > leaf.not_after {
        report.problem(
            CHECK,
            format!("the certificate of {} expired at {}; this machine's clock says {}", leaf.subject, show(leaf.not_after), show(now)),
            vec![
                "Renew it on the server. A Moat server renews its own certificates long before they end;".into(),
                "if it did not, it was not running, or one of the two clocks is wrong.".into(),
            ],
        );
        return false;
    }
    if now < leaf.not_before {
        report.problem(
            CHECK,
            format!("the certificate of {} is not valid before {}; this machine's clock says {}", leaf.subject, show(leaf.not_before), show(now)),
            vec!["Set this machine's clock (or the server's, if it was wrong when the certificate was made).".into()],
        );
        return false;
    }
    let left = Duration::from_millis((leaf.not_after.0 - now.0).unsigned_abs());
    if left < ENDS_SOON {
        report.note(
            CHECK,
            format!("the certificate ends soon, at {}", show(leaf.not_after)),
            Vec::new(),
        );
    } else {
        report.fine(
            CHECK,
            format!("the certificate is valid until {}", show(leaf.not_after)),
        );
    }
    true
}

fn judge_name(endpoint: &Endpoint, leaf: &CertificateInfo, report: &mut Report) -> bool {
    const CHECK: &str = "certificate-name";
    if leaf.covers(&endpoint.host) {
        report.fine(
            CHECK,
            format!("the certificate vouches for {}", endpoint.host),
        );
        return true;
    }
    let names: Vec<String> = leaf.names.iter().map(ToString::to_string).collect();
    let list = if names.is_empty() {
        "no name at all".to_owned()
    } else {
        names.join(", ")
    };
    report.problem(
        CHECK,
        format!(
            "the certificate does not vouch for {}; it vouches for {list}",
            endpoint.host
        ),
        vec![
            "Connect by one of these names, or give the server a certificate with this one:".into(),
            format!(
                "a Moat server gets it by starting it with --host {}",
                endpoint.host
            ),
        ],
    );
    false
}

fn judge_issuer(
    endpoint: &Endpoint,
    tls: &Tls,
    leaf: &CertificateInfo,
    roots: &Roots,
    now: UnixMillis,
    report: &mut Report,
) -> bool {
    const CHECK: &str = "certificate-trust";
    // Judged inside the certificate's own validity, so that an expired certificate is not also
    // called untrusted.
    let at = UnixMillis(now.0.clamp(leaf.not_before.0, leaf.not_after.0));
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at.seconds().max(0).unsigned_abs()));
    let outcome = ParsedCertificate::try_from(&tls.chain[0]).and_then(|parsed| {
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &roots.store,
            &tls.chain[1..],
            at,
            aws_lc_rs::default_provider()
                .signature_verification_algorithms
                .all,
        )
    });
    match outcome {
        Ok(()) => {
            report.fine(
                CHECK,
                format!(
                    "the certificate was issued by {}, which {} trusts",
                    leaf.issuer, roots.source
                ),
            );
            true
        }
        Err(error) => {
            let issuer = tls
                .chain
                .get(1)
                .and_then(|der| CertificateInfo::parse(der).ok());
            let shown = issuer.map_or(String::new(), |ca| {
                format!(" (SHA-256 {})", hex::encode(ca.fingerprint_sha256))
            });
            let why = if leaf.subject == leaf.issuer {
                "it is self-signed"
            } else {
                "nobody there vouches for it"
            };
            report.problem(
                CHECK,
                format!("the certificate was issued by {}{shown}, which {} does not trust: {why} ({error})", leaf.issuer, roots.source),
                advice::trust(endpoint, roots.given.as_deref()),
            );
            false
        }
    }
}
