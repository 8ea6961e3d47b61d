//! The proxy: one service behind a TLS and a plain listener.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use moat_net::Drain;
use moat_net::tls::{ClientAuth, ClientTls, ClientTlsConfig, Roots};
use moat_proxy::{Config as Settings, HealthConfig, Proxy, Upstream};

use super::{Bound, bind, load_tls, net_endpoint};
use crate::config::ProxyConfig;
use crate::endpoint::Endpoint;
use crate::folder::DataFolder;

/// The flags that choose other addresses.
pub(crate) const HTTPS_FLAG: &str = "--proxy-https";
pub(crate) const HTTP_FLAG: &str = "--proxy-http";

/// A bound proxy.
pub(crate) struct ProxyServer {
    https: Option<Bound<Proxy>>,
    http: Option<Bound<Proxy>>,
}

impl ProxyServer {
    /// Binds the listeners, loads the certificates and begins to probe the stores; `store` is used
    /// where no upstream is configured. Must be called inside a runtime.
    pub(crate) fn open(config: &ProxyConfig, data: &DataFolder, store: Endpoint) -> Result<Self> {
        let upstreams = if config.upstreams.is_empty() {
            vec![store]
        } else {
            config.upstreams.clone()
        };
        let mut settings = Settings::new(upstreams.iter().map(upstream).collect::<Result<_>>()?);
        settings.health = HealthConfig {
            path: config.health_path.clone(),
            ..HealthConfig::default()
        };
        settings.tls = client_tls(config, data, &upstreams)?;
        let https = match config.listen_https {
            Some(address) => Some(bind(
                address,
                Some(load_tls(&config.tls, ClientAuth::None)?),
                HTTPS_FLAG,
            )?),
            None => None,
        };
        let http = config
            .listen_http
            .map(|address| bind(address, None, HTTP_FLAG))
            .transpose()?;
        let service = Arc::new(Proxy::new(settings)?);
        let with_service = |listener| Bound {
            listener,
            service: Arc::clone(&service),
        };
        Ok(Self {
            https: https.map(with_service),
            http: http.map(with_service),
        })
    }

    /// Where it listens with TLS.
    pub(crate) fn https_address(&self) -> Option<SocketAddr> {
        self.https.as_ref().map(Bound::address)
    }

    /// Where it listens without TLS.
    pub(crate) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(Bound::address)
    }

    /// Serves both listeners until drained.
    pub(crate) async fn serve(self, drain: Drain) {
        let https = serve(self.https, drain.clone());
        let http = serve(self.http, drain);
        tokio::join!(https, http);
    }
}

async fn serve(bound: Option<Bound<Proxy>>, drain: Drain) {
    if let Some(bound) = bound {
        bound.serve(drain).await;
    }
}

fn upstream(endpoint: &Endpoint) -> Result<Upstream> {
    Ok(Upstream {
        endpoint: net_endpoint(endpoint)?,
    })
}

/// Trust in the CA that was given, or our own if there is one, and for stores that were named in
/// those of the system: stores of others are fronted too.
fn client_tls(
    config: &ProxyConfig,
    data: &DataFolder,
    upstreams: &[Endpoint],
) -> Result<Option<ClientTls>> {
    if !upstreams.iter().any(|upstream| upstream.tls) {
        return Ok(None);
    }
    let own = || Some(data.ca_certificate()).filter(|path| path.exists());
    let roots = Roots {
        // Our own store needs none of them, and reading them takes a part of the start.
        system: !config.upstreams.is_empty(),
        files: config
            .upstream_ca
            .clone()
            .or_else(own)
            .into_iter()
            .collect(),
        pem: Vec::new(),
    };
    let settings = ClientTlsConfig {
        roots,
        identity: None,
        insecure: false,
    };
    Ok(Some(ClientTls::load(settings)?))
}
