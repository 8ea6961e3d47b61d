//! The second stage of configuration: what it means. Services and commands see only [`Config`];
//! every problem is collected and all are reported together.

pub(crate) mod gateway;
mod kms;
mod proxy;
pub(crate) mod raw;
pub(crate) mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use http::Uri;
use moat_kms::RateLimit;
use moat_kms_client::DEFAULT_PORT;
use moat_meta::DatabaseUrl;
use moat_pki::SubjectName;
use moat_types::{BucketName, EnclaveName, KeyName};

use crate::endpoint::Endpoint;
use crate::folder::DataFolder;
use crate::hsm_place::HsmPlace;
use crate::logs::{self, LogConfig, LogFormat};
pub(crate) use proxy::{Listen, ProxyConfig, Trace};
use raw::{FlagValue, Raw, Source};

/// The folder beside which everything works without a flag.
pub(crate) const DATA_DEFAULT: &str = "./moat-data";
/// MinIO's port, which clients and guides know.
const STORE_LISTEN_DEFAULT: &str = "0.0.0.0:9000";
/// MinKMS's port.
const KMS_LISTEN_DEFAULT: &str = "0.0.0.0:7373";
/// Long enough to bridge a restart of the key manager, short enough for a revocation.
const LEASE_TTL_DEFAULT: &str = "5m";
/// What S3 answers for the classic region, and what clients send that were told none.
const REGION_DEFAULT: &str = "us-east-1";
/// Server lines about requests are not logged by default; starts, ends and trouble are.
const LOG_FILTER_DEFAULT: &str = "warn,moat=info,moat::access=warn";
/// The namespace of a single installation.
const ENCLAVE_DEFAULT: &str = "moat";
/// The key of SSE-S3, and of SSE-KMS where nobody names one.
const KEY_DEFAULT: &str = "moat-default";
/// A certificate chain and its key, PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The chain, leaf first.
    pub(crate) certificate: PathBuf,
    /// The PKCS#8 key.
    pub(crate) private_key: PathBuf,
}

/// A bucket that `moat up` makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BucketRequest {
    /// Its name.
    pub(crate) name: BucketName,
    /// The key of its default-encryption rule; `None`: no rule.
    pub(crate) key: Option<KeyName>,
}

impl BucketRequest {
    /// Reads `NAME` (rule with the key `NAME-key`), `NAME=KEY`, or `NAME=none`.
    fn parse(text: &str) -> Option<Self> {
        let (name, key) = match text.split_once('=') {
            None => (text, Some(format!("{text}-key"))),
            Some((name, "none")) => (name, None),
            Some((name, key)) => (name, Some(key.to_owned())),
        };
        let key = match key {
            Some(key) => Some(KeyName::parse(&key).ok()?),
            None => None,
        };
        BucketName::parse(name).ok().map(|name| Self { name, key })
    }
}

/// The store's part.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: TlsFiles,
    pub(crate) domains: Vec<String>,
    pub(crate) region: String,
    pub(crate) root_credentials: PathBuf,
    /// Proxies whose word on the client's scheme is taken; besides, this machine's own.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    pub(crate) auto_encryption: bool,
    /// Buckets whose keys are asked for with each object.
    pub(crate) strict_buckets: Vec<BucketName>,
    pub(crate) kms: StoreKmsConfig,
}

/// How the store reaches its keys.
#[derive(Debug, Clone)]
pub(crate) struct StoreKmsConfig {
    /// Nodes that share a state. `None`: the key manager of the same folder, on its configured
    /// port.
    pub(crate) endpoint: Option<Vec<Endpoint>>,
    pub(crate) ca: PathBuf,
    /// Counts instead of the certificate.
    pub(crate) api_key_file: Option<PathBuf>,
    pub(crate) identity: TlsFiles,
    pub(crate) enclave: EnclaveName,
    pub(crate) default_key: KeyName,
}

/// The key manager's part.
#[derive(Debug, Clone)]
pub(crate) struct KmsConfig {
    pub(crate) listen: SocketAddr,
    pub(crate) tls: TlsFiles,
    /// Where KES clients work whose identity is of no enclave.
    pub(crate) kes_enclave: EnclaveName,
    pub(crate) hsm_key: HsmPlace,
    /// HSM keys that rows may still be sealed under.
    pub(crate) hsm_keys_old: Vec<HsmPlace>,
    /// How long a store may go on with a key without asking again.
    pub(crate) lease_ttl: Duration,
    /// How often one identity may ask; `None`: as often as it likes.
    pub(crate) rate_limit: Option<RateLimit>,
    /// Bytes of requests that one identity may have under way.
    pub(crate) size_limit: usize,
    /// A file of the audit is closed when it is this large.
    pub(crate) audit_file_size: u64,
    pub(crate) audit_export: AuditExportConfig,
    /// Where the state is, if several key managers share it; `None`: in the folder.
    pub(crate) database: Option<DatabaseConfig>,
}

/// Where the audit is handed on to.
#[derive(Debug, Clone)]
pub(crate) struct AuditExportConfig {
    pub(crate) targets: Vec<ExportPlace>,
    /// The CA of a web hook's certificate; else those of the system count.
    pub(crate) ca: Option<PathBuf>,
    /// A file with what a web hook wants as a bearer token.
    pub(crate) token: Option<PathBuf>,
}

/// One target, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExportPlace {
    Stdout,
    File(PathBuf),
    Webhook(Uri),
}

impl ExportPlace {
    /// `stdout`, `file:PATH` or a URL.
    fn parse(text: &str) -> Option<Self> {
        if text == "stdout" {
            return Some(Self::Stdout);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return (!path.is_empty()).then(|| Self::File(path.into()));
        }
        let url: Uri = text.parse().ok()?;
        let known = matches!(url.scheme_str(), Some("http" | "https"));
        (known && url.host().is_some()).then_some(Self::Webhook(url))
    }
}

/// A database and how to enter it.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseConfig {
    pub(crate) url: DatabaseUrl,
    pub(crate) password_file: Option<PathBuf>,
}

/// Everything, complete and checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data: DataFolder,
    pub(crate) hosts: Vec<SubjectName>,
    pub(crate) buckets: Vec<BucketRequest>,
    pub(crate) log: LogConfig,
    pub(crate) store: StoreConfig,
    pub(crate) kms: KmsConfig,
    pub(crate) proxy: ProxyConfig,
}

impl Config {
    /// Reads file, environment and flags.
    ///
    /// The file is `--config`, else `MOAT_CONFIG`, else `moat.toml` in the data folder if there is
    /// one.
    pub(crate) fn load(file: Option<&Path>, flags: Vec<FlagValue>) -> Result<Self> {
        let env = |name: &str| std::env::var(name).ok();
        let data = early_data(&flags, &env);
        let file = match file
            .map(Path::to_owned)
            .or_else(|| env("MOAT_CONFIG").map(PathBuf::from))
        {
            Some(path) => Some(path),
            None => Some(Path::new(&data).join("moat.toml")).filter(|path| path.exists()),
        };
        let text = match &file {
            Some(path) => Some(crate::files::read_text(path)?),
            None => None,
        };
        let mut problems = Vec::new();
        let raw = Raw::collect(
            file.as_deref().zip(text.as_deref()),
            &env,
            flags,
            &mut problems,
        );
        let config = interpret(&raw, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(report(&problems))
        }
    }
}

impl Config {
    /// The defaults, with only what the environment says about logs: for a command line that is not
    /// ours and must not mean something else beside a file of ours.
    pub(crate) fn defaults() -> Result<Self> {
        let log = |name: &str| {
            let about_logs = name.starts_with("MOAT_LOG_");
            about_logs.then(|| std::env::var(name).ok()).flatten()
        };
        let mut problems = Vec::new();
        let raw = Raw::collect(None, &log, Vec::new(), &mut problems);
        let config = interpret(&raw, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(report(&problems))
        }
    }
}

/// The data folder before the file is read, to find the file. A file that names another folder
/// is a file given by name.
fn early_data(flags: &[FlagValue], env: &dyn Fn(&str) -> Option<String>) -> String {
    flags
        .iter()
        .find(|flag| flag.key == "data")
        .and_then(|flag| flag.values.first().cloned())
        .or_else(|| env("MOAT_DATA"))
        .unwrap_or_else(|| DATA_DEFAULT.to_owned())
}

fn report(problems: &[String]) -> anyhow::Error {
    match problems {
        [one] => anyhow!("{one}"),
        many => anyhow!(
            "the configuration has {} problems:\n  {}",
            many.len(),
            many.join("\n  ")
        ),
    }
}

fn interpret(raw: &Raw, problems: &mut Vec<String>) -> Config {
    let mut reader = Reader { raw, problems };
    let data = DataFolder::new(reader.one("data", DATA_DEFAULT, |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }));
    Config {
        hosts: reader.list("hosts", |text| SubjectName::parse(text).ok()),
        buckets: reader.buckets(),
        log: LogConfig {
            filter: reader.one("log.level", LOG_FILTER_DEFAULT, |text| {
                logs::is_filter(text).then(|| text.to_owned())
            }),
            format: reader.one("log.format", "text", LogFormat::parse),
        },
        store: store(&mut reader, &data),
        kms: KmsConfig {
            listen: reader.one("kms.listen", KMS_LISTEN_DEFAULT, |text| text.parse().ok()),
            tls: reader.tls(
                "kms.certificate",
                "kms.private_key",
                &data.server_tls("kms"),
            ),
            kes_enclave: reader.one("kms.kes_enclave", ENCLAVE_DEFAULT, |text| {
                EnclaveName::parse(text).ok()
            }),
            hsm_key: reader
                .optional("kms.hsm_key", |text| HsmPlace::parse(text).ok())
                .unwrap_or_else(|| HsmPlace::File(data.hsm_key())),
            hsm_keys_old: reader.list("kms.hsm_keys_old", |text| HsmPlace::parse(text).ok()),
            lease_ttl: reader.one("kms.lease_ttl", LEASE_TTL_DEFAULT, kms::lease_ttl),
            rate_limit: reader.one("kms.rate_limit", "off", kms::rate_limit),
            size_limit: reader.one("kms.size_limit", kms::SIZE_LIMIT, kms::size_limit),
            audit_file_size: reader.one(
                "kms.audit_file_size",
                kms::AUDIT_FILE_SIZE,
                kms::audit_file_size,
            ),
            audit_export: AuditExportConfig {
                targets: reader.list("kms.audit_export", ExportPlace::parse),
                ca: reader.optional("kms.audit_export_ca", path),
                token: reader.optional("kms.audit_export_token", path),
            },
            database: database(&mut reader),
        },
        proxy: proxy::read(&mut reader, &data),
        data,
    }
}

fn store(reader: &mut Reader<'_>, data: &DataFolder) -> StoreConfig {
    StoreConfig {
        listen: reader.one("store.listen", STORE_LISTEN_DEFAULT, |text| {
            text.parse().ok()
        }),
        tls: reader.tls(
            "store.certificate",
            "store.private_key",
            &data.server_tls("store"),
        ),
        domains: reader.list("store.domains", |text| match SubjectName::parse(text) {
            Ok(SubjectName::Dns(name)) if !name.starts_with('*') => Some(name),
            _ => None,
        }),
        region: reader.one("store.region", REGION_DEFAULT, region),
        root_credentials: reader.file("store.root_credentials", data.root_credentials()),
        trusted_proxies: reader.list("store.trusted_proxies", |text| text.parse().ok()),
        auto_encryption: reader.one("store.auto_encryption", "off", switch),
        strict_buckets: reader.list("store.strict_buckets", |text| BucketName::parse(text).ok()),
        kms: StoreKmsConfig {
            endpoint: reader.optional("store.kms.endpoint", kms_endpoints),
            ca: reader.file("store.kms.ca", data.ca_certificate()),
            api_key_file: reader.optional("store.kms.api_key_file", |text| {
                (!text.is_empty()).then(|| PathBuf::from(text))
            }),
            identity: reader.tls(
                "store.kms.certificate",
                "store.kms.private_key",
                &data.store_identity(),
            ),
            enclave: reader.one("store.kms.enclave", ENCLAVE_DEFAULT, |text| {
                EnclaveName::parse(text).ok()
            }),
            default_key: reader.one("store.kms.default_key", KEY_DEFAULT, |text| {
                KeyName::parse(text).ok()
            }),
        },
    }
}

/// The URL may hold a password, so a problem with it is told without repeating it.
fn database(reader: &mut Reader<'_>) -> Option<DatabaseConfig> {
    let password_file = reader.optional("kms.database_password", |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    });
    let written = reader.raw.get("kms.database")?;
    let [text] = written.values.as_slice() else {
        let problem = format!("{}: kms.database takes one value", written.source);
        reader.problems.push(problem);
        return None;
    };
    if text == "off" {
        return None;
    }
    let in_the_open = !matches!(written.source, Source::Env(_));
    let problem = match DatabaseUrl::parse(text) {
        Ok(url) if url.holds_password() && in_the_open => {
            "holds a password; put it into the file that kms.database_password names".to_owned()
        }
        Ok(url) => {
            return Some(DatabaseConfig { url, password_file });
        }
        Err(error) => format!("is not understood: {error}"),
    };
    let problem = format!("{}: kms.database {problem}", written.source);
    reader.problems.push(problem);
    None
}

fn switch(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "1" => Some(true),
        "off" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// `None` inside: switched off.
fn socket_or_off(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

/// `MINIO_KMS_SERVER` has no scheme, and the port of a key manager unless it says otherwise.
fn kms_endpoints(text: &str) -> Option<Vec<Endpoint>> {
    let one = |text: &str| {
        let text = text.trim();
        let authority = text.strip_prefix("https://").unwrap_or(text);
        if authority.contains("://") {
            return None;
        }
        let host = authority.strip_suffix('/').unwrap_or(authority);
        let with_port = Endpoint::parse(&format!("https://{host}:{DEFAULT_PORT}"));
        with_port
            .or_else(|_| Endpoint::parse(&format!("https://{host}")))
            .ok()
    };
    text.split(',').map(one).collect()
}

fn region(text: &str) -> Option<String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (!text.is_empty() && text.bytes().all(good)).then(|| text.to_owned())
}

/// Turns texts into values, and notes those that it can't.
struct Reader<'a> {
    raw: &'a Raw,
    problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn optional<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let written = self.raw.get(key)?;
        let [text] = written.values.as_slice() else {
            self.problems
                .push(format!("{}: {key} takes one value", written.source));
            return None;
        };
        let value = parse(text);
        if value.is_none() {
            self.refuse(key, text);
        }
        value
    }

    fn one<T>(&mut self, key: &'static str, default: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        // The default also stands in after a problem, so that the reading goes on and finds all.
        self.optional(key, &parse)
            .unwrap_or_else(|| parse(default).expect("defaults have the right form"))
    }

    fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let texts = self.raw.get(key).map_or(&[][..], |written| &written.values);
        let mut values = Vec::with_capacity(texts.len());
        for text in texts {
            match parse(text) {
                Some(value) => values.push(value),
                None => self.refuse(key, text),
            }
        }
        values
    }

    fn file(&mut self, key: &'static str, default: PathBuf) -> PathBuf {
        self.optional(key, |text| (!text.is_empty()).then(|| PathBuf::from(text)))
            .unwrap_or(default)
    }

    /// A certificate without its key (or the other way round) would be paired with ours.
    fn tls(
        &mut self,
        certificate: &'static str,
        private_key: &'static str,
        default: &TlsFiles,
    ) -> TlsFiles {
        let given = [certificate, private_key].map(|key| self.raw.get(key).is_some());
        if given[0] != given[1] {
            self.problems.push(format!(
                "{certificate} and {private_key} must be given together"
            ));
        }
        TlsFiles {
            certificate: self.file(certificate, default.certificate.clone()),
            private_key: self.file(private_key, default.private_key.clone()),
        }
    }

    /// Both files or neither.
    fn given_pair(
        &mut self,
        certificate: &'static str,
        private_key: &'static str,
    ) -> Option<TlsFiles> {
        let mut file = |key| self.optional(key, |text| Some(PathBuf::from(text)));
        match (file(certificate), file(private_key)) {
            (Some(certificate), Some(private_key)) => Some(TlsFiles {
                certificate,
                private_key,
            }),
            (None, None) => None,
            _ => {
                self.problems.push(format!(
                    "{certificate} and {private_key} must be given together"
                ));
                None
            }
        }
    }

    fn buckets(&mut self) -> Vec<BucketRequest> {
        let buckets = self.list("buckets", BucketRequest::parse);
        for (at, bucket) in buckets.iter().enumerate() {
            if buckets[..at].iter().any(|other| other.name == bucket.name) {
                self.problems
                    .push(format!("the bucket {} is named twice", bucket.name));
            }
        }
        buckets
    }

    fn refuse(&mut self, key: &'static str, text: &str) {
        let source = self
            .raw
            .get(key)
            .map_or(String::new(), |written| format!("{}: ", written.source));
        let form = settings::find(key).map_or("something else", |setting| setting.form);
        self.problems
            .push(format!("{source}{key} is {text:?}, but must be {form}"));
    }
}

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> Result<Config, Vec<String>> {
        let mut problems = Vec::new();
        let raw = Raw::collect(
            Some((Path::new("f"), file)),
            &|_| None,
            Vec::new(),
            &mut problems,
        );
        let config = interpret(&raw, &mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems)
        }
    }

    #[test]
    fn nothing_written_is_a_whole_configuration() {
        let config = read("").unwrap();
        assert_eq!(config.store.listen.port(), 9000);
        assert_eq!(config.data.root(), Path::new(DATA_DEFAULT));
        let plain = config.proxy.listen.iter().find(|listen| !listen.tls);
        assert!(plain.unwrap().host.unwrap().is_loopback());
        assert_eq!(config.store.kms.default_key.as_str(), "moat-default");
    }

    #[test]
    fn all_problems_are_found_at_once() {
        let problems = read(
            "hosts = [\"a b\"]\nbuckets = [\"X\", \"lake\", \"lake=none\"]\n[store]\nlisten = \"9000\"\n\
             certificate = \"x\"\nauto_encryption = \"maybe\"\n[proxy]\nlisten_http = \"off\"\n\
             listen_https = \"off\"\nupstreams = [\"host\"]\n[log]\nlevel = \"=[\"\n",
        )
        .unwrap_err();
        for expected in [
            "hosts is \"a b\"",
            "buckets is \"X\"",
            "lake is named twice",
            "store.listen is \"9000\"",
            "must be given together",
            "store.auto_encryption",
            "both off",
            "proxy.upstreams",
            "log.level",
        ] {
            assert!(
                problems.iter().any(|p| p.contains(expected)),
                "{expected}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 9, "{problems:#?}");
    }

    #[test]
    fn buckets_choose_their_key() {
        let config = read("buckets = [\"lake\", \"raw=none\", \"gold=tenant-a\"]\n").unwrap();
        let keys: Vec<_> = config
            .buckets
            .iter()
            .map(|b| b.key.as_ref().map(KeyName::as_str))
            .collect();
        assert_eq!(keys, [Some("lake-key"), None, Some("tenant-a")]);
    }

    #[test]
    fn a_password_in_a_file_that_many_read_is_refused_and_not_repeated() {
        let problems = read("[kms]\ndatabase = \"postgres://u:p4ssw0rd@h/d\"\n").unwrap_err();
        assert!(
            problems[0].contains("kms.database_password"),
            "{problems:?}"
        );
        let problems = read("[kms]\ndatabase = \"mysql://u:p4ssw0rd@h/d\"\n").unwrap_err();
        assert!(!problems[0].contains("p4ssw0rd"), "{problems:?}");
        let config = read("[kms]\ndatabase = \"postgres://u@h/d\"\n").unwrap();
        assert!(config.kms.database.is_some());
    }

    #[test]
    fn every_default_and_every_row_is_used() {
        // A row that no code reads would be a setting that does nothing.
        let source = concat!(
            include_str!("mod.rs"),
            include_str!("proxy.rs"),
            include_str!("gateway.rs")
        );
        for setting in settings::SETTINGS {
            assert!(
                source.contains(&format!("\"{}\"", setting.key)),
                "{} is not read",
                setting.key
            );
        }
    }
}
