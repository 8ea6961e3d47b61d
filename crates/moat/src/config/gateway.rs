//! What the `[gateway]` tables mean. They are lists of things with several fields, which no flag or
//! variable could hold; so they stand in the file alone.

mod written;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use moat_proxy::Upstream;
use moat_proxy::gateway::{Encryption, EncryptionRule, Require, SignBody};
use moat_s3::policy::Policy;

use super::Reader;
use crate::endpoint::Endpoint;
use written::{Written, WrittenRoute, WrittenRule, WrittenStore, WrittenUser, WrittenWebIdentity};

/// What clients and stores are told where nobody says otherwise.
const REGION_DEFAULT: &str = "us-east-1";
/// The section of an AWS credentials file.
const PROFILE_DEFAULT: &str = "default";
const SESSION_NAME_DEFAULT: &str = "moat-gateway";
/// What the first store is called in routes and metrics.
pub(crate) const FIRST_STORE: &str = "default";

/// How long names of old buckets are.
const OLD_BUCKET_NAME_BYTES: RangeInclusive<usize> = 3..=255;

/// The gateway's part.
#[derive(Debug, Clone)]
pub(crate) struct GatewayConfig {
    pub(crate) users: Vec<UserConfig>,
    /// How the store of `proxy.upstreams` is signed to.
    pub(crate) first: SigningConfig,
    /// Further stores.
    pub(crate) stores: Vec<StoreConfig>,
    pub(crate) buckets: Vec<RouteConfig>,
    pub(crate) encryption: Vec<EncryptionRule>,
    pub(crate) domains: Vec<String>,
    pub(crate) client_region: String,
    pub(crate) sign_body: SignBody,
}

impl GatewayConfig {
    /// Whether an STS is asked over https, for which it must be known whom to trust.
    pub(crate) fn asks_sts_over_tls(&self) -> bool {
        let others = self.stores.iter().map(|store| &store.signing);
        std::iter::once(&self.first).chain(others).any(|signing| {
            matches!(&signing.keys, KeysConfig::WebIdentity(identity) if identity.endpoint.tls)
        })
    }
}

/// A user.
#[derive(Debug, Clone)]
pub(crate) struct UserConfig {
    pub(crate) name: String,
    pub(crate) credentials: KeyFile,
    pub(crate) policies: Vec<PolicyPlace>,
}

/// Credentials in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
    pub(crate) profile: String,
}

/// A policy.
#[derive(Debug, Clone)]
pub(crate) enum PolicyPlace {
    BuiltIn(Policy),
    File(PathBuf),
}

/// How requests to a store are signed.
#[derive(Debug, Clone)]
pub(crate) struct SigningConfig {
    pub(crate) region: String,
    pub(crate) keys: KeysConfig,
}

/// Where keys come from.
#[derive(Debug, Clone)]
pub(crate) enum KeysConfig {
    /// The environment.
    Environment,
    File(KeyFile),
    WebIdentity(WebIdentityConfig),
}

/// An STS.
#[derive(Debug, Clone)]
pub(crate) struct WebIdentityConfig {
    pub(crate) token_file: PathBuf,
    pub(crate) role_arn: Option<String>,
    pub(crate) session_name: String,
    pub(crate) endpoint: Endpoint,
}

/// A further store.
#[derive(Debug, Clone)]
pub(crate) struct StoreConfig {
    pub(crate) name: String,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) ca: Vec<PathBuf>,
    pub(crate) health_path: Option<String>,
    pub(crate) signing: SigningConfig,
}

/// Where a bucket is.
#[derive(Debug, Clone)]
pub(crate) struct RouteConfig {
    pub(crate) name: String,
    /// A place in the list of all stores, the first one included.
    pub(crate) store: usize,
    pub(crate) upstream_name: String,
}

pub(super) fn read(reader: &mut Reader<'_>) -> Option<GatewayConfig> {
    let on = reader.one("proxy.mode", "transparent", |text| match text {
        "transparent" => Some(false),
        "gateway" => Some(true),
        _ => None,
    });
    if !on {
        return None;
    }
    let Some((file, table)) = &reader.raw.gateway else {
        reader.problems.push(
            "the gateway needs a configuration file with [gateway] and [[gateway.users]]; docs/proxy.md has an example"
                .into(),
        );
        return None;
    };
    let written: Written = match toml::Value::Table(table.clone()).try_into() {
        Ok(written) => written,
        Err(error) => {
            let error = error
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ");
            reader
                .problems
                .push(format!("{file}: in [gateway]: {error}"));
            return None;
        }
    };
    let mut meaning = Meaning {
        file,
        problems: reader.problems,
    };
    Some(meaning.gateway(written))
}

/// Turns what was written into what it means, and notes what has no meaning.
struct Meaning<'a> {
    file: &'a str,
    problems: &'a mut Vec<String>,
}

impl Meaning<'_> {
    fn problem(&mut self, text: impl std::fmt::Display) {
        self.problems.push(format!("{}: {text}", self.file));
    }

    fn gateway(&mut self, written: Written) -> GatewayConfig {
        let stores: Vec<_> = written
            .upstreams
            .into_iter()
            .filter_map(|store| self.store(store))
            .collect();
        let names: Vec<_> = std::iter::once(FIRST_STORE.to_owned())
            .chain(stores.iter().map(|store| store.name.clone()))
            .collect();
        if written.users.is_empty() {
            self.problem("the gateway has no users: add [[gateway.users]]");
        }
        let users = written.users.iter().map(|user| &user.name[..]);
        self.distinct("gateway.users", users);
        let others = names.iter().skip(1).map(|name| &name[..]);
        self.distinct("gateway.upstreams", others);
        for domain in &written.domains {
            if domain.is_empty() || domain.contains([':', '/', '*']) {
                self.problem(format!(
                    "gateway.domains: {domain:?} must be a DNS name, without port and star"
                ));
            }
        }
        GatewayConfig {
            users: written
                .users
                .into_iter()
                .map(|user| self.user(user))
                .collect(),
            first: self.signing(
                "gateway",
                written.region,
                written.credentials,
                written.profile,
                written.web_identity,
                true,
            ),
            buckets: written
                .buckets
                .into_iter()
                .filter_map(|route| self.route(route, &names))
                .collect(),
            encryption: written
                .encryption
                .into_iter()
                .filter_map(|rule| self.rule(rule))
                .collect(),
            stores,
            domains: written.domains,
            client_region: written.client_region.unwrap_or_default(),
            sign_body: match written.sign_body.as_deref() {
                None | Some("auto") => SignBody::Auto,
                Some("on") => SignBody::On,
                Some("off") => SignBody::Off,
                Some(other) => {
                    self.problem(format!(
                        "gateway.sign_body is {other:?}, but must be auto, on or off"
                    ));
                    SignBody::Auto
                }
            },
        }
    }

    /// Policies, routes, logs and metrics tell things apart by their names.
    fn distinct<'n>(&mut self, of: &str, names: impl Iterator<Item = &'n str>) {
        let mut seen = BTreeSet::new();
        for name in names.filter(|name| !name.is_empty()) {
            if !seen.insert(name) {
                self.problem(format!("{of}: the name {name} is there twice"));
            }
        }
    }

    fn user(&mut self, written: WrittenUser) -> UserConfig {
        if written.name.is_empty() {
            self.problem("gateway.users: a user has an empty name");
        }
        if written.policies.is_empty() {
            self.problem(format!(
                "gateway.users: {} may do nothing without policies: name readwrite, readonly, writeonly or a JSON file",
                written.name
            ));
        }
        let place = |name: &String| match Policy::built_in(name) {
            Some(policy) => PolicyPlace::BuiltIn(policy),
            None => PolicyPlace::File(name.into()),
        };
        UserConfig {
            policies: written.policies.iter().map(place).collect(),
            credentials: KeyFile {
                path: written.credentials,
                profile: written
                    .profile
                    .unwrap_or_else(|| PROFILE_DEFAULT.to_owned()),
            },
            name: written.name,
        }
    }

    fn signing(
        &mut self,
        of: &str,
        region: Option<String>,
        file: Option<PathBuf>,
        profile: Option<String>,
        web_identity: Option<WrittenWebIdentity>,
        may_be_in_environment: bool,
    ) -> SigningConfig {
        if profile.is_some() && file.is_none() {
            self.problem(format!(
                "{of}: profile is a section of credentials, of which there are none"
            ));
        }
        let keys = match (file, web_identity) {
            (Some(path), None) => KeysConfig::File(KeyFile {
                path,
                profile: profile.unwrap_or_else(|| PROFILE_DEFAULT.to_owned()),
            }),
            (None, Some(written)) => self
                .web_identity(of, written)
                .map_or(KeysConfig::Environment, KeysConfig::WebIdentity),
            (None, None) if may_be_in_environment => KeysConfig::Environment,
            (None, None) => {
                self.problem(format!("{of} needs credentials or web_identity"));
                KeysConfig::Environment
            }
            (Some(_), Some(_)) => {
                self.problem(format!("{of} has both credentials and web_identity"));
                KeysConfig::Environment
            }
        };
        let region = region.unwrap_or_else(|| REGION_DEFAULT.to_owned());
        if region.is_empty() || region.contains(['/', ' ', ',']) {
            self.problem(format!(
                "{of}: the region is {region:?}, but must be a word"
            ));
        }
        SigningConfig { region, keys }
    }

    fn web_identity(&mut self, of: &str, written: WrittenWebIdentity) -> Option<WebIdentityConfig> {
        let endpoint = Endpoint::parse(&written.endpoint);
        if endpoint.is_err() {
            self.problem(format!(
                "{of}: the endpoint of web_identity is {:?}, but must be https://HOST:PORT",
                written.endpoint
            ));
        }
        Some(WebIdentityConfig {
            token_file: written.token_file,
            role_arn: written.role_arn,
            session_name: written
                .session_name
                .unwrap_or_else(|| SESSION_NAME_DEFAULT.to_owned()),
            endpoint: endpoint.ok()?,
        })
    }

    fn store(&mut self, written: WrittenStore) -> Option<StoreConfig> {
        let of = format!("gateway.upstreams: {}", written.name);
        if written.name == FIRST_STORE || written.name.is_empty() {
            self.problem(format!(
                "gateway.upstreams: {:?} is the name of the store of proxy.upstreams; choose another",
                written.name
            ));
        }
        let mut upstreams = Vec::new();
        for text in &written.endpoints {
            match Upstream::parse_site(text) {
                Ok(site) => upstreams.extend(site),
                Err(error) => self.problem(format!("{of}: {error}")),
            }
        }
        if written.endpoints.is_empty() {
            self.problem(format!("{of}: it has no endpoints"));
        }
        if let Some(path) = written
            .health_path
            .as_ref()
            .filter(|path| !path.starts_with('/'))
        {
            self.problem(format!(
                "{of}: health_path is {path:?}, but must begin with a slash"
            ));
        }
        let signing = self.signing(
            &of,
            written.region,
            written.credentials,
            written.profile,
            written.web_identity,
            false,
        );
        Some(StoreConfig {
            name: written.name,
            upstreams,
            ca: written.ca,
            health_path: written.health_path,
            signing,
        })
    }

    fn route(&mut self, written: WrittenRoute, stores: &[String]) -> Option<RouteConfig> {
        let upstream = written.upstream.as_deref().unwrap_or(FIRST_STORE);
        let store = stores.iter().position(|name| name == upstream);
        if store.is_none() {
            self.problem(format!(
                "gateway.buckets: {} is in {upstream:?}, which is no name of [[gateway.upstreams]]",
                written.name
            ));
        }
        let upstream_name = written
            .upstream_name
            .unwrap_or_else(|| written.name.clone());
        self.bucket_name("gateway.buckets", &written.name);
        if upstream_name != written.name {
            self.bucket_name("gateway.buckets", &upstream_name);
        }
        Some(RouteConfig {
            name: written.name,
            store: store?,
            upstream_name,
        })
    }

    fn bucket_name(&mut self, of: &str, name: &str) {
        // Buckets of other stores may be older than the rules for names: AWS once took capitals,
        // underscores and 255 bytes.
        let old = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let length = OLD_BUCKET_NAME_BYTES;
        if !(length.contains(&name.len()) && name.bytes().all(old)) || name.contains("..") {
            self.problem(format!("{of}: {name:?} can't be the name of a bucket"));
        }
    }

    fn rule(&mut self, written: WrittenRule) -> Option<EncryptionRule> {
        let bucket = (written.bucket != "*").then_some(written.bucket);
        if let Some(name) = &bucket {
            self.bucket_name("gateway.encryption", name);
        }
        let of = format!("gateway.encryption: {}", bucket.as_deref().unwrap_or("*"));
        let fits = |key: &String| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
        if !written.key.iter().all(fits) {
            self.problem(format!("{of}: the key must be the name or ARN of a key"));
        }
        let add = match (written.add.as_deref(), written.key) {
            (None, None) => None,
            (Some("AES256"), None) => Some(Encryption::S3),
            (Some("aws:kms"), key) => Some(Encryption::Kms { key }),
            (Some("AES256") | None, Some(_)) => {
                self.problem(format!("{of}: a key goes with add = \"aws:kms\" only"));
                None
            }
            (Some(other), _) => {
                self.problem(format!(
                    "{of}: add is {other:?}, but must be aws:kms or AES256"
                ));
                None
            }
        };
        let require = match written.require.as_deref() {
            None => Require::Nothing,
            Some("any") => Require::Any,
            Some("aws:kms") => Require::Kms,
            Some("key") => Require::Key,
            Some(other) => {
                self.problem(format!(
                    "{of}: require is {other:?}, but must be any, aws:kms or key"
                ));
                Require::Nothing
            }
        };
        if add.is_none() && require == Require::Nothing {
            self.problem(format!("{of}: the rule neither adds nor requires anything"));
        }
        if add.is_none() && written.replace {
            self.problem(format!("{of}: replace needs something to put there: add"));
        }
        Some(EncryptionRule {
            bucket,
            prefix: written.prefix,
            add,
            require,
            replace: written.replace,
        })
    }
}

#[cfg(test)]
mod tests;
