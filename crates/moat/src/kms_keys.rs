//! `moat kms key`: the life of a key.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_kms::{Import, parse_minio_secret_key, parse_stored_key};
use moat_kms_client::ListOptions;
use moat_kms_client::wire::{CreateKey, ImportKey, KeyInfo, SecretBase64};
use moat_types::{KeyName, SecretBytes};

use crate::cli::{KmsClientArgs, KmsKeyCommand};
use crate::files;
use crate::kms::{Connection, connect, key_name};
use crate::kms_confirm::{confirm, guards};
use crate::print;

/// `moat kms key ...`.
pub(crate) async fn key(command: KmsKeyCommand) -> Result<ExitCode> {
    match command {
        KmsKeyCommand::List { prefix, client } => list(prefix, client).await?,
        KmsKeyCommand::Create {
            name,
            algorithm,
            exportable,
            rotate_every,
            client,
        } => {
            let connection = connect(&client)?;
            let new = CreateKey {
                name: key_name(&name)?.to_string(),
                algorithm,
                exportable,
                rotation_seconds: rotate_every.as_deref().map(seconds).transpose()?,
            };
            let made = connection
                .client
                .create_key_with(&connection.enclave, &new)
                .await?;
            show(&made, client.json)?;
        }
        KmsKeyCommand::Import {
            name,
            material_file,
            kes_file,
            minio_secret_key_file,
            algorithm,
            exportable,
            add_version,
            client,
        } => {
            let source = Source {
                material_file,
                kes_file,
                minio_secret_key_file,
                algorithm,
            };
            let (found, mut import) = source.read()?;
            import.exportable = exportable;
            import.add_version = add_version;
            let name = match (name, found) {
                (Some(name), _) => key_name(&name)?,
                (None, Some(found)) => found,
                (None, None) => bail!("the file does not say how the key is called; name it"),
            };
            let connection = connect(&client)?;
            let made = connection
                .client
                .import_key(&connection.enclave, &name, &import)
                .await?;
            show(&made, client.json)?;
        }
        KmsKeyCommand::Info { name, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let found = connection.client.key(&connection.enclave, &name).await?;
            show(&found, client.json)?;
        }
        KmsKeyCommand::Versions { name, client } => versions(&name, &client).await?,
        KmsKeyCommand::Rotate {
            name,
            every,
            never,
            client,
        } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let (api, enclave) = (&connection.client, &connection.enclave);
            let changed = match (every, never) {
                (None, false) => api.rotate_key(enclave, &name).await?,
                (every, _) => {
                    let every = every.as_deref().map(seconds).transpose()?;
                    api.set_key_rotation(enclave, &name, every).await?
                }
            };
            show(&changed, client.json)?;
        }
        KmsKeyCommand::Disable { name, yes, client } => disable(&name, yes, &client).await?,
        KmsKeyCommand::Enable { name, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let changed = connection
                .client
                .enable_key(&connection.enclave, &name)
                .await?;
            show(&changed, client.json)?;
        }
        KmsKeyCommand::Delete {
            name,
            grace,
            now,
            version,
            yes,
            client,
        } => {
            let grace = match (grace, now) {
                (_, true) => Some(0),
                (grace, false) => grace.as_deref().map(seconds).transpose()?,
            };
            match version {
                Some(version) => destroy_version(&name, version, yes, &client).await?,
                None => delete(&name, grace, yes, &client).await?,
            }
        }
        KmsKeyCommand::Restore { name, client } => {
            let (connection, name) = (connect(&client)?, key_name(&name)?);
            let changed = connection
                .client
                .restore_key(&connection.enclave, &name)
                .await?;
            show(&changed, client.json)?;
        }
        KmsKeyCommand::Export { name, out, client } => export(&name, &out, &client).await?,
    }
    Ok(ExitCode::SUCCESS)
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
    let (connection, name) = existing(name, args).await?;
    let what = format!(
        "{} Disabling it makes all of that unreadable within the lease of the stores (5 minutes by default), and writes \
         that need it fail, until it is enabled again. No data is lost.",
        guards_unless(yes, &connection, &name).await
    );
    confirm(&what, &format!("Disable {name}?"), yes)?;
    let changed = connection
        .client
        .disable_key(&connection.enclave, &name)
        .await?;
    show(&changed, args.json)
}

async fn delete(name: &str, grace: Option<u64>, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = existing(name, args).await?;
    let until = match grace {
        Some(0) => "at once and for good; only a backup brings it back".to_owned(),
        Some(seconds) => {
            format!("now, and for good after {seconds} seconds, unless it is restored before")
        }
        None => "now, and for good after 7 days, unless it is restored before".to_owned(),
    };
    let what = format!(
        "{} Deleting it makes everything that was encrypted under it unreadable {until}.",
        guards_unless(yes, &connection, &name).await
    );
    confirm(&what, &format!("Delete {name}?"), yes)?;
    let gone = connection
        .client
        .delete_key(&connection.enclave, &name, grace)
        .await?;
    if args.json {
        return print::json(&serde_json::to_value(&gone)?);
    }
    match gone.deletion_at {
        Some(at) if grace != Some(0) => print::out(&format!(
            "{name} can't be used any more and is gone for good {at}; `moat kms key restore {name}` takes that back\n"
        )),
        _ => print::out(&format!("{name} is gone for good\n")),
    }
}

async fn destroy_version(name: &str, version: u32, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = existing(name, args).await?;
    let what = format!(
        "What was encrypted under {name}@{version} and was not wrapped anew since becomes unreadable at once and for good."
    );
    confirm(&what, &format!("Destroy {name}@{version}?"), yes)?;
    let left = connection
        .client
        .delete_key_version(&connection.enclave, &name, version)
        .await?;
    show(&left, args.json)
}

/// The material goes to a new file that only its owner reads, never to a terminal.
async fn export(name: &str, out: &Path, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    let exported = connection
        .client
        .export_key(&connection.enclave, &name)
        .await?;
    let text = zeroize::Zeroizing::new(serde_json::to_vec_pretty(&exported)?);
    let mut file = files::create_new(out)?;
    file.write_all(&text)?;
    file.sync_all()?;
    if args.json {
        let told = serde_json::json!({ "file": out.display().to_string(), "versions": exported.versions.len() });
        return print::json(&told);
    }
    print::out(&format!(
        "{} versions of {name} are in {}: whoever reads that file can decrypt everything of the key\n",
        exported.versions.len(),
        out.display()
    ))
}

/// Looked up first, so that nobody is asked about a key that does not exist.
async fn existing(name: &str, args: &KmsClientArgs) -> Result<(Connection, KeyName)> {
    let (connection, name) = (connect(args)?, key_name(name)?);
    connection.client.key(&connection.enclave, &name).await?;
    Ok((connection, name))
}

async fn guards_unless(yes: bool, connection: &Connection, name: &KeyName) -> String {
    if yes {
        // Nobody reads it.
        return String::new();
    }
    guards(connection, name).await
}

/// Where imported material comes from.
struct Source {
    material_file: Option<PathBuf>,
    kes_file: Option<PathBuf>,
    minio_secret_key_file: Option<PathBuf>,
    algorithm: Option<String>,
}

impl Source {
    /// The key's name, if the source tells one, and the key.
    fn read(&self) -> Result<(Option<KeyName>, ImportKey)> {
        let text = |path: &Path| {
            let text = files::read_secret(path)?;
            anyhow::Ok(SecretBytes::new(text.expose().trim().as_bytes().to_vec()))
        };
        match (
            &self.material_file,
            &self.kes_file,
            &self.minio_secret_key_file,
        ) {
            (Some(path), None, None) => {
                let material = STANDARD
                    .decode(text(path)?.expose())
                    .with_context(|| format!("{} is not base64", path.display()))?;
                let import = ImportKey {
                    algorithm: self.algorithm.clone(),
                    material: SecretBase64(SecretBytes::new(material)),
                    mac_material: None,
                    exportable: false,
                    add_version: false,
                };
                Ok((None, import))
            }
            (None, Some(path), None) => {
                let import = parse_stored_key(text(path)?.expose())
                    .with_context(|| path.display().to_string())?;
                let named = path.file_name().and_then(|name| name.to_str());
                let name = named.and_then(|name| KeyName::parse(name).ok());
                Ok((name, to_wire(import)))
            }
            (None, None, Some(path)) => {
                let text = files::read_secret(path)?;
                let (name, import) = parse_minio_secret_key(text.expose().trim())
                    .with_context(|| path.display().to_string())?;
                Ok((Some(name), to_wire(import)))
            }
            _ => bail!("name one source: --material-file, --kes-file or --minio-secret-key-file"),
        }
    }
}

fn to_wire(import: Import) -> ImportKey {
    ImportKey {
        algorithm: Some(import.algorithm.as_str().to_owned()),
        material: SecretBase64(import.material),
        mac_material: import.mac_material.map(SecretBase64),
        exportable: false,
        add_version: false,
    }
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
    let state = match (&key.deletion_at, &key.disabled_at) {
        (Some(at), _) => format!("deleted {at}"),
        (None, Some(at)) if !key.enabled => format!("disabled {at}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("90s", 90), ("2m", 120), ("12h", 43_200), ("7d", 604_800)] {
            assert_eq!(seconds(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "7", "d", "-1d", "1.5h", "99999999999999999d", "7日"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
