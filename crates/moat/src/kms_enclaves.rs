//! `moat kms enclave`: where keys and identities are.

use std::process::ExitCode;

use anyhow::Result;
use moat_kms_client::{ListOptions, wire};
use moat_types::EnclaveName;

use crate::cli::{KmsClientArgs, KmsEnclaveCommand};
use crate::kms::connect;
use crate::kms_confirm::confirm;
use crate::print;

const HEADING: [&str; 3] = ["name", "created at", "created by"];

/// `moat kms enclave ...`.
pub(crate) async fn enclave(command: KmsEnclaveCommand) -> Result<ExitCode> {
    match command {
        KmsEnclaveCommand::Create { name, client } => {
            let name = EnclaveName::parse(&name)?;
            let made = connect(&client)?.client.create_enclave(&name).await?;
            print::row(&HEADING, cells(made), client.json)?;
        }
        KmsEnclaveCommand::Info { name, client } => {
            let name = EnclaveName::parse(&name)?;
            let found = connect(&client)?.client.enclave(&name).await?;
            print::row(&HEADING, cells(found), client.json)?;
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
                rows.extend(page.items.into_iter().map(cells));
                match page.next {
                    Some(next) => options.from = next,
                    None => break,
                }
            }
            print::rows(&HEADING, rows, client.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete_enclave(name: &str, yes: bool, args: &KmsClientArgs) -> Result<()> {
    let (connection, name) = (connect(args)?, EnclaveName::parse(name)?);
    let (client, enclave) = (&connection.client, Some(&name));
    client.enclave(&name).await?;
    let options = ListOptions::default();
    let keys = client.keys(&name, &options).await?;
    let identities = client.identities(enclave, &options).await?;
    let what = format!(
        "Enclave {name} has {} and {}. Deleting it makes everything that was ever encrypted under its \
         keys unreadable for good; there is no grace period, and only a backup brings it back.",
        counted(&keys, "key", "keys"),
        counted(&identities, "identity", "identities"),
    );
    confirm(&what, "Delete it with all that is in it?", yes)?;
    client.delete_enclave(&name).await?;
    print::done(&format!("enclave {name} is deleted"), args.json)
}

fn cells(enclave: wire::EnclaveInfo) -> Vec<String> {
    vec![enclave.name, enclave.created_at, enclave.created_by]
}

/// How many there are, as far as the first page of a listing tells.
fn counted<T>(page: &wire::Listing<T>, one: &str, many: &str) -> String {
    match page.next {
        Some(_) => format!("{} or more {many}", page.items.len()),
        None => print::count(page.items.len(), one, many),
    }
}
