//! What is said before something is taken away, and the question behind it.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Result, bail};
use moat_kms_client::AuditOptions;
use moat_types::KeyName;

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

/// What a key guards, as far as the key manager knows: it has never seen an object, but each bucket
/// whose epoch keys it wrapped stands in its audit.
pub(crate) async fn guards(connection: &Connection, name: &KeyName) -> String {
    let asked = |operation: Option<&str>, limit| AuditOptions {
        limit,
        key: Some(name.to_string()),
        operation: operation.map(str::to_owned),
        enclave: Some(connection.enclave.to_string()),
        ..AuditOptions::default()
    };
    let leases = connection
        .client
        .audit(&asked(Some("EPOCH:GENERATE"), LINES_MAX))
        .await;
    let uses = connection.client.audit(&asked(None, LINES_MAX)).await;
    let (Ok(leases), Ok(uses)) = (leases, uses) else {
        return format!(
            "What {name} guards is not known to this identity, which may not read the audit."
        );
    };
    let allowed = leases.lines.iter().filter(|l| l["outcome"] == "allowed");
    let (mut epochs, mut buckets) = (BTreeSet::new(), BTreeSet::new());
    for line in allowed {
        epochs.insert(line["epoch"].as_str().unwrap_or_default());
        buckets.insert(line["bucket"].as_str().unwrap_or_default());
    }
    let use_of = |line: &&serde_json::Value| {
        let operation = line["operation"].as_str().unwrap_or_default();
        let used = ["KEY:GENERATE", "KEY:ENCRYPT", "KEY:DECRYPT", "KEY:MAC"];
        line["outcome"] == "allowed"
            && (operation.starts_with("EPOCH:") || used.contains(&operation))
    };
    let last = uses.lines.iter().rev().find(use_of);
    let last = last.and_then(|line| line["time"].as_str());
    let last = match last {
        Some(time) => format!("It was last used {time}."),
        None => format!("None of the last {LINES_MAX} lines of the audit about it is a use."),
    };
    let full = leases.lines.len() >= LINES_MAX as usize;
    let wraps = match (buckets.len(), epochs.len()) {
        (0, _) => format!("By the audit, {name} wraps no epoch key of a bucket."),
        (_, count) => format!(
            "By the audit, {name} wraps {count}{} epoch keys of the buckets {}; every object that was written under them \
             depends on it.",
            if full { " or more" } else { "" },
            buckets.into_iter().collect::<Vec<_>>().join(", "),
        ),
    };
    format!("{wraps} {last}")
}
