//! Who is asking, and over which scheme.
//!
//! Today there is one account, root. Users, policies and temporary credentials join here.

use http::HeaderMap;
use moat_s3::authenticate::{Account, Authenticator, Refused};
use moat_types::SecretString;

use crate::error::Error;

/// The access keys of root.
#[derive(Debug, Clone)]
pub struct RootCredentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: SecretString,
}

impl RootCredentials {
    /// Knows root alone. Root's keys never come with a token.
    pub(super) fn authenticator(self, region: String) -> Authenticator {
        let root = Account {
            access_key_id: self.access_key_id,
            secret_access_key: self.secret_access_key,
            session_token: None,
        };
        Authenticator::new(vec![root], region)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let error = Self::from(refused.error);
        match refused.extra {
            Some((name, value)) => error.with(name, value),
            None => error,
        }
    }
}

/// Whether the request came to us over TLS, as far as we can trust what is said of it.
pub(super) fn is_secure(
    peer: &moat_net::Peer,
    headers: &HeaderMap,
    trusted: &[std::net::IpAddr],
) -> bool {
    let forwarded = headers.get("x-forwarded-proto").filter(|_| {
        let address = peer.addr.ip().to_canonical();
        trusted.contains(&address)
    });
    match forwarded {
        Some(scheme) => scheme.as_bytes().eq_ignore_ascii_case(b"https"),
        None => peer.tls,
    }
}
