//! The servers of a process while they run: until a signal, then drained in the order opposite to
//! their start, so that what is still running finds what it needs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use moat_net::Drain;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::first_start::{self, Found};
use crate::lock::FolderLock;
use crate::process::Signals;
use crate::systemd::Notifier;
use crate::up::WORLD;

/// How long requests may take to end after SIGTERM, all servers together. Under the 30 seconds
/// after which Kubernetes kills.
const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// How often certificates are looked at for renewal. They are due months before they end.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(6 * 60 * 60);

/// The servers, in the order of their start.
pub(crate) struct Running {
    servers: Vec<(Drain, JoinHandle<()>)>,
    ended: mpsc::UnboundedReceiver<&'static str>,
    note_end: mpsc::UnboundedSender<&'static str>,
    drain_within: Duration,
    reload: Option<Reload>,
    notifier: Option<Notifier>,
}

/// Reads the configuration again and puts it in use.
pub(crate) type Reload = Box<dyn Fn() -> Result<()> + Send>;

impl Default for Running {
    fn default() -> Self {
        let (note_end, ended) = mpsc::unbounded_channel();
        Self {
            servers: Vec::new(),
            ended,
            note_end,
            drain_within: DRAIN_DEADLINE,
            reload: None,
            notifier: None,
        }
    }
}

impl Running {
    /// Sets how long requests may take to end.
    pub(crate) const fn drain_within(&mut self, within: Duration) {
        self.drain_within = within;
    }

    /// Sets what SIGHUP does; without it, nothing.
    pub(crate) fn reloaded_by(&mut self, reload: Reload) {
        self.reload = Some(reload);
    }

    /// Tells systemd what happens.
    pub(crate) fn notifying(&mut self, notifier: Notifier) {
        self.notifier = Some(notifier);
    }

    /// Starts a server.
    pub(crate) fn spawn<F>(&mut self, name: &'static str, serve: impl FnOnce(Drain) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let drain = Drain::new();
        let server = tokio::spawn(serve(drain.clone()));
        let note_end = self.note_end.clone();
        let watched = tokio::spawn(async move {
            // A panic ends the server as well; its message is on standard error already.
            let _ = server.await;
            let _ = note_end.send(name);
        });
        self.servers.push((drain, watched));
    }

    /// Serves until a signal, then drains; a second signal cuts what still runs.
    pub(crate) async fn until(mut self, mut signals: Signals, config: Config) -> Result<ExitCode> {
        let upkeep = [
            tokio::spawn(moat_net::metrics::upkeep()),
            tokio::spawn(renew_certificates(config)),
        ];
        let notifier = self.notifier.take();
        let tell = |say: fn(&Notifier)| notifier.iter().for_each(say);
        let _watchdog = notifier.as_ref().and_then(Notifier::watchdog);
        tell(Notifier::ready);
        let signal = loop {
            tokio::select! {
                signal = signals.next_or_reload() => match signal {
                    Some(signal) => break signal,
                    None => {
                        tell(Notifier::reloading);
                        self.reload();
                        tell(Notifier::ready);
                    }
                },
                Some(name) = self.ended.recv() => {
                    self.stop(self.drain_within).await;
                    bail!("the {name} ended by itself; see the log above");
                }
            }
        };
        tracing::info!(signal, "draining");
        tell(Notifier::stopping);
        let drains: Vec<Drain> = self
            .servers
            .iter()
            .map(|(drain, _)| drain.clone())
            .collect();
        let within = self.drain_within;
        tokio::select! {
            () = self.stop(within) => {}
            () = cut_at_second(&mut signals, &drains) => {}
        }
        self.stop(Duration::ZERO).await;
        upkeep.iter().for_each(JoinHandle::abort);
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    }

    /// What fails is said and changes nothing.
    fn reload(&self) {
        let Some(reload) = &self.reload else {
            tracing::info!(
                "SIGHUP changes nothing here: certificate files are read by themselves when they change"
            );
            return;
        };
        match reload() {
            Ok(()) => tracing::info!("the configuration was read again and is in use"),
            Err(error) => {
                tracing::error!(
                    "the configuration is not usable, the old one stays in use: {error:#}"
                );
            }
        }
    }

    /// Drains all servers, the last one first, within this time altogether.
    pub(crate) async fn stop(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while let Some((drain, server)) = self.servers.last_mut() {
            drain.start(deadline.saturating_duration_since(Instant::now()));
            // The task only waits for the server, and ends with it.
            let _ = server.await;
            self.servers.pop();
        }
    }
}

async fn cut_at_second(signals: &mut Signals, drains: &[Drain]) {
    let signal = signals.next().await;
    tracing::warn!(signal, "second signal, cutting what still runs");
    drains.iter().for_each(|drain| drain.start(Duration::ZERO));
}

/// Renews certificates of ours when they are due; listeners notice the new files by themselves.
async fn renew_certificates(config: Config) {
    let mut tick = tokio::time::interval(RENEWAL_INTERVAL);
    tick.tick().await; // The first one comes at once, and the start has looked already.
    loop {
        tick.tick().await;
        let config = config.clone();
        let renewed = tokio::task::spawn_blocking(move || {
            if first_start::look(&config.data)? == Found::Unfinished {
                // A proxy that brought its own certificate has no folder.
                return Ok(Vec::new());
            }
            let _lock = FolderLock::wait(config.data.root())?;
            let ca = first_start::load_ca(&config.data)?;
            first_start::refresh_certificates(&config, &ca, WORLD)
        });
        match renewed.await {
            Ok(Ok(notes)) => notes.iter().for_each(|note| tracing::info!("{note}")),
            Ok(Err(error)) => tracing::error!("certificates could not be renewed: {error:#}"),
            Err(error) => tracing::error!(%error, "certificates could not be renewed"),
        }
    }
}
