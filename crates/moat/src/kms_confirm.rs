//! What is said before something is taken away, and the question behind it.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Result, bail};
use moat_kms_client::AuditOptions;
use moat_kms_client::wire::{Guarded, KeyInfo};
use moat_types::{Clock, KeyName, SystemClock};

use crate::kms::Connection;
use crate::print;

/// Lines of the audit that are looked at: as many as the key manager gives at once.
const LINES_MAX: u32 = 1000;

/// Says what happens, and asks unless told not to. Where nobody can answer, it is refused.
pub(crate) fn confirm(what: &str, question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{what} Give --yes to do it");
    }
    print::out(&format!("{what}\n{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(std::io::stdout().flush()?)
}

/// What a key guards: what stores counted, and what the audit knows beyond that.
pub(crate) async fn guards(connection: &Connection, key: &KeyInfo, name: &KeyName) -> String {
    let counted = counted(&key.name, &key.guards, SystemClock.now().0);
    let asked = |operation: Option<&str>| AuditOptions {
        limit: LINES_MAX,
        key: Some(name.to_string()),
        operation: operation.map(str::to_owned),
        enclave: Some(connection.enclave.to_string()),
        ..AuditOptions::default()
    };
    let epochs = asked(Some("EPOCH:GENERATE"));
    let leases = connection.client.audit(&epochs).await;
    let uses = connection.client.audit(&asked(None)).await;
    match (leases, uses) {
        (Ok(leases), Ok(uses)) => {
            let audited = audited(&key.guards, &leases.lines, &uses.lines);
            format!("{counted} {audited}")
        }
        _ => {
            format!("{counted} The audit, which may know more, can't be read by this identity.")
        }
    }
}

/// What stores counted, in a sentence. `now` is in milliseconds since 1970.
pub(crate) fn counted(name: &str, guards: &[Guarded], now: i64) -> String {
    let sum = |of: fn(&Guarded) -> u64| guards.iter().map(of).fold(0, u64::saturating_add);
    let oldest = guards
        .iter()
        .filter_map(|one| age(&one.counted_at, now))
        .max();
    let when = oldest.map_or_else(String::new, |seconds| format!(" {} ago", span(seconds)));
    let who = match guards.len() {
        0 => return format!("No store has told what {name} guards."),
        1 => format!("as its store counted{when}"),
        lakes => format!("as the stores of {lakes} lakes counted, the last of them{when}"),
    };
    format!(
        "{name} guards {} objects with {} in {} buckets, {who}.",
        sum(|one| one.objects),
        size(sum(|one| one.bytes)),
        sum(|one| one.buckets),
    )
}

/// What the newest lines of the audit tell: epoch keys that no count covers, data keys that other
/// clients took, and the last use.
fn audited(guards: &[Guarded], leases: &[serde_json::Value], uses: &[serde_json::Value]) -> String {
    let allowed = |line: &&serde_json::Value| line["outcome"] == "allowed";
    let text = |line: &serde_json::Value, name: &str| {
        let text = line[name].as_str().unwrap_or_default();
        text.to_owned()
    };
    let mut told = Vec::new();
    let epochs: BTreeSet<_> = leases
        .iter()
        .filter(allowed)
        .map(|l| text(l, "epoch"))
        .collect();
    if guards.is_empty() && !epochs.is_empty() {
        let buckets = leases.iter().filter(allowed).map(|l| text(l, "bucket"));
        let buckets: BTreeSet<_> = buckets.collect();
        told.push(format!(
            "By the audit, it wraps {}{} epoch keys of the buckets {}; every object that was written under them depends \
             on it.",
            epochs.len(),
            if leases.len() >= LINES_MAX as usize { " or more" } else { "" },
            buckets.into_iter().collect::<Vec<_>>().join(", "),
        ));
    }
    let is = |line: &serde_json::Value, names: &[&str]| {
        names.contains(&line["operation"].as_str().unwrap_or_default())
    };
    let data_keys = uses
        .iter()
        .filter(allowed)
        .filter(|l| is(l, &["KEY:GENERATE"]));
    let data_keys = data_keys.count();
    if data_keys > 0 {
        let since = uses.first().map(|line| text(line, "time"));
        told.push(format!(
            "{data_keys} data keys were handed out under it since {}; what they encrypt (the objects of a MinIO, say) is \
             not known here.",
            since.unwrap_or_default(),
        ));
    }
    let used = [
        "KEY:GENERATE",
        "KEY:ENCRYPT",
        "KEY:DECRYPT",
        "KEY:MAC",
        "EPOCH:GENERATE",
        "EPOCH:OPEN",
        "EPOCH:REWRAP",
    ];
    let last = uses.iter().rev().filter(allowed).find(|l| is(l, &used));
    told.push(match last {
        Some(line) => format!("It was last used {}.", text(line, "time")),
        None => format!("None of the last {LINES_MAX} lines of the audit about it is a use."),
    });
    told.join(" ")
}

/// Seconds from an RFC 3339 time to `now`; a clock that is behind makes it none.
fn age(time: &str, now: i64) -> Option<i64> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(((now - time.as_millisecond()) / 1000).max(0))
}

fn span(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut left = bytes as f64 / 1024.0;
    let mut unit = 0;
    while left >= 1024.0 && unit + 1 < UNITS.len() {
        left /= 1024.0;
        unit += 1;
    }
    format!("{left:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use moat_kms_client::Identity;
    use serde_json::json;

    use super::*;

    fn guarded(objects: u64, bytes: u64, counted_at: &str) -> Guarded {
        Guarded {
            lake: "00".repeat(16),
            buckets: 2,
            objects,
            bytes,
            counted_at: counted_at.into(),
            counted_by: Identity::from_spki_sha256([1; 32]),
        }
    }

    #[test]
    fn counts_of_several_lakes_are_summed_and_as_old_as_the_oldest() {
        let now = "2026-01-01T01:00:00Z".parse::<jiff::Timestamp>().unwrap();
        let now = now.as_millisecond();
        assert_eq!(counted("k", &[], now), "No store has told what k guards.");
        let one = guarded(1204, 3_650_722_202, "2026-01-01T00:59:48Z");
        assert_eq!(
            counted("k", std::slice::from_ref(&one), now),
            "k guards 1204 objects with 3.4 GiB in 2 buckets, as its store counted 12 s ago."
        );
        let two = guarded(0, 100, "2026-01-01T00:30:00Z");
        assert_eq!(
            counted("k", &[one, two], now),
            "k guards 1204 objects with 3.4 GiB in 4 buckets, as the stores of 2 lakes counted, the last of them 30 min \
             ago."
        );
        assert_eq!(
            (size(1023), size(u64::MAX)),
            ("1023 bytes".into(), "16384.0 PiB".into())
        );
    }

    #[test]
    fn the_audit_tells_what_no_store_counted() {
        let line = |operation: &str, outcome: &str| json!({"operation": operation, "outcome": outcome, "time": "T", "epoch": "e", "bucket": "b"});
        let lease = line("EPOCH:GENERATE", "allowed");
        let refused = line("EPOCH:GENERATE", "denied");
        let told = audited(&[], &[lease.clone(), refused.clone()], &[lease]);
        assert!(
            told.contains("wraps 1 epoch keys of the buckets b"),
            "{told}"
        );
        assert!(told.contains("last used T"), "{told}");
        let told = audited(
            &[guarded(1, 1, "")],
            &[],
            &[line("KEY:GENERATE", "allowed"), refused],
        );
        assert!(
            told.starts_with("1 data keys were handed out under it since T"),
            "{told}"
        );
        let told = audited(&[], &[], &[line("KEY:STATUS", "allowed")]);
        assert!(told.starts_with("None of the last"), "{told}");
    }
}
