//! `moat kms audit`: reading and proving the audit, where it lies or as the key manager tells it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use moat_kms::Command;
use moat_kms::audit::{self, Anchor, AuditLine, Filter, Verification};
use moat_kms_client::AuditOptions;
use moat_types::UnixMillis;
use serde::Serialize;

use crate::cli::{KmsAuditCommand, KmsClientArgs};
use crate::cli_kms::AuditFilterArgs;
use crate::kms::{connect, folder};
use crate::kms_identities::parse_identity;
use crate::{files, print};

impl AuditFilterArgs {
    fn into_filter(self) -> Result<Filter> {
        let since = self.since.map(|text| {
            let time: jiff::Timestamp = text.parse().with_context(|| {
                format!("--since {text:?} is no time: give one like 2026-01-31T12:00:00Z")
            })?;
            anyhow::Ok(UnixMillis(time.as_millisecond()))
        });
        let identity = self.identity.as_deref().map(parse_identity).transpose()?;
        let operation = self.operation.as_deref().map(operation).transpose()?;
        Ok(Filter {
            key: self.key,
            identity: identity.map(|identity| identity.to_string()),
            operation: operation.map(str::to_owned),
            enclave: self.of_enclave,
            since: since.transpose()?,
            ..Filter::default()
        })
    }
}

/// The text of an operation as the audit has it. One that there is none of is a mistake, and not an
/// audit without lines.
fn operation(text: &str) -> Result<&'static str> {
    match Command::parse(text) {
        Some(command) => Ok(command.as_str()),
        None => bail!("--operation {text:?} is none: give one like KEY:DECRYPT"),
    }
}

/// `moat kms audit ...`.
pub(crate) async fn audit(command: KmsAuditCommand) -> Result<ExitCode> {
    match command {
        KmsAuditCommand::Show {
            last,
            filter,
            data,
            json,
        } => {
            let filter = filter.into_filter()?;
            let lines = last_lines(&audit_folder(data)?, filter, last)?;
            show_audit(&lines, json)?;
            Ok(ExitCode::SUCCESS)
        }
        KmsAuditCommand::Follow { filter, client } => follow(&filter.into_filter()?, &client).await,
        KmsAuditCommand::Export {
            filter,
            after,
            out,
            data,
        } => export(filter.into_filter()?, after, out, data).await,
        KmsAuditCommand::Verify { data, json } => verify_audit(data, json).await,
    }
}

/// Up to this many lines are looked for from the end of the audit; for more, it is read from its
/// beginning, which needs memory for what is there and not for what was asked.
const TAIL_LINES_MAX: usize = 10_000;

/// The last `count` lines that pass, oldest first.
fn last_lines(folder: &Path, filter: Filter, count: usize) -> Result<Vec<AuditLine>> {
    if count <= TAIL_LINES_MAX {
        return Ok(audit::tail(folder, &filter, count)?);
    }
    let mut lines = audit::show(folder, filter)?.collect::<Result<Vec<_>, _>>()?;
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

/// Prints lines as they come, until it is interrupted.
async fn follow(filter: &Filter, args: &KmsClientArgs) -> Result<ExitCode> {
    /// Below the time that an answer may take.
    const WAIT_SECONDS: u32 = 5;
    if filter.since.is_some() {
        bail!(
            "following begins now: leave --since out, or look back with `moat kms audit show --since`"
        );
    }
    let client = connect(args)?.client;
    let newest = client.audit(&AuditOptions::default()).await?;
    let seq = |line: &serde_json::Value| line["seq"].as_u64();
    let mut after = newest.lines.last().and_then(seq).unwrap_or(0);
    loop {
        let page = client
            .audit(&AuditOptions {
                key: filter.key.clone(),
                identity: filter.identity.clone(),
                operation: filter.operation.clone(),
                enclave: filter.enclave.clone(),
                after: Some(after),
                wait_seconds: Some(WAIT_SECONDS),
                ..AuditOptions::default()
            })
            .await?;
        for value in page.lines {
            let text = if args.json {
                value.to_string()
            } else {
                audit_row(&serde_json::from_value(value)?).join("  ")
            };
            if !print::line(text.trim_end())? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        after = page.last_seq.unwrap_or(after);
    }
}

/// Writes lines as they stand in the audit, chain and all, to a file or standard output.
async fn export(
    filter: Filter,
    after: Option<u64>,
    out: Option<PathBuf>,
    data: Option<PathBuf>,
) -> Result<ExitCode> {
    let folder = audit_folder(data)?;
    let write = move || -> Result<u64> {
        let mut lines = audit::show(&folder, filter)?;
        let wanted = |line: &AuditLine| after.is_none_or(|after| line.seq > after);
        let Some(path) = out else {
            for line in lines.by_ref() {
                let line = line?;
                if wanted(&line) && !print::line(&serde_json::to_string(&line)?)? {
                    break;
                }
            }
            return Ok(0);
        };
        let file = files::create_new(&path)?;
        let mut file = std::io::BufWriter::new(file);
        let mut count = 0;
        for line in lines {
            let line = line?;
            if wanted(&line) {
                serde_json::to_writer(&mut file, &line)?;
                file.write_all(b"\n")?;
                count += 1;
            }
        }
        file.into_inner()?.sync_all()?;
        eprint_count(count, &path)?;
        Ok(count)
    };
    tokio::task::spawn_blocking(write).await??;
    Ok(ExitCode::SUCCESS)
}

fn eprint_count(count: u64, path: &Path) -> Result<()> {
    print::out(&format!("{count} lines are in {}\n", path.display()))
}

fn show_audit(lines: &[AuditLine], json: bool) -> Result<()> {
    if json {
        let texts: Vec<String> = lines
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        return print::out(
            &texts
                .iter()
                .map(|text| format!("{text}\n"))
                .collect::<String>(),
        );
    }
    let rows: Vec<Vec<String>> = lines.iter().map(audit_row).collect();
    print::out(&print::table(
        &[
            "time",
            "outcome",
            "operation",
            "about",
            "bucket",
            "identity",
            "source",
            "reason",
        ],
        &rows,
    ))
}

fn audit_row(line: &AuditLine) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    // The first characters tell identities apart; the whole stands in --json.
    let short = |text: &str| text.chars().take(15).collect::<String>();
    let about = match (&line.key, line.version, &line.subject) {
        (Some(key), Some(version), _) => format!("{key}@{version}"),
        (Some(key), None, _) => key.clone(),
        (None, _, Some(subject)) if subject.starts_with("h1:") => short(subject),
        (None, _, subject) => text(subject),
    };
    let identity = short(&text(&line.identity));
    vec![
        line.time.clone(),
        line.outcome.map_or("-", audit::Outcome::as_str).to_owned(),
        text(&line.operation),
        about,
        text(&line.bucket),
        identity,
        text(&line.source),
        line.reason.clone().unwrap_or_default(),
    ]
}

/// What `verify` prints as JSON.
#[derive(Serialize)]
struct Verified {
    good: bool,
    lines: u64,
    checkpoints: u64,
    unsigned_lines: u64,
    against_key_manager: bool,
    problem: Option<String>,
}

async fn verify_audit(data: Option<PathBuf>, json: bool) -> Result<ExitCode> {
    let folder = audit_folder(data.clone())?;
    // Asked before the files are read: what it knows of then must be in them.
    let against = known_to_key_manager(data).await;
    let known = against.is_some();
    let against = against.unwrap_or_default();
    let report = tokio::task::spawn_blocking(move || audit::verify(&folder, &against)).await??;
    let verified = Verified {
        good: report.is_good(),
        lines: report.lines,
        checkpoints: report.checkpoints,
        unsigned_lines: report.unsigned,
        against_key_manager: known,
        problem: report.problem.map(|problem| problem.to_string()),
    };
    if json {
        print::json(&serde_json::to_value(&verified)?)?;
    } else {
        print::out(&verified_text(&verified))?;
    }
    Ok(if verified.good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn verified_text(verified: &Verified) -> String {
    let mut text = format!(
        "{} lines and {} signed checkpoints form one chain; {} lines are newer than the last checkpoint\n",
        verified.lines, verified.checkpoints, verified.unsigned_lines
    );
    if let Some(problem) = &verified.problem {
        text = format!(
            "the audit is DAMAGED: {problem}; the {} lines before it are good\n",
            verified.lines
        );
    }
    if !verified.against_key_manager {
        text.push_str(
            "The key manager did not answer, so the chain was checked against the key that it names itself;\n\
             with the key manager running, its own key and last checkpoint are asked for as well.\n",
        );
    }
    text
}

/// The signing key and the last checkpoint, if the key manager answers.
async fn known_to_key_manager(data: Option<PathBuf>) -> Option<Verification> {
    let args = KmsClientArgs {
        data,
        endpoint: None,
        ca: None,
        api_key_file: None,
        enclave: "moat".to_owned(),
        json: false,
    };
    let client = connect(&args).ok()?.client;
    let known = client
        .audit(&AuditOptions {
            limit: 1,
            ..AuditOptions::default()
        })
        .await
        .ok()?;
    let hash = known
        .checkpoint_hash
        .and_then(|hash| hash.0.try_into().ok());
    Some(Verification {
        public_key: known.public_key.0.try_into().ok(),
        anchor: known
            .checkpoint_seq
            .zip(hash)
            .map(|(seq, hash)| Anchor { seq, hash }),
    })
}

fn audit_folder(data: Option<PathBuf>) -> Result<PathBuf> {
    let folder = folder(data).kms_audit();
    if !folder.exists() {
        bail!(
            "{} does not exist; name the key manager's data folder with --data",
            folder.display()
        );
    }
    Ok(folder)
}
