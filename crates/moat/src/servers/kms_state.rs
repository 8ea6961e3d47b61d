//! Where the key manager's state is: in the folder, or in a database that other nodes use as well.

use anyhow::{Context, Result, bail};
use moat_kms::{Hsm, HsmKey, NodeConfig};
use moat_meta::{Embedded, Engine, Options, Postgres};
use moat_net::tls::{ClientTls, ClientTlsConfig, Roots};
use moat_types::{Random, SecretString, SystemRandom};

use crate::config::{DatabaseConfig, KmsConfig};
use crate::files::{self, Access};
use crate::first_start::hsm_key_from_env;
use crate::folder::DataFolder;
use crate::hsm_place::HsmPlace;

/// Memory for pages of the state's tree. Rows in use are kept opened as well; with 10,000 keys in use
/// a part of their pages is read from the system's cache, a microsecond each.
const CACHE_BYTES: usize = 4 << 20;
/// Rows in memory before they go to the tree. Changes of keys are rare; a start after a crash is quick.
const LOG_BYTES: u64 = 1 << 20;
/// The table of the key manager's rows.
const TABLE: &str = "moat_kms";
/// The variable that may hold the database's password.
const PASSWORD_VARIABLE: &str = "MOAT_KMS_DATABASE_PASSWORD";

/// Opens the engine that the configuration names.
pub(crate) async fn open_engine(data: &DataFolder, config: &KmsConfig) -> Result<Engine> {
    let state = data.kms_state();
    if let Some(database) = &config.database {
        if state.exists() {
            bail!(
                "{} holds a state of its own, which the database would hide; bring it over with `moat kms backup` and `moat kms restore`, or move it away",
                state.display()
            );
        }
        return Ok(Engine::Postgres(connect(database).await?));
    }
    let opened = tokio::task::spawn_blocking(move || {
        Embedded::open(
            state,
            Options {
                cache_bytes: CACHE_BYTES,
                log_bytes: LOG_BYTES,
                ..Options::default()
            },
        )
    });
    let engine = opened
        .await
        .context("the key manager's state could not be opened")??;
    Ok(Engine::Embedded(engine))
}

async fn connect(database: &DatabaseConfig) -> Result<Postgres> {
    let mut url = database.url.clone();
    if let Ok(password) = std::env::var(PASSWORD_VARIABLE) {
        url.set_password(&SecretString::new(password));
    } else if let Some(path) = &database.password_file {
        url.set_password(&files::read_secret(path)?);
    }
    let tls = match url.uses_tls() {
        false => None,
        true => {
            let roots = Roots {
                system: url.ca_file().is_none(),
                files: url.ca_file().map(Into::into).into_iter().collect(),
                pem: Vec::new(),
            };
            let loaded = ClientTls::load(ClientTlsConfig {
                roots,
                ..ClientTlsConfig::default()
            })?;
            let mut tls = (*loaded.current()).clone();
            // PostgreSQL speaks its own protocol, and servers refuse a client that names another.
            tls.alpn_protocols.clear();
            Some(tls)
        }
    };
    Ok(Postgres::connect(&url, TABLE, tls).await?)
}

/// What makes this process one of several, and how it finds HSM keys beyond its first.
pub(crate) fn node(data: &DataFolder, config: &KmsConfig) -> Result<NodeConfig> {
    let mut hsms_old = Vec::new();
    for place in &config.hsm_keys_old {
        hsms_old.push(place.load().context("kms.hsm_keys_old")?);
    }
    Ok(NodeConfig {
        name: match config.database {
            Some(_) => Some(node_name(data)?),
            None => None,
        },
        hsms_old,
        hsm_source: Some(Box::new(|text| {
            let place = HsmPlace::parse(text).map_err(moat_kms::HsmError::Source)?;
            place.load()
        })),
    })
}

/// The node's name in the state, drawn once: it says whose audit a checkpoint is of.
fn node_name(data: &DataFolder) -> Result<String> {
    let path = data.kms_node();
    if path.exists() {
        let name = files::read_text(&path)?.trim().to_owned();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!("{} does not hold a node's name", path.display());
        }
        return Ok(name);
    }
    let mut name = [0; 8];
    SystemRandom.fill(&mut name);
    let name = hex::encode(name);
    files::write(&path, format!("{name}\n").as_bytes(), Access::Public)?;
    Ok(name)
}

/// The HSM key: the environment's, else the one that the configuration names.
pub(crate) fn hsm(config: &KmsConfig) -> Result<Box<dyn Hsm>> {
    if let Some(text) = hsm_key_from_env() {
        let key = HsmKey::parse(text.expose()).context("MOAT_HSM_KEY or MINIO_KMS_HSM_KEY")?;
        return Ok(Box::new(key));
    }
    if let HsmPlace::File(path) = &config.hsm_key
        && !path.exists()
    {
        bail!(
            "there is no HSM key: {} does not exist, and neither MOAT_HSM_KEY nor MINIO_KMS_HSM_KEY is set",
            path.display()
        );
    }
    Ok(config.hsm_key.load()?)
}

/// Where the HSM key came from, for messages.
pub(crate) fn hsm_origin(config: &KmsConfig) -> String {
    match (hsm_key_from_env(), &config.hsm_key) {
        (Some(_), _) => "in the environment (MOAT_HSM_KEY or MINIO_KMS_HSM_KEY)".to_owned(),
        (None, HsmPlace::File(path)) => path.display().to_string(),
        (None, HsmPlace::Token(uri)) => uri.to_string(),
    }
}
