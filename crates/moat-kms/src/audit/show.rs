//! Reading the audit, while it is being written or later.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use moat_types::UnixMillis;

use super::line::{AuditLine, LineKind};
use super::{AuditError, files};

/// Which lines to show. What is `None` is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Operations on this KMS key.
    pub key: Option<String>,
    /// Operations of this identity.
    pub identity: Option<String>,
    /// This operation, as policies name it, in any case.
    pub operation: Option<String>,
    /// Operations in this enclave.
    pub enclave: Option<String>,
    /// Lines from then on.
    pub since: Option<UnixMillis>,
    /// Notes and checkpoints as well.
    pub all_kinds: bool,
}

impl Filter {
    /// Whether `line` is to be shown.
    pub fn matches(&self, line: &AuditLine) -> bool {
        let same =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let operation = |wanted: &str| {
            let found = line.operation.as_deref();
            found.is_some_and(|found| found.eq_ignore_ascii_case(wanted))
        };
        (self.all_kinds || line.kind == LineKind::Operation)
            && same(&self.key, &line.key)
            && same(&self.identity, &line.identity)
            && same(&self.enclave, &line.enclave)
            && self.operation.as_deref().is_none_or(operation)
            && self.since.is_none_or(|since| is_since(line, since))
    }
}

fn is_since(line: &AuditLine, since: UnixMillis) -> bool {
    let time = line.time.parse::<jiff::Timestamp>();
    time.is_ok_and(|time| time.as_millisecond() >= since.0)
}

/// The lines of an audit folder that pass `filter`, oldest first. Does not check the chain; a
/// line that is no JSON is an error of its own, and reading goes on behind it.
///
/// # Errors
/// `AuditError::Io` if the folder can't be read.
pub fn show(folder: &Path, filter: Filter) -> Result<Lines, AuditError> {
    let files = files::list(folder).map_err(|e| AuditError::io(folder, e))?;
    Ok(Lines {
        files: files.into(),
        reader: None,
        filter,
    })
}

/// The last `count` lines that pass `filter`, oldest first.
///
/// # Errors
/// `AuditError::Io` if a file can't be read.
pub fn tail(folder: &Path, filter: &Filter, count: usize) -> Result<Vec<AuditLine>, AuditError> {
    let mut files = files::list(folder).map_err(|e| AuditError::io(folder, e))?;
    let mut found: Vec<AuditLine> = Vec::new();
    while found.len() < count
        && let Some(path) = files.pop()
    {
        let lines = Lines {
            files: VecDeque::from([path]),
            reader: None,
            filter: filter.clone(),
        };
        let mut last = VecDeque::with_capacity(count);
        for line in lines {
            if last.len() == count {
                last.pop_front();
            }
            last.push_back(line?);
        }
        let mut last: Vec<AuditLine> = last.into();
        last.append(&mut found);
        found = last;
    }
    let surplus = found.len().saturating_sub(count);
    Ok(found.split_off(surplus))
}

/// Lines behind a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesAfter {
    /// Those that pass the filter, oldest first.
    pub lines: Vec<AuditLine>,
    /// The number of the last line that was looked at: where to go on.
    pub last_seq: u64,
}

/// The first `count` lines behind number `seq` that pass `filter`, oldest first. Looks at a limited
/// number of lines, so it may find none and still have moved on.
///
/// # Errors
/// `AuditError::Io` if a file can't be read.
pub fn after(
    folder: &Path,
    filter: &Filter,
    seq: u64,
    count: usize,
) -> Result<LinesAfter, AuditError> {
    /// About what one file holds.
    const LOOKED_AT_MAX: u64 = 100_000;
    let files = files::list(folder).map_err(|e| AuditError::io(folder, e))?;
    // Every file begins with the line that its name tells; all before the last one that begins at
    // or before the wanted line hold older lines only.
    let begins_later = |path: &PathBuf| files::first_seq(path) > Some(seq.saturating_add(1));
    let from = files.partition_point(|path| !begins_later(path)).max(1) - 1;
    let mut everything = Lines {
        files: files.into_iter().skip(from).collect(),
        reader: None,
        filter: Filter {
            all_kinds: true,
            ..Filter::default()
        },
    };
    let mut found = LinesAfter {
        lines: Vec::new(),
        last_seq: seq,
    };
    let mut looked_at = 0;
    while looked_at < LOOKED_AT_MAX
        && found.lines.len() < count
        && let Some(line) = everything.next()
    {
        let line = line?;
        if line.seq <= seq {
            continue;
        }
        looked_at += 1;
        found.last_seq = line.seq;
        if filter.matches(&line) {
            found.lines.push(line);
        }
    }
    Ok(found)
}

/// Lines of an audit, read as they are asked for.
#[derive(Debug)]
pub struct Lines {
    files: VecDeque<PathBuf>,
    reader: Option<(PathBuf, BufReader<File>)>,
    filter: Filter,
}

impl Lines {
    /// The next whole line of text, and the file that it stands in.
    fn next_text(&mut self) -> Result<Option<(PathBuf, Vec<u8>)>, AuditError> {
        loop {
            if self.reader.is_none() {
                let Some(path) = self.files.pop_front() else {
                    return Ok(None);
                };
                let file = File::open(&path).map_err(|e| AuditError::io(&path, e))?;
                self.reader = Some((path, BufReader::new(file)));
            }
            let Some((path, reader)) = &mut self.reader else {
                continue;
            };
            let mut text = Vec::new();
            reader
                .read_until(b'\n', &mut text)
                .map_err(|e| AuditError::io(path, e))?;
            if text.pop() == Some(b'\n') {
                return Ok(Some((path.clone(), text)));
            }
            // The end of the file, or a line that is being written.
            self.reader = None;
        }
    }
}

impl Iterator for Lines {
    type Item = Result<AuditLine, AuditError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (path, text) = match self.next_text() {
                Ok(Some(found)) => found,
                Ok(None) => return None,
                Err(e) => {
                    self.reader = None;
                    return Some(Err(e));
                }
            };
            match serde_json::from_slice::<AuditLine>(&text) {
                Ok(line) if self.filter.matches(&line) => return Some(Ok(line)),
                Ok(_) => {}
                Err(e) => return Some(Err(AuditError::io(&path, e.into()))),
            }
        }
    }
}
