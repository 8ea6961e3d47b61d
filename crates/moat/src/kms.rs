//! `moat kms`: how its commands reach a key manager, and whether there is one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use moat_kms_client::{ApiKey, Client, ClientConfig, Code, Credential, Identity};
use moat_net::tls::Roots;
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};
use serde_json::json;

use crate::cli::KmsClientArgs;
use crate::config::DATA_DEFAULT;
use crate::folder::DataFolder;
use crate::keyring::api_key_of_environment;
use crate::lock::FolderLock;
use crate::{files, print};

/// Where a key manager of this machine listens that has noted nothing.
const ENDPOINT_DEFAULT: &str = "https://127.0.0.1:7373";

/// A key manager, and the enclave that a command is about.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) enclave: EnclaveName,
    endpoint: String,
    /// Who we are to it.
    pub(crate) identity: Identity,
}

/// `moat kms status`.
pub(crate) async fn status(args: KmsClientArgs) -> Result<ExitCode> {
    let connection = connect(&args)?;
    let version = connection
        .client
        .version()
        .await
        .with_context(|| unreachable(&connection))?;
    let ready = connection.client.ready().await;
    let place = place(&connection).await;
    let fine = ready.is_ok() && place.is_ok();
    if args.json {
        print::json(&json!({
            "endpoint": connection.endpoint,
            "version": version.version,
            "ready": ready.is_ok(),
            "identity": connection.identity.to_string(),
            "enclave": connection.enclave.as_str(),
            "enclave_usable": place.is_ok(),
        }))?;
    } else {
        let ready = ready.map_or_else(|error| error.to_string(), |()| "yes".to_owned());
        let place = place.unwrap_or_else(|error| error.to_string());
        print::out(&print::fields(&[
            ("endpoint", connection.endpoint),
            ("version", version.version),
            ("ready", ready),
            ("identity", connection.identity.to_string()),
            ("enclave", format!("{}: {place}", connection.enclave)),
        ]))?;
    }
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What we are to the enclave, in words.
async fn place(connection: &Connection) -> Result<String, moat_kms_client::Error> {
    let (client, enclave) = (&connection.client, &connection.enclave);
    match client.own_identity(Some(enclave)).await {
        Ok(own) => Ok(match own.policy {
            Some(policy) => format!(
                "this identity is a {} with the policy {policy}",
                own.privilege
            ),
            None => format!("this identity is a {}", own.privilege),
        }),
        // Who is above all enclaves is known in none of them.
        Err(e) if e.code() == Some(Code::IdentityNotFound) => {
            client.enclave(enclave).await?;
            Ok("this identity may see it".to_owned())
        }
        Err(e) => Err(e),
    }
}

pub(crate) fn folder(data: Option<PathBuf>) -> DataFolder {
    DataFolder::new(data.unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)))
}

/// Reaches the key manager that the arguments name.
pub(crate) fn connect(args: &KmsClientArgs) -> Result<Connection> {
    let data = folder(args.data.clone());
    let endpoint = args
        .endpoint
        .clone()
        .or_else(|| FolderLock::noted_endpoint(&data.kms()))
        .unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
    let api_key = api_key(args.api_key_file.as_deref(), &data)?;
    let identity = api_key.identity();
    let config = ClientConfig::new(
        &endpoint,
        roots(args.ca.as_deref(), &data),
        Credential::ApiKey(api_key),
    );
    Ok(Connection {
        client: Client::new(config, &SystemClock, &SystemRandom)?,
        enclave: EnclaveName::parse(&args.enclave)?,
        endpoint,
        identity,
    })
}

/// `--ca`, else the CA of the data folder, else those of the system.
fn roots(ca: Option<&Path>, data: &DataFolder) -> Roots {
    let file = ca
        .map(Path::to_owned)
        .or_else(|| Some(data.ca_certificate()).filter(|path| path.exists()));
    Roots {
        system: file.is_none(),
        files: file.into_iter().collect(),
        pem: Vec::new(),
    }
}

fn api_key(file: Option<&Path>, data: &DataFolder) -> Result<ApiKey> {
    if let Some(key) = api_key_of_environment()? {
        return Ok(key);
    }
    let text = match file {
        Some(path) => files::read_secret(path)?,
        None => files::read_secret(&data.root_api_key()).context(
            "no API key: name the data folder with --data, or a file with --api-key-file",
        )?,
    };
    ApiKey::parse(text.expose()).with_context(|| {
        let path = file.map_or_else(|| data.root_api_key(), Path::to_owned);
        path.display().to_string()
    })
}

pub(crate) fn key_name(text: &str) -> Result<KeyName> {
    Ok(KeyName::parse(text)?)
}

fn unreachable(connection: &Connection) -> String {
    format!("the key manager at {} does not answer", connection.endpoint)
}
