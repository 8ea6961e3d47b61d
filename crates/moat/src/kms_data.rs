//! `moat kms encrypt|decrypt|datakey|mac`: what keys are used for, by hand and in scripts.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_kms_client::wire::{self, Base64};
use moat_types::SecretBytes;
use serde_json::json;
use zeroize::Zeroizing;

use crate::cli::{KmsDatakeyArgs, KmsDecryptArgs, KmsEncryptArgs, KmsMacArgs};
use crate::files::{self, Access};
use crate::kms::{connect, key_name};
use crate::print;

/// What the key manager takes, and then some: it says itself what is too long.
const INPUT_BYTES_MAX: u64 = 2 << 20;

/// `moat kms encrypt`.
pub(crate) async fn encrypt(args: KmsEncryptArgs) -> Result<ExitCode> {
    let (connection, name) = (connect(&args.client)?, key_name(&args.name)?);
    let plaintext = SecretBytes::new(read_input(args.input.as_deref())?.to_vec());
    let made = connection
        .client
        .encrypt(
            &connection.enclave,
            &name,
            args.context.as_bytes(),
            plaintext,
        )
        .await?;
    if args.client.json {
        print::json(&serde_json::to_value(&made)?)?;
    } else {
        print::out(&format!("{}\n", STANDARD.encode(&made.ciphertext.0)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `moat kms decrypt`.
pub(crate) async fn decrypt(args: KmsDecryptArgs) -> Result<ExitCode> {
    let (connection, name) = (connect(&args.client)?, key_name(&args.name)?);
    let text = match args.ciphertext {
        Some(text) => text,
        None => String::from_utf8(read_input(args.input.as_deref())?.to_vec())
            .context("the ciphertext is not base64 text")?,
    };
    if text.trim().is_empty() {
        bail!(
            "there is no ciphertext: give it as an argument, in a file (--in) or on standard input"
        );
    }
    let ciphertext = STANDARD
        .decode(text.trim())
        .context("the ciphertext is not base64")?;
    let opened = connection
        .client
        .decrypt(
            &connection.enclave,
            &name,
            args.context.as_bytes(),
            &ciphertext,
        )
        .await?;
    match args.out {
        Some(path) => files::write(&path, opened.plaintext.0.expose(), Access::Private)?,
        None if args.client.json => print::json(&serde_json::to_value(&opened)?)?,
        None => print::bytes(opened.plaintext.0.expose())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `moat kms datakey`.
pub(crate) async fn datakey(args: KmsDatakeyArgs) -> Result<ExitCode> {
    let (connection, name) = (connect(&args.client)?, key_name(&args.name)?);
    let made = connection
        .client
        .generate_data_key(
            &connection.enclave,
            &name,
            args.context.as_bytes(),
            args.length,
        )
        .await?;
    if args.client.json {
        print::json(&serde_json::to_value(&made)?)?;
    } else {
        let plaintext = Zeroizing::new(STANDARD.encode(made.plaintext.0.expose()));
        print::out(&format!(
            "version    {}\nplaintext  {}\nwrapped    {}\n",
            made.version,
            *plaintext,
            STANDARD.encode(&made.ciphertext.0)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `moat kms mac`: makes a code, or checks one and says so with the exit code as well.
pub(crate) async fn mac(args: KmsMacArgs) -> Result<ExitCode> {
    let (connection, name) = (connect(&args.client)?, key_name(&args.name)?);
    let message = Base64(read_input(args.input.as_deref())?.to_vec());
    let (client, enclave, json) = (&connection.client, &connection.enclave, args.client.json);
    let Some(text) = args.verify else {
        let asked = wire::Mac {
            message,
            version: None,
        };
        let made = client.mac(enclave, &name, &asked).await?;
        if json {
            print::json(&serde_json::to_value(&made)?)?;
        } else {
            print::out(&format!("{}\n", STANDARD.encode(&made.code.0)))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let code = STANDARD
        .decode(text.trim())
        .context("the code is not base64")?;
    let asked = wire::VerifyMac {
        message,
        code: Base64(code),
        version: None,
    };
    let verified = client.verify_mac(enclave, &name, &asked).await?;
    match (json, verified.valid, verified.version) {
        (true, ..) => print::json(&json!({
            "valid": verified.valid, "version": verified.version,
        }))?,
        (false, true, Some(version)) => {
            print::out(&format!("the code is right; {name}@{version} made it\n"))?;
        }
        _ => print::out("the code is WRONG for this message and key\n")?,
    }
    Ok(if verified.valid {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The bytes of a file, or of standard input.
fn read_input(path: Option<&Path>) -> Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    let (source, shown): (Box<dyn Read>, PathBuf) = match path {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            (Box::new(file), path.to_owned())
        }
        None => (Box::new(std::io::stdin()), "standard input".into()),
    };
    source
        .take(INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .with_context(|| shown.display().to_string())?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        bail!(
            "{} is too long: the key manager encrypts keys and small secrets, at most 1 MiB",
            shown.display()
        );
    }
    Ok(bytes)
}
