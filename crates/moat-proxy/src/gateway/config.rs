//! What a gateway is made of. Complete and typed: nothing here is read from files or environment.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use moat_s3::policy::Policy;
use moat_s3::sigv4::Credentials;
use moat_types::{Clock, SystemClock};

use super::encryption::EncryptionRule;
use super::keys::KeySource;

/// A gateway.
#[derive(Clone)]
pub struct GatewayConfig {
    /// Who may ask, and for what.
    pub users: Vec<User>,
    /// The stores behind it; the first one takes what no bucket's route sends elsewhere.
    pub stores: Vec<Store>,
    /// Buckets of other stores or under other names.
    pub buckets: Vec<BucketRoute>,
    /// Under which key new objects are encrypted.
    pub encryption: Vec<EncryptionRule>,
    /// Domains under which a client's host names a bucket.
    pub domains: Vec<String>,
    /// The region that clients must sign for; empty: any.
    pub client_region: String,
    /// Whether bodies are signed for the stores.
    pub sign_body: SignBody,
    /// The time of signatures.
    pub clock: Arc<dyn Clock>,
}

/// An account of the gateway.
#[derive(Clone, Debug)]
pub struct User {
    /// What policies and logs call it.
    pub name: String,
    /// Its keys.
    pub credentials: Credentials,
    /// What it may do; nothing without one.
    pub policies: Vec<Policy>,
}

/// A store as the gateway is known to it.
#[derive(Clone, Debug)]
pub struct Store {
    /// What routes, logs and metrics call it.
    pub name: String,
    /// Its sites among those of [`Config::sites`](crate::Config::sites).
    pub sites: Range<usize>,
    /// The region that requests to it are signed for.
    pub region: String,
    /// What they are signed with.
    pub keys: KeySource,
}

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRoute {
    /// Its name, as clients say it.
    pub name: String,
    /// Its store, as a place in [`GatewayConfig::stores`].
    pub store: usize,
    /// Its name there.
    pub upstream_name: String,
}

/// Whether the body of an upload is signed for the store, chunk by chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignBody {
    /// Where nothing else protects it: towards plain http endpoints.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// A configuration that no gateway can run with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Nobody could use it.
    #[error("the gateway has no users: add [[gateway.users]]")]
    NoUsers,
    /// Two users with one access key: requests could be of either.
    #[error("the users {0} and {1} have the same access key id")]
    SameAccessKey(String, String),
    /// One bucket in two places.
    #[error("the bucket {0} has two routes")]
    TwoRoutes(String),
    /// One bucket under two names: rules for one name would not hold for the other.
    #[error(
        "the buckets {0} and {1} are one bucket of one store: rules for one name would not hold for the other"
    )]
    SameBucket(String, String),
    /// Rules of which none is nearer to an object than the other.
    #[error("there are two encryption rules for bucket {bucket} and prefix {prefix:?}")]
    TwoRules {
        /// The bucket, or `*`.
        bucket: String,
        /// The prefix.
        prefix: String,
    },
    /// A key that no rule can require.
    #[error("the encryption rule for bucket {0} requires a key but names none: add key = \"...\"")]
    NoKeyToRequire(String),
}

impl GatewayConfig {
    /// A gateway for these users to one store with all defaults.
    pub fn new(users: Vec<User>, store: Store) -> Self {
        Self {
            users,
            stores: vec![store],
            buckets: Vec::new(),
            encryption: Vec::new(),
            domains: Vec::new(),
            client_region: String::new(),
            sign_body: SignBody::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Looks for what no gateway can run with.
    ///
    /// # Errors
    /// The first such thing.
    pub fn check(&self) -> Result<(), GatewayError> {
        if self.users.is_empty() {
            return Err(GatewayError::NoUsers);
        }
        for (at, user) in self.users.iter().enumerate() {
            let id = &user.credentials.access_key_id;
            let before = self.users[..at].iter();
            if let Some(other) = before
                .into_iter()
                .find(|other| other.credentials.access_key_id == *id)
            {
                let (a, b) = (other.name.clone(), user.name.clone());
                return Err(GatewayError::SameAccessKey(a, b));
            }
        }
        for (at, route) in self.buckets.iter().enumerate() {
            for other in &self.buckets[..at] {
                if other.name == route.name {
                    return Err(GatewayError::TwoRoutes(route.name.clone()));
                }
                if other.store == route.store && other.upstream_name == route.upstream_name {
                    let (a, b) = (other.name.clone(), route.name.clone());
                    return Err(GatewayError::SameBucket(a, b));
                }
            }
        }
        self.check_rules()
    }

    fn check_rules(&self) -> Result<(), GatewayError> {
        let mut seen = HashSet::new();
        for rule in &self.encryption {
            let bucket = rule.bucket.clone().unwrap_or_else(|| "*".to_owned());
            if rule.requires_a_key_it_lacks() {
                return Err(GatewayError::NoKeyToRequire(bucket));
            }
            if !seen.insert((&rule.bucket, &rule.prefix)) {
                let prefix = rule.prefix.clone();
                return Err(GatewayError::TwoRules { bucket, prefix });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SecretString;

    use super::super::encryption::{Encryption, Require};
    use super::*;

    fn user(name: &str, access_key_id: &str) -> User {
        User {
            name: name.to_owned(),
            credentials: Credentials {
                access_key_id: access_key_id.to_owned(),
                secret_access_key: SecretString::new("s".to_owned()),
                session_token: None,
            },
            policies: Vec::new(),
        }
    }

    /// What is said of a gateway after a change.
    fn said(change: impl FnOnce(&mut GatewayConfig)) -> Option<String> {
        let ann = user("ann", "A");
        let store = Store {
            name: "default".to_owned(),
            sites: 0..1,
            region: "r".to_owned(),
            keys: KeySource::Fixed(ann.credentials.clone()),
        };
        let mut config = GatewayConfig::new(vec![ann], store);
        change(&mut config);
        config.check().err().map(|error| error.to_string())
    }

    fn route(name: &str, upstream_name: &str) -> BucketRoute {
        BucketRoute {
            name: name.to_owned(),
            store: 0,
            upstream_name: upstream_name.to_owned(),
        }
    }

    fn rule(bucket: Option<&str>, require: Require) -> EncryptionRule {
        EncryptionRule {
            bucket: bucket.map(str::to_owned),
            prefix: "a/".to_owned(),
            add: Some(Encryption::Kms { key: None }),
            require,
            replace: false,
        }
    }

    #[test]
    fn what_no_gateway_can_run_with_has_its_sentence() {
        let check = |change: fn(&mut GatewayConfig), sentence: &str| {
            assert_eq!(said(change).as_deref(), Some(sentence));
        };
        assert_eq!(said(|_| {}), None);
        check(
            |config| config.users.clear(),
            "the gateway has no users: add [[gateway.users]]",
        );
        check(
            |config| config.users.push(user("bob", "A")),
            "the users ann and bob have the same access key id",
        );
        check(
            |config| config.buckets = vec![route("lake", "a"), route("lake", "b")],
            "the bucket lake has two routes",
        );
        check(
            |config| config.buckets = vec![route("lake", "a"), route("pond", "a")],
            "the buckets lake and pond are one bucket of one store: rules for one name would not hold for the other",
        );
        check(
            |config| {
                let one = rule(Some("lake"), Require::Any);
                config.encryption = vec![one.clone(), one];
            },
            "there are two encryption rules for bucket lake and prefix \"a/\"",
        );
        check(
            |config| config.encryption = vec![rule(None, Require::Key)],
            "the encryption rule for bucket * requires a key but names none: add key = \"...\"",
        );
    }
}
