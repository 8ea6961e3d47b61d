//! Sidekick's command line, flag for flag, for a binary that is called `sidekick` or `moat sidekick`.
//!
//! Its flags become a proxy's configuration here; what differs on purpose stands in a table of
//! `docs/proxy.md`. Go's habits are kept: one dash or two before a long flag, `--flag=true` for
//! switches, durations such as `1m30s`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args, Parser};
use moat_net::tls::Versions;
use moat_proxy::config::Balance;
use moat_proxy::{Upstream, ellipses};

use crate::config::{Config, Listen, ProxyConfig, TlsFiles, Trace};
use crate::duration;

/// Sidekick's probes wait from one to two intervals; ours up to a quarter more than one. The same
/// number would probe more often, so the interval is that of the slower half.
const INTERVAL_DEFAULT: &str = "5s";

/// Sidekick's flags.
#[derive(Debug, Clone, Args)]
pub(crate) struct SidekickArgs {
    /// Listening address
    #[arg(long, short = 'a', value_name = "ADDR", default_value = ":8080")]
    address: String,
    /// Health check path
    #[arg(long, short = 'p', value_name = "PATH", default_value = "")]
    health_path: String,
    /// Health check path of the last site
    #[arg(long, short = 'r', value_name = "PATH")]
    read_health_path: Option<String>,
    /// Health check port; 0: that of the endpoint
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    health_port: u16,
    /// Time between health checks
    #[arg(long, short = 'd', value_name = "TIME", default_value = INTERVAL_DEFAULT, value_parser = go_duration)]
    health_duration: Duration,
    /// Time that a health check may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = go_duration)]
    health_timeout: Duration,
    /// Check only endpoints that are down
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    health_optimistic: bool,
    /// Do not verify the endpoints' certificates
    #[arg(long, short = 'i', action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    insecure: bool,
    /// Use all addresses of the endpoint's name (always done)
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    rr_dns_mode: bool,
    /// Names for a self-made certificate, with commas
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    auto_tls_host: Vec<String>,
    /// Print endpoints that come and go
    #[arg(long, short = 'l', action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    log: bool,
    /// Print calls: all, application or minio
    #[arg(long, short = 't', value_name = "KIND")]
    trace: Option<String>,
    /// Print nothing
    #[arg(long, short = 'q', action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    quiet: bool,
    /// Print JSON
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    json: bool,
    /// Print headers, and the bodies of errors
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    debug: bool,
    /// Print only calls answered with 400 to 599
    #[arg(long, short = 'e', action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    errors: bool,
    /// Print only calls answered with this status; may be repeated
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    status_code: Vec<u16>,
    /// CAs of the endpoints' certificates, instead of the system's
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Client certificate for the endpoints
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// Server certificate
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Password of an encrypted key
    #[arg(long, value_name = "PASSWORD", hide_default_value = true)]
    key_password: Option<String>,
    /// Profiling address (not supported)
    #[arg(long, value_name = "ADDR")]
    pprof: Option<String>,
    /// Time that DNS answers are used
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = go_duration)]
    dns_ttl: Duration,
    /// least, or random
    #[arg(long, value_name = "RULE", default_value = "least")]
    host_balance: String,
    /// Highest TLS version
    #[arg(long, value_name = "VERSION", default_value = "1.3", hide = true)]
    tls_max: String,
    /// Sites; the next one takes over when all endpoints of one are down
    #[arg(value_name = "SITE", required = true)]
    sites: Vec<String>,
}

/// The whole program, where it is called by Sidekick's name.
#[derive(Debug, Parser)]
#[command(
    name = "sidekick",
    version,
    about = "Moat's proxy with the command line of Sidekick",
    disable_version_flag = true,
    max_term_width = 100
)]
struct Program {
    #[command(flatten)]
    args: SidekickArgs,
    /// Print the version
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
}

/// Sidekick's command line, if the program was called by its name or by `moat sidekick`.
pub(crate) fn command_of(arguments: &[OsString]) -> Option<SidekickArgs> {
    let called = arguments.first().map(Path::new).and_then(Path::file_name);
    let rest = if called == Some(OsStr::new("sidekick")) {
        arguments.get(1..)?
    } else if arguments.get(1).is_some_and(|word| word == "sidekick") {
        arguments.get(2..)?
    } else {
        return None;
    };
    let words = std::iter::once("sidekick".into()).chain(rest.iter().map(two_dashes));
    Some(Program::parse_from(words).args)
}

/// Go takes `-address` for `--address`.
fn two_dashes(word: &OsString) -> OsString {
    let Some(text) = word.to_str() else {
        return word.clone();
    };
    let is_long = text.strip_prefix('-').is_some_and(|name| {
        let name = name.split('=').next().unwrap_or(name);
        let letters = |c: char| c.is_ascii_lowercase() || c == '-';
        name.len() > 1 && !name.starts_with('-') && name.chars().all(letters)
    });
    if is_long {
        format!("-{text}").into()
    } else {
        word.clone()
    }
}

fn go_duration(text: &str) -> Result<Duration, String> {
    match duration::parse(text) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        Some(_) => Err("it must be above zero".into()),
        None => Err("write it with its unit, as 5s, 1m30s or 500ms".into()),
    }
}

impl SidekickArgs {
    /// The configuration that these flags ask for. All problems are reported at once.
    pub(crate) fn apply(self, config: &mut Config) -> Result<Notes> {
        let mut problems = Vec::new();
        let proxy = &mut config.proxy;
        proxy.sidekick_paths = true;
        proxy.sites = self.read_sites(&mut problems);
        self.apply_health(proxy, &mut problems);
        self.apply_tls(proxy, &mut problems);
        proxy.trace = self.trace();
        proxy.dns_ttl = self.dns_ttl;
        // What Sidekick does: an endpoint has its share, and a site its requests, at once.
        proxy.slow_start = Duration::ZERO;
        proxy.balance = match self.host_balance.as_str() {
            "least" => Balance::LeastInFlight,
            _ => Balance::Random,
        };
        if problems.is_empty() {
            Ok(self.notes())
        } else {
            bail!("{}", problems.join("\n  "))
        }
    }

    fn read_sites(&self, problems: &mut Vec<String>) -> Vec<Vec<Upstream>> {
        let mut sites = Vec::with_capacity(self.sites.len());
        for site in &self.sites {
            match read_site(site) {
                Ok(site) => sites.push(site),
                Err(error) => problems.push(format!("{site:?}: {error:#}")),
            }
        }
        for (text, site) in self.sites.iter().zip(&sites) {
            if site
                .iter()
                .any(|one| one.endpoint.is_tls() != site[0].endpoint.is_tls())
            {
                problems.push(format!(
                    "{text:?}: all endpoints of a site must be http, or all https"
                ));
            }
        }
        sites
    }

    fn apply_health(&self, proxy: &mut ProxyConfig, problems: &mut Vec<String>) {
        let slashed = |path: &str| {
            let slash = if path.starts_with('/') { "" } else { "/" };
            format!("{slash}{path}")
        };
        if self.health_path.is_empty() {
            problems.push(
                "--health-path is missing: without it / is asked, which a MinIO server refuses; for MinIO and Moat use --health-path=/minio/health/cluster".into(),
            );
        }
        proxy.health.path = slashed(&self.health_path);
        proxy.last_site_health_path = self.read_health_path.as_deref().map(slashed);
        proxy.health.port = (self.health_port != 0).then_some(self.health_port);
        proxy.health.interval = self.health_duration;
        proxy.health.interval_down = proxy.health.interval_down.min(self.health_duration);
        proxy.health.timeout = self.health_timeout;
        proxy.health.optimistic = self.health_optimistic;
    }

    fn apply_tls(&self, proxy: &mut ProxyConfig, problems: &mut Vec<String>) {
        let mut pair = |names: &str, certificate: &Option<PathBuf>, key: &Option<PathBuf>| match (
            certificate,
            key,
        ) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate: certificate.clone(),
                private_key: key.clone(),
            }),
            (None, None) => None,
            _ => {
                problems.push(format!("{names} must be given together"));
                None
            }
        };
        proxy.upstream_identity = pair(
            "--client-cert and --client-key",
            &self.client_cert,
            &self.client_key,
        );
        let own = pair("--cert and --key", &self.cert, &self.key);
        let auto = own.is_none() && !self.auto_tls_host.is_empty();
        let tls = own.is_some() || auto;
        proxy.auto_tls = if auto {
            self.auto_tls_host.clone()
        } else {
            Vec::new()
        };
        proxy.certificates = own.into_iter().collect();
        proxy
            .key_password
            .clone_from(&self.key_password.clone().map(moat_types::SecretString::new));
        proxy.insecure = self.insecure;
        // Replaces the system's, here.
        proxy.system_roots = self.cacert.is_none();
        proxy.upstream_ca = Some(self.cacert.iter().cloned().collect());
        proxy.versions = match self.tls_max.as_str() {
            "1.3" => Versions::Both,
            "1.2" => Versions::Only12,
            _ => {
                problems.push("--tls-max must be 1.2 or 1.3".into());
                Versions::Both
            }
        };
        match Listen::of_address(tls, &self.address) {
            Some(listen) => proxy.listen = vec![listen],
            None => problems.push(format!(
                "--address is {:?}, but must be [HOST]:PORT, such as :8080 or 127.0.0.1:8080",
                self.address
            )),
        }
    }

    /// Traces are printed when something about them was asked for.
    fn trace(&self) -> Trace {
        let mut trace = Trace::default();
        if self.quiet {
            return trace;
        }
        let asked = self.errors || self.debug || !self.status_code.is_empty();
        let kind = self.trace.as_deref().or_else(|| asked.then_some("all"));
        (trace.filter.requests, trace.filter.probes) = match kind {
            None | Some("") => (false, false),
            Some("application") => (true, false),
            Some("minio") => (false, true),
            Some(_) => (true, true),
        };
        trace.filter.errors_only = self.errors;
        trace.filter.statuses.clone_from(&self.status_code);
        trace.form.json = self.json;
        trace.form.verbose = self.debug;
        trace.changes = self.log;
        trace
    }

    fn notes(&self) -> Notes {
        let mut notes = Vec::new();
        if self.sites.len() > 1 {
            notes.push(format!(
                "{} sites are given: the second gets requests only when all endpoints of the first are down; endpoints of one site are separated by commas",
                self.sites.len()
            ));
        }
        if self.pprof.is_some() {
            notes.push("--pprof is not supported and has no effect".into());
        }
        if self.key_password.is_some() {
            notes.push("--key-password can be read in the list of processes; moat proxy takes it from a file".into());
        }
        Notes(notes)
    }
}

/// What the operator should know, though nothing is wrong.
#[derive(Debug)]
pub(crate) struct Notes(pub(crate) Vec<String>);

/// One site: pools with commas, each a URL with ranges. A path counts for health checks alone.
fn read_site(text: &str) -> Result<Vec<Upstream>> {
    let mut upstreams = Vec::new();
    for pool in text
        .split(',')
        .map(str::trim)
        .filter(|pool| !pool.is_empty())
    {
        for url in ellipses::expand(pool)? {
            let (endpoint, path) = split_path(&url);
            upstreams.push(Upstream {
                health_prefix: path.trim_end_matches('/').to_owned(),
                ..Upstream::parse(endpoint)?
            });
        }
    }
    if upstreams.is_empty() {
        bail!("it names no endpoint");
    }
    Ok(upstreams)
}

fn split_path(url: &str) -> (&str, &str) {
    let authority = url.find("://").map_or(0, |at| at + 3);
    match url[authority..].find('/') {
        Some(at) => url.split_at(authority + at),
        None => (url, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> SidekickArgs {
        let words = std::iter::once("sidekick").chain(words.iter().copied());
        command_of(&words.map(OsString::from).collect::<Vec<_>>()).unwrap()
    }

    fn config(words: &[&str]) -> ProxyConfig {
        let mut config = Config::defaults().unwrap();
        parse(words).apply(&mut config).unwrap();
        config.proxy
    }

    fn problems(words: &[&str]) -> String {
        let mut config = Config::defaults().unwrap();
        parse(words).apply(&mut config).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_of_its_readme_is_taken() {
        let proxy = config(&[
            "--health-path=/minio/health/ready",
            "--address",
            ":8000",
            "http://minio{1...16}:9000",
        ]);
        assert_eq!(proxy.sites.len(), 1);
        assert_eq!(proxy.sites[0].len(), 16);
        assert_eq!(proxy.listen[0].to_string(), "http://:8000");
        assert_eq!(proxy.health.path, "/minio/health/ready");
        assert_eq!(proxy.health.timeout, Duration::from_secs(10));
        assert!(!proxy.trace.is_on());
    }

    #[test]
    fn one_dash_and_values_of_switches_are_go_habits() {
        let proxy = config(&[
            "-health-path",
            "ready",
            "-insecure=false",
            "-l",
            "-json=true",
            "--errors",
            "-d",
            "2s",
            "http://a:1,http://b{1...2}:1/prefix/",
            "http://c:1",
        ]);
        assert!(!proxy.insecure && proxy.trace.changes && proxy.trace.form.json);
        assert!(proxy.trace.filter.errors_only && proxy.trace.filter.requests);
        assert_eq!(proxy.health.interval, Duration::from_secs(2));
        assert_eq!(proxy.health.path, "/ready");
        assert_eq!(proxy.sites.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1]);
        assert_eq!(proxy.sites[0][1].health_prefix, "/prefix");
    }

    #[test]
    fn the_last_site_may_be_asked_another_path() {
        let proxy = config(&["-p", "/a", "-r", "b", "http://a:1", "http://c:1"]);
        assert_eq!(proxy.last_site_health_path.as_deref(), Some("/b"));
    }

    #[test]
    fn traces_are_off_until_asked_for_and_quiet_wins() {
        let trace = |words: &[&str]| {
            let all = [&["-p", "/a"], words, &["http://a:1"]].concat();
            let filter = config(&all).trace.filter;
            (filter.requests, filter.probes)
        };
        assert_eq!(trace(&[]), (false, false));
        assert_eq!(trace(&["--trace", "all"]), (true, true));
        assert_eq!(trace(&["-t", "application"]), (true, false));
        assert_eq!(trace(&["-t", "minio"]), (false, true));
        assert_eq!(trace(&["-t", "all", "-q"]), (false, false));
        assert_eq!(trace(&["--status-code", "503"]), (true, true));
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let found = problems(&[
            "--tls-max=1.1",
            "--cert=x",
            "--client-key=y",
            "-a",
            "8080",
            "http://a:1,https://b:1",
            "c:9000",
        ]);
        for expected in [
            "--tls-max",
            "--cert and --key",
            "--client-cert",
            "--address",
            "--health-path",
            "all https",
            "c:9000",
        ] {
            assert!(found.contains(expected), "{expected}: {found}");
        }
    }

    #[test]
    fn other_names_are_other_programs() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(command_of(&words(&["moat", "proxy"])).is_none());
        assert!(command_of(&words(&["/usr/bin/sidekick", "-p", "/a", "http://a:1"])).is_some());
        assert!(command_of(&words(&["moat", "sidekick", "-p", "/a", "http://a:1"])).is_some());
    }
}
