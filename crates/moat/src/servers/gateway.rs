//! The gateway in front of the proxy's sites: its keys, users and policies, read from their files.

use std::sync::Arc;

use anyhow::{Context, Result};
use moat_net::{ClientConfig, HttpClient};
use moat_proxy::gateway::{
    BucketRoute, GatewayConfig as Settings, KeySource, ReadKeys, Store, User, WebIdentity,
};
use moat_s3::policy::Policy;

use super::net_endpoint;
use crate::config::gateway::{
    FIRST_STORE, GatewayConfig, KeyFile, KeysConfig, PolicyPlace, SigningConfig, UserConfig,
    WebIdentityConfig,
};
use crate::{files, key_file};

/// The sites of one store, among all sites.
pub(super) type Sites = std::ops::Range<usize>;

/// Everything that the gateway needs beside the sites; `sites` are those of each store in order, and
/// `client` reaches an STS.
pub(super) fn settings(
    config: &GatewayConfig,
    sites: &[Sites],
    client: &ClientConfig,
) -> Result<Settings> {
    let users = config.users.iter().map(user).collect::<Result<_>>()?;
    let signing = std::iter::once((FIRST_STORE, &config.first)).chain(
        config
            .stores
            .iter()
            .map(|store| (&*store.name, &store.signing)),
    );
    let stores = signing.zip(sites).map(|((name, signing), sites)| {
        Ok(Store {
            name: name.to_owned(),
            sites: sites.clone(),
            region: signing.region.clone(),
            keys: keys(signing, client)
                .with_context(|| format!("the gateway's credentials for the store {name}"))?,
        })
    });
    let stores: Vec<_> = stores.collect::<Result<_>>()?;
    let first = stores.first().context("the gateway has no store")?.clone();
    let mut settings = Settings::new(users, first);
    settings.stores = stores;
    settings.buckets = config
        .buckets
        .iter()
        .map(|route| BucketRoute {
            name: route.name.clone(),
            store: route.store,
            upstream_name: route.upstream_name.clone(),
        })
        .collect();
    settings.encryption.clone_from(&config.encryption);
    settings.domains.clone_from(&config.domains);
    settings.client_region.clone_from(&config.client_region);
    settings.sign_body = config.sign_body;
    Ok(settings)
}

fn user(config: &UserConfig) -> Result<User> {
    let policy = |place: &PolicyPlace| match place {
        PolicyPlace::BuiltIn(policy) => Ok(policy.clone()),
        PolicyPlace::File(path) => {
            let text = files::read_text(path).with_context(|| {
                "a policy is readwrite, readonly, writeonly or a JSON file".to_owned()
            })?;
            Policy::parse(&text).with_context(|| path.display().to_string())
        }
    };
    let read = || -> Result<User> {
        Ok(User {
            name: config.name.clone(),
            credentials: key_file::read(&config.credentials.path, &config.credentials.profile)?,
            policies: config.policies.iter().map(policy).collect::<Result<_>>()?,
        })
    };
    read().with_context(|| format!("the gateway's user {}", config.name))
}

fn keys(config: &SigningConfig, client: &ClientConfig) -> Result<KeySource> {
    Ok(match &config.keys {
        KeysConfig::Environment => {
            let env = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
            KeySource::Fixed(key_file::from_env(&env)?)
        }
        KeysConfig::File(file) => watched(file)?,
        KeysConfig::WebIdentity(identity) => web_identity(identity, client)?,
    })
}

fn watched(file: &KeyFile) -> Result<KeySource> {
    let first = key_file::read(&file.path, &file.profile)?;
    let file = file.clone();
    let read: ReadKeys = Arc::new(move || {
        key_file::read(&file.path, &file.profile).map_err(|error| format!("{error:#}"))
    });
    Ok(KeySource::Watched { first, read })
}

fn web_identity(config: &WebIdentityConfig, client: &ClientConfig) -> Result<KeySource> {
    Ok(KeySource::WebIdentity(Arc::new(WebIdentity {
        token_file: config.token_file.clone(),
        role_arn: config.role_arn.clone(),
        session_name: config.session_name.clone(),
        endpoint: net_endpoint(&config.endpoint)?,
        client: HttpClient::new(client.clone()),
    })))
}
