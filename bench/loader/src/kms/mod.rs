//! Load on a key manager: data keys made and opened, one by one or in batches, over kept
//! connections with a client certificate.

mod drive;
mod request;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};

pub(crate) use drive::run;

/// What is asked, of whom, and for how long.
#[derive(Debug, Args)]
pub(crate) struct KmsArgs {
    /// The protocol
    #[arg(value_name = "WIRE")]
    pub(crate) wire: Wire,
    /// The operation
    #[arg(value_name = "OPERATION")]
    pub(crate) operation: Operation,
    /// Address of the key manager, HTTPS
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7373")]
    pub(crate) server: std::net::SocketAddr,
    /// The CA that its certificate must come from, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: PathBuf,
    /// File with the API key, in the form of MinKMS or KES
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: PathBuf,
    /// The enclave; KES has none
    #[arg(long, value_name = "NAME", default_value = "moat")]
    pub(crate) enclave: String,
    /// The keys, which must exist; connections take them in turn
    #[arg(long = "key", value_name = "NAME", required = true)]
    pub(crate) keys: Vec<String>,
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) connections: usize,
    /// Operations of one request; KES has no batches
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) batch: usize,
    /// For how long to send requests; those in flight are waited for
    #[arg(long, value_name = "S", default_value = "3", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// A process of the key manager, whose CPU and memory count; may be repeated
    #[arg(long, value_name = "PID")]
    pub(crate) pid: Vec<u32>,
}

/// A protocol of the key manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Wire {
    Native,
    Minkms,
    Kes,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Operation {
    Generate,
    Decrypt,
}

/// Reads a number of seconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}
