//! Load on a proxy: one fixed request repeated on kept connections, and the fixed responder that
//! stands behind every proxy of a comparison.

mod drive;
mod responder;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(crate) use drive::run;
pub(crate) use responder::respond;

/// What the loader does for a comparison of proxies.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyCommand {
    /// Answer `GET /N` with N bytes and any upload with nothing, over TLS 1.3, until killed
    Respond(RespondArgs),
    /// Repeat a request and print throughput, latency and the proxy's CPU and memory
    Run(RunArgs),
}

/// Where the responder is.
#[derive(Debug, Args)]
pub(crate) struct RespondArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    /// Its certificate chain, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
}

/// What is asked, of whom, and for how long.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Address of the proxy
    #[arg(long, value_name = "ADDR")]
    pub(crate) server: SocketAddr,
    /// Speak plain HTTP to it
    #[arg(long)]
    pub(crate) plain: bool,
    /// The CA that its certificate must come from, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// Bytes of each body
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub(crate) bytes: u64,
    /// Upload the bytes, instead of downloading them
    #[arg(long)]
    pub(crate) upload: bool,
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: usize,
    /// Further connections that send one request and are then kept idle
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) idle: usize,
    /// For how long to send requests; those in flight are waited for
    #[arg(long, value_name = "S", default_value = "3", value_parser = crate::kms::parse_seconds)]
    pub(crate) seconds: Duration,
    /// A process of the proxy, whose CPU and memory count; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
}

/// Runs the command; false if requests failed.
///
/// # Errors
/// If nothing could be measured, or the responder can't start.
pub(crate) async fn start(command: ProxyCommand) -> Result<bool> {
    match command {
        ProxyCommand::Respond(args) => respond(args).await.map(|()| true),
        ProxyCommand::Run(args) => {
            let (figures, good) = run(args).await?;
            crate::report::line(&figures);
            Ok(good)
        }
    }
}
