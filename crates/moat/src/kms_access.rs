//! `moat kms identity|policy|enclave`: who may do what, and where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::PathPolicy;
use moat_kms_client::wire::{self, Patterns, PolicyDocument};
use moat_kms_client::{ApiKey, Identity, ListOptions, Privilege};
use moat_pki::CertificateInfo;
use moat_types::{EnclaveName, KeyName, SystemRandom};
use serde_json::{Value, json};

use crate::cli::{KmsClientArgs, KmsEnclaveCommand, KmsPolicyCommand};
use crate::kms::{Connection, connect, key_name};
use crate::kms_confirm::confirm;
use crate::{files, print};

/// What `moat kms identity create` was told.
pub(crate) struct NewIdentity {
    pub(crate) identity: Option<String>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) policy: Option<String>,
    pub(crate) admin: bool,
    pub(crate) service_account: bool,
    pub(crate) tags: Vec<String>,
}

/// `moat kms identity create`.
pub(crate) async fn create_identity(new: NewIdentity, args: &KmsClientArgs) -> Result<()> {
    let connection = connect(args)?;
    let policy = new.policy.as_deref().map(key_name).transpose()?;
    let privilege = if new.admin {
        Privilege::Admin
    } else {
        Privilege::User
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
        .create_identity_with(Some(&connection.enclave), &body)
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
pub(crate) fn show_api_key(key: &ApiKey, json: bool) -> Result<()> {
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

/// `moat kms policy ...`.
pub(crate) async fn policy(command: KmsPolicyCommand) -> Result<ExitCode> {
    match command {
        KmsPolicyCommand::Create {
            name,
            allow,
            deny,
            file,
            client,
        } => {
            let document = match file {
                Some(path) => read_document(&path)?,
                None => document(&allow, &deny)?,
            };
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let made = connection
                .client
                .set_policy(Some(&connection.enclave), &name, &document)
                .await?;
            show_policy(&name, made.policy.unwrap_or_default(), client.json)?;
        }
        KmsPolicyCommand::Get { name, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let found = connection
                .client
                .policy(Some(&connection.enclave), &name)
                .await?;
            show_policy(&name, found.policy.unwrap_or_default(), client.json)?;
        }
        KmsPolicyCommand::List { client } => {
            let connection = connect(&client)?;
            let mut rows = Vec::new();
            let mut options = ListOptions::default();
            loop {
                let page = connection
                    .client
                    .policies(Some(&connection.enclave), &options)
                    .await?;
                let cells = |p: wire::PolicyInfo| vec![p.name, p.created_at, p.created_by];
                rows.extend(page.items.into_iter().map(cells));
                match page.next {
                    Some(next) => options.from = next,
                    None => break,
                }
            }
            show_rows(&["name", "created at", "created by"], rows, client.json)?;
        }
        KmsPolicyCommand::Delete { name, yes, client } => {
            delete_policy(&name, yes, &client).await?;
        }
        KmsPolicyCommand::Check {
            identity,
            command,
            name,
            client,
        } => return check(&identity, command, name, &client).await,
        KmsPolicyCommand::Assign {
            name,
            identity,
            client,
        } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let identity = parse_identity(&identity)?;
            connection
                .client
                .assign_policy(Some(&connection.enclave), identity, Some(&name))
                .await?;
            print::out(&format!("{identity} has the policy {name}\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `moat kms enclave ...`.
pub(crate) async fn enclave(command: KmsEnclaveCommand) -> Result<ExitCode> {
    match command {
        KmsEnclaveCommand::Create { name, client } => {
            let name = EnclaveName::parse(&name)?;
            let made = connect(&client)?.client.create_enclave(&name).await?;
            let row = vec![made.name, made.created_at, made.created_by];
            show_rows(
                &["name", "created at", "created by"],
                vec![row],
                client.json,
            )?;
        }
        KmsEnclaveCommand::Info { name, client } => {
            let name = EnclaveName::parse(&name)?;
            let found = connect(&client)?.client.enclave(&name).await?;
            let row = vec![found.name, found.created_at, found.created_by];
            show_rows(
                &["name", "created at", "created by"],
                vec![row],
                client.json,
            )?;
        }
        KmsEnclaveCommand::Delete { name, yes, client } => {
            delete_enclave(&name, yes, &client).await?;
        }
        KmsEnclaveCommand::List { client } => {
            let connection = connect(&client)?;
            let mut rows = Vec::new();
            let mut options = ListOptions::default();
            loop {
                let page = connection.client.enclaves(&options).await?;
                let cells = |e: wire::EnclaveInfo| vec![e.name, e.created_at, e.created_by];
                rows.extend(page.items.into_iter().map(cells));
                match page.next {
                    Some(next) => options.from = next,
                    None => break,
                }
            }
            show_rows(&["name", "created at", "created by"], rows, client.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete_policy(name: &str, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let enclave = Some(&connection.enclave);
    // Looked up first, so that nobody is asked about a policy that does not exist.
    connection.client.policy(enclave, &name).await?;
    let has_it = identities_with(&connection, name.as_str()).await?;
    let what = match has_it.as_slice() {
        [] => format!(
            "No identity of enclave {} has the policy {name}.",
            args.enclave
        ),
        some => format!(
            "{} identities have the policy {name} and may do nothing without it: {}.",
            some.len(),
            some.join(", ")
        ),
    };
    confirm(&what, "Delete it?", yes)?;
    connection.client.delete_policy(enclave, &name).await?;
    done(&format!("policy {name} is deleted"), args.json)
}

async fn identities_with(connection: &Connection, policy: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut options = ListOptions::default();
    loop {
        let page = connection
            .client
            .identities(Some(&connection.enclave), &options)
            .await?;
        let with = page
            .items
            .iter()
            .filter(|one| one.policy.as_deref() == Some(policy));
        found.extend(with.map(|one| one.identity.to_string()));
        match page.next {
            Some(next) => options.from = next,
            None => return Ok(found),
        }
    }
}

/// Says which rule decides; the exit code is that of a test.
async fn check(
    identity: &str,
    command: String,
    name: String,
    args: &KmsClientArgs,
) -> Result<ExitCode> {
    let (connection, identity) = (connect(args)?, parse_identity(identity)?);
    let asked = wire::CheckPolicy { command, name };
    let decision = connection
        .client
        .check_policy(Some(&connection.enclave), identity, &asked)
        .await?;
    if args.json {
        print::json(&serde_json::to_value(&decision)?)?;
    } else {
        let verdict = if decision.allowed {
            "allowed"
        } else {
            "refused"
        };
        print::out(&format!("{verdict}: {}\n", decision.reason))?;
    }
    Ok(if decision.allowed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn delete_enclave(name: &str, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, EnclaveName::parse(name)?);
    let (client, enclave) = (&connection.client, Some(&name));
    client.enclave(&name).await?;
    let options = ListOptions::default();
    let keys = client.keys(&name, &options).await?;
    let identities = client.identities(enclave, &options).await?;
    let count = |items: usize, more: bool| format!("{items}{}", if more { " or more" } else { "" });
    let what = format!(
        "Enclave {name} has {} keys and {} identities. Deleting it makes everything that was ever encrypted under its \
         keys unreadable for good; there is no grace period, and only a backup brings it back.",
        count(keys.items.len(), keys.next.is_some()),
        count(identities.items.len(), identities.next.is_some()),
    );
    confirm(&what, "Delete it with all that is in it?", yes)?;
    client.delete_enclave(&name).await?;
    done(&format!("enclave {name} is deleted"), args.json)
}

/// `moat kms identity info`: one identity, or who we are.
pub(crate) async fn show_identity(identity: Option<&str>, args: &KmsClientArgs) -> Result<()> {
    let connection = connect(args)?;
    let enclave = Some(&connection.enclave);
    let found = match identity {
        Some(text) => {
            let identity = parse_identity(text)?;
            connection.client.identity(enclave, identity).await?
        }
        None => connection.client.own_identity(enclave).await?,
    };
    if args.json {
        return print::json(&serde_json::to_value(&found)?);
    }
    let joined = |items: Vec<String>| {
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.join(" ")
        }
    };
    let accounts = found.service_accounts.iter().map(ToString::to_string);
    let tags = found
        .tags
        .iter()
        .map(|(name, value)| format!("{name}={value}"));
    print::out(&format!(
        "identity          {}\nfor KES           {}\nprivilege         {}\npolicy            {}\nparent            {}\n\
         service accounts  {}\ntags              {}\ncreated           {} by {}\n",
        found.identity,
        found.identity.to_kes_text(),
        found.privilege,
        found.policy.as_deref().unwrap_or("-"),
        found
            .parent
            .map_or_else(|| "-".to_owned(), |parent| parent.to_string()),
        joined(accounts.collect()),
        joined(tags.collect()),
        found.created_at,
        found.created_by,
    ))
}

/// `moat kms identity delete`.
pub(crate) async fn delete_identity(identity: &str, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, identity) = (connect(args)?, parse_identity(identity)?);
    let (client, enclave) = (&connection.client, Some(&connection.enclave));
    let found = client.identity(enclave, identity).await?;
    let what = format!(
        "{identity} ({}) is refused from then on, and so are its {} service accounts.",
        found.privilege,
        found.service_accounts.len()
    );
    confirm(&what, "Delete it?", yes)?;
    client.delete_identity(enclave, identity).await?;
    done(&format!("identity {identity} is deleted"), args.json)
}

fn done(text: &str, json: bool) -> Result<()> {
    if json {
        return print::json(&json!({ "done": text }));
    }
    print::out(&format!("{text}\n"))
}

fn show_rows(heading: &[&str], rows: Vec<Vec<String>>, json: bool) -> Result<()> {
    if !json {
        return print::out(&print::table(heading, &rows));
    }
    let object = |row: Vec<String>| {
        let names = heading.iter().map(|name| name.replace(' ', "_"));
        Value::Object(names.zip(row.into_iter().map(Value::from)).collect())
    };
    print::json(&rows.into_iter().map(object).collect())
}

fn show_policy(name: &KeyName, document: PolicyDocument, json: bool) -> Result<()> {
    if json {
        return print::json(&json!({
            "name": name.to_string(), "allow": document.allow, "deny": document.deny,
        }));
    }
    let mut rows = Vec::new();
    for (verdict, rules) in [("deny", &document.deny), ("allow", &document.allow)] {
        for (command, patterns) in rules {
            let patterns: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
            rows.push(vec![
                verdict.to_owned(),
                command.clone(),
                patterns.join(" "),
            ]);
        }
    }
    print::out(&print::table(&["rule", "command", "names"], &rows))
}

fn read_document(path: &Path) -> Result<PolicyDocument> {
    let text = files::read_text(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is not a policy", path.display()))
}

/// The rules of a command line.
fn document(allow: &[String], deny: &[String]) -> Result<PolicyDocument> {
    Ok(PolicyDocument {
        allow: rules(allow)?,
        deny: rules(deny)?,
    })
}

fn rules(texts: &[String]) -> Result<BTreeMap<String, Patterns>> {
    let (paths, others): (Vec<_>, Vec<_>) = texts.iter().partition(|text| text.starts_with('/'));
    let paths = PathPolicy {
        allow: paths.into_iter().cloned().collect(),
        deny: Vec::new(),
    };
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (command, patterns) in paths.to_document()?.allow {
        let patterns = patterns.iter().map(|pattern| pattern.to_string());
        rules.entry(command).or_default().extend(patterns);
    }
    for text in others {
        let Some((command, pattern)) = text.split_once('=') else {
            bail!("{text:?} is no rule: give a KES path, which begins with /, or COMMAND=PATTERN");
        };
        let patterns = rules.entry(command.to_ascii_uppercase()).or_default();
        patterns.push(pattern.to_owned());
    }
    let many = |(command, patterns)| (command, Patterns::Many(patterns));
    Ok(rules.into_iter().map(many).collect())
}

fn parse_identity(text: &str) -> Result<Identity> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_paths_or_commands() {
        let texts = ["/v1/key/generate/a*", "key:generate=b", "KEY:LIST=*"].map(str::to_owned);
        let document = document(&texts, &["/v1/key/delete/*".to_owned()]).unwrap();
        let generate: Vec<String> = document.allow["KEY:GENERATE"]
            .iter()
            .map(|pattern| pattern.to_string())
            .collect();
        assert_eq!(generate, ["a*", "b"]);
        assert_eq!(document.allow.len(), 2);
        assert!(document.deny.contains_key("KEY:DELETE"));
        for bad in ["KEY:LIST", "/v1/kee/list/*x", "/v1/key/genrate/k"] {
            assert!(rules(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
