//! `moat kms policy`: what identities may do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::PathPolicy;
use moat_kms_client::wire::{self, Patterns, PolicyDocument};
use moat_kms_client::{Code, ListOptions};
use moat_types::{EnclaveName, KeyName};
use serde_json::json;

use crate::cli::{KmsPolicyCommand, KmsScopeArgs};
use crate::kms::{Connection, connect, key_name};
use crate::kms_confirm::confirm;
use crate::kms_identities::parse_identity;
use crate::{files, print};

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
            if document.allow.is_empty() && document.deny.is_empty() {
                // It would allow nothing, which is seldom what is meant in place of another.
                bail!("a policy has rules: give some with --allow, --deny or --file");
            }
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let made = connection
                .client
                .set_policy(client.scope(&connection), &name, &document)
                .await?;
            show_policy(&name, made.policy.unwrap_or_default(), client.json)?;
        }
        KmsPolicyCommand::Get { name, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let found = connection
                .client
                .policy(client.scope(&connection), &name)
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
                    .policies(client.scope(&connection), &options)
                    .await?;
                let cells = |p: wire::PolicyInfo| vec![p.name, p.created_at, p.created_by];
                rows.extend(page.items.into_iter().map(cells));
                match page.next {
                    Some(next) => options.from = next,
                    None => break,
                }
            }
            print::rows(&["name", "created at", "created by"], rows, client.json)?;
        }
        KmsPolicyCommand::Delete {
            name,
            force,
            yes,
            client,
        } => delete_policy(&name, force, yes, &client).await?,
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
                .assign_policy(client.scope(&connection), identity, Some(&name))
                .await?;
            print::done(&format!("{identity} has the policy {name}"), client.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Deletes a policy; one that identities have only by force, and then it is said who loses it.
async fn delete_policy(name: &str, force: bool, yes: bool, args: &KmsScopeArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let (client, enclave) = (&connection.client, args.scope(&connection));
    // Looked up first, so that nobody is asked about a policy that does not exist.
    client.policy(enclave, &name).await?;
    let what = match identities_with(&connection, enclave, name.as_str()).await? {
        // Who deletes may see the identities or not; the key manager looks in any case.
        None => format!("Identities that have the policy {name} may do nothing without it."),
        Some(some) if some.is_empty() => {
            format!(
                "No identity of enclave {} has the policy {name}.",
                args.enclave
            )
        }
        Some(some) if force => format!(
            "{} the policy {name}, and may do nothing without it: {}.",
            holders(some.len()),
            some.join(", ")
        ),
        Some(some) => bail!(
            "{} the policy {name}, and may do nothing without it: {}; give them another with `moat kms policy assign`, \
             or delete it all the same with --force",
            holders(some.len()),
            some.join(", ")
        ),
    };
    confirm(&what, "Delete it?", yes)?;
    match client.delete_policy(enclave, &name, force).await {
        // Somebody got it, or had it unseen.
        Err(e) if e.code() == Some(Code::PolicyInUse) => {
            return Err(e).context("not without --force");
        }
        done => done?,
    }
    print::done(&format!("policy {name} is deleted"), args.json)
}

fn holders(count: usize) -> String {
    print::count(count, "identity has", "identities have")
}

/// The identities that have a policy; none if we may not list them.
async fn identities_with(
    connection: &Connection,
    enclave: Option<&EnclaveName>,
    policy: &str,
) -> Result<Option<Vec<String>>> {
    let mut found = Vec::new();
    let mut options = ListOptions::default();
    loop {
        let page = connection.client.identities(enclave, &options).await;
        let page = match page {
            Err(e) if e.code() == Some(Code::Denied) => return Ok(None),
            page => page?,
        };
        let with = page
            .items
            .iter()
            .filter(|one| one.policy.as_deref() == Some(policy));
        found.extend(with.map(|one| one.identity.to_string()));
        match page.next {
            Some(next) => options.from = next,
            None => return Ok(Some(found)),
        }
    }
}

/// Says which rule decides; the exit code is that of a test.
async fn check(
    identity: &str,
    command: String,
    name: String,
    args: &KmsScopeArgs,
) -> Result<ExitCode> {
    let (connection, identity) = (connect(args)?, parse_identity(identity)?);
    let asked = wire::CheckPolicy { command, name };
    let decision = connection
        .client
        .check_policy(args.scope(&connection), identity, &asked)
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
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for text in texts {
        for (command, patterns) in rule(text)? {
            let patterns = patterns.iter().map(ToString::to_string);
            rules.entry(command).or_default().extend(patterns);
        }
    }
    let many = |(command, patterns)| (command, Patterns::Many(patterns));
    Ok(rules.into_iter().map(many).collect())
}

/// What one rule stands for: a path may stand for several commands, and a pattern of paths that are
/// none of ours for nothing. Real policies of KES hold such patterns, so they are no error.
fn rule(text: &str) -> Result<BTreeMap<String, Patterns>> {
    if text.starts_with('/') {
        let path = PathPolicy {
            allow: vec![text.to_owned()],
            deny: Vec::new(),
        };
        let rules = path.to_document()?.allow;
        if rules.is_empty() {
            print::warning(&format!("{text} is about no operation, and is left out"));
        }
        return Ok(rules);
    }
    let Some((command, pattern)) = text.split_once('=') else {
        bail!("{text:?} is no rule: give a KES path, which begins with /, or COMMAND=PATTERN");
    };
    let patterns = Patterns::Many(vec![pattern.to_owned()]);
    Ok(BTreeMap::from([(command.to_ascii_uppercase(), patterns)]))
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
