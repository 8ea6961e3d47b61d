//! `moat up`, and the servers alone. Order: look, lock, prepare the folder, key manager, store,
//! buckets, proxy; then serve until a signal, and drain in the opposite order, so that what is
//! still running finds what it needs.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use moat_types::{SystemClock, SystemRandom};

use crate::cli::{KmsServerArgs, ProxyArgs, StoreArgs, UpArgs};
use crate::config::Config;
use crate::config::raw::FlagValue;
use crate::first_start::{self, Found, World};
use crate::keyring;
use crate::lock::FolderLock;
use crate::process::Signals;
use crate::running::Running;
use crate::servers::kms::{KeyMaker, KmsServer};
use crate::servers::proxy::ProxyServer;
use crate::servers::store::StoreServer;
use crate::servers::{kms, local, probe, proxy, store};
use crate::sidekick::SidekickArgs;
use crate::systemd::{Notifier, Sockets};
use crate::welcome::{self, Served};
use crate::{locked_memory, logs, print, process};

/// The machine's clock and randomness.
pub(crate) const WORLD: World<'static> = World {
    clock: &SystemClock,
    random: &SystemRandom,
};

/// Runs all three servers.
pub(crate) async fn up(args: UpArgs) -> Result<ExitCode> {
    let flags = [
        args.common.values(),
        args.buckets.values(),
        args.store.values(),
        args.kms.values(),
        args.proxy.values(),
    ];
    let mut config = load(args.file.config.as_deref(), flags)?;
    locked_memory::lock();
    let signals = Signals::install()?;
    if config.store.kms.endpoint.take().is_some() {
        // The variable may be there for `moat kms`, so it is no mistake by itself.
        tracing::warn!(
            "store.kms.endpoint is not used: moat up runs its own key manager (moat store takes another one)"
        );
    }
    probe_all(&config)?;
    let notes = prepare(&config)?;
    let (kms_lock, store_lock) = (
        FolderLock::take(&config.data.kms())?,
        FolderLock::take(&config.data.store())?,
    );

    let mut running = Running::default();
    match start_all(&config, &mut running, kms_lock, store_lock).await {
        Ok(served) => {
            print::out(&welcome::text(&config, &served, &notes))?;
            running.until(signals, config).await
        }
        Err(error) => {
            running.stop(Duration::ZERO).await;
            Err(error)
        }
    }
}

/// Starts the servers one after the other, each when those that it needs are serving.
async fn start_all(
    config: &Config,
    running: &mut Running,
    kms_lock: FolderLock,
    store_lock: FolderLock,
) -> Result<Served> {
    let kms = KmsServer::open(config, kms_lock).await?;
    let kms_address = kms.address();
    let key_maker = kms.key_maker();
    running.spawn("key manager", |drain| kms.serve(drain));

    let ring = keyring::open(config, &local(kms_address))?;
    let store = StoreServer::open(config, ring, store_lock).await?;
    let store_address = store.address();
    let buckets = make_buckets(config, &store, &key_maker).await?;
    running.spawn("store", |drain| store.serve(drain));

    let proxy = ProxyServer::open(
        &config.proxy,
        &config.data,
        local(store_address),
        &mut Sockets::default(),
    )?;
    let served = Served {
        buckets,
        kms: kms_address,
        store: store_address,
        proxy_https: proxy.https_address(),
        proxy_http: proxy.http_address(),
    };
    running.spawn("proxy", |drain| proxy.serve(drain));
    Ok(served)
}

/// Makes the buckets that were asked for, the key first: a bucket whose rule names a missing key
/// takes no object.
async fn make_buckets(
    config: &Config,
    store: &StoreServer,
    keys: &KeyMaker,
) -> Result<Vec<String>> {
    let mut lines = Vec::with_capacity(config.buckets.len());
    for bucket in &config.buckets {
        if let Some(key) = &bucket.key {
            keys.make(config, key).await?;
        }
        let rule = match (store.ensure_bucket(bucket).await?, &bucket.key) {
            (false, _) => "was there already and is left as it is".to_owned(),
            (true, Some(key)) => format!("encrypted by default with SSE-KMS under the key {key}"),
            (true, None) => "without a rule, so SSE-S3 under the store's default key".to_owned(),
        };
        lines.push(format!("{}: {rule}", bucket.name));
    }
    Ok(lines)
}

/// Runs the key manager alone.
pub(crate) async fn kms_server(args: KmsServerArgs) -> Result<ExitCode> {
    let flags = [args.common.values(), args.kms.values()];
    serve_kms(args.file.config.as_deref(), flags).await
}

/// Runs the key manager alone as the file, the environment and these flags say.
pub(crate) async fn serve_kms(
    file: Option<&std::path::Path>,
    flags: impl IntoIterator<Item = Vec<FlagValue>>,
) -> Result<ExitCode> {
    let config = load(file, flags)?;
    locked_memory::lock();
    let signals = Signals::install()?;
    let notes = prepare(&config)?;
    let server = KmsServer::open(&config, FolderLock::take(&config.data.kms())?).await?;
    let line = format!(
        "ready    key manager {}",
        welcome::shown(&config, true, server.address())
    );
    let mut running = Running::default();
    running.spawn("key manager", |drain| server.serve(drain));
    say_ready(&notes, &line)?;
    running.until(signals, config).await
}

/// Runs the store alone.
pub(crate) async fn store_server(args: StoreArgs) -> Result<ExitCode> {
    let flags = [args.common.values(), args.store.values(), args.kms.values()];
    let config = load(args.file.config.as_deref(), flags)?;
    locked_memory::lock();
    let signals = Signals::install()?;
    let notes = prepare(&config)?;
    let ring = keyring::open(&config, &local(config.kms.listen))?;
    let server = StoreServer::open(&config, ring, FolderLock::take(&config.data.store())?).await?;
    let line = format!(
        "ready    store {}",
        welcome::shown(&config, true, server.address())
    );
    let mut running = Running::default();
    running.spawn("store", |drain| server.serve(drain));
    say_ready(&notes, &line)?;
    running.until(signals, config).await
}

/// Runs the proxy alone as a gateway, whatever the file says.
pub(crate) async fn gateway_server(args: ProxyArgs) -> Result<ExitCode> {
    let mode = FlagValue {
        key: "proxy.mode",
        flag: "moat gateway",
        values: vec!["gateway".to_owned()],
    };
    proxy_server(args, vec![mode]).await
}

/// Runs the proxy alone.
pub(crate) async fn proxy_server(args: ProxyArgs, more: Vec<FlagValue>) -> Result<ExitCode> {
    let file = args.file.config.clone();
    let flags = [args.values(), more].concat();
    let read = move || Config::load(file.as_deref(), flags.clone());
    proxy_alone(Box::new(read), Vec::new()).await
}

/// Runs the proxy with Sidekick's command line.
pub(crate) async fn sidekick_server(args: SidekickArgs) -> Result<ExitCode> {
    let mut config = Config::defaults()?;
    let notes = args.clone().apply(&mut config)?;
    let read = move || {
        let mut config = Config::defaults()?;
        args.clone().apply(&mut config)?;
        Ok(config)
    };
    proxy_alone(Box::new(read), notes.0).await
}

/// Runs a proxy of the configuration that `read` gives, and gives again when it is to be reloaded.
async fn proxy_alone(
    read: Box<dyn Fn() -> Result<Config> + Send>,
    mut notes: Vec<String>,
) -> Result<ExitCode> {
    let config = read()?;
    prepare_process(&config)?;
    let notifier = Notifier::from_env();
    let signals = Signals::install()?;
    // A proxy in front of other stores, with a certificate of its own, leaves no folder behind.
    if config.proxy.needs_folder(&config.data) {
        notes.extend(prepare(&config)?);
    }
    let mut sockets = Sockets::from_env()?;
    let store = local(config.store.listen);
    let server = ProxyServer::open(&config.proxy, &config.data, store, &mut sockets)?;
    for port in sockets.left() {
        notes.push(format!(
            "systemd passed a socket on port {port} that no listener is configured for"
        ));
    }
    let shown = |(tls, address)| welcome::shown(&config, tls, address).to_string();
    let listening: Vec<String> = server.addresses().into_iter().map(shown).collect();
    let name = match &config.proxy.gateway {
        Some(_) => "gateway",
        None => "proxy",
    };
    let mut line = format!("ready    {name} {}", listening.join(" and "));
    if let Some(address) = server.admin_address() {
        line.push_str(&format!(
            ", admin {}",
            welcome::shown(&config, false, address)
        ));
    }
    let handle = server.handle();
    let mut running = Running::default();
    running.drain_within(config.proxy.drain);
    running.spawn("proxy", |drain| server.serve(drain));
    say_ready(&notes, &line)?;
    let reload = move || {
        let config = read()?;
        handle.reload(&config.proxy, &config.data, local(config.store.listen))
    };
    running.reloaded_by(Box::new(reload));
    running.notifying(notifier);
    running.until(signals, config).await
}

/// Configuration, logging and what a process asks of the system, in the order in which they can fail.
fn load(
    file: Option<&std::path::Path>,
    flags: impl IntoIterator<Item = Vec<FlagValue>>,
) -> Result<Config> {
    let config = Config::load(file, flags.into_iter().flatten().collect())?;
    prepare_process(&config)?;
    Ok(config)
}

fn prepare_process(config: &Config) -> Result<()> {
    logs::start(&config.log);
    process::harden();
    moat_net::raise_open_files_limit();
    moat_net::metrics::install()?;
    Ok(())
}

/// Checks that all ports can be had before a first start makes anything. On a folder that is
/// complete the locks come first: a second process is the likelier reason for a port in use.
fn probe_all(config: &Config) -> Result<()> {
    if first_start::look(&config.data)? == Found::Complete {
        for folder in [config.data.kms(), config.data.store()] {
            drop(FolderLock::take(&folder)?);
        }
    }
    probe(config.kms.listen, kms::FLAG)?;
    probe(config.store.listen, store::FLAG)?;
    for listen in &config.proxy.listen {
        // All addresses include those of the last family.
        if let Some(address) = listen.addresses().last() {
            probe(*address, proxy::FLAGS)?;
        }
    }
    Ok(())
}

fn prepare(config: &Config) -> Result<Vec<String>> {
    first_start::prepare(config, WORLD)
}

fn say_ready(notes: &[String], line: &str) -> Result<()> {
    let notes: String = notes
        .iter()
        .map(|note| format!("note     {note}\n"))
        .collect();
    print::out(&format!("{notes}{line}\n"))
}
