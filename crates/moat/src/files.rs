//! Files that are whole or absent: written beside their place, synced, renamed, and the folder
//! synced, so that a power cut leaves the old file or the new one. The mode is set before the
//! first byte is in the file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use moat_types::SecretString;

/// Who may read a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone: keys, credentials, sealed state.
    Private,
    /// Everybody: certificates and truststores.
    Public,
}

impl Access {
    const fn file_mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }

    const fn folder_mode(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Public => 0o755,
        }
    }
}

/// A secret file is a key or a pair of credentials; anything larger is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Puts `bytes` at `path`, replacing what is there. Durable when it returns.
pub(crate) fn write(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    place(path, bytes, access)?;
    sync_folder(folder_of(path))
}

/// The same, but durable only once the folder is synced with [`sync_folder`]: for several files at
/// once. Until then a power cut may leave the old file, though never a part of the new one.
pub(crate) fn place(path: &Path, bytes: &[u8], access: Access) -> Result<()> {
    let temporary = temporary_name(path)?;
    let written =
        write_synced(&temporary, bytes, access).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The temporary file may not exist; the error that matters is the first one.
        let _ = std::fs::remove_file(&temporary);
    }
    written.with_context(|| format!("can't write {}", path.display()))
}

/// Opens a new file that only its owner reads, for what the user asked to have written there. One
/// that exists is refused, not replaced.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(Access::Private.file_mode())
        .open(path)
        .with_context(|| format!("can't make {}", path.display()))
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("can't sync the folder {}", path.display()))
}

/// Makes a folder, and its parents as needed. An existing folder keeps its mode.
pub(crate) fn make_folder(path: &Path, access: Access) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mode = std::fs::Permissions::from_mode(access.folder_mode());
    let mut builder = std::fs::DirBuilder::new();
    // Set afterwards as well, because the umask narrows what the builder asks for.
    builder
        .recursive(true)
        .mode(access.folder_mode())
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, mode))
        .with_context(|| format!("can't make the folder {}", path.display()))?;
    sync_folder(folder_of(path))
}

/// Reads a small text that must not be readable by others.
///
/// A wider mode is refused, not repaired: whoever could read the file may have done so already.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString> {
    let cant = || format!("can't read {}", path.display());
    let mut file = File::open(path).with_context(cant)?;
    let metadata = file.metadata().with_context(cant)?;
    let mode = metadata.permissions().mode() & 0o777;
    if !is_private(mode, metadata.uid(), metadata.gid()) {
        bail!(
            "{} holds a secret but has mode {mode:o}; run `chmod 600 {}` (and replace the secret if others may have read it)",
            path.display(),
            path.display()
        );
    }
    if metadata.len() > SECRET_BYTES_MAX {
        bail!("{} is too large to be a key or credentials", path.display());
    }
    let mut text = String::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    file.read_to_string(&mut text).with_context(cant)?;
    Ok(SecretString::new(text))
}

/// Whether a file is for those alone whom its owner named.
///
/// systemd gives a credential to the user of a service by an entry in the file's access control list. The
/// mask of that list shows as the group's right, of a file of root and root's own group.
const fn is_private(mode: u32, uid: u32, gid: u32) -> bool {
    const OTHERS: u32 = 0o077;
    const READ_BY_GROUP: u32 = 0o040;
    let of_root = uid == 0 && gid == 0;
    mode & OTHERS == 0 || (of_root && mode & OTHERS == READ_BY_GROUP)
}

/// Reads a password: the first line of a secret file.
pub(crate) fn read_password(path: &Path) -> Result<SecretString> {
    let text = read_secret(path)?;
    let line = text.expose().lines().next().unwrap_or_default();
    Ok(SecretString::new(line.to_owned()))
}

/// Reads a text that is not secret.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

fn write_synced(path: &Path, bytes: &[u8], access: Access) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    // Set afterwards as well, because the mode given to open is narrowed by the umask.
    file.set_permissions(std::fs::Permissions::from_mode(access.file_mode()))?;
    file.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn temporary_name(path: &Path) -> Result<PathBuf> {
    let name = path
        .file_name()
        .with_context(|| format!("{} has no file name", path.display()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_replaces_the_old_one_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        write(&path, b"one", Access::Public).unwrap();
        assert_eq!(mode(&path), 0o644);
        write(&path, b"two", Access::Private).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", Access::Private).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write(&path, b"secret", Access::Private).unwrap();
        assert_eq!(read_secret(&path).unwrap().expose(), "secret");
        write(&path, b"secret", Access::Public).unwrap();
        let error = format!("{:#}", read_secret(&path).unwrap_err());
        assert!(
            error.contains("chmod 600") && !error.contains("secret but not"),
            "{error}"
        );
    }

    #[test]
    fn a_credential_of_systemd_is_private_though_its_group_s_bit_is_set() {
        assert!(is_private(0o600, 1000, 1000) && is_private(0o400, 0, 0));
        assert!(is_private(0o440, 0, 0));
        for (mode, uid, gid) in [
            (0o440, 1000, 0),
            (0o440, 0, 1000),
            (0o460, 0, 0),
            (0o444, 0, 0),
            (0o640, 1000, 1000),
        ] {
            assert!(!is_private(mode, uid, gid), "{mode:o} {uid} {gid}");
        }
    }
}
