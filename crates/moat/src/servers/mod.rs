//! The three servers: how each is opened from its part of the configuration and the data folder,
//! and how it is served until it is drained. `moat up` runs them together, the other commands one
//! each; the wiring is the same.

mod gateway;
pub(crate) mod kms;
pub(crate) mod kms_state;
pub(crate) mod proxy;
pub(crate) mod store;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use moat_net::tls::{ClientAuth, ServerTls};
use moat_net::{Drain, Limits, Listener, ListenerConfig, Service};
use moat_pki::SubjectName;

use crate::config::TlsFiles;
use crate::endpoint::Endpoint;

/// A server that is bound and about to serve.
pub(crate) struct Bound<S> {
    listener: Listener,
    service: Arc<S>,
}

impl<S: Service> Bound<S> {
    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Serves until drained.
    pub(crate) async fn serve(self, drain: Drain) {
        self.listener.serve(self.service, drain).await;
    }
}

/// Looks whether an address can be listened on, without keeping it: before a first start makes
/// files, so that a port in use changes nothing.
pub(crate) fn probe(address: SocketAddr, flag: &str) -> Result<()> {
    bind(address, None, Limits::default(), flag).map(drop)
}

/// Binds an address. The flag that chooses another one is named if it can't be had.
fn bind(
    address: SocketAddr,
    tls: Option<ServerTls>,
    limits: Limits,
    flag: &str,
) -> Result<Listener> {
    let config = ListenerConfig {
        address,
        tls,
        limits,
    };
    match Listener::bind(config) {
        Ok(listener) => Ok(listener),
        // The message is whole; only the flag is missing.
        Err(error) => bail!("{error} ({flag})"),
    }
}

fn load_tls(files: &TlsFiles, client_auth: ClientAuth) -> Result<ServerTls> {
    Ok(ServerTls::load(
        &files.certificate,
        &files.private_key,
        client_auth,
    )?)
}

/// How a server of ours is reached from this machine.
pub(crate) fn local(address: SocketAddr) -> Endpoint {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Endpoint {
        tls: true,
        host: SubjectName::Ip(host),
        port: address.port(),
    }
}

fn net_endpoint(endpoint: &Endpoint) -> Result<moat_net::Endpoint> {
    moat_net::Endpoint::parse(&endpoint.to_string()).context("an endpoint that was read before")
}
