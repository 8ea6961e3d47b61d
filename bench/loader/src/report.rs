//! What the loader prints: one line of JSON on standard output, complaints on standard error.

use std::time::Duration;

use serde_json::{Value, json};

use crate::drive::Figures;
use crate::rows::Unit;

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;

/// Prints a result.
#[allow(clippy::print_stdout, reason = "this is the program's output")]
pub(crate) fn line(value: &Value) {
    println!("{value}");
}

/// Prints an error with its causes.
#[allow(clippy::print_stderr, reason = "this is the program's complaint")]
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("moat-loader: {error:#}");
}

/// The figures of a row. `cpu` is the server's, per unit: milliseconds per operation or key,
/// seconds per GiB. `rate` counts operations, MiB or keys per second.
pub(crate) fn figures(figures: &Figures) -> Value {
    let measured = &figures.measured;
    let operations = measured.latencies.len();
    let seconds = measured.elapsed.as_secs_f64();
    let (units, cpu_unit, rate_unit, cpu_scale) = match figures.row.unit() {
        Unit::Operation => (operations as f64, "ms/op", "op/s", 1e3),
        Unit::Bytes(bytes) => (
            operations as f64 * bytes as f64 / MIB,
            "s/GiB",
            "MiB/s",
            GIB / MIB,
        ),
        Unit::Keys(keys) => (operations as f64 * keys as f64, "ms/key", "key/s", 1e3),
    };
    let per_unit = |time: Duration| (units > 0.0).then(|| time.as_secs_f64() / units * cpu_scale);
    json!({
        "row": figures.row.name(),
        "connections": figures.row.connections(),
        "operations": operations,
        "errors": measured.errors,
        "first_error": measured.first_error,
        "seconds": seconds,
        "rate": units / seconds,
        "rate_unit": rate_unit,
        "cpu": per_unit(measured.server_cpu),
        "cpu_unit": cpu_unit,
        "loader_cpu": per_unit(measured.loader_cpu),
        "server_cpu_seconds": measured.server_cpu.as_secs_f64(),
        "p50_ms": quantile(&measured.latencies, 0.50).map(millis),
        "p99_ms": quantile(&measured.latencies, 0.99).map(millis),
        "max_ms": measured.latencies.last().copied().map(millis),
    })
}

/// The smallest latency that is not passed by the share `q` of all.
pub(crate) fn quantile(sorted: &[Duration], q: f64) -> Option<Duration> {
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

/// Milliseconds.
pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Measured;
    use crate::rows::Row;

    fn millis_of(values: &[u64]) -> Vec<Duration> {
        values.iter().map(|&ms| Duration::from_millis(ms)).collect()
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let hundred: Vec<u64> = (1..=100).collect();
        let sorted = millis_of(&hundred);
        assert_eq!(quantile(&sorted, 0.5), Some(Duration::from_millis(50)));
        assert_eq!(quantile(&sorted, 0.99), Some(Duration::from_millis(99)));
        assert_eq!(quantile(&sorted[..1], 0.99), Some(Duration::from_millis(1)));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn bytes_are_told_in_mib_per_second_and_cpu_seconds_per_gib() {
        let value = figures(&Figures {
            row: Row::GetBig,
            measured: Measured {
                elapsed: Duration::from_secs(2),
                latencies: millis_of(&[1; 32]),
                errors: 0,
                first_error: None,
                server_cpu: Duration::from_secs(3),
                loader_cpu: Duration::from_secs(1),
                resident_bytes: 0,
            },
        });
        // 32 objects of 64 MiB are 2 GiB.
        assert_eq!(
            (&value["rate"], &value["rate_unit"]),
            (&json!(1024.0), &json!("MiB/s"))
        );
        assert_eq!(
            (&value["cpu"], &value["cpu_unit"]),
            (&json!(1.5), &json!("s/GiB"))
        );
    }
}
