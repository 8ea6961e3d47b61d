//! `moat kms`: how its commands reach a key manager, and those about identities.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use moat_kms_client::wire::IdentityInfo;
use moat_kms_client::{ApiKey, Client, ClientConfig, Credential, ListOptions};
use moat_net::tls::Roots;
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};
use serde_json::json;

use crate::cli::{KmsClientArgs, KmsIdentityCommand};
use crate::config::DATA_DEFAULT;
use crate::folder::DataFolder;
use crate::keyring::api_key_of_environment;
use crate::kms_access::{self, NewIdentity};
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
    identity: String,
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
    let enclave = connection.client.enclave(&connection.enclave).await;
    let fine = ready.is_ok() && enclave.is_ok();
    let said = |outcome: &Result<(), moat_kms_client::Error>| {
        outcome
            .as_ref()
            .map_or_else(ToString::to_string, |()| "yes".to_owned())
    };
    let enclave = enclave.map(drop);
    if args.json {
        print::json(&json!({
            "endpoint": connection.endpoint,
            "version": version.version,
            "ready": ready.is_ok(),
            "identity": connection.identity,
            "enclave": connection.enclave.as_str(),
            "enclave_usable": enclave.is_ok(),
        }))?;
    } else {
        print::out(&format!(
            "endpoint  {}\nversion   {}\nready     {}\nidentity  {}\nenclave   {}: {}\n",
            connection.endpoint,
            version.version,
            said(&ready),
            connection.identity,
            connection.enclave,
            match &enclave {
                Ok(()) => "this identity may see it".to_owned(),
                Err(error) => error.to_string(),
            },
        ))?;
    }
    Ok(if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// `moat kms identity ...`.
pub(crate) async fn identity(command: KmsIdentityCommand) -> Result<ExitCode> {
    match command {
        KmsIdentityCommand::New { json } => {
            kms_access::show_api_key(&ApiKey::generate(&SystemRandom), json)?;
        }
        KmsIdentityCommand::Create {
            identity,
            certificate,
            policy,
            admin,
            service_account,
            tag,
            client,
        } => {
            let new = NewIdentity {
                identity,
                certificate,
                policy,
                admin,
                service_account,
                tags: tag,
            };
            kms_access::create_identity(new, &client).await?;
        }
        KmsIdentityCommand::List { client } => list_identities(client).await?,
        KmsIdentityCommand::Info { identity, client } => {
            kms_access::show_identity(identity.as_deref(), &client).await?;
        }
        KmsIdentityCommand::Delete {
            identity,
            yes,
            client,
        } => kms_access::delete_identity(&identity, yes, &client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_identities(args: KmsClientArgs) -> Result<()> {
    let connection = connect(&args)?;
    let mut options = ListOptions::default();
    let mut found: Vec<IdentityInfo> = Vec::new();
    loop {
        let page = connection
            .client
            .identities(Some(&connection.enclave), &options)
            .await?;
        found.extend(page.items);
        match page.next {
            Some(next) => options.from = next,
            None => break,
        }
    }
    if args.json {
        return print::json(&serde_json::to_value(&found)?);
    }
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|one| {
            let policy = one.policy.clone().unwrap_or_else(|| "-".to_owned());
            vec![
                one.identity.to_string(),
                one.privilege.to_string(),
                policy,
                one.created_at.clone(),
            ]
        })
        .collect();
    print::out(&print::table(
        &["identity", "privilege", "policy", "created"],
        &rows,
    ))
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
    let identity = api_key.identity().to_string();
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
    let path = file.map_or_else(|| data.root_api_key(), Path::to_owned);
    let text = files::read_secret(&path)
        .context("no API key: name the data folder with --data, or a file with --api-key-file")?;
    ApiKey::parse(text.expose()).with_context(|| path.display().to_string())
}

pub(crate) fn key_name(text: &str) -> Result<KeyName> {
    Ok(KeyName::parse(text)?)
}

fn unreachable(connection: &Connection) -> String {
    format!("the key manager at {} does not answer", connection.endpoint)
}
