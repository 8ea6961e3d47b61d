//! Certificates and keys in PEM files: read with errors that name the file and the fix, and
//! watched by what their content is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use moat_types::{Clock as _, SecretString, SystemClock};

use super::encrypted_key;
use crate::Error;

/// No certificate bundle in use is near this; the limit keeps a mistyped path (a disk image) from
/// filling the memory.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// The numbers that systemd gives to users of its own (systemd.exec, `DynamicUser=`).
const DYNAMIC_USERS: std::ops::RangeInclusive<u32> = 61184..=65519;
const CERTIFICATE: &str = "certificate file";
const PRIVATE_KEY: &str = "private key file";
const BUNDLE: &str = "certificate bundle";

/// A certificate chain and its key, read from two files.
pub(super) fn load_pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    load_pair_with_password(certificate, key, None, provider)
}

/// The same, for a key that may be encrypted with `password`.
pub(super) fn load_pair_with_password(
    certificate: &Path,
    key: &Path,
    password: Option<&SecretString>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Error> {
    let chain = load_chain(certificate, CERTIFICATE)?;
    let key_der = load_key(key, password)?;
    let signing_key = provider
        .key_provider
        .load_private_key(key_der)
        .map_err(|error| bad(PRIVATE_KEY, key, error.to_string()))?;
    let pair = CertifiedKey::new(chain, signing_key);
    match pair.keys_match() {
        Ok(()) => {}
        // The provider can't tell the public key of a private one: then a handshake will.
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(Error::KeyMismatch {
                certificate: certificate.into(),
                key: key.into(),
            });
        }
        Err(error) => return Err(bad(CERTIFICATE, certificate, error.to_string())),
    }
    warn_about_dates(certificate, &pair);
    Ok(pair)
}

/// All certificates of a trust bundle.
pub(super) fn load_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    load_chain(path, BUNDLE)
}

fn load_chain(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(path, what)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| bad(what, path, format!("a PEM block is damaged ({error})")))?;
    if chain.is_empty() {
        let problem = "it holds no block BEGIN CERTIFICATE";
        return Err(bad(what, path, problem.into()));
    }
    Ok(chain)
}

fn load_key(path: &Path, password: Option<&SecretString>) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = zeroize::Zeroizing::new(read(path, PRIVATE_KEY)?);
    if encrypted_key::is_encrypted(&pem) {
        let Some(password) = password else {
            let problem = "the key is encrypted with a password; give the password, or an unencrypted key (openssl pkey -in OLD -out NEW), readable by the service only";
            return Err(bad(PRIVATE_KEY, path, problem.into()));
        };
        return encrypted_key::decrypt(&pem, password)
            .map_err(|problem| bad(PRIVATE_KEY, path, problem.into()));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        let problem = if contains(&pem, b"BEGIN CERTIFICATE") {
            "it holds a certificate and no private key; are the two files swapped?".into()
        } else {
            format!("it holds no usable block BEGIN PRIVATE KEY ({error})")
        };
        bad(PRIVATE_KEY, path, problem)
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn bad(what: &'static str, path: &Path, problem: String) -> Error {
    Error::BadPem {
        what,
        path: path.into(),
        problem,
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, Error> {
    read_limited(path).map_err(|source| Error::ReadFile {
        what,
        path: path.into(),
        hint: hint(path, &source),
        source,
    })
}

fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too large to be a PEM file"));
    }
    fs::read(path)
}

/// What an operator has to type so that this process can read the file.
fn hint(path: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let user = rustix::process::geteuid().as_raw();
    if DYNAMIC_USERS.contains(&user) {
        return hint_for_dynamic_user(user, path);
    }
    let user = name_of("/etc/passwd", user).unwrap_or_else(|| user.to_string());
    let group_id = rustix::process::getegid().as_raw();
    let group = name_of("/etc/group", group_id).unwrap_or_else(|| group_id.to_string());
    match fs::metadata(path) {
        Ok(meta) => format!(
            "it belongs to user {} and group {} with mode {:04o}, and this process runs as user {user} and group {group}; \
             run `chgrp {group} {path} && chmod 0440 {path}`, or give it to the service alone with `chown {user} {path} && chmod 0400 {path}`",
            meta.uid(),
            meta.gid(),
            meta.mode() & 0o7777,
            path = path.display(),
        ),
        Err(_) => {
            let folder = closed_folder(path).display().to_string();
            format!(
                "the folder {folder} cannot be entered by user {user}, as whom this process runs; run `chgrp {group} {folder} && chmod g+x {folder}`, \
                 or copy the files to a folder of the service"
            )
        }
    }
}

/// What is given to a user that exists only while the service runs belongs to nobody afterwards.
fn hint_for_dynamic_user(user: u32, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().display();
    format!(
        "this process runs as user {user}, whom systemd made for this start alone (DynamicUser=); write `LoadCredential={name}:{path}` \
         into the [Service] section of its unit, and `/run/credentials/UNIT/{name}` with the name of the unit into the configuration",
        path = path.display(),
    )
}

/// The name behind a number in a file such as `/etc/passwd`. Users that only a directory service knows
/// stay numbers, with which the commands work as well.
fn name_of(file: &str, id: u32) -> Option<String> {
    let id = id.to_string();
    let text = fs::read_to_string(file).ok()?;
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut fields = lines.find(|fields| fields.clone().nth(2) == Some(&*id))?;
    fields.next().map(str::to_owned)
}

/// The uppermost folder on the way to `path` that can't be entered.
fn closed_folder(path: &Path) -> &Path {
    let mut below: Vec<&Path> = path.ancestors().collect();
    below.reverse();
    let denied = |path: &&Path| {
        fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let hidden = below.into_iter().find(denied).unwrap_or(path);
    hidden.parent().unwrap_or(hidden)
}

/// An expired certificate is a warning, not an error: a server that starts and says so can be
/// repaired by renewing the file, one that refuses to start can't be reached at all.
fn warn_about_dates(path: &Path, pair: &CertifiedKey) {
    let Some(leaf) = pair.cert.first() else {
        return;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return;
    };
    // The machine's clock, since nothing is decided by it; TLS itself asks the same one.
    let now = SystemClock.now().seconds();
    let validity = certificate.validity();
    if validity.not_after.timestamp() < now {
        tracing::warn!(path = %path.display(), not_after = %validity.not_after, "the certificate has expired; clients will refuse it until it is renewed");
    } else if validity.not_before.timestamp() > now {
        tracing::warn!(path = %path.display(), not_before = %validity.not_before, "the certificate is not valid yet; is the clock right?");
    }
}

/// Files and what they held at some time.
#[derive(Debug)]
pub(super) struct Watched {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

/// What tells one state of a file from another without reading it. Follows symlinks, so that the
/// swap of a Kubernetes secret's `..data` link shows as another inode.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    bytes: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            bytes: meta.len(),
        })
    }
}

impl Watched {
    /// Takes the present state as seen. Call before reading the files: a change in between is then
    /// found by the next look.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = paths.iter().map(|path| Stamp::of(path)).collect();
        Self { paths, seen }
    }

    /// Whether a file changed since the last look; what is there now counts as seen.
    pub(super) fn changed(&mut self) -> bool {
        let now: Vec<_> = self.paths.iter().map(|path| Stamp::of(path)).collect();
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

/// A pair given as DER values.
pub(super) fn pair_from_der(
    chain: &[bytes::Bytes],
    key_pkcs8: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let chain = chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let key = PrivateKeyDer::try_from(key_pkcs8.to_vec())
        .map_err(|problem| Error::Tls(format!("client key: {problem}")))?;
    let signing_key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| Error::Tls(format!("client key: {error}")))?;
    Ok(Arc::new(CertifiedKey::new(chain, signing_key)))
}
