//! Finding the place to go on from in an audit folder, after a clean end or a crash.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use moat_types::Clock;

use super::line::{self, Head, LineKind, LineProblem};
use super::verify::Located;
use super::{Anchor, AuditConfig, AuditError, CheckpointSigner, files};

/// Where the writer goes on.
pub(super) struct Place {
    /// The file to append to and its length; `None` if a first file has to be begun.
    pub(super) file: Option<(PathBuf, u64)>,
    pub(super) head: Head,
    /// What to note first.
    pub(super) notes: Vec<String>,
    /// Keeps other processes out.
    pub(super) lock: fs::File,
}

/// What is read of the end of a file at first: more than the lines between two checkpoints.
const TAIL_BYTES: u64 = 1 << 20;
/// By how much more is read when that holds no checkpoint.
const TAIL_GROWTH: u64 = 8;

/// The end of a file, from the beginning of some line on.
struct Tail {
    /// Where it begins.
    offset: u64,
    bytes: Vec<u8>,
}

impl Tail {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// Reads the end of the last file, checks it from its last checkpoint on, and sets a torn end
/// aside. Not the whole file: a start would take its time and its memory.
pub(super) fn open(
    config: &AuditConfig,
    signer: &CheckpointSigner,
    clock: &dyn Clock,
    anchor: Option<Anchor>,
) -> Result<Place, AuditError> {
    let folder = &config.folder;
    fs::create_dir_all(folder).map_err(|e| AuditError::io(folder, e))?;
    let lock = files::lock(folder).map_err(|e| AuditError::io(folder, e))?;
    let lock = lock.ok_or_else(|| AuditError::InUse {
        folder: folder.clone(),
    })?;
    let mut notes = Vec::new();
    let mut files = files::list(folder).map_err(|e| AuditError::io(folder, e))?;
    while let Some(path) = files.pop() {
        let mut tail = read_tail(&path).map_err(|e| AuditError::io(&path, e))?;
        if let Some(note) = set_torn_end_aside(&path, &mut tail, clock)? {
            notes.push(note);
        }
        if tail.end() == 0 {
            // A file that a crash kept from getting its first line.
            fs::remove_file(&path).map_err(|e| AuditError::io(&path, e))?;
            continue;
        }
        let (head, checkpoint) = check_from_last_checkpoint(&path, &tail, signer)?;
        check_anchor(&path, head, checkpoint, anchor)?;
        notes.push("the audit was opened".into());
        return Ok(Place {
            file: Some((path, tail.end())),
            head,
            notes,
            lock,
        });
    }
    notes.push("the audit begins".into());
    if let Some(anchor) = anchor {
        let hash = hex::encode(anchor.hash);
        notes.push(format!(
            "an earlier chain, which is not in this folder, had a checkpoint at line {} with hash {hash}",
            anchor.seq
        ));
    }
    Ok(Place {
        file: None,
        head: Head::START,
        notes,
        lock,
    })
}

/// Reads as much of a file's end as holds a checkpoint, or all of it.
fn read_tail(path: &Path) -> io::Result<Tail> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    let mut wanted = TAIL_BYTES;
    loop {
        let mut offset = length.saturating_sub(wanted);
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        if offset == 0 {
            return Ok(Tail { offset, bytes });
        }
        // The first line is cut, unless it happens to begin here.
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            bytes.drain(..=end);
            offset += end as u64 + 1;
            if bytes.rsplit(|byte| *byte == b'\n').any(is_checkpoint) {
                return Ok(Tail { offset, bytes });
            }
        }
        wanted = wanted.saturating_mul(TAIL_GROWTH);
    }
}

fn is_checkpoint(text: &[u8]) -> bool {
    line::read_line(text).is_ok_and(|(line, _)| line.kind == LineKind::Checkpoint)
}

/// How many lines a file has before `offset`: only a damaged one is looked at so.
fn lines_before(path: &Path, offset: u64) -> u64 {
    let Ok(file) = fs::File::open(path) else {
        return 0;
    };
    let mut reader = BufReader::new(file.take(offset));
    let mut lines = 0;
    while reader.skip_until(b'\n').is_ok_and(|read| read > 0) {
        lines += 1;
    }
    lines
}

/// Cuts an end without a line end off `tail` and the file, and keeps it in a file beside.
fn set_torn_end_aside(
    path: &Path,
    tail: &mut Tail,
    clock: &dyn Clock,
) -> Result<Option<String>, AuditError> {
    let whole = tail
        .bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    if whole == tail.bytes.len() {
        return Ok(None);
    }
    let torn = tail.bytes.split_off(whole);
    let mut aside = path.to_owned();
    aside.set_extension(format!("torn-{}", clock.now().0));
    fs::write(&aside, &torn).map_err(|e| AuditError::io(&aside, e))?;
    let mut file = files::open_append(path).map_err(|e| AuditError::io(path, e))?;
    file.truncate(tail.end())
        .and_then(|()| file.sync())
        .map_err(|e| AuditError::io(path, e))?;
    let name = aside.file_name().unwrap_or_default().to_string_lossy();
    Ok(Some(format!(
        "a torn line of {} bytes at the end was set aside in {name}",
        torn.len()
    )))
}

fn check_from_last_checkpoint(
    path: &Path,
    tail: &Tail,
    signer: &CheckpointSigner,
) -> Result<(Head, Anchor), AuditError> {
    let damaged = |line: u64, problem: LineProblem| AuditError::Damaged {
        problem: Located {
            file: path.to_owned(),
            line: lines_before(path, tail.offset) + line,
            problem,
        },
    };
    let whole = tail.bytes.strip_suffix(b"\n").unwrap_or(&tail.bytes);
    let lines: Vec<&[u8]> = whole.split(|b| *b == b'\n').collect();
    let number = |at: usize| at as u64 + 1;
    let at = lines
        .iter()
        .rposition(|text| is_checkpoint(text))
        .ok_or_else(|| damaged(1, LineProblem::Malformed))?;
    let (first, hash) = line::read_line(lines[at]).map_err(|p| damaged(number(at), p))?;
    let mut prev = line::GENESIS;
    hex::decode_to_slice(&first.prev, &mut prev)
        .map_err(|_| damaged(number(at), LineProblem::Malformed))?;
    line::check_signature(&first, &prev, Some(&signer.public_key()))
        .map_err(|p| damaged(number(at), p))?;
    let checkpoint = Anchor {
        seq: first.seq,
        hash,
    };
    let mut head = Head {
        seq: first.seq,
        hash,
    };
    for (index, text) in lines.iter().enumerate().skip(at + 1) {
        head.follow(text).map_err(|p| damaged(number(index), p))?;
    }
    Ok((head, checkpoint))
}

fn check_anchor(
    path: &Path,
    head: Head,
    checkpoint: Anchor,
    anchor: Option<Anchor>,
) -> Result<(), AuditError> {
    let Some(anchor) = anchor else { return Ok(()) };
    let problem = if checkpoint.seq < anchor.seq {
        LineProblem::Truncated {
            expected: anchor.seq,
            found: head.seq,
        }
    } else if checkpoint.seq == anchor.seq && checkpoint.hash != anchor.hash {
        LineProblem::Replaced { seq: anchor.seq }
    } else {
        return Ok(());
    };
    Err(AuditError::Damaged {
        problem: Located {
            file: path.to_owned(),
            line: 0,
            problem,
        },
    })
}
