//! Where a database is: `postgres://USER@HOST:PORT/DATABASE`, with the parameters that libpq knows.
//!
//! Stricter than libpq in one thing: TLS is used unless the server is reached over a Unix socket
//! or `sslmode=disable` says otherwise, and it always verifies the server's name. Modes that fall
//! back to plain text without a word are refused.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use moat_types::SecretString;
use tokio_postgres::config::{Host, SslMode};

/// A server that does not take a connection in this time is down for us.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that is silent for this long, with bytes of ours unacknowledged, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Why a URL was refused. Says nothing of what stands in it, as it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseUrlError {
    /// It does not have the form of one.
    #[error(
        "a database is postgres://USER@HOST:PORT/DATABASE, or postgres://USER@/DATABASE?host=/SOCKET/FOLDER, with optional sslmode and sslrootcert"
    )]
    Form,
    /// An `sslmode` that does not promise anything.
    #[error(
        "sslmode must be verify-full (the default), or disable; modes that fall back to plain text are not taken"
    )]
    SslMode,
}

/// A parsed URL. Prints no password.
#[derive(Clone)]
pub struct DatabaseUrl {
    pub(super) config: tokio_postgres::Config,
    place: String,
    tls: bool,
    ca_file: Option<PathBuf>,
    inline_password: bool,
}

impl DatabaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// `DatabaseUrlError` says what form is taken.
    pub fn parse(text: &str) -> Result<Self, DatabaseUrlError> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(DatabaseUrlError::Form);
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut ca_file, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => ca_file = Some(decode(value)?),
                _ => rest.push(pair),
            }
        }
        let plain = format!("{base}?{}", rest.join("&"));
        let mut config = tokio_postgres::Config::from_str(plain.trim_end_matches('?'))
            .map_err(|_| DatabaseUrlError::Form)?;
        if config.get_hosts().is_empty() || config.get_user().is_none() {
            return Err(DatabaseUrlError::Form);
        }
        let sockets = config
            .get_hosts()
            .iter()
            .any(|host| matches!(host, Host::Unix(_)));
        let tls = match mode {
            None => !sockets,
            Some("disable") => false,
            Some("require" | "verify-ca" | "verify-full") if !sockets => true,
            Some(_) => return Err(DatabaseUrlError::SslMode),
        };
        config
            .ssl_mode(if tls {
                SslMode::Require
            } else {
                SslMode::Disable
            })
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(SILENCE_MAX)
            .keepalives_idle(SILENCE_MAX);
        if config.get_application_name().is_none() {
            config.application_name("moat");
        }
        Ok(Self {
            place: place(&config),
            inline_password: config.get_password().is_some(),
            config,
            tls,
            ca_file,
        })
    }

    /// Sets the password, from wherever secrets come.
    pub fn set_password(&mut self, password: &SecretString) {
        self.config
            .password(password.expose().trim_end_matches('\n'));
    }

    /// Whether the text held a password, which belongs in a file or the environment instead.
    pub const fn holds_password(&self) -> bool {
        self.inline_password
    }

    /// Whether connections are encrypted.
    pub const fn uses_tls(&self) -> bool {
        self.tls
    }

    /// The CA that the server's certificate must come from, if the URL names one.
    pub fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Host, port and database, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatabaseUrl").field(&self.place).finish()
    }
}

fn place(config: &tokio_postgres::Config) -> String {
    const PORT_DEFAULT: u16 = 5432;
    let ports = config.get_ports();
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let port = ports.get(at).or(ports.first()).unwrap_or(&PORT_DEFAULT);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => format!("{}:{port}", folder.display()),
            }
        })
        .collect();
    let database = config
        .get_dbname()
        .or(config.get_user())
        .unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

/// Percent-decodes a path.
fn decode(text: &str) -> Result<PathBuf, DatabaseUrlError> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or(0)).to_digit(16);
        let (high, low) = (digit(bytes.next()), digit(bytes.next()));
        let (high, low) = high.zip(low).ok_or(DatabaseUrlError::Form)?;
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out)
        .map(PathBuf::from)
        .map_err(|_| DatabaseUrlError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_verified_unless_said_otherwise() {
        let tls = |url: &str| DatabaseUrl::parse(url).map(|url| url.uses_tls());
        assert_eq!(tls("postgres://u@h/d"), Ok(true));
        assert_eq!(tls("postgresql://u@h:5433/d?sslmode=verify-full"), Ok(true));
        assert_eq!(tls("postgres://u@h/d?sslmode=require"), Ok(true));
        assert_eq!(tls("postgres://u@h/d?sslmode=disable"), Ok(false));
        assert_eq!(tls("postgres://u@/d?host=/run/postgresql"), Ok(false));
        for mode in ["prefer", "allow", "", "off"] {
            let url = format!("postgres://u@h/d?sslmode={mode}");
            assert_eq!(tls(&url), Err(DatabaseUrlError::SslMode), "{mode}");
        }
    }

    #[test]
    fn the_ca_and_the_place_are_read() {
        let url = "postgres://u:secret@a,b:5433/lake?sslrootcert=/etc/my%20ca.pem";
        let url = DatabaseUrl::parse(url).unwrap();
        assert_eq!(url.ca_file(), Some(Path::new("/etc/my ca.pem")));
        assert!(url.holds_password());
        assert!(url.place().ends_with("/lake"), "{}", url.place());
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn other_texts_are_refused_without_repeating_them() {
        for bad in [
            "",
            "host=h user=u",
            "mysql://u@h/d",
            "postgres://",
            "postgres://h/d",
            "postgres://u:p4ss@h/d?what=1",
            "postgres://u@h:port/d",
            "postgres://u@h/d?sslrootcert=%zz",
        ] {
            let error = DatabaseUrl::parse(bad).unwrap_err();
            assert_eq!(error, DatabaseUrlError::Form, "{bad}");
            assert!(!error.to_string().contains("p4ss"));
        }
    }
}
