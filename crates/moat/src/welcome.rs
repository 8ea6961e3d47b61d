//! What `moat up` prints when it is ready: where things are and what to paste.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;
use crate::doctor::advice;
use crate::endpoint::Endpoint;
use crate::first_start::TRUSTSTORE_PASSWORD;

/// The addresses that are really served, and the buckets.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    /// What there is to say of each bucket that was asked for.
    pub(crate) buckets: Vec<String>,
    pub(crate) kms: SocketAddr,
    pub(crate) store: SocketAddr,
    pub(crate) proxy_https: Option<SocketAddr>,
    pub(crate) proxy_http: Option<SocketAddr>,
}

/// The text. The last line begins with `ready`, for scripts that wait for it.
pub(crate) fn text(config: &Config, served: &Served, notes: &[String]) -> String {
    let folder = absolute(config.data.root());
    let trust = folder.join("trust");
    let url = |tls: bool, address: SocketAddr| shown(config, tls, address).to_string();
    let store = url(true, served.store);
    let https = served.proxy_https.map(|address| url(true, address));
    let http = served.proxy_http.map(|address| url(false, address));
    let proxies: Vec<String> = https.iter().chain(&http).cloned().collect();
    let spark = https.as_ref().unwrap_or(&store);
    let own_credentials = if config.data.root_credentials().exists() {
        "root.env (access key and secret), "
    } else {
        ""
    };
    let options = advice::java_options(&trust.join("truststore.p12"));

    let mut lines: Vec<String> = notes
        .iter()
        .map(|note| format!("note     {note}"))
        .collect();
    lines.push(format!(
        "store    {store}   proxy {}   key manager {}",
        proxies.join(" and "),
        url(true, served.kms)
    ));
    lines.push(format!(
        "folder   {} with {}identity/root.key (moat kms),",
        folder.display(),
        own_credentials
    ));
    lines.push("         kms/hsm.key (seals every key: back it up); all of mode 0600".to_owned());
    lines.push(format!(
        "trust    {}: ca.pem, truststore.p12, truststore.jks (password {TRUSTSTORE_PASSWORD}; nothing in them is secret)",
        trust.display()
    ));
    lines.extend(
        served
            .buckets
            .iter()
            .map(|bucket| format!("bucket   {bucket}")),
    );
    lines.push(format!(
        "Spark    --conf spark.hadoop.fs.s3a.endpoint={spark} --conf spark.hadoop.fs.s3a.path.style.access=true \
         --conf spark.hadoop.fs.s3a.endpoint.region={}",
        config.store.region
    ));
    lines.push(format!("         --conf spark.driver.extraJavaOptions=\"{options}\" and the same for spark.executor.extraJavaOptions"));
    lines.push(format!(
        "boto3    {}export AWS_ACCESS_KEY_ID=$MOAT_ROOT_USER AWS_SECRET_ACCESS_KEY=$MOAT_ROOT_PASSWORD \
         AWS_CA_BUNDLE={} AWS_ENDPOINT_URL={store}",
        source_of_credentials(&config.store.root_credentials),
        trust.join("ca.pem").display()
    ));
    lines.push(format!(
        "mc       cp {} ~/.mc/certs/CAs/; mc alias set moat {store} $MOAT_ROOT_USER $MOAT_ROOT_PASSWORD",
        trust.join("ca.pem").display()
    ));
    lines.push("ready    stop with Ctrl-C or SIGTERM; `moat doctor URL --s3a` says what is wrong with a client".to_owned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// How clients on this machine reach an address: by the operator's own name for it if there is
/// one, else by `localhost` or the address itself.
pub(crate) fn shown(config: &Config, tls: bool, address: SocketAddr) -> Endpoint {
    let host = if !address.ip().is_unspecified() && !address.ip().is_loopback() {
        moat_pki::SubjectName::Ip(address.ip())
    } else if let Some(host) = config
        .hosts
        .first()
        .filter(|_| address.ip().is_unspecified())
    {
        host.clone()
    } else {
        moat_pki::SubjectName::Dns("localhost".to_owned())
    };
    Endpoint {
        tls,
        host,
        port: address.port(),
    }
}

/// The command that reads the credentials; none if the environment gave them.
fn source_of_credentials(path: &Path) -> String {
    if path.exists() {
        format!(". {}; ", absolute(path).display())
    } else {
        String::new()
    }
}

/// For texts that are pasted elsewhere; a folder that can't be resolved is shown as it was given.
fn absolute(path: &Path) -> std::path::PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
