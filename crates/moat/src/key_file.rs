//! Access keys in files: sections of an AWS credentials file, or pairs of variables.

use std::path::Path;

use anyhow::{Context, Result, bail};
use moat_s3::sigv4::Credentials;
use moat_types::SecretString;

use crate::files;
use crate::pairs::Pairs;

/// Pairs of names, with that of a session token. AWS's, in either case, and those of root files.
const NAMES: [(&str, &str, &str); 3] = [
    (
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    ),
    ("moat_root_user", "moat_root_password", ""),
    ("minio_root_user", "minio_root_password", ""),
];
/// The variables of the gateway's own keys.
const VARIABLES: (&str, &str, &str) = (
    "MOAT_GATEWAY_ACCESS_KEY_ID",
    "MOAT_GATEWAY_SECRET_ACCESS_KEY",
    "MOAT_GATEWAY_SESSION_TOKEN",
);

/// Reads the keys in a file; `profile` chooses a section, if the file has any.
pub(crate) fn read(path: &Path, profile: &str) -> Result<Credentials> {
    let text = files::read_secret(path)?;
    parse(text.expose(), profile).with_context(|| path.display().to_string())
}

/// The keys in the environment.
pub(crate) fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Credentials> {
    let (id, secret, token) = VARIABLES;
    match (env(id), env(secret)) {
        (Some(access_key_id), Some(secret)) => checked(access_key_id, secret, env(token)),
        _ => bail!(
            "the gateway has nothing to sign with: set gateway.credentials, or {id} and {secret}"
        ),
    }
}

fn parse(text: &str, profile: &str) -> Result<Credentials> {
    let pairs = Pairs::parse(text, profile);
    let value = |wanted: &str| pairs.get(wanted).map(str::to_owned);
    for (id, secret, token) in NAMES {
        match (value(id), value(secret)) {
            (Some(access_key_id), Some(secret)) => {
                return checked(access_key_id, secret, value(token));
            }
            (None, None) => {}
            _ => bail!("{id} and {secret} must be there together"),
        }
    }
    if pairs.has_sections() {
        bail!("it has no section [{profile}] with aws_access_key_id and aws_secret_access_key");
    }
    bail!("it has no AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
}

fn checked(access_key_id: String, secret: String, token: Option<String>) -> Result<Credentials> {
    let fits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if !fits(&access_key_id) || !fits(&secret) || !token.iter().all(|token| fits(token)) {
        bail!("an access key, its secret or its token is empty or holds spaces");
    }
    Ok(Credentials {
        access_key_id,
        secret_access_key: SecretString::new(secret),
        session_token: token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, profile: &str) -> Option<(String, String, Option<String>)> {
        let found = parse(text, profile).ok()?;
        let secret = found.secret_access_key.expose().to_owned();
        Some((found.access_key_id, secret, found.session_token))
    }

    fn pair(id: &str, secret: &str) -> Option<(String, String, Option<String>)> {
        Some((id.to_owned(), secret.to_owned(), None))
    }

    #[test]
    fn sections_and_pairs_are_read() {
        let aws = "# c\n[default]\naws_access_key_id = A\naws_secret_access_key = a=\n\n[ lake ]\n\
                   aws_access_key_id=B\naws_secret_access_key=b\naws_session_token=t\n";
        assert_eq!(keys(aws, "default"), pair("A", "a="));
        let with_token = keys(aws, "lake").unwrap();
        assert_eq!(with_token.2.as_deref(), Some("t"));
        assert_eq!(keys(aws, "other"), None);
        let two = "export AWS_ACCESS_KEY_ID='A'\nAWS_SECRET_ACCESS_KEY=\"a\"\n";
        assert_eq!(keys(two, "default"), pair("A", "a"));
        let root = "MOAT_ROOT_USER=A\nMOAT_ROOT_PASSWORD=a\n";
        assert_eq!(keys(root, "default"), pair("A", "a"));
    }

    #[test]
    fn halves_are_refused_and_no_secret_is_shown() {
        for text in [
            "",
            "AWS_ACCESS_KEY_ID=A",
            "AWS_ACCESS_KEY_ID=\nAWS_SECRET_ACCESS_KEY=hunter2",
            "AWS_ACCESS_KEY_ID=A\nAWS_SECRET_ACCESS_KEY=hunter2 x",
        ] {
            let error = format!("{:#}", parse(text, "default").unwrap_err());
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn the_environment_needs_both_halves() {
        let env = |name: &str| (name == VARIABLES.0).then(|| "A".to_owned());
        assert!(from_env(&env).is_err());
        let env = |name: &str| (name != VARIABLES.2).then(|| "A".to_owned());
        assert!(from_env(&env).is_ok());
    }
}
