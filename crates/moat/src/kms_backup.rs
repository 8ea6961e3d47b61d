//! `moat kms backup` and `moat kms restore`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use moat_kms::BACKUP_BYTES_MAX;
use moat_types::SystemRandom;
use serde_json::json;

use crate::cli::{CommonFlags, ConfigFlag, KmsClientArgs, KmsFlags};
use crate::config::Config;
use crate::files::{self, Access};
use crate::kms::connect;
use crate::lock::FolderLock;
use crate::print;
use crate::servers::kms_state;

#[derive(Debug, Args)]
pub(crate) struct KmsBackupArgs {
    /// The file to write
    file: PathBuf,
    #[command(flatten)]
    client: KmsClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct KmsRestoreArgs {
    /// The backup
    backup: PathBuf,
    #[command(flatten)]
    file: ConfigFlag,
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    kms: KmsFlags,
}

/// Takes a backup of a key manager that goes on serving.
pub(crate) async fn backup(args: KmsBackupArgs) -> Result<ExitCode> {
    if args.file.exists() {
        bail!("{} exists already; name a new file", args.file.display());
    }
    let backup = connect(&args.client)?.client.backup().await?;
    files::write(&args.file, &backup, Access::Private)?;
    if args.client.json {
        print::json(&json!({ "file": args.file, "bytes": backup.len() }))?;
    } else {
        print::out(&format!(
            "wrote {} ({} bytes). It opens only with the HSM key, which is not in it: keep both, apart.\n",
            args.file.display(),
            backup.len()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts a backup into a folder or database that holds no state yet.
pub(crate) async fn restore(args: KmsRestoreArgs) -> Result<ExitCode> {
    let mut flags = args.common.values();
    flags.extend(args.kms.values());
    let config = Config::load(args.file.config.as_deref(), flags)?;
    let backup = read(&args.backup)?;
    let (hsm, node) = tokio::task::spawn_blocking({
        let (data, config) = (config.data.clone(), config.kms.clone());
        move || anyhow::Ok((kms_state::hsm(&config)?, kms_state::node(&data, &config)?))
    })
    .await?
    .context("a backup opens only with the HSM key it was taken under; name it with --hsm-key, or put it into its place")?;
    let root_was_there = config.data.root().exists();
    files::make_folder(config.data.root(), Access::Public)?;
    files::make_folder(&config.data.kms(), Access::Private)?;
    let _lock = FolderLock::take(&config.data.kms())?;
    let state = config.data.kms_state();
    let was_there = state.exists();
    let engine = kms_state::open_engine(&config.data, &config.kms).await?;
    let random = Arc::new(SystemRandom);
    let done = moat_kms::restore(&engine, hsm, node.hsms_old, random, &backup).await;
    drop(engine);
    let info = match done {
        Ok(info) => info,
        Err(error) => {
            // Made by this command and empty: as if it had not been run.
            let made = match (root_was_there, was_there) {
                (false, _) => Some(config.data.root()),
                (true, false) => Some(state.as_path()),
                (true, true) => None,
            };
            if let Some(made) = made.filter(|made| made.exists()) {
                std::fs::remove_dir_all(made)
                    .with_context(|| format!("can't remove {}", made.display()))?;
            }
            return Err(error).with_context(|| args.backup.display().to_string());
        }
    };
    print::out(&format!(
        "restored {} rows as of {}. Start it with `moat kms server` or `moat up` on the same folder;\n\
         the operator's API key is then DIR/identity/root.key, and a new audit begins.\n",
        info.rows,
        info.taken.to_timestamp()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let cant = || format!("can't read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(cant)?.len();
    // Headers and tags come on top of the rows.
    if bytes > 2 * BACKUP_BYTES_MAX as u64 {
        bail!("{} is too large to be a backup", path.display());
    }
    std::fs::read(path).with_context(cant)
}
