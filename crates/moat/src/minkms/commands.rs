//! The commands of a client: each is a call or two of the native API.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::HsmKey;
use moat_kms_client::wire::{self, PolicyDocument};
use moat_kms_client::{
    ApiKey, Client, ClientConfig, Code, Credential, Error, Identity, ListOptions, Privilege,
};
use moat_net::tls::Roots;
use moat_types::{EnclaveName, KeyName, SystemClock, SystemRandom};
use serde_json::{Value, json};

use super::cli::{ClientArgs, Command, PlaceArgs};
use super::eprint;
use crate::{files, print};

/// The tag that holds the name of an identity whose API key was drawn here.
const NAME_TAG: &str = "name";
/// Where MinKMS's client keeps the CAs that it trusts, below the home folder.
const CA_FOLDER: &str = ".minkms/certs/CAs";

/// `minkms --soft-hsm`.
pub(super) fn soft_hsm() -> Result<ExitCode> {
    let key = HsmKey::generate(&SystemRandom).to_text();
    print::out(&format!("{}\n", key.expose()))?;
    eprint(
        "this HSM key is shown once; keep it secret, and where it is not lost: without it nothing can be read",
    );
    Ok(ExitCode::SUCCESS)
}

/// Every command but the server.
pub(super) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Server(_) => bail!("the server is started elsewhere"),
        Command::Stat { client } => stat(&client).await?,
        Command::Identity { key, json } => identity(key.as_deref(), json)?,
        Command::AddEnclave { name, client } => add_enclave(&name, &client).await?,
        Command::LsEnclave { prefix, client } => list_enclaves(prefix, &client).await?,
        Command::RmEnclave { name, client } => {
            let name = EnclaveName::parse(&name)?;
            connect(&client)?.delete_enclave(&name).await?;
            print::out(&format!("enclave {name} is deleted\n"))?;
        }
        Command::AddIdentity {
            identities,
            admin,
            service,
            place,
        } => add_identities(&identities, admin, service, &place).await?,
        Command::LsIdentity { prefix, place } => list_identities(prefix, &place).await?,
        Command::RmIdentity { identities, place } => {
            let (client, enclave) = enter(&place)?;
            for text in identities {
                let identity = find_identity(&client, &enclave, &text).await?;
                client.delete_identity(Some(&enclave), identity).await?;
                print::out(&format!("identity {identity} is forgotten\n"))?;
            }
        }
        Command::AddKey {
            names,
            version,
            place,
        } => add_keys(&names, version, &place).await?,
        Command::LsKey { prefix, place } => list_keys(prefix, &place).await?,
        Command::StatKey { names, place } => stat_keys(&names, &place).await?,
        Command::AddPolicy { name, file, place } => add_policy(&name, &file, &place).await?,
        Command::AssignPolicy {
            name,
            identities,
            place,
        } => {
            let ((client, enclave), name) = (enter(&place)?, KeyName::parse(&name)?);
            for text in identities {
                let identity = find_identity(&client, &enclave, &text).await?;
                client
                    .assign_policy(Some(&enclave), identity, Some(&name))
                    .await?;
                print::out(&format!("{identity} has the policy {name}\n"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn stat(args: &ClientArgs) -> Result<()> {
    let client = connect_as(args, Credential::None)?;
    let version = client
        .version()
        .await
        .with_context(|| format!("the key manager at {} does not answer", args.server))?;
    client.ready().await?;
    if args.json {
        return print::json(
            &json!({ "host": version.host, "version": version.version, "ready": true }),
        );
    }
    print::out(&format!(
        "host     {}\nversion  {}\nready    yes\n",
        version.host, version.version
    ))
}

fn identity(key: Option<&str>, json: bool) -> Result<()> {
    match key {
        None => show_new_key(&ApiKey::generate(&SystemRandom), None, json),
        Some(text) => {
            let identity = ApiKey::parse(text)?.identity().to_string();
            if json {
                return print::json(&json!({ "identity": identity }));
            }
            print::out(&format!("{identity}\n"))
        }
    }
}

async fn add_enclave(name: &str, args: &ClientArgs) -> Result<()> {
    let (client, name) = (connect(args)?, EnclaveName::parse(name)?);
    match client.create_enclave(&name).await {
        Ok(_) => print::out(&format!("enclave {name} is made\n")),
        Err(e) if e.code() == Some(Code::EnclaveExists) => {
            print::out(&format!("enclave {name} already exists\n"))
        }
        Err(e) => Err(e.into()),
    }
}

async fn list_enclaves(prefix: String, args: &ClientArgs) -> Result<()> {
    let client = connect(args)?;
    let client = &client;
    let found = all_pages(prefix, async |options| client.enclaves(&options).await).await?;
    let row = |one: &wire::EnclaveInfo| vec![one.name.clone(), one.created_at.clone()];
    show(args.json, &found, &["name", "created"], row)
}

async fn add_identities(
    texts: &[String],
    admin: bool,
    service: bool,
    place: &PlaceArgs,
) -> Result<()> {
    let (client, enclave) = enter(place)?;
    let privilege = if admin {
        Privilege::Admin
    } else {
        Privilege::User
    };
    let new = |identity, name: Option<&str>| wire::CreateIdentity {
        identity,
        privilege: (!service).then_some(privilege),
        policy: None,
        service_account: service,
        tags: name
            .map(|name| (NAME_TAG.to_owned(), name.to_owned()))
            .into_iter()
            .collect(),
    };
    if texts.is_empty() {
        let key = ApiKey::generate(&SystemRandom);
        client
            .create_identity_with(Some(&enclave), &new(key.identity(), None))
            .await?;
        return show_new_key(&key, None, place.client.json);
    }
    for text in texts {
        if let Some(identity) = Identity::parse(text) {
            match client
                .create_identity_with(Some(&enclave), &new(identity, None))
                .await
            {
                Ok(_) => print::out(&format!("identity {identity} is known in {enclave}\n"))?,
                Err(e) if e.code() == Some(Code::IdentityExists) => {
                    // It exists, but perhaps elsewhere, where it is of no use to this script.
                    client
                        .identity(Some(&enclave), identity)
                        .await
                        .with_context(|| {
                            format!(
                                "{identity} is of another enclave, and an identity is of one only"
                            )
                        })?;
                    print::out(&format!("identity {identity} already exists\n"))?;
                }
                Err(e) => return Err(e.into()),
            }
            continue;
        }
        // A name is ours alone: it stands in a tag, so that a script that runs again finds it.
        refuse_secret(text)?;
        let known = named_identities(&client, &enclave).await?;
        if let Some(identity) = known.get(text.as_str()) {
            print::out(&format!("identity {text} already exists: {identity}\n"))?;
            continue;
        }
        let key = ApiKey::generate(&SystemRandom);
        client
            .create_identity_with(Some(&enclave), &new(key.identity(), Some(text)))
            .await?;
        show_new_key(&key, Some(text), place.client.json)?;
    }
    Ok(())
}

fn show_new_key(key: &ApiKey, name: Option<&str>, json: bool) -> Result<()> {
    let (identity, text) = (key.identity().to_string(), key.to_text());
    if json {
        return print::json(
            &json!({ "name": name, "identity": identity, "api_key": text.expose() }),
        );
    }
    let name = name.map_or(String::new(), |name| format!("name      {name}\n"));
    print::out(&format!(
        "{name}identity  {identity}\nAPI key   {} (shown once; keep it secret)\n",
        text.expose()
    ))
}

async fn list_identities(prefix: String, place: &PlaceArgs) -> Result<()> {
    let (client, enclave) = enter(place)?;
    let found = identities(&client, &enclave, prefix).await?;
    let row = |one: &wire::IdentityInfo| {
        let of = |text: Option<&String>| text.cloned().unwrap_or_else(|| "-".to_owned());
        vec![
            one.identity.to_string(),
            of(one.tags.get(NAME_TAG)),
            one.privilege.to_string(),
            of(one.policy.as_ref()),
            one.created_at.clone(),
        ]
    };
    let heading = ["identity", "name", "privilege", "policy", "created"];
    show(place.client.json, &found, &heading, row)
}

async fn add_keys(names: &[String], version: bool, place: &PlaceArgs) -> Result<()> {
    let (client, enclave) = enter(place)?;
    for name in names {
        let name = KeyName::parse(name)?;
        if version {
            let made = client.rotate_key(&enclave, &name).await?;
            print::out(&format!("key {name} has version {}\n", made.version))?;
            continue;
        }
        match client.create_key(&enclave, &name).await {
            Ok(_) => print::out(&format!("key {name} is made\n"))?,
            Err(e) if e.code() == Some(Code::KeyExists) => {
                print::out(&format!("key {name} already exists\n"))?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

async fn list_keys(prefix: String, place: &PlaceArgs) -> Result<()> {
    let (client, enclave) = enter(place)?;
    let (client, enclave) = (&client, &enclave);
    let page = async |options| client.keys(enclave, &options).await;
    let found = all_pages(prefix, page).await?;
    show(place.client.json, &found, &KEY_HEADING, key_row)
}

async fn stat_keys(names: &[String], place: &PlaceArgs) -> Result<()> {
    let (client, enclave) = enter(place)?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.push(client.key(&enclave, &KeyName::parse(name)?).await?);
    }
    show(place.client.json, &found, &KEY_HEADING, key_row)
}

const KEY_HEADING: [&str; 5] = ["name", "version", "type", "created", "owner"];

fn key_row(key: &wire::KeyInfo) -> Vec<String> {
    vec![
        key.name.clone(),
        key.version.to_string(),
        key.algorithm.clone(),
        key.created_at.clone(),
        key.created_by.clone(),
    ]
}

async fn add_policy(name: &str, file: &Path, place: &PlaceArgs) -> Result<()> {
    let (client, enclave) = enter(place)?;
    let name = KeyName::parse(name)?;
    let text = files::read_text(file)?;
    let document: PolicyDocument =
        serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    client.set_policy(Some(&enclave), &name, &document).await?;
    print::out(&format!("policy {name} is written\n"))
}

/// An identity by its text or by the name that it was given here.
async fn find_identity(client: &Client, enclave: &EnclaveName, text: &str) -> Result<Identity> {
    if let Some(identity) = Identity::parse(text) {
        return Ok(identity);
    }
    refuse_secret(text)?;
    let known = named_identities(client, enclave).await?;
    let found = known.get(text).copied();
    found.with_context(|| format!("enclave {enclave} knows no identity by the name {text}"))
}

/// An API key in the place of a name would be stored, listed and logged.
fn refuse_secret(name: &str) -> Result<()> {
    if ApiKey::parse(name).is_ok() {
        bail!("an API key stands where a name should be; API keys are given with -a");
    }
    Ok(())
}

async fn named_identities(
    client: &Client,
    enclave: &EnclaveName,
) -> Result<BTreeMap<String, Identity>> {
    let all = identities(client, enclave, String::new()).await?;
    let named = all.into_iter().filter_map(|mut one| {
        let name = one.tags.remove(NAME_TAG)?;
        Some((name, one.identity))
    });
    Ok(named.collect())
}

async fn identities(
    client: &Client,
    enclave: &EnclaveName,
    prefix: String,
) -> Result<Vec<wire::IdentityInfo>> {
    all_pages(prefix, async |options| {
        client.identities(Some(enclave), &options).await
    })
    .await
}

/// Every item of a listing.
async fn all_pages<T>(
    prefix: String,
    page: impl AsyncFn(ListOptions) -> Result<wire::Listing<T>, Error>,
) -> Result<Vec<T>> {
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let options = ListOptions {
            prefix: prefix.clone(),
            from,
            ..ListOptions::default()
        };
        let listing = page(options).await?;
        found.extend(listing.items);
        match listing.next {
            Some(next) => from = next,
            None => return Ok(found),
        }
    }
}

fn show<T: serde::Serialize>(
    json: bool,
    items: &[T],
    heading: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    if json {
        let values = items.iter().map(serde_json::to_value);
        return print::json(&Value::Array(values.collect::<Result<_, _>>()?));
    }
    let rows: Vec<_> = items.iter().map(row).collect();
    print::out(&print::table(heading, &rows))
}

/// A client for the enclave that was named.
fn enter(place: &PlaceArgs) -> Result<(Client, EnclaveName)> {
    let name = place
        .enclave
        .as_deref()
        .context("name the enclave with --enclave or MINIO_KMS_ENCLAVE")?;
    Ok((connect(&place.client)?, EnclaveName::parse(name)?))
}

fn connect(args: &ClientArgs) -> Result<Client> {
    let text = args
        .api_key
        .as_deref()
        .context("give an API key with -a or MINIO_KMS_API_KEY")?;
    connect_as(args, Credential::ApiKey(ApiKey::parse(text)?))
}

fn connect_as(args: &ClientArgs, credential: Credential) -> Result<Client> {
    if args.insecure {
        eprint(
            "warning: -k: the key manager's certificate is not verified, so anyone on the way can answer in its place",
        );
    }
    let roots = Roots {
        system: true,
        files: match &args.ca {
            Some(file) => vec![file.clone()],
            None => home_certificates(),
        },
        ..Roots::default()
    };
    let config = ClientConfig {
        endpoints: args
            .server
            .split(',')
            .map(|one| one.trim().to_owned())
            .collect(),
        insecure: args.insecure,
        ..ClientConfig::new("", roots, credential)
    };
    Ok(Client::new(config, &SystemClock, &SystemRandom)?)
}

/// The CAs in the home folder, if there are some.
fn home_certificates() -> Vec<PathBuf> {
    let Some(home) = std::env::var_os("HOME") else {
        return Vec::new();
    };
    let Ok(entries) = std::fs::read_dir(Path::new(&home).join(CA_FOLDER)) else {
        return Vec::new();
    };
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files
}
