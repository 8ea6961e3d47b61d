//! `moat kms`: the commands that work with a key manager, over its native API, and those that read
//! its audit where it lies.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::audit::{self, Anchor, AuditLine, Filter, Verification};
use moat_kms_client::wire::{IdentityInfo, KeyInfo};
use moat_kms_client::{ApiKey, AuditOptions, Client, ClientConfig, Credential, ListOptions};
use moat_net::tls::Roots;
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};
use serde::Serialize;
use serde_json::json;

use crate::cli::{KmsAuditCommand, KmsClientArgs, KmsIdentityCommand, KmsKeyCommand};
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

/// `moat kms key ...`.
pub(crate) async fn key(command: KmsKeyCommand) -> Result<ExitCode> {
    match command {
        KmsKeyCommand::List { prefix, client } => list_keys(prefix, client).await?,
        KmsKeyCommand::Create { name, client } => {
            let connection = connect(&client)?;
            let made = connection
                .client
                .create_key(&connection.enclave, &key_name(&name)?)
                .await?;
            show_key(&made, client.json)?;
        }
        KmsKeyCommand::Info { name, client } => {
            let connection = connect(&client)?;
            show_key(
                &connection
                    .client
                    .key(&connection.enclave, &key_name(&name)?)
                    .await?,
                client.json,
            )?;
        }
        KmsKeyCommand::Disable { name, yes, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            // Looked up first, so that nobody is asked about a key that does not exist.
            connection.client.key(&connection.enclave, &name).await?;
            confirm(&name, yes)?;
            show_key(
                &connection
                    .client
                    .disable_key(&connection.enclave, &name)
                    .await?,
                client.json,
            )?;
        }
        KmsKeyCommand::Enable { name, client } => {
            let connection = connect(&client)?;
            show_key(
                &connection
                    .client
                    .enable_key(&connection.enclave, &key_name(&name)?)
                    .await?,
                client.json,
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
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
            client,
        } => {
            let new = NewIdentity {
                identity,
                certificate,
                policy,
                admin,
            };
            kms_access::create_identity(new, &client).await?;
        }
        KmsIdentityCommand::List { client } => list_identities(client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `moat kms audit ...`.
pub(crate) async fn audit(command: KmsAuditCommand) -> Result<ExitCode> {
    match command {
        KmsAuditCommand::Show {
            last,
            key,
            data,
            json,
        } => {
            let filter = Filter {
                key,
                ..Filter::default()
            };
            let lines = last_lines(&audit_folder(data)?, filter, last)?;
            show_audit(&lines, json)?;
            Ok(ExitCode::SUCCESS)
        }
        KmsAuditCommand::Verify { data, json } => verify_audit(data, json).await,
    }
}

/// Up to this many lines are looked for from the end of the audit; for more, it is read from its
/// beginning, which needs memory for what is there and not for what was asked.
const TAIL_LINES_MAX: usize = 10_000;

/// The last `count` lines that pass, oldest first.
fn last_lines(folder: &Path, filter: Filter, count: usize) -> Result<Vec<AuditLine>> {
    if count <= TAIL_LINES_MAX {
        return Ok(audit::tail(folder, &filter, count)?);
    }
    let mut lines = audit::show(folder, filter)?.collect::<Result<Vec<_>, _>>()?;
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

async fn list_keys(prefix: String, args: KmsClientArgs) -> Result<()> {
    let connection = connect(&args)?;
    let mut options = ListOptions {
        prefix,
        ..ListOptions::default()
    };
    let mut keys = Vec::new();
    loop {
        let page = connection
            .client
            .keys(&connection.enclave, &options)
            .await?;
        keys.extend(page.items);
        match page.next {
            Some(next) => options.from = next,
            None => break,
        }
    }
    if args.json {
        return print::json(&serde_json::to_value(&keys)?);
    }
    let rows: Vec<Vec<String>> = keys.iter().map(key_row).collect();
    print::out(&print::table(
        &["name", "state", "version", "algorithm", "created"],
        &rows,
    ))
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

fn show_key(key: &KeyInfo, json: bool) -> Result<()> {
    if json {
        return print::json(&serde_json::to_value(key)?);
    }
    print::out(&print::table(
        &["name", "state", "version", "algorithm", "created"],
        &[key_row(key)],
    ))
}

fn key_row(key: &KeyInfo) -> Vec<String> {
    let state = match &key.disabled_at {
        Some(at) if !key.enabled => format!("disabled {at}"),
        _ if key.enabled => "enabled".to_owned(),
        _ => "disabled".to_owned(),
    };
    vec![
        key.name.clone(),
        state,
        key.version.to_string(),
        key.algorithm.clone(),
        key.created_at.clone(),
    ]
}

/// Says what disabling does, and asks unless told not to.
fn confirm(name: &KeyName, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    let what = format!(
        "Disabling {name} makes every object that was encrypted under it unreadable within the lease of the stores \
         (5 minutes by default), and writes that need it fail, until it is enabled again. No data is lost."
    );
    if !std::io::stdin().is_terminal() {
        bail!("{what} Give --yes to do it");
    }
    print::out(&format!("{what}\nDisable it? [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(std::io::stdout().flush()?)
}

fn show_audit(lines: &[AuditLine], json: bool) -> Result<()> {
    if json {
        let texts: Vec<String> = lines
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        return print::out(
            &texts
                .iter()
                .map(|text| format!("{text}\n"))
                .collect::<String>(),
        );
    }
    let rows: Vec<Vec<String>> = lines.iter().map(audit_row).collect();
    print::out(&print::table(
        &[
            "time",
            "outcome",
            "operation",
            "key",
            "bucket",
            "identity",
            "source",
            "reason",
        ],
        &rows,
    ))
}

fn audit_row(line: &AuditLine) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let key = match (&line.key, line.version) {
        (Some(key), Some(version)) => format!("{key}@{version}"),
        (key, _) => text(key),
    };
    // The first characters tell identities apart; the whole stands in --json.
    let identity: String = text(&line.identity).chars().take(15).collect();
    vec![
        line.time.clone(),
        line.outcome.map_or("-", audit::Outcome::as_str).to_owned(),
        text(&line.operation),
        key,
        text(&line.bucket),
        identity,
        text(&line.source),
        line.reason.clone().unwrap_or_default(),
    ]
}

/// What `verify` prints as JSON.
#[derive(Serialize)]
struct Verified {
    good: bool,
    lines: u64,
    checkpoints: u64,
    unsigned_lines: u64,
    against_key_manager: bool,
    problem: Option<String>,
}

async fn verify_audit(data: Option<PathBuf>, json: bool) -> Result<ExitCode> {
    let folder = audit_folder(data.clone())?;
    // Asked before the files are read: what it knows of then must be in them.
    let against = known_to_key_manager(data).await;
    let known = against.is_some();
    let against = against.unwrap_or_default();
    let report = tokio::task::spawn_blocking(move || audit::verify(&folder, &against)).await??;
    let verified = Verified {
        good: report.is_good(),
        lines: report.lines,
        checkpoints: report.checkpoints,
        unsigned_lines: report.unsigned,
        against_key_manager: known,
        problem: report.problem.map(|problem| problem.to_string()),
    };
    if json {
        print::json(&serde_json::to_value(&verified)?)?;
    } else {
        print::out(&verified_text(&verified))?;
    }
    Ok(if verified.good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verified_text(verified: &Verified) -> String {
    let mut text = format!(
        "{} lines and {} signed checkpoints form one chain; {} lines are newer than the last checkpoint\n",
        verified.lines, verified.checkpoints, verified.unsigned_lines
    );
    if let Some(problem) = &verified.problem {
        text = format!(
            "the audit is DAMAGED: {problem}; the {} lines before it are good\n",
            verified.lines
        );
    }
    if !verified.against_key_manager {
        text.push_str(
            "The key manager did not answer, so the chain was checked against the key that it names itself;\n\
             with the key manager running, its own key and last checkpoint are asked for as well.\n",
        );
    }
    text
}

/// The signing key and the last checkpoint, if the key manager answers.
async fn known_to_key_manager(data: Option<PathBuf>) -> Option<Verification> {
    let args = KmsClientArgs {
        data,
        endpoint: None,
        ca: None,
        api_key_file: None,
        enclave: "moat".to_owned(),
        json: false,
    };
    let client = connect(&args).ok()?.client;
    let known = client
        .audit(&AuditOptions {
            limit: 1,
            ..AuditOptions::default()
        })
        .await
        .ok()?;
    let hash = known
        .checkpoint_hash
        .and_then(|hash| hash.0.try_into().ok());
    Some(Verification {
        public_key: known.public_key.0.try_into().ok(),
        anchor: known
            .checkpoint_seq
            .zip(hash)
            .map(|(seq, hash)| Anchor { seq, hash }),
    })
}

fn audit_folder(data: Option<PathBuf>) -> Result<PathBuf> {
    let folder = folder(data).kms_audit();
    if !folder.exists() {
        bail!(
            "{} does not exist; name the key manager's data folder with --data",
            folder.display()
        );
    }
    Ok(folder)
}

fn folder(data: Option<PathBuf>) -> DataFolder {
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
