//! Names that a certificate vouches for, and how a host name matches them (RFC 6125 section 6.4:
//! a wildcard stands for exactly the leftmost label; an address matches only an address entry).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::Error;

/// The longest DNS name, in characters (RFC 1035 section 2.3.4).
const DNS_CHARS_MAX: usize = 253;
/// The longest label of a DNS name.
const LABEL_CHARS_MAX: usize = 63;

/// One subject alternative name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SubjectName {
    /// A DNS name in lower case, perhaps with `*` as its first label.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

impl SubjectName {
    /// Reads an address (IPv6 with or without brackets) or a DNS name. A closing dot is dropped.
    ///
    /// # Errors
    /// [`Error::Name`] if `text` is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(address) = bare {
            return address
                .parse::<Ipv6Addr>()
                .map(|v6| Self::Ip(v6.into()))
                .map_err(|_| refused(text));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if is_dns_name(&name) {
            Ok(Self::Dns(name))
        } else {
            Err(refused(text))
        }
    }

    /// Whether a client that connects to `host` may accept a certificate with this name.
    pub fn matches(&self, host: &Self) -> bool {
        match (self, host) {
            (Self::Ip(own), Self::Ip(asked)) => own == asked,
            (Self::Dns(own), Self::Dns(asked)) => match own.strip_prefix("*.") {
                None => own == asked,
                Some(parent) => asked
                    .split_once('.')
                    .is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
            },
            _ => false,
        }
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

fn refused(text: &str) -> Error {
    Error::Name {
        text: text.to_owned(),
    }
}

fn is_dns_name(name: &str) -> bool {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    if labels.is_empty() || name.len() > DNS_CHARS_MAX {
        return false;
    }
    // A name whose last label is a number can only be a mistyped IPv4 address.
    let last_is_number = labels
        .rsplit('.')
        .next()
        .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    !last_is_number && labels.split('.').all(is_label)
}

/// Underscores are allowed: Docker Compose and Kubernetes make host names with them.
fn is_label(label: &str) -> bool {
    (1..=LABEL_CHARS_MAX).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SubjectName {
        SubjectName::parse(text).unwrap()
    }

    #[test]
    fn addresses_and_names_are_told_apart() {
        assert_eq!(name("127.0.0.1"), SubjectName::Ip([127, 0, 0, 1].into()));
        assert_eq!(name("::1"), name("[::1]"));
        assert_eq!(
            name("Store.Example."),
            SubjectName::Dns("store.example".into())
        );
        assert_eq!(
            name("*.lake.example"),
            SubjectName::Dns("*.lake.example".into())
        );
        assert_eq!(
            name("moat_store-1"),
            SubjectName::Dns("moat_store-1".into())
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "1.2.3",
            "300.1.1.1",
            "a b",
            "a/b",
            "*",
            "*.*.x",
            "[1.2.3.4]",
            "[::1",
            "host:9000",
            &"a".repeat(64),
            &"a.".repeat(130),
        ] {
            assert!(SubjectName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_matches_one_label() {
        let wildcard = name("*.lake.example");
        assert!(wildcard.matches(&name("b1.lake.example")));
        assert!(!wildcard.matches(&name("lake.example")));
        assert!(!wildcard.matches(&name("a.b.lake.example")));
        assert!(name("localhost").matches(&name("LOCALHOST")));
        assert!(!name("localhost").matches(&name("127.0.0.1")));
    }
}
