//! The client of the native API: one method per route.

mod access;
mod data;
mod keys;
mod system;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use moat_net::tls::{ClientIdentity, ClientTls, ClientTlsConfig, Roots};
use moat_net::{Endpoint, HttpClient};
use moat_types::{Clock, EnclaveName, KeyName, Random};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::ApiKey;
use crate::error::{Error, SetupError};
use crate::transport::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT, Repeat, Transport};
use crate::wire::{self, Listing};

/// What a client shows to the key manager.
#[derive(Clone, Debug)]
pub enum Credential {
    /// An API key.
    ApiKey(ApiKey),
    /// A certificate and its key in PEM files, read again when they change.
    Files {
        /// The certificate, and its chain.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Nothing: only version and health can be asked for.
    None,
}

/// How to reach the key manager.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `https://host:port`; without a scheme https is meant, without a port 7373. Any of them can
    /// answer any call.
    pub endpoints: Vec<String>,
    /// Who vouches for the server's certificate.
    pub roots: Roots,
    /// Who we are.
    pub credential: Credential,
    /// Accept any server certificate. For labs only.
    pub insecure: bool,
    /// How long one endpoint may take to answer.
    pub response_timeout: Duration,
}

impl ClientConfig {
    /// One endpoint, the defaults otherwise.
    pub fn new(endpoint: impl Into<String>, roots: Roots, credential: Credential) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            roots,
            credential,
            insecure: false,
            response_timeout: RESPONSE_TIMEOUT,
        }
    }
}

/// The port of a key manager, as MinKMS has it.
pub const DEFAULT_PORT: u16 = 7373;

/// Which part of a listing to fetch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Names that begin with this.
    pub prefix: String,
    /// Names from this one on: the `next` of the page before.
    pub from: String,
    /// At most so many; the server's limit if it is 0.
    pub limit: u32,
}

/// Which lines of the audit to fetch.
#[derive(Clone, Debug, Default)]
pub struct AuditOptions {
    /// At most so many, the newest; 100 if it is 0.
    pub limit: u32,
    /// Of this KMS key.
    pub key: Option<String>,
    /// Of this identity.
    pub identity: Option<String>,
    /// Of this operation.
    pub operation: Option<String>,
    /// In this enclave.
    pub enclave: Option<String>,
    /// Instead of the newest: the first ones after the line of this number.
    pub after: Option<u64>,
    /// How long to wait for a line if there is none after that number.
    pub wait_seconds: Option<u32>,
}

fn key_path(enclave: &EnclaveName, key: &KeyName) -> String {
    format!("/v1/enclaves/{enclave}/keys/{key}")
}

/// A client of one key manager, or of several that share a state. Clone the `Arc` around it.
pub struct Client {
    transport: Transport,
}

impl Client {
    /// Makes a client; connects to nothing yet. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `SetupError` names the endpoint, file or credential that is no good.
    pub fn new(
        config: ClientConfig,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Self, SetupError> {
        let endpoints = config.endpoints.iter().map(|url| parse_endpoint(url));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(SetupError::NoEndpoint);
        }
        let identity = match config.credential {
            Credential::None => None,
            Credential::Files { certificate, key } => {
                Some(ClientIdentity::Files { certificate, key })
            }
            Credential::ApiKey(key) => {
                let (certificate, key) = key.to_certificate(clock, random)?;
                Some(ClientIdentity::Der {
                    chain: vec![Bytes::copy_from_slice(&certificate)],
                    key_pkcs8: Zeroizing::new(key.secret_der().to_vec()),
                })
            }
        };
        let tls = ClientTls::load(ClientTlsConfig {
            roots: config.roots,
            identity,
            insecure: config.insecure,
            ..ClientTlsConfig::default()
        })?;
        let http = HttpClient::new(moat_net::ClientConfig {
            tls: Some(tls),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: Some(config.response_timeout),
            ..moat_net::ClientConfig::default()
        });
        Ok(Self {
            transport: Transport::new(http, endpoints),
        })
    }

    /// What the server is.
    ///
    /// # Errors
    /// As every call: [`Error`].
    pub async fn version(&self) -> Result<wire::Version, Error> {
        self.read("/version").await
    }

    /// Whether the server is ready to serve.
    ///
    /// # Errors
    /// [`Error`]; `is_unavailable` if it answers that it is not.
    pub async fn ready(&self) -> Result<(), Error> {
        let path = "/v1/health/ready";
        self.transport
            .call(&Method::GET, path, None, Repeat::Safe)
            .await?;
        Ok(())
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        options: &ListOptions,
    ) -> Result<Listing<T>, Error> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (prefix, from) = (given(&options.prefix), given(&options.from));
        let limit = (options.limit > 0).then(|| options.limit.to_string());
        let path = with_query(
            path,
            &[
                ("prefix", prefix.as_deref()),
                ("from", from.as_deref()),
                ("limit", limit.as_deref()),
            ],
        );
        self.read(&path).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self
            .transport
            .call(&Method::GET, path, None, Repeat::Safe)
            .await?;
        parse(&answer)
    }

    async fn change<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let body = encode(body)?;
        let answer = self
            .transport
            .call(&Method::POST, path, Some(&body), repeat)
            .await?;
        parse(&answer)
    }

    async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let answer = self
            .transport
            .call(&Method::DELETE, path, None, Repeat::Never)
            .await?;
        parse(&answer)
    }

    async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let body = encode(body)?;
        let answer = self
            .transport
            .call(&Method::PUT, path, Some(&body), Repeat::Safe)
            .await?;
        parse(&answer)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, SetupError> {
    let text = text.trim().trim_end_matches('/');
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let authority = url.rsplit('/').next().unwrap_or_default();
    // The port is behind the brackets of an IPv6 address, if there are any.
    let behind_host = authority.rsplit(']').next().unwrap_or_default();
    let url = if behind_host.contains(':') {
        url
    } else {
        format!("{url}:{DEFAULT_PORT}")
    };
    let endpoint = Endpoint::parse(&url)?;
    if !endpoint.is_tls() {
        return Err(SetupError::NotTls(url));
    }
    Ok(endpoint)
}

/// What may stand in a query value as it is: the unreserved characters of RFC 3986, and the colon
/// of identities and commands.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

fn with_query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            out.push(separator);
            out.push_str(name);
            out.push('=');
            out.extend(utf8_percent_encode(value, QUERY));
            separator = '&';
        }
    }
    out
}

fn encode(body: &impl Serialize) -> Result<Bytes, Error> {
    let text = serde_json::to_vec(body).map_err(|e| Error::Answer {
        reason: e.to_string(),
    })?;
    Ok(text.into())
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(answer).map_err(|e| Error::Answer {
        // Where, but not what: the answer may hold a secret.
        reason: format!(
            "unexpected JSON at line {}, column {}",
            e.line(),
            e.column()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_default_to_https_and_7373() {
        for (text, expected) in [
            ("kms", "https://kms:7373"),
            ("kms:1", "https://kms:1"),
            ("https://kms/", "https://kms:7373"),
            ("[::1]", "https://[::1]:7373"),
            ("[::1]:5", "https://[::1]:5"),
        ] {
            assert_eq!(parse_endpoint(text).unwrap().to_string(), expected);
        }
        assert!(matches!(
            parse_endpoint("http://kms"),
            Err(SetupError::NotTls(_))
        ));
    }

    #[test]
    fn query_values_are_encoded() {
        let path = with_query(
            "/v1",
            &[("a", Some("x&y z")), ("b", None), ("c", Some("h1:-_"))],
        );
        assert_eq!(path, "/v1?a=x%26y%20z&c=h1:-_");
    }
}
