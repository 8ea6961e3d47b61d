//! Runs a load on a key manager.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use moat_kms_client::ApiKey;
use moat_types::{SystemClock, SystemRandom};
use serde_json::{Value, json};

use super::request::{self, Prepared};
use super::{KmsArgs, Operation, Wire};
use crate::load;
use crate::report::{millis, quantile};
use crate::request::{roots, tls_builder};
use crate::wire::{Connection, Keep};

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
    let mut clients = Vec::with_capacity(args.connections);
    for number in 0..args.connections {
        let (connection, prepared) = prepare(&args, &tls, number).await?;
        clients.push(Client {
            args: Arc::clone(&args),
            connection,
            prepared,
        });
    }
    let measured = load::run(clients, args.seconds, &args.pid, Duration::ZERO).await?;
    let operations = measured.latencies.len() * args.batch;
    let per_operation =
        |time: Duration| (operations > 0).then(|| time.as_secs_f64() * 1e3 / operations as f64);
    let figures = json!({
        "wire": format!("{:?}", args.wire).to_lowercase(),
        "operation": format!("{:?}", args.operation).to_lowercase(),
        "connections": args.connections,
        "batch": args.batch,
        "operations": operations,
        "errors": measured.errors,
        "first_error": measured.first_error,
        "rate": operations as f64 / measured.elapsed.as_secs_f64(),
        "cpu_ms": per_operation(measured.server_cpu),
        "loader_cpu_ms": per_operation(measured.loader_cpu),
        "p50_ms": quantile(&measured.latencies, 0.50).map(millis),
        "p99_ms": quantile(&measured.latencies, 0.99).map(millis),
        "resident_mib": measured.resident_bytes as f64 / f64::from(1 << 20),
    });
    Ok((figures, measured.errors == 0))
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

struct Client {
    args: Arc<KmsArgs>,
    connection: Connection,
    prepared: Prepared,
}

impl load::Client for Client {
    async fn step(&mut self) -> Result<()> {
        let Prepared { head, body } = &self.prepared;
        let answer = self.connection.exchange(head, body, Keep::Count).await?;
        request::check(&self.args, &answer)
    }
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
