//! `moat pki`: certificates and keystores as files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use moat_pki::{
    CaRequest, CertificateAuthority, CertificateInfo, KeyAlgorithm, Keystore, LeafRequest,
    NameScope, PrivateKey, SubjectName, TrustedEntry, Usage, jks, pem, pkcs12,
};
use moat_types::{SecretString, SystemClock, SystemRandom};
use serde_json::json;

use crate::cli::{PkiArgs, PkiCommand, StoreFormat, UsageArg};
use crate::clock_check::show;
use crate::files::{self, Access};
use crate::first_start::TRUSTSTORE_PASSWORD;
use crate::print;

/// Runs one of the commands.
pub(crate) fn run(args: PkiArgs) -> Result<()> {
    match args.command {
        PkiCommand::Ca {
            name,
            out,
            permit,
            days,
            algorithm,
        } => {
            let request = CaRequest {
                common_name: name.clone(),
                algorithm: algorithm.algorithm,
                validity: whole_days(days),
                permitted: permit
                    .iter()
                    .map(|text| NameScope::parse(text))
                    .collect::<Result<_, _>>()?,
            };
            make_ca(&out.unwrap_or_else(|| PathBuf::from(&name)), &request)
        }
        PkiCommand::Leaf {
            name,
            host,
            usage,
            ca,
            ca_key,
            out,
            keystore,
            password_file,
            days,
            algorithm,
        } => {
            let request = LeafRequest {
                common_name: name.clone(),
                usage: usage.into(),
                names: host
                    .iter()
                    .map(|text| SubjectName::parse(text))
                    .collect::<Result<_, _>>()?,
                validity: whole_days(days),
            };
            if request.names.is_empty() && request.usage != Usage::Client {
                bail!(
                    "a server's certificate needs a --host at least: clients look at nothing else"
                );
            }
            let ca = load_ca(&ca, ca_key)?;
            let out = out.unwrap_or_else(|| PathBuf::from(&name));
            let password = password_file.as_deref().map(password).transpose()?;
            make_leaf(
                &out,
                &ca,
                &request,
                algorithm.algorithm,
                &keystore,
                password.as_ref(),
            )
        }
        PkiCommand::Truststore {
            certificates,
            out,
            format,
            password_file,
        } => {
            let password = password_or_default(password_file.as_deref())?;
            make_truststore(&certificates, &out, format, &password)
        }
        PkiCommand::Inspect {
            files,
            password_file,
            json,
        } => {
            let password = password_or_default(password_file.as_deref())?;
            inspect(&files, &password, json)
        }
    }
}

impl From<UsageArg> for Usage {
    fn from(usage: UsageArg) -> Self {
        match usage {
            UsageArg::Server => Self::Server,
            UsageArg::Client => Self::Client,
            UsageArg::Both => Self::Both,
        }
    }
}

impl StoreFormat {
    const fn extension(self) -> &'static str {
        match self {
            Self::Pkcs12 => "p12",
            Self::Jks => "jks",
        }
    }

    fn write(self, keystore: &Keystore, password: &SecretString) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Pkcs12 => pkcs12::write(keystore, password)?,
            Self::Jks => jks::write(keystore, password, &SystemClock, &SystemRandom)?,
        })
    }
}

fn make_ca(out: &Path, request: &CaRequest) -> Result<()> {
    let [certificate, key] = new_pair(out)?;
    let ca = CertificateAuthority::create(request, &SystemClock, &SystemRandom)?;
    files::write(&key, ca.key().to_pem().expose().as_bytes(), Access::Private)?;
    files::write(
        &certificate,
        ca.certificate_pem().as_bytes(),
        Access::Public,
    )?;
    print::out(&format!(
        "CA certificate  {}\nprivate key     {} (keep it secret: it can vouch for any host)\nvalid until     {}\n",
        certificate.display(),
        key.display(),
        show(ca.info().not_after)
    ))
}

fn make_leaf(
    out: &Path,
    ca: &CertificateAuthority,
    request: &LeafRequest,
    algorithm: KeyAlgorithm,
    keystores: &[StoreFormat],
    password: Option<&SecretString>,
) -> Result<()> {
    let [certificate, key_path] = new_pair(out)?;
    let key = PrivateKey::generate(algorithm)?;
    let issued = ca.issue(request, &key, &SystemClock, &SystemRandom)?;
    files::write(&key_path, key.to_pem().expose().as_bytes(), Access::Private)?;
    files::write(&certificate, issued.chain_pem().as_bytes(), Access::Public)?;
    let mut text = format!(
        "certificate     {} (with its CA)\nprivate key     {}\n",
        certificate.display(),
        key_path.display()
    );
    for format in keystores {
        let path = with_extension(out, format.extension());
        let password = password.context("a keystore needs --password-file")?;
        let keystore = Keystore::key(&request.common_name, key.to_pkcs8(), issued.chain());
        files::write(&path, &format.write(&keystore, password)?, Access::Private)?;
        text.push_str(&format!(
            "keystore        {} (alias {})\n",
            path.display(),
            request.common_name.to_lowercase()
        ));
    }
    let info = CertificateInfo::parse(&issued.certificate)?;
    text.push_str(&format!("valid until     {}\n", show(info.not_after)));
    print::out(&text)
}

fn make_truststore(
    certificates: &[PathBuf],
    out: &Path,
    format: StoreFormat,
    password: &SecretString,
) -> Result<()> {
    let mut keystore = Keystore::default();
    for path in certificates {
        let text = files::read_text(path)?;
        for certificate in
            pem::decode_certificates(text.as_bytes()).with_context(|| path.display().to_string())?
        {
            // Java looks entries up by alias, so each needs its own.
            let alias = format!("ca-{}", keystore.trusted.len() + 1);
            keystore.trusted.push(TrustedEntry { alias, certificate });
        }
    }
    files::write(out, &format.write(&keystore, password)?, Access::Public)?;
    print::out(&format!(
        "truststore      {} ({} certificates)\n",
        out.display(),
        keystore.trusted.len()
    ))
}

fn inspect(paths: &[PathBuf], password: &SecretString, json: bool) -> Result<()> {
    let mut found = Vec::new();
    for path in paths {
        let bytes =
            std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        let certificates =
            certificates(&bytes, password).with_context(|| path.display().to_string())?;
        found.extend(
            certificates
                .into_iter()
                .map(|(role, info)| (path, role, info)),
        );
    }
    if json {
        return print::json(
            &found
                .iter()
                .map(|(path, role, info)| as_json(path, role, info))
                .collect(),
        );
    }
    let text: Vec<String> = found
        .iter()
        .map(|(path, role, info)| as_text(path, role, info))
        .collect();
    print::out(&text.join("\n"))
}

/// The certificates of a PEM, PKCS#12 or JKS file, each with the part it plays there.
fn certificates(bytes: &[u8], password: &SecretString) -> Result<Vec<(String, CertificateInfo)>> {
    let keystore = match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] => jks::read(bytes, password)?,
        // A DER sequence: PKCS#12. A single DER certificate begins alike and is tried first.
        [0x30, ..] => match CertificateInfo::parse(bytes) {
            Ok(info) => return Ok(vec![("certificate".to_owned(), info)]),
            Err(_) => pkcs12::read(bytes, password)?,
        },
        _ => {
            let chain = CertificateInfo::parse_pem(bytes)?;
            return Ok(chain
                .into_iter()
                .map(|info| ("certificate".to_owned(), info))
                .collect());
        }
    };
    let trusted = keystore.trusted.iter().map(|entry| {
        (
            format!("trusted, alias {}", entry.alias),
            &entry.certificate,
        )
    });
    let keys = keystore.keys.iter().flat_map(|entry| {
        entry
            .chain
            .iter()
            .map(|der| (format!("key, alias {}", entry.alias), der))
    });
    trusted
        .chain(keys)
        .map(|(role, der)| Ok((role, CertificateInfo::parse(der)?)))
        .collect()
}

fn as_text(path: &Path, role: &str, info: &CertificateInfo) -> String {
    let names: Vec<String> = info.names.iter().map(ToString::to_string).collect();
    let usage = match (info.is_ca, info.server_auth, info.client_auth) {
        (true, ..) => "CA",
        (_, true, true) => "server and client",
        (_, true, false) => "server",
        (_, false, true) => "client",
        (_, false, false) => "other",
    };
    format!(
        "{} ({role})\n  subject      {}\n  issuer       {}\n  names        {}\n  usage        {usage}\n  key          {}\n  \
         valid        {} to {}\n  serial       {}\n  SHA-256      {}\n  public key   {} (SHA-256 of SPKI)\n",
        path.display(),
        info.subject,
        info.issuer,
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        },
        info.public_key,
        show(info.not_before),
        show(info.not_after),
        info.serial,
        hex::encode(info.fingerprint_sha256),
        hex::encode(info.public_key_sha256),
    )
}

fn as_json(path: &Path, role: &str, info: &CertificateInfo) -> serde_json::Value {
    json!({
        "file": path,
        "role": role,
        "subject": info.subject,
        "issuer": info.issuer,
        "names": info.names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ca": info.is_ca,
        "server": info.server_auth,
        "client": info.client_auth,
        "key": info.public_key,
        "not_before": info.not_before.to_timestamp().to_string(),
        "not_after": info.not_after.to_timestamp().to_string(),
        "serial": info.serial,
        "sha256": hex::encode(info.fingerprint_sha256),
        "public_key_sha256": hex::encode(info.public_key_sha256),
    })
}

fn load_ca(certificate: &Path, key: Option<PathBuf>) -> Result<CertificateAuthority> {
    let key = key.unwrap_or_else(|| certificate.with_extension("key"));
    let text = files::read_text(certificate)?;
    let key = files::read_secret(&key)?;
    CertificateAuthority::from_pem(&text, &key).with_context(|| certificate.display().to_string())
}

/// The two files of a pair; neither may exist, because a key that is overwritten is gone.
fn new_pair(out: &Path) -> Result<[PathBuf; 2]> {
    let pair = ["crt", "key"].map(|extension| with_extension(out, extension));
    for path in &pair {
        if path.exists() {
            bail!(
                "{} exists; give another path with --out, or remove it",
                path.display()
            );
        }
    }
    Ok(pair)
}

/// Appends, where `Path::with_extension` would cut a host name at its last dot.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

fn password(path: &Path) -> Result<SecretString> {
    let text = files::read_secret(path)?;
    let line = text.expose().lines().next().unwrap_or_default();
    // keytool refuses shorter ones.
    if line.chars().count() < 6 {
        bail!(
            "{}: a keystore's password must have 6 characters at least",
            path.display()
        );
    }
    Ok(SecretString::new(line.to_owned()))
}

fn password_or_default(path: Option<&Path>) -> Result<SecretString> {
    match path {
        Some(path) => password(path),
        None => Ok(SecretString::new(TRUSTSTORE_PASSWORD.to_owned())),
    }
}

fn whole_days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}
