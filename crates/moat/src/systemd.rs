//! What systemd and a service say to each other: readiness, reloads, the watchdog, and sockets that
//! were opened in advance. Nothing of it happens outside of systemd.
//!
//! The protocol is that of `sd_notify(3)` and `sd_listen_fds(3)`.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinHandle;

/// The service manager, if there is one that listens.
#[derive(Debug)]
pub(crate) struct Notifier(Option<UnixDatagram>);

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names. What goes wrong is logged: a service that
    /// serves is worth more than one that says so.
    pub(crate) fn from_env() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
            return Self(None);
        };
        let bytes = name.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let connected = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!(%error, "systemd's socket can't be reached");
                Self(None)
            }
        }
    }

    /// Requests are served.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// A reload began; [`Self::ready`] ends it. For `Type=notify-reload` it must say when.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end began.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Tells the watchdog that tasks are run, as often as it wants to hear it. Ends when dropped.
    pub(crate) fn watchdog(&self) -> Option<Watchdog> {
        let socket = self.0.as_ref()?.try_clone().ok()?;
        let every = watchdog_interval(|name| std::env::var(name).ok())?;
        Some(Watchdog(tokio::spawn(async move {
            let mut tick = tokio::time::interval(every);
            loop {
                tick.tick().await;
                // A message that is lost is followed by the next one in time.
                let _ = socket.send(b"WATCHDOG=1");
            }
        })))
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::warn!(%error, message, "systemd could not be told");
        }
    }
}

/// Half of the time after which systemd would call the service dead.
fn watchdog_interval(env: impl Fn(&str) -> Option<String>) -> Option<Duration> {
    if let Some(pid) = env("WATCHDOG_PID")
        && pid != std::process::id().to_string()
    {
        return None;
    }
    let micros: u64 = env("WATCHDOG_USEC")?.parse().ok()?;
    (micros > 1).then(|| Duration::from_micros(micros / 2))
}

/// Ends with its value.
#[derive(Debug)]
pub(crate) struct Watchdog(JoinHandle<()>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Listening sockets that systemd opened, found by their port.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<std::net::TcpListener>);

impl Sockets {
    /// Takes what systemd passed on, if anything. A socket of another kind is refused, with its number.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            match passed.take_tcp_listener(index) {
                Ok(Some(socket)) => sockets.push(socket),
                Ok(None) => {}
                Err(error) => anyhow::bail!(
                    "socket {index} that systemd passed on is no TCP socket that listens ({error}): use ListenStream= with a port"
                ),
            }
        }
        Ok(Self(sockets))
    }

    /// The socket on this port.
    pub(crate) fn take(&mut self, port: u16) -> Option<std::net::TcpListener> {
        let at_port = |socket: &std::net::TcpListener| {
            socket
                .local_addr()
                .is_ok_and(|address| address.port() == port)
        };
        let found = self.0.iter().position(at_port)?;
        Some(self.0.remove(found))
    }

    /// The ports of sockets that nothing took: the unit opens them, the configuration does not.
    pub(crate) fn left(&self) -> Vec<u16> {
        let port = |socket: &std::net::TcpListener| Some(socket.local_addr().ok()?.port());
        self.0.iter().filter_map(port).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_told_twice_in_its_time() {
        let interval = |pid: Option<&str>, usec: Option<&str>| {
            watchdog_interval(|name| {
                let value = if name == "WATCHDOG_PID" { pid } else { usec };
                value.map(str::to_owned)
            })
        };
        assert_eq!(
            interval(None, Some("30000000")),
            Some(Duration::from_secs(15))
        );
        let own = std::process::id().to_string();
        assert!(interval(Some(&own), Some("30000000")).is_some());
        assert!(interval(Some("1"), Some("30000000")).is_none());
        assert!(interval(None, None).is_none());
        assert!(interval(None, Some("0")).is_none());
    }

    #[test]
    fn sockets_are_found_by_their_port() {
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, other) = (socket(), socket());
        let (first, second) = (
            one.local_addr().unwrap().port(),
            other.local_addr().unwrap().port(),
        );
        let mut sockets = Sockets(vec![one, other]);
        assert!(sockets.take(second).is_some());
        assert!(sockets.take(second).is_none());
        assert_eq!(sockets.left(), [first]);
    }
}
