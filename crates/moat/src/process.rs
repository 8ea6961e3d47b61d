//! What a server asks of the operating system: no core dumps (they would hold keys), and the
//! signals that end it.

use anyhow::{Context, Result};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Keeps files to the owner by default, and the memory of a server out of core files and away from other processes of its user
/// (a debugger attached by the same user could read keys otherwise).
pub(crate) fn harden() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    // What is made below the data folder without a mode of its own is nobody else's.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "the process could not be made undumpable");
    }
}

/// SIGTERM, SIGINT and SIGHUP. Handlers are in place from [`Signals::install`] on, so that no signal
/// between start and wait is lost.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Installs the handlers. Must be called inside a runtime.
    pub(crate) fn install() -> Result<Self> {
        const CANT: &str = "signal handlers can't be installed";
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context(CANT)?,
            interrupt: signal(SignalKind::interrupt()).context(CANT)?,
            hang_up: signal(SignalKind::hangup()).context(CANT)?,
        })
    }

    /// The next one that ends the process.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// The next one that ends the process, or `None` for SIGHUP, which asks to read the configuration
    /// again.
    pub(crate) async fn next_or_reload(&mut self) -> Option<&'static str> {
        tokio::select! {
            _ = self.hang_up.recv() => None,
            _ = self.terminate.recv() => Some("SIGTERM"),
            _ = self.interrupt.recv() => Some("SIGINT"),
        }
    }
}
