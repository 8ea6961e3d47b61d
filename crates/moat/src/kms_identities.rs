//! `moat kms identity`: who is known.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms_client::wire::{self, IdentityInfo};
use moat_kms_client::{ApiKey, Code, Identity, ListOptions, Privilege};
use moat_pki::CertificateInfo;
use moat_types::{EnclaveName, SystemRandom};
use serde_json::json;

use crate::cli::{KmsIdentityCommand, KmsScopeArgs};
use crate::kms::{Connection, connect, key_name};
use crate::kms_confirm::confirm;
use crate::{files, print};

/// `moat kms identity ...`.
pub(crate) async fn identity(command: KmsIdentityCommand) -> Result<ExitCode> {
    match command {
        KmsIdentityCommand::New { json } => {
            show_api_key(&ApiKey::generate(&SystemRandom), json)?;
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
            create_identity(new, &client).await?;
        }
        KmsIdentityCommand::List { client } => list_identities(client).await?,
        KmsIdentityCommand::Info { identity, client } => {
            show_identity(identity.as_deref(), &client).await?;
        }
        KmsIdentityCommand::Delete {
            identity,
            yes,
            client,
        } => delete_identity(&identity, yes, &client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What `moat kms identity create` was told.
struct NewIdentity {
    identity: Option<String>,
    certificate: Option<PathBuf>,
    policy: Option<String>,
    admin: bool,
    service_account: bool,
    tags: Vec<String>,
}

/// `moat kms identity create`.
async fn create_identity(new: NewIdentity, args: &KmsScopeArgs) -> Result<()> {
    let connection = connect(args)?;
    let policy = new.policy.as_deref().map(key_name).transpose()?;
    let privilege = match (new.admin, args.system) {
        (true, true) => Privilege::SysAdmin,
        (true, false) => Privilege::Admin,
        (false, _) => Privilege::User,
    };
    let tags = new.tags.iter().map(|tag| match tag.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => bail!("--tag {tag:?} is no tag: give NAME=VALUE"),
    });
    let tags = tags.collect::<Result<_>>()?;
    let drawn = (new.identity.is_none() && new.certificate.is_none())
        .then(|| ApiKey::generate(&SystemRandom));
    let identity = match (&drawn, &new.identity, &new.certificate) {
        (Some(key), ..) => key.identity(),
        (None, Some(text), _) => parse_identity(text)?,
        (None, None, Some(path)) => certificate_identity(path)?,
        (None, None, None) => unreachable!("then a key is drawn"),
    };
    let body = wire::CreateIdentity {
        identity,
        privilege: (!new.service_account).then_some(privilege),
        policy: policy.map(|policy| policy.to_string()),
        service_account: new.service_account,
        tags,
    };
    connection
        .client
        .create_identity_with(args.scope(&connection), &body)
        .await?;
    match drawn {
        Some(key) => show_api_key(&key, args.json),
        None if args.json => print::json(&json!({
            "identity": identity.to_string(), "kes_identity": identity.to_kes_text(),
        })),
        None => print::out(&format!(
            "identity  {identity}\nfor KES   {}\n",
            identity.to_kes_text()
        )),
    }
}

/// Prints an API key and its identity, in the forms of both kinds of clients.
fn show_api_key(key: &ApiKey, json: bool) -> Result<()> {
    let (identity, text) = (key.identity(), key.to_text());
    let (kes_identity, kes_text) = (identity.to_kes_text(), key.to_kes_text());
    if json {
        return print::json(&json!({
            "identity": identity.to_string(), "api_key": text.expose(),
            "kes_identity": kes_identity, "kes_api_key": kes_text.expose(),
        }));
    }
    print::out(&format!(
        "identity  {identity}\nAPI key   {} (shown once; keep it secret)\n\n\
         The same for KES clients:\nidentity  {kes_identity}\nAPI key   {}\n",
        text.expose(),
        kes_text.expose()
    ))
}

async fn list_identities(args: KmsScopeArgs) -> Result<()> {
    let connection = connect(&args)?;
    let mut options = ListOptions::default();
    let mut found: Vec<IdentityInfo> = Vec::new();
    loop {
        let page = connection
            .client
            .identities(args.scope(&connection), &options)
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

/// `moat kms identity info`: one identity, or who we are.
async fn show_identity(identity: Option<&str>, args: &KmsScopeArgs) -> Result<()> {
    let connection = connect(args)?;
    let enclave = args.scope(&connection);
    let asked = match identity {
        Some(text) => {
            let identity = parse_identity(text)?;
            connection.client.identity(enclave, identity).await
        }
        None => connection.client.own_identity(enclave).await,
    };
    let found = match asked {
        Err(e) if identity.is_none() && e.code() == Some(Code::IdentityNotFound) => {
            return show_stranger(&connection, e, args.json).await;
        }
        found => found?,
    };
    if args.json {
        return print::json(&serde_json::to_value(&found)?);
    }
    let dash = || "-".to_owned();
    let joined = |items: Vec<String>| match items.as_slice() {
        [] => dash(),
        some => some.join(" "),
    };
    let accounts = found.service_accounts.iter().map(ToString::to_string);
    let tags = found
        .tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    let policy = match &found.policy {
        Some(policy) => policy_shown(&connection, enclave, policy).await,
        None => dash(),
    };
    print::out(&print::fields(&[
        ("identity", found.identity.to_string()),
        ("for KES", found.identity.to_kes_text()),
        ("privilege", found.privilege.to_string()),
        ("policy", policy),
        (
            "parent",
            found.parent.map_or_else(dash, |parent| parent.to_string()),
        ),
        ("service accounts", joined(accounts.collect())),
        ("tags", joined(tags.collect())),
        (
            "created",
            format!("{} by {}", found.created_at, found.created_by),
        ),
    ]))
}

/// The name of a policy, and whether it is still there, if we may know.
async fn policy_shown(
    connection: &Connection,
    enclave: Option<&EnclaveName>,
    name: &str,
) -> String {
    let Ok(policy) = key_name(name) else {
        return name.to_owned();
    };
    let found = connection.client.policy(enclave, &policy);
    match found.await {
        Err(e) if e.code() == Some(Code::PolicyNotFound) => {
            format!("{name}, which was deleted: this identity may do nothing")
        }
        _ => name.to_owned(),
    }
}

/// Who asks and is not known in the enclave may be one who is above all of them.
async fn show_stranger(
    connection: &Connection,
    unknown: moat_kms_client::Error,
    json: bool,
) -> Result<()> {
    let privilege = match connection.client.own_identity(None).await {
        Ok(own) => own.privilege,
        // The root identity stands in the configuration, and sees every enclave.
        Err(_) if connection.client.enclave(&connection.enclave).await.is_ok() => {
            Privilege::SysAdmin
        }
        Err(_) => return Err(unknown.into()),
    };
    let identity = connection.identity;
    if json {
        return print::json(&json!({
            "identity": identity.to_string(), "privilege": privilege.to_string(),
        }));
    }
    print::out(&print::fields(&[
        ("identity", identity.to_string()),
        ("for KES", identity.to_kes_text()),
        (
            "privilege",
            format!("{privilege} of the system, above all enclaves"),
        ),
    ]))
}

/// `moat kms identity delete`.
async fn delete_identity(identity: &str, yes: bool, args: &KmsScopeArgs) -> Result<()> {
    let (connection, identity) = (connect(args)?, parse_identity(identity)?);
    let (client, enclave) = (&connection.client, args.scope(&connection));
    let found = client.identity(enclave, identity).await?;
    let what = format!(
        "{identity} ({}) is refused from then on{}.",
        found.privilege,
        match found.service_accounts.len() {
            0 => String::new(),
            1 => ", and so is its service account".to_owned(),
            some => format!(", and so are its {some} service accounts"),
        }
    );
    confirm(&what, "Delete it?", yes)?;
    client.delete_identity(enclave, identity).await?;
    print::done(&format!("identity {identity} is deleted"), args.json)
}

pub(crate) fn parse_identity(text: &str) -> Result<Identity> {
    Identity::parse(text).with_context(|| {
        format!("{text:?} is no identity: h1: and 43 characters of base64url, or 64 hex digits")
    })
}

fn certificate_identity(path: &Path) -> Result<Identity> {
    let text = files::read_text(path)?;
    let chain =
        CertificateInfo::parse_pem(text.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(Identity::from_spki_sha256(chain[0].public_key_sha256))
}
