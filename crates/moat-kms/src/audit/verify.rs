//! Proving an audit whole, from its files alone.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::line::{self, Head, LineKind, LineProblem};
use super::{Anchor, AuditError, files};

/// A problem, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file.
    pub file: PathBuf,
    /// The line in the file, from 1; 0 if the problem is with the file's end or absence.
    pub line: u64,
    /// What is wrong.
    pub problem: LineProblem,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.line {
            0 => write!(f, "{file}: {}", self.problem),
            line => write!(f, "{file}, line {line}: {}", self.problem),
        }
    }
}

impl std::error::Error for Located {}

/// What to hold the log against.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// The key that must have signed the checkpoints. Without it the log is only shown to be
    /// consistent with the key that stands in it.
    pub public_key: Option<[u8; 32]>,
    /// A checkpoint that must be in the log.
    pub anchor: Option<Anchor>,
}

impl Verification {
    /// What a running key manager says of its own log; `None` if it is malformed.
    pub fn from_wire(answer: &moat_kms_client::wire::Audit) -> Option<Self> {
        let anchor = match (answer.checkpoint_seq, &answer.checkpoint_hash) {
            (Some(seq), Some(hash)) => Some(Anchor {
                seq,
                hash: hash.0.as_slice().try_into().ok()?,
            }),
            _ => None,
        };
        Some(Self {
            public_key: Some(answer.public_key.0.as_slice().try_into().ok()?),
            anchor,
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Files read.
    pub files: u64,
    /// Lines that are good, checkpoints included.
    pub lines: u64,
    /// Checkpoints among them, each with a good signature.
    pub checkpoints: u64,
    /// Good lines behind the last checkpoint, which could be cut off unseen.
    pub unsigned: u64,
    /// The last checkpoint.
    pub last_checkpoint: Option<Anchor>,
    /// The key that signed the checkpoints.
    pub signer: Option<[u8; 32]>,
    /// Bytes behind the last line end of the last file: a line that is being written, or one that
    /// a crash tore.
    pub torn_bytes: u64,
    /// The first problem; everything before it is good.
    pub problem: Option<Located>,
}

impl Report {
    /// Whether no problem was found.
    pub const fn is_good(&self) -> bool {
        self.problem.is_none()
    }
}

/// Reads every file of an audit folder and checks each line, up to the first problem. May run
/// while the log is being written.
///
/// # Errors
/// `AuditError::Io` if a file can't be read. What is wrong with the log is in the report.
pub fn verify(folder: &Path, against: &Verification) -> Result<Report, AuditError> {
    let mut walk = Walk {
        against,
        head: Head::START,
        report: Report {
            files: 0,
            lines: 0,
            checkpoints: 0,
            unsigned: 0,
            last_checkpoint: None,
            signer: against.public_key,
            torn_bytes: 0,
            problem: None,
        },
    };
    let files = files::list(folder).map_err(|e| AuditError::io(folder, e))?;
    for (index, path) in files.iter().enumerate() {
        let last = index + 1 == files.len();
        if let Some(problem) = walk.file(path, last)? {
            walk.report.problem = Some(problem);
            return Ok(walk.report);
        }
        walk.report.files += 1;
    }
    if let Some(anchor) = against.anchor
        && walk.head.seq < anchor.seq
    {
        walk.report.problem = Some(Located {
            file: files.last().cloned().unwrap_or_else(|| folder.to_owned()),
            line: 0,
            problem: LineProblem::Truncated {
                expected: anchor.seq,
                found: walk.head.seq,
            },
        });
    }
    Ok(walk.report)
}

struct Walk<'a> {
    against: &'a Verification,
    head: Head,
    report: Report,
}

impl Walk<'_> {
    fn file(&mut self, path: &Path, last: bool) -> Result<Option<Located>, AuditError> {
        let located = |line, problem| {
            Some(Located {
                file: path.to_owned(),
                line,
                problem,
            })
        };
        let first = files::first_seq(path).unwrap_or_default();
        if self.head == Head::START && first > 1 {
            return Ok(located(0, LineProblem::Beheaded { found: first }));
        }
        if first != self.head.seq + 1 {
            let expected = self.head.seq + 1;
            let problem = LineProblem::Removed {
                expected,
                found: first,
            };
            return Ok(located(0, problem));
        }
        let file = fs::File::open(path).map_err(|e| AuditError::io(path, e))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let read = reader.read_until(b'\n', &mut text);
            if read.map_err(|e| AuditError::io(path, e))? == 0 {
                break;
            }
            if text.pop() != Some(b'\n') {
                if !last {
                    return Ok(located(number, LineProblem::Torn));
                }
                self.report.torn_bytes = text.len() as u64 + 1;
                break;
            }
            if let Err(problem) = self.line(&text) {
                return Ok(located(number, problem));
            }
        }
        Ok(None)
    }

    fn line(&mut self, text: &[u8]) -> Result<(), LineProblem> {
        let before = self.head;
        let line = self.head.follow(text)?;
        let here = Anchor {
            seq: self.head.seq,
            hash: self.head.hash,
        };
        if let Some(anchor) = self.against.anchor
            && anchor.seq == here.seq
            && anchor.hash != here.hash
        {
            return Err(LineProblem::Replaced { seq: here.seq });
        }
        if line.kind == LineKind::Checkpoint {
            let signer = self.report.signer;
            let signer = line::check_signature(&line, &before.hash, signer.as_ref())?;
            self.report.signer = Some(signer);
            self.report.checkpoints += 1;
            self.report.unsigned = 0;
            self.report.last_checkpoint = Some(here);
        } else {
            self.report.unsigned += 1;
        }
        self.report.lines += 1;
        Ok(())
    }
}
