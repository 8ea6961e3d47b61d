//! What can go wrong before a server serves: its address, its certificate files, its limits.
//!
//! Each message is one sentence that a person at a terminal can act on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a listener or a TLS configuration could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process listens on the address.
    #[error(
        "cannot listen on {address}: another process uses this port; stop it or choose another port"
    )]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The address belongs to no interface of this machine.
    #[error(
        "cannot listen on {address}: this machine has no such address; use one of its own, or 0.0.0.0 or [::] for all of them"
    )]
    AddressNotAvailable {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The process may not use the port.
    #[error(
        "cannot listen on {address}: ports below 1024 need the capability CAP_NET_BIND_SERVICE; grant it or choose a higher port"
    )]
    PortNotPermitted {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Anything else that the system says about the address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// A PEM file is not there or not readable.
    #[error("cannot read {what} {}: {source}{}", path.display(), hint_of(hint))]
    ReadFile {
        /// What the file holds, as in "private key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Who owns the file and what would make it readable; may be empty.
        hint: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A PEM file holds no block of the wanted kind, or a damaged one.
    #[error("{what} {} is not usable: {problem}", path.display())]
    BadPem {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found instead.
        problem: String,
    },
    /// The private key belongs to another certificate.
    #[error(
        "the private key {} does not belong to the certificate {}: give the key that the certificate was issued for", key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// TLS parameters that came as values, not files, are not usable.
    #[error("tls settings are not usable: {0}")]
    Tls(String),
    /// A URL of an upstream is not one of http or https with a host.
    #[error("{url:?} is not an endpoint: {problem}; use http://HOST:PORT or https://HOST:PORT")]
    BadEndpoint {
        /// What was given.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The metrics recorder is already another one.
    #[error("cannot install the metrics recorder: the process has another one already")]
    MetricsRecorder,
}

fn hint_of(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    }
}
