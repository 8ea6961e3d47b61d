//! `moat kms hsm`: the key that seals the key manager's state.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Subcommand;
use serde_json::json;

use crate::cli::KmsClientArgs;
use crate::hsm_place::HsmPlace;
use crate::kms::connect;
use crate::print;

#[derive(Debug, Subcommand)]
pub(crate) enum KmsHsmCommand {
    /// Show the keys that seal the key manager's state, and whether they work
    Status(KmsClientArgs),
    /// Make a key: in a token (pkcs11:token=LABEL;object=KEY?module-path=FILE&pin-source=FILE) or a new file
    Init {
        /// Where
        place: String,
    },
    /// Seal the state under another key while everything goes on; the key must exist (see init)
    Rotate {
        /// The new key: a file or a pkcs11: URI on the key manager's machine [default: the one that its configuration names]
        #[arg(long, value_name = "FILE|URI")]
        to: Option<String>,
        #[command(flatten)]
        client: KmsClientArgs,
    },
}

/// Runs one of them.
pub(crate) async fn run(command: KmsHsmCommand) -> Result<ExitCode> {
    match command {
        KmsHsmCommand::Status(client) => status(client).await,
        KmsHsmCommand::Init { place } => init(&place).await,
        KmsHsmCommand::Rotate { to, client } => rotate(to, client).await,
    }
}

async fn status(args: KmsClientArgs) -> Result<ExitCode> {
    let status = connect(&args)?.client.hsm_status().await?;
    let fine = status.keys.iter().all(|key| key.problem.is_none());
    if args.json {
        print::json(&serde_json::to_value(&status)?)?;
    } else {
        let rows: Vec<_> = status
            .keys
            .iter()
            .map(|key| {
                vec![
                    key.id.clone(),
                    if key.current { "seals" } else { "opens" }.to_owned(),
                    key.enclaves.to_string(),
                    key.about.clone().unwrap_or_else(|| "unknown".to_owned()),
                    key.problem.clone().unwrap_or_else(|| "works".to_owned()),
                ]
            })
            .collect();
        let heading = ["id", "use", "enclaves", "what", "state"];
        print::out(&print::table(&heading, &rows))?;
    }
    Ok(match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

async fn init(place: &str) -> Result<ExitCode> {
    let place = HsmPlace::parse(place).map_err(|problem| anyhow!(problem))?;
    // A token may take its time, and its driver may block.
    let made = tokio::task::spawn_blocking(move || place.create()).await??;
    print::out(&format!(
        "made a {}, id {}\n",
        made.describe(),
        hex::encode(made.id())
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn rotate(to: Option<String>, args: KmsClientArgs) -> Result<ExitCode> {
    let done = connect(&args)?.client.rotate_hsm(to.as_deref()).await?;
    if args.json {
        print::json(&json!({ "id": done.id, "about": done.about, "enclaves": done.enclaves }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "the state is sealed under {} (id {}); {} enclaves were sealed anew\n",
        done.about, done.id, done.enclaves
    );
    if let Some(to) = &to {
        text.push_str(&format!(
            "Before the next start set kms.hsm_key to {to:?} on every node, and take MOAT_HSM_KEY and\n\
             MINIO_KMS_HSM_KEY out of its environment, which win over it. Keep the old key as long as there are\n\
             backups that were taken under it.\n"
        ));
    }
    print::out(&text)?;
    Ok(ExitCode::SUCCESS)
}
