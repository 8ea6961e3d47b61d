//! `moat kms key`: the life of a key.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::DELETION_GRACE;
use moat_kms_client::ListOptions;
use moat_kms_client::wire::{CreateKey, KeyInfo};
use moat_types::{Clock, KeyName, SystemClock};

use crate::cli::{
    KmsClientArgs, KmsKeyCommand, KmsKeyCreateArgs, KmsKeyDeleteArgs, KmsKeyImportArgs,
    KmsKeyRotateArgs,
};
use crate::kms::{Connection, connect, key_name};
use crate::kms_confirm::{confirm, counted, guards};
use crate::{files, kms_import, print};

/// `moat kms key ...`.
pub(crate) async fn key(command: KmsKeyCommand) -> Result<ExitCode> {
    match command {
        KmsKeyCommand::List { prefix, client } => list(prefix, client).await?,
        KmsKeyCommand::Create(args) => create(args).await?,
        KmsKeyCommand::Import(args) => import(args).await?,
        KmsKeyCommand::Info { name, client } => info(&name, &client).await?,
        KmsKeyCommand::Versions { name, client } => versions(&name, &client).await?,
        KmsKeyCommand::Rotate(args) => rotate(args).await?,
        KmsKeyCommand::Disable { name, yes, client } => disable(&name, yes, &client).await?,
        KmsKeyCommand::Enable { name, client } => {
            let (to, name) = (connect(&client)?, key_name(&name)?);
            show(
                &to.client.enable_key(&to.enclave, &name).await?,
                client.json,
            )?;
        }
        KmsKeyCommand::Delete(args) => match args.version {
            Some(version) => destroy_version(&args, version).await?,
            None => delete(&args).await?,
        },
        KmsKeyCommand::Restore { name, client } => {
            let (to, name) = (connect(&client)?, key_name(&name)?);
            show(
                &to.client.restore_key(&to.enclave, &name).await?,
                client.json,
            )?;
        }
        KmsKeyCommand::Export { name, out, client } => export(&name, &out, &client).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(args: KmsKeyCreateArgs) -> Result<()> {
    let connection = connect(&args.client)?;
    let new = CreateKey {
        name: key_name(&args.name)?.to_string(),
        algorithm: args.algorithm,
        exportable: args.exportable,
        rotation_seconds: args.rotate_every.as_deref().map(seconds).transpose()?,
    };
    let made = connection
        .client
        .create_key_with(&connection.enclave, &new)
        .await?;
    show(&made, args.client.json)
}

async fn import(args: KmsKeyImportArgs) -> Result<()> {
    let (found, mut import) = kms_import::read(&args)?;
    import.exportable = args.exportable;
    import.add_version = args.add_version;
    let name = match (&args.name, found) {
        (Some(name), _) => key_name(name)?,
        (None, Some(found)) => found,
        (None, None) => bail!("the file does not say how the key is called; name it"),
    };
    let connection = connect(&args.client)?;
    let made = connection
        .client
        .import_key(&connection.enclave, &name, &import)
        .await?;
    show(&made, args.client.json)
}

async fn info(name: &str, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let found = connection.client.key(&connection.enclave, &name).await?;
    if args.json {
        return print::json(&serde_json::to_value(&found)?);
    }
    let guards = counted(&found.name, &found.guards, SystemClock.now().0);
    let versions = match found.versions {
        1 => String::new(),
        kept => format!(" ({kept} versions are kept)"),
    };
    print::out(&print::fields(&[
        ("name", found.name.clone()),
        ("state", state(&found)),
        ("version", format!("{}{versions}", found.version)),
        ("algorithm", found.algorithm.clone()),
        (
            "exportable",
            if found.exportable { "yes" } else { "no" }.to_owned(),
        ),
        ("rotation", rotation(&found)),
        (
            "created",
            format!("{} by {}", found.created_at, found.created_by),
        ),
    ]))?;
    print::out(&format!("{guards}\n"))
}

async fn rotate(args: KmsKeyRotateArgs) -> Result<()> {
    let (connection, name) = (connect(&args.client)?, key_name(&args.name)?);
    let (api, enclave) = (&connection.client, &connection.enclave);
    let (every, json) = (args.every, args.client.json);
    if every.is_none() && !args.never {
        return show(&api.rotate_key(enclave, &name).await?, json);
    }
    let every = every.as_deref().map(seconds).transpose()?;
    let changed = api.set_key_rotation(enclave, &name, every).await?;
    show(&changed, json)?;
    if json {
        return Ok(());
    }
    print::out(&format!("rotation: {}\n", rotation(&changed)))
}

/// When a key gets a new version by itself.
fn rotation(key: &KeyInfo) -> String {
    match (key.rotation_seconds, &key.next_rotation_at) {
        (Some(seconds), Some(next)) => format!("every {}, next {next}", span(seconds)),
        (Some(seconds), None) => format!("every {}", span(seconds)),
        (None, _) => "only by hand".to_owned(),
    }
}

async fn list(prefix: String, args: KmsClientArgs) -> Result<()> {
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
    show_table(keys.iter())
}

async fn versions(name: &str, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let found = connection
        .client
        .key_versions(&connection.enclave, &name)
        .await?
        .items;
    if args.json {
        return print::json(&serde_json::to_value(&found)?);
    }
    let rows: Vec<Vec<String>> = found
        .into_iter()
        .map(|version| {
            let origin = if version.imported {
                "imported"
            } else {
                "made here"
            };
            vec![
                version.version.to_string(),
                version.algorithm,
                origin.to_owned(),
                version.created_at,
                version.created_by,
            ]
        })
        .collect();
    print::out(&print::table(
        &["version", "algorithm", "origin", "created", "by"],
        &rows,
    ))
}

async fn disable(name: &str, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name, found) = existing(name, args).await?;
    let what = format!(
        "{} Disabling it makes all of that unreadable within the lease of the stores (5 minutes by default), and writes \
         that need it fail, until it is enabled again. No data is lost.",
        guards_unless(yes, &connection, &found, &name).await
    );
    confirm(&what, &format!("Disable {name}?"), yes)?;
    let changed = connection
        .client
        .disable_key(&connection.enclave, &name)
        .await?;
    show(&changed, args.json)
}

async fn delete(args: &KmsKeyDeleteArgs) -> Result<()> {
    let grace = match (args.grace.as_deref(), args.now) {
        (_, true) => Some(0),
        (grace, false) => grace.map(seconds).transpose()?,
    };
    let yes = args.yes;
    let (connection, name, found) = existing(&args.name, &args.client).await?;
    let until = match grace {
        Some(0) => "at once and for good; only a backup brings it back".to_owned(),
        grace => format!(
            "now, and for good after {}, unless it is restored before",
            span(grace.unwrap_or(DELETION_GRACE.as_secs()))
        ),
    };
    let what = format!(
        "{} Deleting it makes everything that was encrypted under it unreadable {until}.",
        guards_unless(yes, &connection, &found, &name).await
    );
    confirm(&what, &format!("Delete {name}?"), yes)?;
    let gone = connection
        .client
        .delete_key(&connection.enclave, &name, grace)
        .await?;
    if args.client.json {
        return print::json(&serde_json::to_value(&gone)?);
    }
    match gone.deletion_at {
        Some(at) if grace != Some(0) => print::out(&format!(
            "{name} can't be used any more and is gone for good {at}; `moat kms key restore {name}` takes that back\n"
        )),
        _ => print::out(&format!("{name} is gone for good\n")),
    }
}

async fn destroy_version(args: &KmsKeyDeleteArgs, version: u32) -> Result<()> {
    let (connection, name, _) = existing(&args.name, &args.client).await?;
    let what = format!(
        "What was encrypted under {name}@{version} and was not wrapped anew since becomes unreadable at once and for good."
    );
    confirm(&what, &format!("Destroy {name}@{version}?"), args.yes)?;
    let left = connection
        .client
        .delete_key_version(&connection.enclave, &name, version)
        .await?;
    show(&left, args.client.json)
}

/// The material goes to a new file that only its owner reads, never to a terminal.
async fn export(name: &str, out: &Path, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let exported = connection
        .client
        .export_key(&connection.enclave, &name)
        .await?;
    let mut text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(&exported)?);
    text.push(b'\n');
    let mut file = files::create_new(out)?;
    file.write_all(&text)?;
    file.sync_all()?;
    if args.json {
        let told = serde_json::json!({ "file": out.display().to_string(), "versions": exported.versions.len() });
        return print::json(&told);
    }
    print::out(&format!(
        "wrote {} of {name} to {}: whoever reads that file can decrypt everything of the key\n",
        print::count(exported.versions.len(), "version", "versions"),
        out.display()
    ))
}

/// Looked up first, so that nobody is asked about a key that does not exist.
async fn existing(name: &str, args: &KmsClientArgs) -> Result<(Connection, KeyName, KeyInfo)> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let found = connection.client.key(&connection.enclave, &name).await?;
    Ok((connection, name, found))
}

async fn guards_unless(
    yes: bool,
    connection: &Connection,
    found: &KeyInfo,
    name: &KeyName,
) -> String {
    if yes {
        // Nobody reads it.
        return String::new();
    }
    guards(connection, found, name).await
}

/// Seconds of a text such as `90s`, `12h` or `7d`.
fn seconds(text: &str) -> Result<u64> {
    let wrong = || format!("{text:?} is no time: give a number with s, m, h or d, such as 30d");
    let unit = text.chars().last().with_context(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().with_context(wrong)?;
    number.checked_mul(factor).with_context(wrong)
}

/// Seconds in the largest unit that they are a whole number of.
fn span(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let fits = units
        .iter()
        .find(|(length, _)| seconds > 0 && seconds.is_multiple_of(*length));
    let (count, unit) = fits.map_or((seconds, "second"), |(length, unit)| {
        (seconds / length, *unit)
    });
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn show(key: &KeyInfo, json: bool) -> Result<()> {
    if json {
        return print::json(&serde_json::to_value(key)?);
    }
    show_table([key].into_iter())
}

fn show_table<'a>(keys: impl Iterator<Item = &'a KeyInfo>) -> Result<()> {
    let rows: Vec<Vec<String>> = keys.map(row).collect();
    print::out(&print::table(
        &["name", "state", "version", "algorithm", "created"],
        &rows,
    ))
}

fn row(key: &KeyInfo) -> Vec<String> {
    vec![
        key.name.clone(),
        state(key),
        key.version.to_string(),
        key.algorithm.clone(),
        key.created_at.clone(),
    ]
}

fn state(key: &KeyInfo) -> String {
    match (&key.deletion_at, &key.disabled_at) {
        (Some(at), _) => format!("deleted, restorable until {at}"),
        (None, Some(at)) if !key.enabled => format!("disabled {at}"),
        _ if key.enabled => "enabled".to_owned(),
        _ => "disabled".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("90s", 90), ("2m", 120), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        let texts = [
            (90, "90 seconds"),
            (60, "1 minute"),
            (86_400, "1 day"),
            (604_800, "7 days"),
            (0, "0 seconds"),
        ];
        for (seconds, expected) in texts {
            assert_eq!(span(seconds), expected);
        }
        for bad in ["", "7", "d", "-1d", "1.5h", "99999999999999999d", "7日"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
