//! Key material from elsewhere, as `moat kms key import` reads it.

use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use moat_kms::{Import, parse_minio_secret_key, parse_stored_key};
use moat_kms_client::wire::{ImportKey, SecretBase64};
use moat_types::{KeyName, SecretBytes};

use crate::cli::KmsKeyImportArgs;
use crate::files;

/// The key's name, if its source tells one, and the key.
pub(crate) fn read(args: &KmsKeyImportArgs) -> Result<(Option<KeyName>, ImportKey)> {
    let text = |path: &Path| {
        let text = files::read_secret(path)?;
        anyhow::Ok(SecretBytes::new(text.expose().trim().as_bytes().to_vec()))
    };
    match (
        &args.material_file,
        &args.kes_file,
        &args.minio_secret_key_file,
    ) {
        (Some(path), None, None) => {
            let material = STANDARD.decode(text(path)?.expose()).with_context(|| {
                let path = path.display();
                format!("{path} does not hold 32 bytes in base64 and nothing else")
            })?;
            let import = ImportKey {
                algorithm: args.algorithm.clone(),
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

fn to_wire(import: Import) -> ImportKey {
    ImportKey {
        algorithm: Some(import.algorithm.as_str().to_owned()),
        material: SecretBase64(import.material),
        mac_material: import.mac_material.map(SecretBase64),
        exportable: false,
        add_version: false,
    }
}
