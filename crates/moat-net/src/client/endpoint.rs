//! Where a client connects: scheme, host, port.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use rustls_pki_types::ServerName;

use crate::Error;

/// An http or https server. Cheap to clone; equal if scheme, host, port and the address that
/// [`Self::at`] chose are.
#[derive(Clone)]
pub struct Endpoint(Arc<Parts>);

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        let parts = |one: &Self| (one.0.tls, one.0.port, one.0.address);
        // Nearly always one is a clone of the other.
        Arc::ptr_eq(&self.0, &other.0)
            || (parts(self) == parts(other) && self.0.host.eq_ignore_ascii_case(&other.0.host))
    }
}

impl Eq for Endpoint {}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.host.to_ascii_lowercase().hash(state);
        self.0.port.hash(state);
        self.0.tls.hash(state);
        self.0.address.hash(state);
    }
}

#[derive(Clone)]
struct Parts {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    host_header: HeaderValue,
    /// Dialled instead of what the host's name stands for.
    address: Option<IpAddr>,
}

impl Endpoint {
    /// Parses `http://host[:port]` or `https://host[:port]`; a path other than `/` is refused, since
    /// it would be ignored.
    ///
    /// # Errors
    /// `Error::BadEndpoint` with the accepted form.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let bad = |problem| Error::BadEndpoint {
            url: url.into(),
            problem,
        };
        let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
        if uri
            .path_and_query()
            .is_some_and(|path| path.as_str() != "/")
        {
            return Err(bad("it has a path or a query"));
        }
        Self::of_uri(&uri)
    }

    /// The endpoint of an absolute URI, whatever its path.
    ///
    /// # Errors
    /// `Error::BadEndpoint` with the accepted form.
    pub fn of_uri(uri: &Uri) -> Result<Self, Error> {
        let bad = |problem| Error::BadEndpoint {
            url: format!(
                "{}://{}",
                uri.scheme_str().unwrap_or_default(),
                uri.host().unwrap_or_default()
            ),
            problem,
        };
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("its scheme is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds a user name or password"));
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| bad("its host is neither a DNS name nor an IP address"))?;
        let host_header = HeaderValue::from_str(authority.as_str())
            .map_err(|_| bad("its host is not usable in a header"))?;
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 {
            return Err(bad("its port is 0"));
        }
        Ok(Self(Arc::new(Parts {
            tls,
            host: host.to_owned(),
            port,
            server_name,
            host_header,
            address: None,
        })))
    }

    /// The same endpoint at one address of its host: what is dialled is `address`, while certificate
    /// and `Host` are still those of the name.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        Self(Arc::new(Parts {
            address: Some(address),
            ..(*self.0).clone()
        }))
    }

    /// The same endpoint on another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self(Arc::new(Parts {
            port,
            ..(*self.0).clone()
        }))
    }

    /// Whether it is an https endpoint.
    pub fn is_tls(&self) -> bool {
        self.0.tls
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// The port, given or the scheme's default.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// The address to dial, if no name has to be looked up: the one that [`Self::at`] chose, or the
    /// host itself.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address.or_else(|| self.0.host.parse().ok())
    }

    pub(super) fn server_name(&self) -> &ServerName<'static> {
        &self.0.server_name
    }

    /// What `Host` says: host and port as they were written.
    pub fn host_header(&self) -> &HeaderValue {
        &self.0.host_header
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.0.tls { "https" } else { "http" };
        if self.0.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.0.host, self.0.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.0.host, self.0.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_in_more_than_case() {
        let endpoint = |url| Endpoint::parse(url).unwrap();
        assert_eq!(endpoint("https://A:1"), endpoint("https://a:1/"));
        assert_ne!(endpoint("https://a:1"), endpoint("http://a:1"));
        assert_ne!(endpoint("https://a:1"), endpoint("https://a:2"));
    }

    #[test]
    fn a_chosen_address_replaces_the_lookup_and_nothing_else() {
        let name = Endpoint::parse("https://store:9000").unwrap();
        let at = name.at("10.0.0.1".parse().unwrap());
        assert_eq!(name.address(), None);
        assert_eq!(at.address(), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(at.to_string(), "https://store:9000");
        assert_eq!(at.server_name(), name.server_name());
        assert_ne!(at, name);
        assert_eq!(at, name.at("10.0.0.1".parse().unwrap()));
        assert_eq!(at.with_port(9001).to_string(), "https://store:9001");
        let literal = Endpoint::parse("http://[::1]:1").unwrap();
        assert_eq!(literal.address(), Some("::1".parse().unwrap()));
    }

    #[test]
    fn endpoints_are_scheme_host_and_port() {
        for (url, shown) in [
            ("http://a", "http://a:80"),
            ("https://a/", "https://a:443"),
            ("https://[::1]:9000", "https://[::1]:9000"),
            ("http://10.0.0.1:9000", "http://10.0.0.1:9000"),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().to_string(), shown);
        }
        for url in [
            "a:9000",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://a?x",
            "https://u:p@a",
            "https://a:0",
            "",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
