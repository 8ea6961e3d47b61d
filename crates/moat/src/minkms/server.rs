//! `minkms server DIR`: our key manager, from MinKMS's configuration file and environment.
//!
//! The HSM key comes from `MINIO_KMS_HSM_KEY`; without it a first start draws one. Of the file
//! `version`, `address` and the first of `tls.certs` are used. What has no meaning here, because it
//! is about a cluster of the original, is named and left aside.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use super::cli::ServerArgs;
use super::{eprint, yaml};
use crate::config::raw::FlagValue;
use crate::{files, up};

/// What a configuration file says that we go by.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    address: Option<String>,
    certificate: Option<String>,
    private_key: Option<String>,
    /// Settings that are left aside.
    ignored: Vec<String>,
}

pub(super) async fn run(args: ServerArgs) -> Result<ExitCode> {
    let written = match &args.config {
        Some(path) => read(path)?,
        None => Written::default(),
    };
    for setting in &written.ignored {
        eprint(&format!(
            "warning: {setting} of the configuration file has no meaning here and is left aside"
        ));
    }
    let address = args
        .address
        .or(written.address)
        .map(|text| with_port(&text));
    let flag = |key, flag, value: Option<String>| FlagValue {
        key,
        flag,
        values: value.into_iter().collect(),
    };
    let folder = args
        .folder
        .to_str()
        .context("the data folder's name is not UTF-8")?;
    up::serve_kms(
        None,
        [vec![
            flag("data", "DIR", Some(folder.to_owned())),
            flag("kms.listen", "--address", address),
            flag("kms.certificate", "tls.certs.cert", written.certificate),
            flag("kms.private_key", "tls.certs.key", written.private_key),
            FlagValue {
                key: "hosts",
                flag: "--host",
                values: args.host,
            },
        ]],
    )
    .await
}

/// An address without a port is on the usual one, and one without a host on every interface.
fn with_port(text: &str) -> String {
    const PORT: u16 = moat_kms_client::DEFAULT_PORT;
    match text.rsplit_once(':') {
        Some(("", port)) => format!("0.0.0.0:{port}"),
        Some((_, port)) if port.parse::<u16>().is_ok() => text.to_owned(),
        _ => format!("{}:{PORT}", text.trim_end_matches(':')),
    }
}

fn read(path: &Path) -> Result<Written> {
    let text = files::read_text(path)?;
    parse(&text).with_context(|| path.display().to_string())
}

fn parse(text: &str) -> Result<Written> {
    let mut written = Written::default();
    let mut version = None;
    for (key, value) in yaml::scalars(text)? {
        match key.as_str() {
            "version" => version = Some(value),
            "address" => written.address = Some(value),
            "tls.certs.0.cert" => written.certificate = Some(value),
            "tls.certs.0.key" => written.private_key = Some(value),
            "admin.identity" => bail!(
                "admin.identity is not taken: give that identity's API key in MOAT_KMS_ROOT_API_KEY when the data folder is made"
            ),
            _ => written.ignored.push(key),
        }
    }
    match version.as_deref() {
        Some("v1") => Ok(written),
        Some(other) => bail!("version is {other:?}, and only v1 is known"),
        None => bail!("version is missing; it should be v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_as_the_documentation_shows_them_are_read() {
        let written = parse(
            "# a comment\nversion: v1\naddress: 0.0.0.0:7373 # where\ntls:\n  certs:\n    - key: /etc/minkms/certs/private.key\n      cert: /etc/minkms/certs/public.crt\n    - key: other\n      cert: other\n",
        )
        .unwrap();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(written.address, some("0.0.0.0:7373"));
        assert_eq!(written.certificate, some("/etc/minkms/certs/public.crt"));
        assert_eq!(written.private_key, some("/etc/minkms/certs/private.key"));
        assert_eq!(written.ignored, ["tls.certs.1.key", "tls.certs.1.cert"]);
    }

    #[test]
    fn other_versions_and_what_can_not_be_honoured_are_refused() {
        for (text, said) in [
            ("", "version is missing"),
            ("version: v2\n", "only v1"),
            ("version: v1\nadmin:\n  identity: h1:x\n", "admin.identity"),
            ("version: v1\ntls: [", "line 2"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{text}: {error:#}");
        }
    }

    #[test]
    fn addresses_get_the_usual_port() {
        for (text, expected) in [
            ("127.0.0.1", "127.0.0.1:7373"),
            ("127.0.0.1:9", "127.0.0.1:9"),
            (":7373", "0.0.0.0:7373"),
            ("[::1]:7373", "[::1]:7373"),
            ("[::1]", "[::1]:7373"),
        ] {
            assert_eq!(with_port(text), expected);
        }
    }
}
