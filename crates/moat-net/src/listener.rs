//! Accepting connections: bind, limit, hand over, drain.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use metrics::{Gauge, counter, gauge};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::tls::ServerTls;
use crate::{Body, Drain, Error, Limits, Peer, Workers, connection};

/// Connections that the kernel holds for us while we are busy; what it holds costs no file.
const BACKLOG: u32 = 1024;
/// Pause after `accept` failed for want of files or memory, so that the loop does not spin until
/// some connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Refused connections come in floods; one line for each would make it worse.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Answers requests. One value serves all connections of a listener, or of several.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. The future is dropped when the peer goes away before the answer's head
    /// is sent, and the answer's body when it goes away later.
    fn call(
        &self,
        peer: &Arc<Peer>,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// The address; port 0 takes a free one, see [`Listener::local_addr`].
    pub address: SocketAddr,
    /// TLS, or plain HTTP/1.1 if `None`.
    pub tls: Option<ServerTls>,
    /// What peers are allowed.
    pub limits: Limits,
}

/// Tells whether connections from an address begin with a PROXY header.
pub type ProxyProtocolFrom = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// A bound listener that does not accept yet.
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    tls: Option<ServerTls>,
    limits: Limits,
    proxy_protocol: Option<ProxyProtocolFrom>,
    h2c: bool,
    workers: Option<Workers>,
}

impl Listener {
    /// Binds the address. Peers can connect from now on and wait until [`Self::serve`] runs.
    ///
    /// # Errors
    /// One of the address variants of [`Error`], each with what to do.
    pub fn bind(config: ListenerConfig) -> Result<Self, Error> {
        let address = config.address;
        let socket = listen(address).map_err(|source| bind_error(address, source))?;
        Self::of(socket, config)
    }

    /// Takes over a socket that listens already, as systemd hands one over. `config.address` is only
    /// for messages. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `Error::Listen` if it is no such socket.
    pub fn take_over(socket: std::net::TcpListener, config: ListenerConfig) -> Result<Self, Error> {
        let address = config.address;
        let socket = socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket))
            .map_err(|source| Error::Listen { address, source })?;
        Self::of(socket, config)
    }

    fn of(socket: TcpListener, config: ListenerConfig) -> Result<Self, Error> {
        let address = config.address;
        let local = socket
            .local_addr()
            .map_err(|source| bind_error(address, source))?;
        Ok(Self {
            socket,
            local,
            tls: config.tls,
            limits: config.limits,
            proxy_protocol: None,
            h2c: false,
            workers: None,
        })
    }

    /// Demands a PROXY header of connections from these addresses, and believes it. Others begin as
    /// usual.
    #[must_use]
    pub fn with_proxy_protocol(mut self, from: ProxyProtocolFrom) -> Self {
        self.proxy_protocol = Some(from);
        self
    }

    /// Without TLS, serves clients that speak HTTP/2 from the first byte on (RFC 9113 section 3.3) as
    /// well as those of HTTP/1.1.
    #[must_use]
    pub const fn with_h2c(mut self) -> Self {
        self.h2c = true;
        self
    }

    /// Has each connection driven by one of these threads, instead of the runtime that accepts them.
    #[must_use]
    pub fn on_workers(mut self, workers: &Workers) -> Self {
        self.workers = Some(workers.clone());
        self
    }

    /// The address that is bound, with the real port.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `drain` starts, then until all connections ended or its deadline passed.
    ///
    /// When this returns, no connection of the listener is left. If the future is dropped before,
    /// all connections are cut at once.
    pub async fn serve<S: Service>(self, service: Arc<S>, drain: Drain) {
        let _reload = self.tls.as_ref().map(ServerTls::watch);
        let shared = Arc::new(connection::Shared {
            service,
            tls: self.tls,
            limits: self.limits,
            drain: drain.clone(),
            proxy_protocol: self.proxy_protocol,
            h2c: self.h2c,
        });
        let slots = Arc::new(Semaphore::new(shared.limits.connections_max));
        let label = self.local.to_string();
        let accepted = counter!("moat_net_connections_total", "listener" => label.clone());
        let refused = counter!("moat_net_connections_refused_total", "listener" => label.clone());
        let open = gauge!("moat_net_connections", "listener" => label);
        let mut connections = JoinSet::new();
        let mut warned: Option<Instant> = None;
        loop {
            let (stream, addr) = tokio::select! {
                () = drain.started() => break,
                connection = accept(&self.socket) => connection,
                Some(_) = connections.join_next() => continue,
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                // Closing is the only answer that costs less than what the limit protects.
                refused.increment(1);
                if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(listener = %self.local, limit = shared.limits.connections_max, "all connections are in use, closing new ones");
                }
                continue;
            };
            accepted.increment(1);
            let (shared, held) = (Arc::clone(&shared), (slot, Counted::new(&open)));
            let Some(workers) = &self.workers else {
                connections.spawn(async move {
                    connection::serve(&shared, stream, addr).await;
                    drop(held);
                });
                continue;
            };
            // A socket belongs to the runtime that made it, and has to change over.
            let Ok(stream) = stream.into_std() else {
                continue;
            };
            let (runtime, counted) = workers.place();
            let task = async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    connection::serve(&shared, stream, addr).await;
                }
                drop((held, counted));
            };
            connections.spawn_on(task, runtime);
        }
        drop(self.socket);
        finish(connections, &drain).await;
    }
}

/// Counts one open connection until it is dropped, by a panic of the service too.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

async fn finish(mut connections: JoinSet<()>, drain: &Drain) {
    let expired = drain.expired();
    tokio::pin!(expired);
    loop {
        tokio::select! {
            ended = connections.join_next() => if ended.is_none() { return },
            () = &mut expired => break,
        }
    }
    let left = connections.len();
    tracing::warn!(
        connections = left,
        "drain deadline passed, cutting connections"
    );
    connections.shutdown().await;
}

async fn accept(socket: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match socket.accept().await {
            Ok(connection) => return connection,
            Err(error) if is_about_one_peer(&error) => {}
            Err(error) => {
                counter!("moat_net_accept_errors_total").increment(1);
                tracing::warn!(%error, "cannot accept a connection, pausing");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Errors that `accept(2)` passes on from a connection that is gone already.
fn is_about_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A restart must not wait for the connections of its predecessor to leave TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn bind_error(address: SocketAddr, source: io::Error) -> Error {
    match source.kind() {
        io::ErrorKind::AddrInUse => Error::AddressInUse { address, source },
        io::ErrorKind::AddrNotAvailable => Error::AddressNotAvailable { address, source },
        io::ErrorKind::PermissionDenied => Error::PortNotPermitted { address, source },
        _ => Error::Listen { address, source },
    }
}
