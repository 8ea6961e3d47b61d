//! Runs a load: all connections first, then the clock, then requests until the time is over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use moat_kms_client::ApiKey;
use moat_types::{SystemClock, SystemRandom};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::request::{self, Prepared};
use super::{KmsArgs, Operation, Wire};
use crate::report::{millis, quantile};
use crate::request::{roots, tls_builder};
use crate::usage::{cpu_of, resident_bytes_of};
use crate::wire::{Connection, Keep};

/// One broken connection is enough to fail a load.
const ERRORS_MAX: usize = 3;

/// Runs the load and gives its figures.
///
/// # Errors
/// If nothing could be measured.
pub(crate) async fn run(args: KmsArgs) -> Result<(Value, bool)> {
    ensure!(
        args.wire != Wire::Kes || args.batch == 1,
        "KES has no batches"
    );
    let tls = tls_config(&args)?;
    let args = Arc::new(args);
    let mut ready = Vec::with_capacity(args.connections);
    for number in 0..args.connections {
        ready.push(prepare(&args, &tls, number).await?);
    }
    let (server_before, loader_before) = (cpu_of(&args.pid)?, cpu_of(&[std::process::id()])?);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (connection, prepared) in ready {
        let deadline = start + args.seconds;
        tasks.spawn(until(deadline, Arc::clone(&args), connection, prepared));
    }
    let outcomes = tasks.join_all().await;
    let elapsed = start.elapsed();
    let server_cpu = cpu_of(&args.pid)?.saturating_sub(server_before);
    let loader_cpu = cpu_of(&[std::process::id()])?.saturating_sub(loader_before);

    let mut latencies = Vec::new();
    let (mut errors, mut first_error) = (0, None);
    for outcome in outcomes {
        latencies.extend(outcome.latencies);
        errors += outcome.errors;
        first_error = first_error.or(outcome.first_error);
    }
    latencies.sort_unstable();
    let operations = latencies.len() * args.batch;
    let per_operation =
        |time: Duration| (operations > 0).then(|| time.as_secs_f64() * 1e3 / operations as f64);
    let figures = json!({
        "wire": format!("{:?}", args.wire).to_lowercase(),
        "operation": format!("{:?}", args.operation).to_lowercase(),
        "connections": args.connections,
        "batch": args.batch,
        "operations": operations,
        "errors": errors,
        "first_error": first_error,
        "rate": operations as f64 / elapsed.as_secs_f64(),
        "cpu_ms": per_operation(server_cpu),
        "loader_cpu_ms": per_operation(loader_cpu),
        "p50_ms": quantile(&latencies, 0.50).map(millis),
        "p99_ms": quantile(&latencies, 0.99).map(millis),
        "resident_mib": resident_bytes_of(&args.pid)? as f64 / f64::from(1 << 20),
    });
    Ok((figures, errors == 0))
}

/// A connection and the request that it will repeat; both have worked once.
async fn prepare(
    args: &KmsArgs,
    tls: &Arc<rustls::ClientConfig>,
    number: usize,
) -> Result<(Connection, Prepared)> {
    let key = &args.keys[number % args.keys.len()];
    let mut connection = Connection::open(args.server, Arc::clone(tls)).await?;
    let generate = request::generate(args, key);
    let answer = connection
        .exchange(&generate.head, &generate.body, Keep::All)
        .await?;
    let ciphertext = request::ciphertext(args, &answer)?;
    let prepared = match args.operation {
        Operation::Generate => generate,
        Operation::Decrypt => request::decrypt(args, key, &ciphertext),
    };
    let answer = connection
        .exchange(&prepared.head, &prepared.body, Keep::All)
        .await?;
    request::check(args, &answer)?;
    Ok((connection, prepared))
}

#[derive(Default)]
struct Outcome {
    latencies: Vec<Duration>,
    errors: usize,
    first_error: Option<String>,
}

async fn until(
    deadline: Instant,
    args: Arc<KmsArgs>,
    mut connection: Connection,
    prepared: Prepared,
) -> Outcome {
    let mut outcome = Outcome::default();
    while Instant::now() < deadline && outcome.errors < ERRORS_MAX {
        let start = Instant::now();
        let answer = connection
            .exchange(&prepared.head, &prepared.body, Keep::Count)
            .await;
        match answer.and_then(|answer| request::check(&args, &answer)) {
            Ok(()) => outcome.latencies.push(start.elapsed()),
            Err(error) => {
                outcome.errors = ERRORS_MAX;
                outcome.first_error = Some(format!("{error:#}"));
            }
        }
    }
    outcome
}

fn tls_config(args: &KmsArgs) -> Result<Arc<rustls::ClientConfig>> {
    let path = args.api_key_file.display();
    let text = std::fs::read_to_string(&args.api_key_file)
        .with_context(|| format!("reading the API key {path}"))?;
    let key = ApiKey::parse(&text).with_context(|| format!("the API key {path}"))?;
    let (certificate, key) = key.to_certificate(&SystemClock, &SystemRandom)?;
    let config = tls_builder(roots(&args.ca)?)?
        .with_client_auth_cert(vec![certificate], key)
        .context("the client certificate")?;
    Ok(Arc::new(config))
}
