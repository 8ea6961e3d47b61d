//! Every setting: its key in `moat.toml`, its flag, its environment variables, and the form that
//! its value must have. One row is all that a new setting needs besides its use.

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its dotted key in the file.
    pub(crate) key: &'static str,
    /// Environment variables, the first that is set counts.
    pub(crate) env: &'static [&'static str],
    /// What a value looks like, for messages.
    pub(crate) form: &'static str,
    /// Whether it takes several values: an array in the file, commas in the environment.
    pub(crate) list: bool,
}

const fn one(key: &'static str, env: &'static [&'static str], form: &'static str) -> Setting {
    Setting {
        key,
        env,
        form,
        list: false,
    }
}

const fn list(key: &'static str, env: &'static [&'static str], form: &'static str) -> Setting {
    Setting {
        key,
        env,
        form,
        list: true,
    }
}

const FOLDER: &str = "a folder";
const FILE: &str = "a file";
const SOCKET: &str = "an address and port, such as 0.0.0.0:9000";
const SOCKET_OR_OFF: &str = "an address and port, such as 127.0.0.1:8091, or off";
const ENDPOINTS: &str =
    "endpoints such as https://minio{1...4}:9000, each followed by weight=N or zone=NAME if needed";
const LISTEN: &str = "https://[HOST]:PORT or http://[HOST]:PORT; without HOST all addresses";
const TLS_VERSION: &str = "1.2 or 1.3";
const DURATION: &str = "a duration above zero, such as 500ms, 30s or 1m30s";
const DURATION_OR_ZERO: &str = "a duration, such as 0s, 30s or 1m30s";
const COUNT: &str = "a number from 1 to 1000";
const NETWORKS: &str = "addresses or networks, such as 10.0.0.0/8";
const DATABASE: &str = "postgres://USER@HOST:PORT/DATABASE, or off";
const HSM_KEY: &str = "a file, or pkcs11:token=LABEL;object=KEY?module-path=FILE&pin-source=FILE";
const SWITCH: &str = "on or off";
const KEY_NAME: &str = "letters, digits, '.', '_' and '-', at most 128";

/// All of them.
pub(crate) const SETTINGS: &[Setting] = &[
    one("data", &["MOAT_DATA"], FOLDER),
    list(
        "hosts",
        &["MOAT_HOSTS"],
        "DNS names or addresses that clients use",
    ),
    list("buckets", &["MOAT_BUCKETS"], "NAME, NAME=KEY or NAME=none"),
    one(
        "log.level",
        &["MOAT_LOG_LEVEL"],
        "error, warn, info, debug, trace, or directives such as warn,moat_kms=debug",
    ),
    one("log.format", &["MOAT_LOG_FORMAT"], "text or json"),
    one("store.listen", &["MOAT_STORE_LISTEN"], SOCKET),
    one("store.certificate", &["MOAT_STORE_CERTIFICATE"], FILE),
    one("store.private_key", &["MOAT_STORE_PRIVATE_KEY"], FILE),
    list(
        "store.domains",
        &["MOAT_STORE_DOMAINS", "MINIO_DOMAIN"],
        "DNS names for virtual-host style",
    ),
    one(
        "store.region",
        &["MOAT_STORE_REGION", "MINIO_SITE_REGION", "MINIO_REGION"],
        "a word, such as us-east-1",
    ),
    one(
        "store.root_credentials",
        &["MOAT_ROOT_CREDENTIALS_FILE"],
        FILE,
    ),
    one(
        "store.auto_encryption",
        &["MOAT_STORE_AUTO_ENCRYPTION", "MINIO_KMS_AUTO_ENCRYPTION"],
        SWITCH,
    ),
    one(
        "store.kms.endpoint",
        &["MOAT_KMS_ENDPOINT", "MINIO_KMS_SERVER"],
        "HOST:PORT or https://HOST:PORT, several of one state with commas",
    ),
    one("store.kms.ca", &["MOAT_KMS_CA"], FILE),
    one(
        "store.kms.api_key_file",
        &["MOAT_STORE_KMS_API_KEY_FILE"],
        FILE,
    ),
    one(
        "store.kms.certificate",
        &["MOAT_KMS_TLS_CERT", "MINIO_KMS_TLS_CLIENT_CERT"],
        FILE,
    ),
    one(
        "store.kms.private_key",
        &["MOAT_KMS_TLS_KEY", "MINIO_KMS_TLS_CLIENT_KEY"],
        FILE,
    ),
    one(
        "store.kms.enclave",
        &["MOAT_KMS_ENCLAVE", "MINIO_KMS_ENCLAVE"],
        KEY_NAME,
    ),
    one(
        "store.kms.default_key",
        &["MOAT_KMS_DEFAULT_KEY", "MINIO_KMS_SSE_KEY"],
        KEY_NAME,
    ),
    list(
        "store.strict_buckets",
        &["MOAT_STORE_STRICT_BUCKETS"],
        "names of buckets",
    ),
    one("kms.listen", &["MOAT_KMS_LISTEN"], SOCKET),
    one("kms.certificate", &["MOAT_KMS_CERTIFICATE"], FILE),
    one("kms.private_key", &["MOAT_KMS_PRIVATE_KEY"], FILE),
    one("kms.kes_enclave", &["MOAT_KMS_KES_ENCLAVE"], KEY_NAME),
    one("kms.hsm_key", &["MOAT_HSM_KEY_FILE"], HSM_KEY),
    list("kms.hsm_keys_old", &["MOAT_HSM_KEYS_OLD"], HSM_KEY),
    one(
        "kms.lease_ttl",
        &["MOAT_KMS_LEASE_TTL"],
        "1s to 1h, as 30s, 5m or 1h",
    ),
    one(
        "kms.rate_limit",
        &["MOAT_KMS_RATE_LIMIT"],
        "off, or operations a second, as 1000/s",
    ),
    one(
        "kms.size_limit",
        &["MOAT_KMS_SIZE_LIMIT"],
        "2MiB to 4GiB, as 64MiB",
    ),
    one(
        "kms.audit_file_size",
        &["MOAT_KMS_AUDIT_FILE_SIZE"],
        "1MiB to 4GiB, as 32MiB",
    ),
    list(
        "kms.audit_export",
        &["MOAT_KMS_AUDIT_EXPORT"],
        "stdout, file:PATH or a URL of http or https",
    ),
    one("kms.audit_export_ca", &["MOAT_KMS_AUDIT_EXPORT_CA"], FILE),
    one(
        "kms.audit_export_token",
        &["MOAT_KMS_AUDIT_EXPORT_TOKEN_FILE"],
        FILE,
    ),
    one("kms.database", &["MOAT_KMS_DATABASE"], DATABASE),
    one(
        "kms.database_password",
        &["MOAT_KMS_DATABASE_PASSWORD_FILE"],
        FILE,
    ),
    one("proxy.mode", &["MOAT_PROXY_MODE"], "transparent or gateway"),
    one(
        "proxy.listen_https",
        &["MOAT_PROXY_LISTEN_HTTPS"],
        SOCKET_OR_OFF,
    ),
    one(
        "proxy.listen_http",
        &["MOAT_PROXY_LISTEN_HTTP"],
        SOCKET_OR_OFF,
    ),
    list("proxy.listen", &["MOAT_PROXY_LISTEN"], LISTEN),
    one(
        "proxy.admin_listen",
        &["MOAT_PROXY_ADMIN_LISTEN"],
        SOCKET_OR_OFF,
    ),
    list("proxy.upstreams", &["MOAT_PROXY_UPSTREAMS"], ENDPOINTS),
    list("proxy.sites", &["MOAT_PROXY_SITES"], ENDPOINTS),
    list("proxy.upstream_ca", &["MOAT_PROXY_UPSTREAM_CA"], FILE),
    one(
        "proxy.upstream_ca_only",
        &["MOAT_PROXY_UPSTREAM_CA_ONLY"],
        SWITCH,
    ),
    one(
        "proxy.upstream_certificate",
        &["MOAT_PROXY_UPSTREAM_CERTIFICATE"],
        FILE,
    ),
    one(
        "proxy.upstream_private_key",
        &["MOAT_PROXY_UPSTREAM_PRIVATE_KEY"],
        FILE,
    ),
    one(
        "proxy.upstream_insecure",
        &["MOAT_PROXY_UPSTREAM_INSECURE"],
        SWITCH,
    ),
    one(
        "proxy.upstream_http2",
        &["MOAT_PROXY_UPSTREAM_HTTP2"],
        SWITCH,
    ),
    one(
        "proxy.max_connections",
        &["MOAT_PROXY_MAX_CONNECTIONS"],
        "a number above 0",
    ),
    list("proxy.certificate", &["MOAT_PROXY_CERTIFICATE"], FILE),
    list("proxy.private_key", &["MOAT_PROXY_PRIVATE_KEY"], FILE),
    one(
        "proxy.private_key_password_file",
        &["MOAT_PROXY_PRIVATE_KEY_PASSWORD_FILE"],
        FILE,
    ),
    list("proxy.client_ca", &["MOAT_PROXY_CLIENT_CA"], FILE),
    one(
        "proxy.pass_client_certificate",
        &["MOAT_PROXY_PASS_CLIENT_CERTIFICATE"],
        "off, xfcc or client-cert",
    ),
    one(
        "proxy.otlp_endpoint",
        &["MOAT_PROXY_OTLP_ENDPOINT"],
        "http(s)://HOST:PORT of a collector, or off",
    ),
    list("proxy.otlp_ca", &["MOAT_PROXY_OTLP_CA"], FILE),
    one(
        "proxy.otlp_sample",
        &["MOAT_PROXY_OTLP_SAMPLE"],
        "a share from 0 to 1, such as 0.01",
    ),
    one("proxy.tls_min", &["MOAT_PROXY_TLS_MIN"], TLS_VERSION),
    one("proxy.tls_max", &["MOAT_PROXY_TLS_MAX"], TLS_VERSION),
    one(
        "proxy.health_path",
        &["MOAT_PROXY_HEALTH_PATH"],
        "a path that begins with /",
    ),
    one(
        "proxy.health_port",
        &["MOAT_PROXY_HEALTH_PORT"],
        "a port, or 0 for that of the endpoint",
    ),
    one(
        "proxy.health_interval",
        &["MOAT_PROXY_HEALTH_INTERVAL"],
        DURATION,
    ),
    one(
        "proxy.health_timeout",
        &["MOAT_PROXY_HEALTH_TIMEOUT"],
        DURATION,
    ),
    one("proxy.health_fall", &["MOAT_PROXY_HEALTH_FALL"], COUNT),
    one("proxy.health_rise", &["MOAT_PROXY_HEALTH_RISE"], COUNT),
    one("proxy.zone", &["MOAT_PROXY_ZONE"], "a word"),
    one(
        "proxy.slow_start",
        &["MOAT_PROXY_SLOW_START"],
        DURATION_OR_ZERO,
    ),
    one(
        "proxy.fail_back_after",
        &["MOAT_PROXY_FAIL_BACK_AFTER"],
        DURATION_OR_ZERO,
    ),
    one("proxy.dns_ttl", &["MOAT_PROXY_DNS_TTL"], DURATION),
    one("proxy.tunnel_idle", &["MOAT_PROXY_TUNNEL_IDLE"], DURATION),
    one("proxy.drain", &["MOAT_PROXY_DRAIN"], DURATION),
    list(
        "proxy.trusted_proxies",
        &["MOAT_PROXY_TRUSTED_PROXIES"],
        NETWORKS,
    ),
    list(
        "proxy.accept_proxy_protocol",
        &["MOAT_PROXY_ACCEPT_PROXY_PROTOCOL"],
        NETWORKS,
    ),
    one(
        "proxy.send_proxy_protocol",
        &["MOAT_PROXY_SEND_PROXY_PROTOCOL"],
        "off, v1 or v2",
    ),
    one("proxy.hide_key_id", &["MOAT_PROXY_HIDE_KEY_ID"], SWITCH),
    one(
        "proxy.trace",
        &["MOAT_PROXY_TRACE"],
        "off, all, requests or probes",
    ),
    one(
        "proxy.trace_format",
        &["MOAT_PROXY_TRACE_FORMAT"],
        "text or json",
    ),
];

/// The row of a key.
pub(crate) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Whether some key begins with `prefix.`, that is, whether `prefix` is a table.
pub(crate) fn is_table(prefix: &str) -> bool {
    SETTINGS.iter().any(|s| {
        s.key
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The key that a mistyped one probably meant.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .map(|setting| (distance(setting.key, key), setting.key))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, key)| key)
}

/// Levenshtein's distance, row by row.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_and_variables_are_unique() {
        let keys: BTreeSet<_> = SETTINGS.iter().map(|s| s.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        let variables: Vec<_> = SETTINGS.iter().flat_map(|s| s.env).collect();
        assert_eq!(
            variables.iter().collect::<BTreeSet<_>>().len(),
            variables.len()
        );
    }

    #[test]
    fn the_page_on_configuration_has_a_row_for_each() {
        let page = include_str!("../../../../docs/configuration.md");
        for setting in SETTINGS {
            let variables: Vec<_> = setting.env.iter().map(|name| format!("`{name}`")).collect();
            let row = format!("| `{}` | {} |", setting.key, variables.join(", "));
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        assert_eq!(nearest("store.lisen"), Some("store.listen"));
        assert_eq!(nearest("something.else"), None);
        assert!(is_table("store.kms") && !is_table("store.listen"));
    }
}
