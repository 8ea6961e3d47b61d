//! `scheme://host:port`, as users write endpoints.

use std::fmt;

use moat_pki::SubjectName;

/// Where a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `https`, not `http`.
    pub(crate) tls: bool,
    /// A DNS name or an address.
    pub(crate) host: SubjectName,
    /// The port.
    pub(crate) port: u16,
}

impl Endpoint {
    /// Reads `http(s)://host[:port]`, with nothing behind it but an optional slash. The port is
    /// the scheme's own if it is missing.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it must begin with https:// or http://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err("the scheme must be https or http"),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err("only scheme, host and port may be given");
        }
        let (host, port) = split_port(authority)?;
        Ok(Self {
            tls,
            host: SubjectName::parse(host)
                .map_err(|_| "the host is neither a name nor an address")?,
            port: match port {
                Some(port) => port,
                None if tls => 443,
                None => 80,
            },
        })
    }

    /// `host:port`, as a `Host` header and a socket address want it.
    pub(crate) fn authority(&self) -> String {
        match &self.host {
            SubjectName::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let after_bracket = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_bracket..].rfind(':') {
        None => Ok((authority, None)),
        Some(at) => {
            let (host, port) = authority.split_at(after_bracket + at);
            match port[1..].parse() {
                Ok(port) if port > 0 => Ok((host, Some(port))),
                _ => Err("the port must be a number from 1 to 65535"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        assert_eq!(Endpoint::parse(text).unwrap().to_string(), expected);
    }

    #[test]
    fn endpoints_are_read_and_shown_whole() {
        check("https://Store.example", "https://store.example:443");
        check("http://127.0.0.1:8091/", "http://127.0.0.1:8091");
        check("HTTPS://[::1]:9000", "https://[::1]:9000");
        check("http://[::1]", "http://[::1]:80");
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "localhost:9000",
            "ftp://h",
            "https://",
            "https://h:0",
            "https://h:x",
            "https://h/bucket",
            "https://user@h",
            "https://h:99999",
            "https://::1",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
    }
}
