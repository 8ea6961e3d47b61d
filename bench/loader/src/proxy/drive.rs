//! Runs a load on a proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::RunArgs;
use crate::load;
use crate::report::{millis, quantile};
use crate::request::{roots, tls_builder};
use crate::wire::{Connection, Keep};

/// Proxies close and log behind an answer; what they do in this time is still counted.
const AFTERMATH: Duration = Duration::from_millis(100);

/// The request that is repeated.
struct Repeated {
    head: Vec<u8>,
    body: Vec<u8>,
    answer_bytes: u64,
}

/// Runs the load and gives its figures.
///
/// # Errors
/// If nothing could be measured.
pub(crate) async fn run(args: RunArgs) -> Result<(Value, bool)> {
    let repeated = Arc::new(repeated(&args));
    let tls = (!args.plain).then(|| tls_config(&args.ca)).transpose()?;
    let mut idle = Vec::with_capacity(args.idle);
    for _ in 0..args.idle {
        idle.push(warm(args.server, tls.as_ref(), &repeated).await?);
    }
    let mut ready = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        ready.push(warm(args.server, tls.as_ref(), &repeated).await?);
    }
    let ready = all_at_once(ready, &repeated).await?;
    let clients = ready.into_iter().map(|connection| Client {
        connection,
        repeated: Arc::clone(&repeated),
    });
    let measured = load::run(clients.collect(), args.seconds, &args.pid, AFTERMATH).await?;
    let (elapsed, server_cpu) = (measured.elapsed, measured.server_cpu);
    let requests = measured.latencies.len() as f64;
    let gib = requests * args.bytes as f64 / (1_u64 << 30) as f64;
    let figures = json!({
        "requests": measured.latencies.len(),
        "errors": measured.errors,
        "first_error": measured.first_error,
        "rate": requests / elapsed.as_secs_f64(),
        "mib_per_second": gib * 1024.0 / elapsed.as_secs_f64(),
        "cpu_ms": (requests > 0.0).then(|| server_cpu.as_secs_f64() * 1e3 / requests),
        "cpu_s_per_gib": (gib > 0.0).then(|| server_cpu.as_secs_f64() / gib),
        "requests_per_cpu_second": (!server_cpu.is_zero()).then(|| requests / server_cpu.as_secs_f64()),
        "loader_cpu_ms": (requests > 0.0).then(|| measured.loader_cpu.as_secs_f64() * 1e3 / requests),
        "p50_ms": quantile(&measured.latencies, 0.50).map(millis),
        "p99_ms": quantile(&measured.latencies, 0.99).map(millis),
        "resident_mib": measured.resident_bytes as f64 / f64::from(1 << 20),
    });
    Ok((figures, measured.errors == 0))
}

/// Headers as an SDK sends them, so that a proxy has something to parse.
fn repeated(args: &RunArgs) -> Repeated {
    let (method, path, length) = if args.upload {
        ("PUT", 0, format!("content-length: {}\r\n", args.bytes))
    } else {
        ("GET", args.bytes, String::new())
    };
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nhost: {server}\r\nuser-agent: aws-sdk-java/2.29 bench\r\n\
         accept: */*\r\namz-sdk-invocation-id: 6f7ad4d5-43c9-4c4a-9b1b-3d1f0a1f6d0f\r\n\
         authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1/s3/aws4_request, \
         SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7\r\n\
         x-amz-content-sha256: UNSIGNED-PAYLOAD\r\nx-amz-date: 20261121T120000Z\r\n{length}\r\n",
        server = args.server
    );
    let body = usize::try_from(args.bytes).unwrap_or(usize::MAX);
    Repeated {
        head: head.into_bytes(),
        body: if args.upload {
            vec![b'p'; body]
        } else {
            Vec::new()
        },
        answer_bytes: path,
    }
}

fn tls_config(ca: &Path) -> Result<Arc<rustls::ClientConfig>> {
    Ok(Arc::new(tls_builder(roots(ca)?)?.with_no_client_auth()))
}

/// A connection that has served one request.
async fn warm(
    server: SocketAddr,
    tls: Option<&Arc<rustls::ClientConfig>>,
    repeated: &Repeated,
) -> Result<Connection> {
    let mut connection = match tls {
        Some(tls) => Connection::open(server, Arc::clone(tls)).await?,
        None => Connection::open_plain(server).await?,
    };
    exchange(&mut connection, repeated)
        .await
        .context("the first request")?;
    Ok(connection)
}

/// One request on all connections together: so many connections does the proxy need to its upstream,
/// and making them is not what is measured.
async fn all_at_once(ready: Vec<Connection>, repeated: &Arc<Repeated>) -> Result<Vec<Connection>> {
    let mut tasks = JoinSet::new();
    for mut connection in ready {
        let repeated = Arc::clone(repeated);
        tasks.spawn(async move {
            let outcome = exchange(&mut connection, &repeated).await;
            outcome.map(|()| connection)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn exchange(connection: &mut Connection, repeated: &Repeated) -> Result<()> {
    let answer = connection
        .exchange(&repeated.head, &repeated.body, Keep::Count)
        .await?;
    ensure!(answer.status == 200, "status {}", answer.status);
    ensure!(
        answer.body_bytes == repeated.answer_bytes,
        "{} bytes instead of {}",
        answer.body_bytes,
        repeated.answer_bytes
    );
    Ok(())
}

struct Client {
    connection: Connection,
    repeated: Arc<Repeated>,
}

impl load::Client for Client {
    async fn step(&mut self) -> Result<()> {
        exchange(&mut self.connection, &self.repeated).await
    }
}
