//! The store's root credentials: from the environment, or from a file of the data folder.

use std::path::Path;

use anyhow::{Context, Result, bail};
use moat_types::{Random, SecretString};

use crate::files;
use crate::pairs::Pairs;

/// Pairs of variables, ours first. MinIO's are taken so that its unit files and compose files work.
const VARIABLES: [(&str, &str); 2] = [
    ("MOAT_ROOT_USER", "MOAT_ROOT_PASSWORD"),
    ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"),
];

/// MinIO's limits, which its clients also apply.
const USER_CHARS_MIN: usize = 3;
const PASSWORD_CHARS_MIN: usize = 8;

/// Bytes of randomness in a generated user name and password.
const USER_BYTES: usize = 8;
const PASSWORD_BYTES: usize = 24;

/// An access key and its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The access key id.
    pub(crate) user: String,
    /// The secret access key.
    pub(crate) password: SecretString,
}

impl Credentials {
    /// What the environment gives, if it gives any.
    pub(crate) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        for (user, password) in VARIABLES {
            match (env(user), env(password)) {
                (None, None) => {}
                (Some(name), Some(secret)) => {
                    let found = Self {
                        user: name,
                        password: SecretString::new(secret),
                    };
                    found
                        .check()
                        .with_context(|| format!("{user} and {password}"))?;
                    return Ok(Some(found));
                }
                _ => bail!("{user} and {password} must be set together"),
            }
        }
        Ok(None)
    }

    /// Reads a file that [`Self::to_file`] wrote, or one with MinIO's names.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = files::read_secret(path)?;
        let pairs = Pairs::parse(text.expose(), "default");
        let value = |wanted: &str| pairs.get(wanted).map(str::to_owned);
        let found = Self::from_env(&value).with_context(|| path.display().to_string())?;
        found.with_context(|| {
            format!(
                "{} sets neither MOAT_ROOT_USER nor MINIO_ROOT_USER",
                path.display()
            )
        })
    }

    /// Draws a pair.
    pub(crate) fn generate(random: &dyn Random) -> Self {
        let draw = |bytes: usize| {
            let mut drawn = zeroize::Zeroizing::new(vec![0; bytes]);
            random.fill(&mut drawn);
            hex::encode(&*drawn)
        };
        Self {
            user: format!("moat-{}", draw(USER_BYTES)),
            password: SecretString::new(draw(PASSWORD_BYTES)),
        }
    }

    /// A file that shells and systemd read as well.
    pub(crate) fn to_file(&self) -> SecretString {
        SecretString::new(format!(
            "MOAT_ROOT_USER={}\nMOAT_ROOT_PASSWORD={}\n",
            self.user,
            self.password.expose()
        ))
    }

    fn check(&self) -> Result<()> {
        if self.user.len() < USER_CHARS_MIN {
            bail!("the user must have {USER_CHARS_MIN} characters at least");
        }
        if self.user.contains(['/', '=', ','])
            || self
                .user
                .chars()
                .any(|c| c.is_whitespace() || c.is_control())
        {
            bail!("the user must not hold spaces, '/', '=' or ',', which access keys can't");
        }
        if self.password.expose().len() < PASSWORD_CHARS_MIN {
            bail!("the password must have {PASSWORD_CHARS_MIN} characters at least");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use moat_types::SystemRandom;

    use super::*;
    use crate::files::Access;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        }
    }

    #[test]
    fn ours_win_over_minios() {
        let pairs = [
            ("MINIO_ROOT_USER", "minio"),
            ("MINIO_ROOT_PASSWORD", "password"),
            ("MOAT_ROOT_USER", "moat"),
            ("MOAT_ROOT_PASSWORD", "password"),
        ];
        assert_eq!(
            Credentials::from_env(&env(&pairs)).unwrap().unwrap().user,
            "moat"
        );
        assert_eq!(
            Credentials::from_env(&env(&pairs[..2]))
                .unwrap()
                .unwrap()
                .user,
            "minio"
        );
        assert!(Credentials::from_env(&env(&[])).unwrap().is_none());
    }

    #[test]
    fn halves_and_weak_values_are_refused_without_showing_them() {
        for pairs in [
            [("MOAT_ROOT_USER", "moat"), ("x", "")],
            [("MOAT_ROOT_PASSWORD", "hunter22"), ("x", "")],
            [("MOAT_ROOT_USER", "ab"), ("MOAT_ROOT_PASSWORD", "hunter22")],
            [
                ("MOAT_ROOT_USER", "a/bc"),
                ("MOAT_ROOT_PASSWORD", "hunter22"),
            ],
            [("MOAT_ROOT_USER", "moat"), ("MOAT_ROOT_PASSWORD", "hunter")],
        ] {
            let error = format!("{:#}", Credentials::from_env(&env(&pairs)).unwrap_err());
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_generated_pair_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.env");
        let made = Credentials::generate(&SystemRandom);
        files::write(&path, made.to_file().expose().as_bytes(), Access::Private).unwrap();
        assert_eq!(Credentials::from_file(&path).unwrap(), made);
        files::write(
            &path,
            b"export MINIO_ROOT_USER='minio'\nMINIO_ROOT_PASSWORD=\"password\"\n",
            Access::Private,
        )
        .unwrap();
        assert_eq!(Credentials::from_file(&path).unwrap().user, "minio");
    }
}
