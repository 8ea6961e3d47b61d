//! The command line: what can be typed. What it means is decided in [`crate::config`] and in the
//! module of each command.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use moat_pki::KeyAlgorithm;

pub(crate) use crate::cli_kms::{
    KmsAuditCommand, KmsDatakeyArgs, KmsDecryptArgs, KmsEnclaveCommand, KmsEncryptArgs,
    KmsIdentityCommand, KmsKeyCommand, KmsKeyCreateArgs, KmsKeyDeleteArgs, KmsKeyImportArgs,
    KmsKeyRotateArgs, KmsMacArgs, KmsPolicyCommand, KmsScopeArgs,
};
use crate::config::raw::FlagValue;
use crate::kms_backup::{KmsBackupArgs, KmsRestoreArgs};
use crate::kms_hsm::KmsHsmCommand;
use crate::kms_rewrap::KmsRewrapArgs;
use crate::sidekick::SidekickArgs;

/// Keeps a data lake encrypted: an S3 store, a key manager and a TLS proxy in one program.
#[derive(Debug, Parser)]
#[command(name = "moat", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run store, key manager and proxy together on one folder; the first start makes everything
    Up(Box<UpArgs>),
    /// Run the S3 store alone
    Store(StoreArgs),
    /// Run the proxy alone, in front of one or more S3 stores
    Proxy(Box<ProxyArgs>),
    /// Run the proxy as a gateway: it checks signatures itself, encrypts by rule and signs anew
    Gateway(Box<ProxyArgs>),
    /// Run the proxy with the command line of Sidekick
    Sidekick(Box<SidekickArgs>),
    /// Run the key manager, or work with one
    Kms(KmsArgs),
    /// Make and inspect certificates and keystores
    Pki(PkiArgs),
    /// Find out what is wrong between this machine and an endpoint, and how to repair it
    Doctor(DoctorArgs),
}

/// Defines a group of flags that set configuration keys. Each takes text: the configuration says
/// what is wrong with all of them at once.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$help:meta])* $field:ident, $flag:literal, $value:literal => $key:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Args)]
        pub(crate) struct $name {
            $($(#[$help])* #[arg(id = $flag, long = $flag, value_name = $value)] $field: Vec<String>,)*
        }

        impl $name {
            /// What was given, under the keys that it sets.
            pub(crate) fn values(self) -> Vec<FlagValue> {
                vec![$(FlagValue { key: $key, flag: concat!("--", $flag), values: self.$field },)*]
            }
        }
    };
}

flags! {
    /// Flags of every server.
    CommonFlags {
        /// The data folder [default: ./moat-data]
        data, "data", "DIR" => "data";
        /// A further name or address that certificates vouch for; may be repeated
        host, "host", "NAME" => "hosts";
        /// What is logged: error, warn, info, debug, trace, or directives
        log_level, "log-level", "LEVEL" => "log.level";
        /// text or json
        log_format, "log-format", "FORMAT" => "log.format";
    }
}

flags! {
    /// Flags of the store.
    StoreFlags {
        /// Where the store listens, HTTPS [default: 0.0.0.0:9000]
        listen, "store-listen", "ADDR" => "store.listen";
        /// Certificate chain of the store, PEM [default: made by the first start]
        certificate, "store-certificate", "FILE" => "store.certificate";
        /// Its private key, PKCS#8 PEM
        private_key, "store-private-key", "FILE" => "store.private_key";
        /// A domain whose sub-domains are buckets (virtual-host style); may be repeated
        domain, "domain", "NAME" => "store.domains";
        /// The region that the store answers [default: us-east-1]
        region, "region", "REGION" => "store.region";
        /// File with MOAT_ROOT_USER and MOAT_ROOT_PASSWORD [default: DIR/root.env]
        root_credentials, "root-credentials", "FILE" => "store.root_credentials";
        /// on: buckets without a rule get SSE-KMS instead of SSE-S3
        auto_encryption, "auto-encryption", "on|off" => "store.auto_encryption";
        /// The enclave of the store's keys [default: moat]
        enclave, "enclave", "NAME" => "store.kms.enclave";
        /// The key of SSE-S3, and of SSE-KMS without a named key [default: moat-default]
        default_key, "default-key", "NAME" => "store.kms.default_key";
    }
}

flags! {
    /// How a store that runs alone reaches its key manager.
    StoreKmsFlags {
        /// The key manager [default: the one of the same folder]
        endpoint, "kms-endpoint", "URL,..." => "store.kms.endpoint";
        /// The CA that the key manager's certificate must come from [default: DIR/ca/ca.crt]
        ca, "kms-ca", "FILE" => "store.kms.ca";
        /// File with the store's API key, instead of a certificate
        api_key_file, "kms-api-key-file", "FILE" => "store.kms.api_key_file";
        /// The store's client certificate, PEM [default: DIR/identity/store.crt]
        certificate, "kms-client-certificate", "FILE" => "store.kms.certificate";
        /// Its private key
        private_key, "kms-client-key", "FILE" => "store.kms.private_key";
    }
}

flags! {
    /// Flags of the key manager.
    KmsFlags {
        /// Where the key manager listens, mutual TLS [default: 0.0.0.0:7373]
        listen, "kms-listen", "ADDR" => "kms.listen";
        /// Certificate chain of the key manager, PEM [default: made by the first start]
        certificate, "kms-certificate", "FILE" => "kms.certificate";
        /// Its private key, PKCS#8 PEM
        private_key, "kms-private-key", "FILE" => "kms.private_key";
        /// The HSM key: a file with hsm:aes256:..., or pkcs11:... [default: DIR/kms/hsm.key, or MOAT_HSM_KEY]
        hsm_key, "hsm-key", "FILE|URI" => "kms.hsm_key";
        /// The database that several key managers share [default: off, the state is in the folder]
        database, "kms-database", "URL" => "kms.database";
    }
}

flags! {
    /// Flags of the proxy.
    ProxyFlags {
        /// Where the proxy listens with TLS, or off [default: 0.0.0.0:8090]
        listen_https, "proxy-https", "ADDR" => "proxy.listen_https";
        /// Where the proxy listens without TLS, or off [default: 127.0.0.1:8091]
        listen_http, "proxy-http", "ADDR" => "proxy.listen_http";
        /// A store behind the proxy; may be repeated [default: the store of the same folder]
        upstream, "upstream", "URL" => "proxy.upstreams";
        /// A CA that the stores' certificates may come from; may be repeated [default: DIR/ca/ca.crt]
        upstream_ca, "upstream-ca", "FILE" => "proxy.upstream_ca";
        /// Certificate chain of the proxy, PEM; may be repeated, each with its key [default: made by the first start]
        certificate, "proxy-certificate", "FILE" => "proxy.certificate";
        /// Its private key, PEM
        private_key, "proxy-private-key", "FILE" => "proxy.private_key";
        /// The path that tells whether a store is alive [default: /minio/health/live]
        health_path, "health-path", "PATH" => "proxy.health_path";
    }
}

flags! {
    /// Flags of a proxy that runs alone.
    ProxyAloneFlags {
        /// Where to listen, https://[HOST]:PORT or http://[HOST]:PORT; may be repeated; instead of --proxy-https and --proxy-http
        listen, "listen", "URL" => "proxy.listen";
        /// Endpoints of one site, with commas; may be repeated: the next site takes over when all of one are down
        site, "site", "URLS" => "proxy.sites";
        /// Where /ready, /metrics and /status are answered, plain http [default: off]
        admin, "admin", "ADDR" => "proxy.admin_listen";
        /// on: trust the CAs of --upstream-ca alone, not those of the system
        upstream_ca_only, "upstream-ca-only", "on|off" => "proxy.upstream_ca_only";
        /// Client certificate shown to the stores, PEM
        upstream_certificate, "upstream-certificate", "FILE" => "proxy.upstream_certificate";
        /// Its private key, PEM
        upstream_key, "upstream-private-key", "FILE" => "proxy.upstream_private_key";
        /// on: accept any certificate of the stores; for labs only
        insecure, "insecure", "on|off" => "proxy.upstream_insecure";
        /// on: speak HTTP/2 with stores that do [default: off]
        upstream_http2, "upstream-http2", "on|off" => "proxy.upstream_http2";
        /// Connections that a listener serves at once [default: 10000]
        max_connections, "max-connections", "N" => "proxy.max_connections";
        /// File with the password of an encrypted private key
        key_password, "private-key-password-file", "FILE" => "proxy.private_key_password_file";
        /// A CA that clients must show a certificate of; may be repeated
        client_ca, "client-ca", "FILE" => "proxy.client_ca";
        /// Tell the stores each client's certificate in a header: off, xfcc or client-cert [default: off]
        pass_certificate, "pass-client-certificate", "FORM" => "proxy.pass_client_certificate";
        /// The lowest TLS version, 1.2 or 1.3 [default: 1.2]
        tls_min, "tls-min", "VERSION" => "proxy.tls_min";
        /// The highest TLS version, 1.2 or 1.3 [default: 1.3]
        tls_max, "tls-max", "VERSION" => "proxy.tls_max";
        /// Another port for health checks
        health_port, "health-port", "PORT" => "proxy.health_port";
        /// From one health check to the next [default: 5s]
        health_interval, "health-interval", "TIME" => "proxy.health_interval";
        /// How long a health check may take [default: 3s]
        health_timeout, "health-timeout", "TIME" => "proxy.health_timeout";
        /// Where the proxy stands: endpoints with zone=NAME are used first
        zone, "zone", "NAME" => "proxy.zone";
        /// How long requests may run on after SIGTERM [default: 25s]
        drain, "drain", "TIME" => "proxy.drain";
        /// Addresses of proxies whose X-Forwarded headers are believed; may be repeated
        trusted, "trusted-proxy", "NET" => "proxy.trusted_proxies";
        /// Addresses whose connections begin with a PROXY header; may be repeated
        accept_proxy, "accept-proxy-protocol", "NET" => "proxy.accept_proxy_protocol";
        /// Tell the stores the client's address in a PROXY header: off, v1 or v2
        send_proxy, "send-proxy-protocol", "VERSION" => "proxy.send_proxy_protocol";
        /// Print calls: all, requests or probes [default: off]
        trace, "trace", "KIND" => "proxy.trace";
        /// An OpenTelemetry collector that gets a span of each request over OTLP/HTTP [default: off]
        otlp, "otlp-endpoint", "URL" => "proxy.otlp_endpoint";
        /// How they are printed: text or json [default: text]
        trace_format, "trace-format", "FORMAT" => "proxy.trace_format";
    }
}

flags! {
    /// Buckets to make.
    BucketFlags {
        /// A bucket to make, encrypted by default under the key NAME-key; NAME=KEY takes another key, NAME=none no rule; may be repeated
        bucket, "bucket", "NAME" => "buckets";
    }
}

/// The configuration file.
#[derive(Debug, Args)]
pub(crate) struct ConfigFlag {
    /// The configuration file [default: DIR/moat.toml if there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFlag,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[command(flatten)]
    pub(crate) buckets: BucketFlags,
    #[command(flatten)]
    pub(crate) store: StoreFlags,
    #[command(flatten)]
    pub(crate) kms: KmsFlags,
    #[command(flatten)]
    pub(crate) proxy: ProxyFlags,
}

#[derive(Debug, Args)]
pub(crate) struct StoreArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFlag,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[command(flatten)]
    pub(crate) store: StoreFlags,
    #[command(flatten)]
    pub(crate) kms: StoreKmsFlags,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ProxyArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ProxyCommand>,
    #[command(flatten)]
    pub(crate) file: ConfigFlag,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[command(flatten)]
    pub(crate) proxy: ProxyFlags,
    #[command(flatten)]
    pub(crate) alone: ProxyAloneFlags,
    /// Stores behind the proxy, all of one site: https://minio{1...4}:9000
    #[arg(value_name = "ENDPOINT")]
    pub(crate) endpoints: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Watch a running proxy
    Top(ProxyTopArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ProxyTopArgs {
    /// The admin listener of the proxy
    #[arg(
        long,
        value_name = "URL",
        env = "MOAT_PROXY_ADMIN_URL",
        default_value = "http://127.0.0.1:8092"
    )]
    pub(crate) url: String,
    /// Print once and end, instead of every second
    #[arg(long)]
    pub(crate) once: bool,
}

impl ProxyArgs {
    /// What was given, under the keys that it sets.
    pub(crate) fn values(self) -> Vec<FlagValue> {
        let mut values = [
            self.common.values(),
            self.proxy.values(),
            self.alone.values(),
        ]
        .concat();
        if !self.endpoints.is_empty() {
            let key = "proxy.upstreams";
            match values.iter_mut().find(|value| value.key == key) {
                // Written both ways they are one list.
                Some(value) => value.values.extend(self.endpoints),
                None => values.push(FlagValue {
                    key,
                    flag: "ENDPOINT",
                    values: self.endpoints,
                }),
            }
        }
        values
    }
}

#[derive(Debug, Args)]
pub(crate) struct KmsArgs {
    #[command(subcommand)]
    pub(crate) command: KmsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KmsCommand {
    /// Run the key manager alone
    Server(KmsServerArgs),
    /// Say whether the key manager answers, and who it takes us for
    Status(KmsClientArgs),
    /// Work with keys
    #[command(subcommand)]
    Key(KmsKeyCommand),
    /// Read or prove the audit log
    #[command(subcommand)]
    Audit(KmsAuditCommand),
    /// Work with identities
    #[command(subcommand)]
    Identity(KmsIdentityCommand),
    /// Work with policies
    #[command(subcommand)]
    Policy(KmsPolicyCommand),
    /// Work with enclaves
    #[command(subcommand)]
    Enclave(KmsEnclaveCommand),
    /// Work with the key that seals the key manager's state
    #[command(subcommand)]
    Hsm(KmsHsmCommand),
    /// Write an encrypted backup of the key manager's state while it serves
    Backup(KmsBackupArgs),
    /// Put a backup into a new folder or database; the HSM key must be there
    Restore(KmsRestoreArgs),
    /// Have a store wrap its data's keys under the newest key versions, so that old ones may be destroyed
    Rewrap(KmsRewrapArgs),
    /// Encrypt a small secret: from standard input or a file, to base64
    Encrypt(KmsEncryptArgs),
    /// Decrypt what `encrypt` gave, or the wrapped form of a data key
    Decrypt(KmsDecryptArgs),
    /// Make a data key: itself, and wrapped under a key
    Datakey(KmsDatakeyArgs),
    /// Make or check a message authentication code of standard input or a file
    Mac(KmsMacArgs),
}

#[derive(Debug, Args)]
pub(crate) struct KmsServerArgs {
    #[command(flatten)]
    pub(crate) file: ConfigFlag,
    #[command(flatten)]
    pub(crate) common: CommonFlags,
    #[command(flatten)]
    pub(crate) kms: KmsFlags,
}

/// How a command reaches the key manager, and how it prints.
#[derive(Debug, Args)]
pub(crate) struct KmsClientArgs {
    /// The data folder of a key manager on this machine [default: ./moat-data]
    #[arg(long, value_name = "DIR", env = "MOAT_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// The key manager [default: the one of the data folder]
    #[arg(long, value_name = "URL", env = "MOAT_KMS_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// The CA that its certificate must come from [default: DIR/ca/ca.crt]
    #[arg(long, value_name = "FILE", env = "MOAT_KMS_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// File with the API key; MOAT_KMS_API_KEY may hold the key itself [default: DIR/identity/root.key]
    #[arg(long, value_name = "FILE", env = "MOAT_KMS_API_KEY_FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// The enclave
    #[arg(
        long,
        value_name = "NAME",
        env = "MOAT_KMS_ENCLAVE",
        default_value = "moat"
    )]
    pub(crate) enclave: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PkiArgs {
    #[command(subcommand)]
    pub(crate) command: PkiCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PkiCommand {
    /// Make a CA: NAME.crt and NAME.key
    Ca {
        /// The subject's common name; also the file name unless --out is given
        name: String,
        /// Path without extension of the files to write
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
        /// The only domains and networks (10.0.0.0/8) that it may sign for; may be repeated
        #[arg(long, value_name = "SCOPE")]
        permit: Vec<String>,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 3653)]
        days: u32,
        #[command(flatten)]
        algorithm: AlgorithmArg,
    },
    /// Make a certificate signed by a CA: NAME.crt (with the chain) and NAME.key
    Leaf {
        /// The subject's common name; also the file name unless --out is given
        name: String,
        /// A DNS name or address that it vouches for; may be repeated
        #[arg(long, value_name = "NAME")]
        host: Vec<String>,
        /// What it is for
        #[arg(long, value_enum, default_value_t = UsageArg::Server)]
        usage: UsageArg,
        /// The CA's certificate
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// The CA's private key [default: the certificate's path with .key]
        #[arg(long, value_name = "FILE")]
        ca_key: Option<PathBuf>,
        /// Path without extension of the files to write
        #[arg(long, value_name = "PATH")]
        out: Option<PathBuf>,
        /// Also write a keystore with key and chain: pkcs12 or jks; may be repeated
        #[arg(long, value_enum, value_name = "FORMAT", requires = "password_file")]
        keystore: Vec<StoreFormat>,
        /// File with the keystore's password
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// How long it is valid
        #[arg(long, value_name = "DAYS", default_value_t = 397)]
        days: u32,
        #[command(flatten)]
        algorithm: AlgorithmArg,
    },
    /// Make a truststore for Java out of PEM certificates
    Truststore {
        /// PEM files with the certificates to trust
        #[arg(required = true)]
        certificates: Vec<PathBuf>,
        /// The file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Its format
        #[arg(long, value_enum, default_value_t = StoreFormat::Pkcs12)]
        format: StoreFormat,
        /// File with the password; without it, Java's default "changeit" (a truststore holds no secret)
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Show what certificates say: PEM, PKCS#12 or JKS
    Inspect {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// File with the keystores' password; without it, "changeit"
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// The kind of a new key.
#[derive(Debug, Args)]
pub(crate) struct AlgorithmArg {
    /// The kind of key: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096
    #[arg(long, value_name = "KIND", default_value = "ecdsa-p256", value_parser = algorithm)]
    pub(crate) algorithm: KeyAlgorithm,
}

fn algorithm(text: &str) -> Result<KeyAlgorithm, String> {
    KeyAlgorithm::parse(text).ok_or_else(|| {
        let names: Vec<_> = KeyAlgorithm::ALL.iter().map(|(name, _)| *name).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// What a leaf is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UsageArg {
    Server,
    Client,
    Both,
}

/// The format of a keystore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreFormat {
    Pkcs12,
    Jks,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The endpoint: https://HOST:PORT or http://HOST:PORT
    pub(crate) url: String,
    /// Check for Spark and Hadoop S3A as well, and print JVM settings
    #[arg(long)]
    pub(crate) s3a: bool,
    /// CA certificates that the client trusts, PEM [default: AWS_CA_BUNDLE, SSL_CERT_FILE, else the system's]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// File with the access key and secret (MOAT_ROOT_USER=..., MOAT_ROOT_PASSWORD=...) [default: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY]
    #[arg(long, value_name = "FILE")]
    pub(crate) credentials: Option<PathBuf>,
    /// The region that the client signs for [default: AWS_REGION, AWS_DEFAULT_REGION, else us-east-1]
    #[arg(long, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// A bucket to look into
    #[arg(long, value_name = "NAME")]
    pub(crate) bucket: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::settings;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_sets_a_setting() {
        let Command::Up(args) = Cli::parse_from(["moat", "up"]).command else {
            panic!("up is up");
        };
        let Command::Store(store) = Cli::parse_from(["moat", "store"]).command else {
            panic!("store is store");
        };
        let values = [
            args.common.values(),
            args.buckets.values(),
            args.store.values(),
            args.kms.values(),
            args.proxy.values(),
            store.kms.values(),
        ];
        for value in values.into_iter().flatten() {
            assert!(settings::find(value.key).is_some(), "{}", value.key);
        }
    }
}
