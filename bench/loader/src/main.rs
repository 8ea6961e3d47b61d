//! `moat-loader`: drives one S3 server, key manager or proxy over kept TLS 1.3 connections and says, as one line of JSON,
//! how fast it answered and how much CPU the server spent on it.
//!
//! Loader and server share a machine, so the loader is kept cheap: one thread, requests of read
//! rows signed before the clock starts, bodies that are sent from one shared buffer and answers
//! that are counted, not kept. `bench/run.py` calls it once per row, server and round.

mod answer;
mod content;
mod drive;
mod kms;
mod load;
mod prepare;
mod probe;
mod proxy;
mod report;
mod request;
mod rows;
mod spark;
mod usage;
mod wire;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use moat_types::SecretString;

use crate::request::Target;
use crate::rows::Row;

/// Drives a key manager and prints throughput, latency and its CPU per operation.
#[derive(Debug, Parser)]
#[command(name = "moat-loader kms", version)]
struct KmsCli {
    #[command(flatten)]
    args: kms::KmsArgs,
}

/// Drives a proxy, or stands behind it.
#[derive(Debug, Parser)]
#[command(name = "moat-loader proxy", version)]
struct ProxyCli {
    #[command(subcommand)]
    command: proxy::ProxyCommand,
}

/// Drives an S3 server and prints throughput, latency and the server's CPU per operation.
///
/// `moat-loader kms` drives a key manager and `moat-loader proxy` a proxy; each has a `--help` of its own.
#[derive(Debug, Parser)]
#[command(name = "moat-loader", version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

/// Which server, and who asks.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Address of the server, HTTPS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9000")]
    server: std::net::SocketAddr,
    /// The CA that its certificate must come from, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The bucket to work in
    #[arg(long, value_name = "NAME", default_value = "bench")]
    bucket: String,
    /// The region to sign for
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    region: String,
    /// The access key
    #[arg(long, env = "AWS_ACCESS_KEY_ID")]
    access_key_id: String,
    /// Its secret; by environment only, since command lines can be read by everyone
    #[arg(
        long,
        env = "AWS_SECRET_ACCESS_KEY",
        hide = true,
        hide_env_values = true
    )]
    secret_access_key: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Try to write one small object until it works, and print a line when it has
    FirstPut {
        /// Give up after so many seconds
        #[arg(long, value_name = "S", default_value_t = 60)]
        within: u64,
    },
    /// Make the bucket if it is missing, and its encryption rule
    Bucket {
        /// The key of the bucket's SSE-KMS rule; without it the bucket gets no rule
        #[arg(long, value_name = "NAME")]
        kms_key: Option<String>,
    },
    /// Write the objects that rows read, check one of each size, and say how they are encrypted
    Prepare {
        /// The rows that will run [default: all]
        #[arg(long, value_name = "ROW")]
        row: Vec<Row>,
    },
    /// Run one row and print its figures as one line of JSON
    Run {
        /// The row
        #[arg(value_name = "ROW")]
        row: Row,
        /// For how long to send requests; those in flight are waited for
        #[arg(long, value_name = "S", default_value_t = 3.0)]
        seconds: f64,
        /// A process of the server, whose CPU counts; may be repeated
        #[arg(long, value_name = "PID")]
        pid: Vec<u32>,
    },
    /// Print the names of the rows
    Rows,
}

fn main() -> ExitCode {
    // Key managers and proxies need nothing of what an S3 server needs, so they have command lines of
    // their own.
    let mut arguments = std::env::args_os();
    let first = arguments.nth(1);
    let named = |name: &str| std::iter::once(name.into()).chain(arguments);
    let outcome = match first.as_ref().and_then(|first| first.to_str()) {
        Some("kms") => start_kms(KmsCli::parse_from(named("moat-loader kms")).args),
        Some("proxy") => start_proxy(ProxyCli::parse_from(named("moat-loader proxy")).command),
        _ => Cli::parse().start(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
}

/// Puts load on a key manager; false if requests failed.
fn start_kms(args: kms::KmsArgs) -> Result<bool> {
    let (figures, good) = runtime()?.block_on(kms::run(args))?;
    report::line(&figures);
    Ok(good)
}

/// Puts load on a proxy, or answers behind it; false if requests failed.
fn start_proxy(command: proxy::ProxyCommand) -> Result<bool> {
    runtime()?.block_on(proxy::start(command))
}

impl Cli {
    /// Runs the command; false if it was carried out but requests failed.
    fn start(self) -> Result<bool> {
        let runtime = runtime()?;
        let target = Arc::new(self.server.target()?);
        runtime.block_on(self.command.run(&target))
    }
}

impl ServerArgs {
    fn target(&self) -> Result<Target> {
        let secret = SecretString::new(self.secret_access_key.clone());
        Target::new(
            self.server,
            &self.ca,
            &self.bucket,
            &self.region,
            &self.access_key_id,
            secret,
        )
    }
}

impl Command {
    async fn run(self, target: &Arc<Target>) -> Result<bool> {
        match self {
            Self::FirstPut { within } => {
                probe::first_put(target, Duration::from_secs(within)).await?;
            }
            Self::Bucket { kms_key } => prepare::bucket(target, kms_key.as_deref()).await?,
            Self::Prepare { row } => {
                let rows = if row.is_empty() {
                    Row::ALL.to_vec()
                } else {
                    row
                };
                report::line(&prepare::objects(target, &rows).await?);
            }
            Self::Run { row, seconds, pid } => {
                let figures =
                    drive::run(target, row, Duration::from_secs_f64(seconds), &pid).await?;
                report::line(&report::figures(&figures));
                return Ok(figures.measured.errors == 0);
            }
            Self::Rows => {
                let names: Vec<&str> = Row::ALL.iter().map(|row| row.name()).collect();
                report::line(&serde_json::json!(names));
            }
        }
        Ok(true)
    }
}
