//! The first start fills the data folder; later ones find it and change nothing.
//!
//! Each file is made only if it is missing and the mark of completeness is written last, so a
//! first start that was cut off is finished by the next one. A folder with other things in it is
//! refused.

use std::path::Path;

use anyhow::{Context, Result, bail};
use moat_kms::HsmKey;
use moat_kms_client::ApiKey;
use moat_pki::{
    CA_VALIDITY, CaRequest, CertificateAuthority, CertificateInfo, KeyAlgorithm, Keystore,
    LEAF_VALIDITY, LeafRequest, PrivateKey, SubjectName, Usage, jks, pkcs12,
};
use moat_types::{Clock, Random, SecretString};

use crate::clock_check;
use crate::config::{Config, TlsFiles};
use crate::credentials::Credentials;
use crate::files::{self, Access};
use crate::folder::DataFolder;
use crate::hsm_place::HsmPlace;
use crate::lock::FolderLock;

/// The password of the truststores: Java's own default. They hold one public certificate, nothing
/// that a password could protect, and a well-known one spares users a setting.
pub(crate) const TRUSTSTORE_PASSWORD: &str = "changeit";

/// What stands in the layout file. A later layout gets another number and a migration.
const LAYOUT: &str = "moat data folder, layout 1\n";

/// The servers that have a certificate of their own.
const SERVERS: [&str; 3] = ["store", "kms", "proxy"];

/// Where time and randomness come from.
#[derive(Clone, Copy)]
pub(crate) struct World<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) random: &'a dyn Random,
}

/// What was found before anything was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, or a first start that was cut off.
    Unfinished,
    /// A complete folder.
    Complete,
}

/// Looks at the folder without changing anything.
pub(crate) fn look(data: &DataFolder) -> Result<Found> {
    let root = data.root();
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Unfinished),
        Err(e) => {
            return Err(e).with_context(|| {
                format!(
                    "can't read the data folder {}; run as the user who owns it",
                    root.display()
                )
            });
        }
    };
    let layout = data.layout();
    match std::fs::read_to_string(&layout) {
        Ok(text) if text == LAYOUT => return Ok(Found::Complete),
        Ok(_) => bail!(
            "{} names a layout that this version does not know; use the version that made the folder",
            layout.display()
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(e).with_context(|| {
                format!(
                    "can't read {}; run as the user who owns it",
                    layout.display()
                )
            });
        }
    }
    for entry in entries {
        let name = entry
            .with_context(|| format!("can't read the data folder {}", root.display()))?
            .file_name();
        if !OURS.iter().any(|ours| name == *ours) && !name.to_string_lossy().ends_with(".tmp") {
            bail!(
                "{} is not empty and holds no Moat data (it has {:?}); give an empty or a new folder with --data",
                root.display(),
                name
            );
        }
    }
    Ok(Found::Unfinished)
}

/// What a first start that was cut off can have left, and what an operator may have put there
/// before it.
const OURS: [&str; 9] = [
    "ca",
    "trust",
    "tls",
    "identity",
    "kms",
    "store",
    "root.env",
    "lock",
    "moat.toml",
];

/// Brings the folder to its complete state and checks what is there. Says in a sentence each what
/// it did; nothing on a later start.
pub(crate) fn prepare(config: &Config, world: World<'_>) -> Result<Vec<String>> {
    let data = &config.data;
    let found = look(data)?;
    if found == Found::Unfinished {
        make_folders(data)?;
    }
    check_writable(data.root())?;
    // Held while files are made: three servers that start apart on an empty folder make one CA.
    let _lock = FolderLock::wait(data.root())?;
    let mut notes = Vec::new();
    if look(data)? == Found::Unfinished {
        fill(config, world)?;
        notes.push(format!(
            "first start: made a CA, certificates, keys and credentials in {}",
            data.root().display()
        ));
    }
    let ca = load_ca(data)?;
    check_clock(data, &ca, world)?;
    notes.extend(refresh_certificates(config, &ca, world)?);
    Ok(notes)
}

/// Replaces certificates of ours that are due, whose file was deleted, or that lack a host that
/// was asked for. Keys stay, so peers that know a public key see no change.
pub(crate) fn refresh_certificates(
    config: &Config,
    ca: &CertificateAuthority,
    world: World<'_>,
) -> Result<Vec<String>> {
    let data = &config.data;
    let mut notes = Vec::new();
    for server in SERVERS {
        let files = data.server_tls(server);
        if !uses_ours(config, server) {
            continue;
        }
        let reason = refresh_reason(&files, &requested_names(config), world)?;
        if let Some(reason) = reason {
            issue_server(config, ca, server, world)?;
            notes.push(format!("new certificate for the {server}: {reason}"));
        }
    }
    let files = data.store_identity();
    let reason = match config.store.kms.identity == files {
        true => refresh_reason(&files, &[], world)?,
        false => None,
    };
    if let Some(reason) = reason {
        issue_store_identity(data, ca, world)?;
        notes.push(format!("new client certificate for the store: {reason}"));
    }
    if !notes.is_empty() {
        sync(data)?;
    }
    Ok(notes)
}

/// The CA of the folder.
pub(crate) fn load_ca(data: &DataFolder) -> Result<CertificateAuthority> {
    let path = data.ca_certificate();
    let certificate = files::read_text(&path)?;
    let key = files::read_secret(&data.ca_key())?;
    CertificateAuthority::from_pem(&certificate, &key).with_context(|| path.display().to_string())
}

/// The folders that hold secrets or state.
const PRIVATE: [&str; 5] = ["ca", "tls", "identity", "kms", "store"];

/// Makes durable what was placed in the folders.
fn sync(data: &DataFolder) -> Result<()> {
    for name in PRIVATE {
        files::sync_folder(&data.root().join(name))?;
    }
    files::sync_folder(&data.trust())?;
    files::sync_folder(data.root())
}

fn make_folders(data: &DataFolder) -> Result<()> {
    files::make_folder(data.root(), Access::Public)?;
    files::make_folder(&data.trust(), Access::Public)?;
    for name in PRIVATE {
        files::make_folder(&data.root().join(name), Access::Private)?;
    }
    Ok(())
}

fn check_writable(root: &Path) -> Result<()> {
    rustix::fs::access(
        root,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .with_context(|| {
        format!(
            "the data folder {} can't be written; run as the user who owns it",
            root.display()
        )
    })
}

fn fill(config: &Config, world: World<'_>) -> Result<()> {
    let data = &config.data;
    make_folders(data)?;
    let ca = make_ca(data, world)?;
    make_truststores(data, &ca, world)?;
    for server in SERVERS {
        issue_server(config, &ca, server, world)?;
    }
    issue_store_identity(data, &ca, world)?;
    make_root_api_key(data, world)?;
    make_hsm_key(config, world)?;
    make_root_credentials(config, world)?;
    sync(data)?;
    files::write(&data.layout(), LAYOUT.as_bytes(), Access::Public)
}

fn make_ca(data: &DataFolder, world: World<'_>) -> Result<CertificateAuthority> {
    if data.ca_certificate().exists() {
        return load_ca(data);
    }
    let mut unique = [0; 4];
    world.random.fill(&mut unique);
    let request = CaRequest {
        common_name: format!("Moat CA {}", hex::encode(unique)),
        algorithm: KeyAlgorithm::EcdsaP256,
        validity: CA_VALIDITY,
        permitted: Vec::new(),
    };
    let ca = CertificateAuthority::create(&request, world.clock, world.random)?;
    // The key first: a certificate whose key is missing could never be finished.
    files::place(
        &data.ca_key(),
        ca.key().to_pem().expose().as_bytes(),
        Access::Private,
    )?;
    files::place(
        &data.ca_certificate(),
        ca.certificate_pem().as_bytes(),
        Access::Public,
    )?;
    Ok(ca)
}

fn make_truststores(data: &DataFolder, ca: &CertificateAuthority, world: World<'_>) -> Result<()> {
    let trust = data.trust();
    let password = SecretString::new(TRUSTSTORE_PASSWORD.to_owned());
    let store = Keystore::truststore("moat-ca", ca.certificate());
    let p12 = pkcs12::write(&store, &password)?;
    let jks = jks::write(&store, &password, world.clock, world.random)?;
    files::place(
        &trust.join("ca.pem"),
        ca.certificate_pem().as_bytes(),
        Access::Public,
    )?;
    files::place(&trust.join("truststore.p12"), &p12, Access::Public)?;
    files::place(&trust.join("truststore.jks"), &jks, Access::Public)
}

fn issue_server(
    config: &Config,
    ca: &CertificateAuthority,
    server: &str,
    world: World<'_>,
) -> Result<()> {
    let files = config.data.server_tls(server);
    let mut names = base_names();
    names.extend(requested_names(config));
    // A reissue keeps what the old certificate vouched for.
    names.extend(
        read_certificate(&files.certificate)?
            .map(|old| old.names)
            .unwrap_or_default(),
    );
    let request = LeafRequest {
        common_name: format!("moat {server}"),
        usage: Usage::Server,
        names: unique(names),
        validity: LEAF_VALIDITY,
    };
    issue(&files, ca, &request, world)
}

fn issue_store_identity(
    data: &DataFolder,
    ca: &CertificateAuthority,
    world: World<'_>,
) -> Result<()> {
    let request = LeafRequest {
        common_name: "moat store".to_owned(),
        usage: Usage::Client,
        names: Vec::new(),
        validity: LEAF_VALIDITY,
    };
    issue(&data.store_identity(), ca, &request, world)
}

fn issue(
    files: &TlsFiles,
    ca: &CertificateAuthority,
    request: &LeafRequest,
    world: World<'_>,
) -> Result<()> {
    let key = if files.private_key.exists() {
        let text = files::read_secret(&files.private_key)?;
        PrivateKey::from_pem(text.expose())
            .with_context(|| files.private_key.display().to_string())?
    } else {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        files::place(
            &files.private_key,
            key.to_pem().expose().as_bytes(),
            Access::Private,
        )?;
        key
    };
    let issued = ca.issue(request, &key, world.clock, world.random)?;
    files::place(
        &files.certificate,
        issued.chain_pem().as_bytes(),
        Access::Public,
    )
}

/// Whether the server presents the folder's certificate, not one that the operator brought.
fn uses_ours(config: &Config, server: &str) -> bool {
    let ours = config.data.server_tls(server);
    match server {
        "store" => config.store.tls == ours,
        "kms" => config.kms.tls == ours,
        _ => config.proxy.certificates.contains(&ours),
    }
}

/// Why a certificate must be issued anew; `None` if it is good.
fn refresh_reason(
    files: &TlsFiles,
    wanted: &[SubjectName],
    world: World<'_>,
) -> Result<Option<String>> {
    let Some(certificate) = read_certificate(&files.certificate)? else {
        return Ok(Some("there was none".to_owned()));
    };
    let now = world.clock.now();
    clock_check::check_expiry(now, &files.certificate, &certificate)?;
    if clock_check::is_due(now, &certificate) {
        return Ok(Some(format!(
            "the old one ends at {}",
            clock_check::show(certificate.not_after)
        )));
    }
    let missing = wanted
        .iter()
        .find(|name| !certificate.covers(name) && !certificate.names.contains(name));
    Ok(missing.map(|name| format!("it did not vouch for {name}")))
}

/// The leaf of a PEM file; `None` if there is no file.
fn read_certificate(path: &Path) -> Result<Option<CertificateInfo>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = files::read_text(path)?;
    let mut chain =
        CertificateInfo::parse_pem(text.as_bytes()).with_context(|| path.display().to_string())?;
    Ok(Some(chain.swap_remove(0)))
}

/// The names by which clients on this machine reach it.
fn base_names() -> Vec<SubjectName> {
    let hostname = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    ["localhost", "127.0.0.1", "::1", &hostname]
        .iter()
        // A host name that can't stand in a certificate is left out; --host gives a better one.
        .filter_map(|name| SubjectName::parse(name).ok())
        .collect()
}

/// The names that the operator asked for: hosts, and the domains of virtual-host style with their buckets.
fn requested_names(config: &Config) -> Vec<SubjectName> {
    let mut names = config.hosts.clone();
    for domain in &config.store.domains {
        names.push(SubjectName::Dns(domain.clone()));
        names.push(SubjectName::Dns(format!("*.{domain}")));
    }
    names
}

fn unique(names: Vec<SubjectName>) -> Vec<SubjectName> {
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

/// Makes the operator's API key, or keeps the one that the environment gives: whoever scripts an
/// installation has to know it beforehand.
fn make_root_api_key(data: &DataFolder, world: World<'_>) -> Result<()> {
    const GIVEN: &str = "MOAT_KMS_ROOT_API_KEY";
    let path = data.root_api_key();
    if path.exists() {
        return Ok(());
    }
    let key = match std::env::var(GIVEN).ok().filter(|text| !text.is_empty()) {
        Some(text) => ApiKey::parse(&text).context(GIVEN)?,
        None => ApiKey::generate(world.random),
    };
    let key = key.to_text();
    let text = SecretString::new(format!("{}\n", key.expose()));
    files::place(&path, text.expose().as_bytes(), Access::Private)
}

/// Makes the HSM key unless the environment or another file gives one.
fn make_hsm_key(config: &Config, world: World<'_>) -> Result<()> {
    let path = config.data.hsm_key();
    if path.exists()
        || config.kms.hsm_key != HsmPlace::File(path.clone())
        || hsm_key_from_env().is_some()
    {
        return Ok(());
    }
    let state = config.data.kms_state();
    if state.exists() {
        bail!(
            "{} is missing, but {} was sealed with it; put the key back, or set MOAT_HSM_KEY",
            path.display(),
            state.display()
        );
    }
    let text = SecretString::new(format!(
        "{}\n",
        HsmKey::generate(world.random).to_text().expose()
    ));
    files::place(&path, text.expose().as_bytes(), Access::Private)
}

/// The HSM key that the environment gives, ours first, then MinKMS's name.
pub(crate) fn hsm_key_from_env() -> Option<SecretString> {
    ["MOAT_HSM_KEY", "MINIO_KMS_HSM_KEY"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()))
        .map(SecretString::new)
}

/// Makes root credentials unless the environment or another file gives them.
fn make_root_credentials(config: &Config, world: World<'_>) -> Result<()> {
    let path = config.data.root_credentials();
    let given = Credentials::from_env(&|name| std::env::var(name).ok())?;
    if path.exists() || config.store.root_credentials != path || given.is_some() {
        return Ok(());
    }
    let made = Credentials::generate(world.random).to_file();
    files::place(&path, made.expose().as_bytes(), Access::Private)
}

fn check_clock(data: &DataFolder, ca: &CertificateAuthority, world: World<'_>) -> Result<()> {
    let now = world.clock.now();
    let files = [
        data.layout(),
        data.ca_certificate(),
        data.kms_state(),
        data.store_metadata(),
    ];
    clock_check::check_past(now, ca.info(), &files)?;
    clock_check::check_expiry(now, &data.ca_certificate(), ca.info())
}
