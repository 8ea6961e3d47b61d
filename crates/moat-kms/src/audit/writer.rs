//! The thread that writes the audit: takes what waits, writes it with one call, syncs once.
//!
//! A sync costs as much as several operations. So while the runtime is still at work on requests,
//! whose lines are about to come, the thread waits a little for them ([`Company`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use moat_types::Clock;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::company::Company;
use super::entry::Entries;
use super::files::{self, LogFile, OpenFile};
use super::line::{AuditLine, Head, LineKind};
use super::open::Place;
use super::waiting::{Done, Waiting};
use super::{Anchor, AuditConfig, AuditError, CheckpointSigner};

pub(super) enum Message {
    Lines {
        entries: Entries,
        done: Option<Done>,
        /// Given back when the lines are written.
        _room: OwnedSemaphorePermit,
    },
    Close {
        done: Done,
    },
}

/// Lines of one batch: enough for every caller that can wait at once, small enough to sync soon.
const BATCH_LINES_MAX: usize = 1024;
/// The room for the text of a batch that is kept for the next one: a batch of usual size fits, and
/// the largest ones of a moment are not kept for ever.
const TEXT_BYTES_KEPT: usize = 1 << 20;
/// Lines that nobody waits for are durable after this time at the latest.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Writer {
    config: AuditConfig,
    signer: CheckpointSigner,
    clock: Arc<dyn Clock>,
    open_file: OpenFile,
    anchors: watch::Sender<Option<Anchor>>,
    path: PathBuf,
    file: Box<dyn LogFile>,
    /// Bytes of the file that are known to be whole lines of the chain.
    len: u64,
    head: Head,
    /// The number of the last line, for those who follow the log.
    heads: watch::Sender<u64>,
    /// Lines since the last checkpoint, and when the first of them was written.
    unsigned: u64,
    unsigned_since: Option<Instant>,
    /// When the first line that is not synced was written.
    unsynced_since: Option<Instant>,
    /// Lines that nobody waited for and that could not be written.
    lost: u64,
    /// What the disk holds is not known any more.
    poisoned: Arc<AtomicBool>,
    company: Company,
    /// Whether several waited for the last batch.
    had_company: bool,
    waiting: Waiting,
    /// The text of a batch; kept, because to take as much memory anew each time costs a page fault
    /// for every six lines.
    text: Vec<u8>,
    _lock: std::fs::File,
}

impl Writer {
    pub(super) fn new(
        config: AuditConfig,
        signer: CheckpointSigner,
        clock: Arc<dyn Clock>,
        open_file: OpenFile,
        anchors: watch::Sender<Option<Anchor>>,
        place: Place,
    ) -> Result<Self, AuditError> {
        let (path, len) = place
            .file
            .unwrap_or_else(|| (files::path_of(&config.folder, 1), 0));
        let file = open_file(&path).map_err(|e| AuditError::io(&path, e))?;
        let mut writer = Self {
            config,
            signer,
            clock,
            open_file,
            anchors,
            path,
            file,
            len,
            head: place.head,
            heads: watch::channel(place.head.seq).0,
            unsigned: 0,
            unsigned_since: None,
            unsynced_since: None,
            lost: 0,
            poisoned: Arc::default(),
            company: Company::of_this_runtime(),
            had_company: false,
            waiting: Waiting::of_this_runtime(),
            text: Vec::new(),
            _lock: place.lock,
        };
        let notes = place.notes.into_iter().map(|text| writer.note_line(text));
        let notes: Vec<Entries> = notes.collect();
        // Every file begins with a checkpoint, and so does every opening: from here on the log is
        // known to have been continued by the holder of the key.
        let first = len == 0;
        writer.write(&[], first, false)?;
        writer.write(&notes, !first, true)?;
        files::sync_folder(&writer.config.folder)
            .map_err(|e| AuditError::io(&writer.config.folder, e))?;
        Ok(writer)
    }

    /// Tells whether the writer can't go on.
    pub(super) fn stopped(&self) -> Arc<AtomicBool> {
        self.poisoned.clone()
    }

    /// The number of the last line, as it changes.
    pub(super) fn heads(&self) -> watch::Receiver<u64> {
        self.heads.subscribe()
    }

    /// Serves messages until the log is closed or no one can send any more.
    pub(super) fn run(&mut self, messages: &mpsc::Receiver<Message>) {
        loop {
            match messages.recv_timeout(self.patience()) {
                Ok(first) => {
                    if let Some(closing) = self.serve(first, messages) {
                        let result = self.finish();
                        let _ = closing.send(result);
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.tend(),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    if let Err(e) = self.finish() {
                        tracing::error!(error = %e, "the audit could not be closed");
                    }
                    return;
                }
            }
        }
    }

    /// Writes one batch. Returns whom to tell if the log is to be closed behind it.
    fn serve(&mut self, first: Message, messages: &mpsc::Receiver<Message>) -> Option<Done> {
        let mut batch = Batch::default();
        batch.take(first);
        batch.take_all(messages);
        // Who is alone, and was the last time, gets no company.
        if self.had_company && batch.has_room() {
            self.company.wait();
            batch.take_all(messages);
        }
        self.had_company = batch.waiting.len() > 1;
        let result = self.write_batch(&mut batch);
        let Batch {
            waiting,
            unwaited,
            closing,
            ..
        } = batch;
        if let Err(e) = &result {
            self.lost += unwaited;
            tracing::error!(error = %e, "audit lines could not be written");
        }
        self.waiting.tell(waiting, result);
        closing
    }

    fn write_batch(&mut self, batch: &mut Batch) -> Result<(), AuditError> {
        if batch.count == 0 {
            return Ok(());
        }
        metrics::histogram!("moat_kms_audit_batch_lines").record(batch.count as f64);
        let sync = !batch.waiting.is_empty();
        let lost = self.lost;
        if lost > 0 {
            let note = format!("{lost} lines before this one could not be written");
            batch.entries.insert(0, self.note_line(note));
        }
        // Under a steady stream of lines no wait ever times out, so time is looked at here as well.
        let due = self.unsigned + batch.count as u64 >= self.config.checkpoint_lines
            || is_past(self.unsigned_since, self.config.checkpoint_interval);
        let sync = sync || is_past(self.unsynced_since, SYNC_INTERVAL);
        self.write(&batch.entries, due, sync)?;
        self.lost -= lost;
        self.rotate_if_large();
        Ok(())
    }

    /// Appends lines, and a checkpoint behind them if it is due. Nothing of it counts, and nothing
    /// is left in the file, unless all of it was written.
    fn write(&mut self, lines: &[Entries], checkpoint: bool, sync: bool) -> Result<(), AuditError> {
        if self.poisoned.load(Ordering::Relaxed) {
            return Err(AuditError::Poisoned);
        }
        let mut head = self.head;
        self.text.clear();
        self.text.shrink_to(TEXT_BYTES_KEPT);
        for entries in lines {
            head.append(entries, &mut self.text);
        }
        let count = head.seq - self.head.seq;
        if checkpoint {
            let checkpoint = self.signer.checkpoint(&head, self.clock.now());
            head.append(&Entries::of_line(&checkpoint), &mut self.text);
        }
        if let Err(e) = self.file.append(&self.text) {
            // What was half written must go, or the next line would follow a torn one.
            if self.file.truncate(self.len).is_err() {
                self.poisoned.store(true, Ordering::Relaxed);
            }
            return Err(AuditError::io(&self.path, e));
        }
        let now = Instant::now();
        if sync || checkpoint {
            self.sync()?;
        } else {
            self.unsynced_since.get_or_insert(now);
        }
        self.head = head;
        self.heads.send_replace(head.seq);
        self.len += self.text.len() as u64;
        if checkpoint {
            self.unsigned = 0;
            self.unsigned_since = None;
            self.anchors.send_replace(Some(Anchor {
                seq: head.seq,
                hash: head.hash,
            }));
        } else if count > 0 {
            self.unsigned += count;
            self.unsigned_since.get_or_insert(now);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AuditError> {
        if let Err(e) = self.file.sync() {
            // After a failed sync the system may have dropped what was written, and a second sync
            // would not say so.
            tracing::error!(error = %e, file = %self.path.display(), "the audit could not be synced");
            self.poisoned.store(true, Ordering::Relaxed);
            return Err(AuditError::Poisoned);
        }
        self.unsynced_since = None;
        Ok(())
    }

    /// Begins a new file when this one is large. If that fails the old one is used on: an audit
    /// in one file too large is better than none.
    fn rotate_if_large(&mut self) {
        if self.len < self.config.file_bytes_max {
            return;
        }
        if let Err(e) = self.rotate() {
            tracing::warn!(error = %e, "no new audit file could be begun");
        }
    }

    fn rotate(&mut self) -> Result<(), AuditError> {
        // What the new file's first line vouches for must not be lost when that line is not.
        self.sync()?;
        let path = files::path_of(&self.config.folder, self.head.seq + 1);
        let io = |e| AuditError::io(&path, e);
        let mut head = self.head;
        let mut text = Vec::new();
        let checkpoint = self.signer.checkpoint(&head, self.clock.now());
        head.append(&Entries::of_line(&checkpoint), &mut text);
        let mut file = (self.open_file)(&path).map_err(io)?;
        let begun = file
            .truncate(0)
            .and_then(|()| file.append(&text))
            .and_then(|()| file.sync())
            .and_then(|()| files::sync_folder(&self.config.folder));
        if let Err(e) = begun {
            // Left behind, it would stand for a line that the old file is going to have.
            if std::fs::remove_file(&path).is_err() {
                self.poisoned.store(true, Ordering::Relaxed);
            }
            return Err(io(e));
        }
        self.file = file;
        self.len = text.len() as u64;
        self.path = path;
        self.head = head;
        self.heads.send_replace(head.seq);
        self.unsigned = 0;
        self.unsigned_since = None;
        self.anchors.send_replace(Some(Anchor {
            seq: head.seq,
            hash: head.hash,
        }));
        Ok(())
    }

    /// How long to wait for the next message.
    fn patience(&self) -> Duration {
        /// With nothing to do the thread still wakes now and then, which costs nothing.
        const IDLE: Duration = Duration::from_secs(3600);
        let until = |since: Option<Instant>, interval: Duration| {
            since.map_or(IDLE, |since| interval.saturating_sub(since.elapsed()))
        };
        if self.poisoned.load(Ordering::Relaxed) {
            return IDLE;
        }
        until(self.unsynced_since, SYNC_INTERVAL)
            .min(until(self.unsigned_since, self.config.checkpoint_interval))
    }

    /// Does what time asks for: a sync, a checkpoint.
    fn tend(&mut self) {
        let result = if is_past(self.unsigned_since, self.config.checkpoint_interval) {
            // Tried again after a whole interval if it fails.
            self.unsigned_since = Some(Instant::now());
            self.write(&[], true, true)
        } else if is_past(self.unsynced_since, SYNC_INTERVAL) {
            self.sync()
        } else {
            Ok(())
        };
        if let Err(e) = result {
            tracing::error!(error = %e, "the audit could not be tended");
        }
    }

    fn finish(&mut self) -> Result<(), AuditError> {
        let note = self.note_line("the audit was closed".into());
        self.write(&[note], true, true)
    }

    fn note_line(&self, text: String) -> Entries {
        let mut line = AuditLine::empty(LineKind::Note);
        line.time = self.clock.now().to_timestamp().to_string();
        line.note = Some(text);
        Entries::of_line(&line)
    }
}

/// What is written together.
#[derive(Default)]
struct Batch {
    entries: Vec<Entries>,
    /// How many lines they are.
    count: usize,
    waiting: Vec<Done>,
    /// Lines that nobody waits for.
    unwaited: u64,
    /// Whom to tell that the log is closed.
    closing: Option<Done>,
    _rooms: Vec<OwnedSemaphorePermit>,
}

impl Batch {
    /// Whether more may come in.
    fn has_room(&self) -> bool {
        self.count < BATCH_LINES_MAX && self.closing.is_none()
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Lines {
                entries,
                done,
                _room,
            } => {
                self._rooms.push(_room);
                match done {
                    Some(done) => self.waiting.push(done),
                    None => self.unwaited += entries.count() as u64,
                }
                self.count += entries.count();
                self.entries.push(entries);
            }
            Message::Close { done } => self.closing = Some(done),
        }
    }

    /// Takes what is there.
    fn take_all(&mut self, messages: &mpsc::Receiver<Message>) {
        while self.has_room()
            && let Ok(message) = messages.try_recv()
        {
            self.take(message);
        }
    }
}

fn is_past(since: Option<Instant>, interval: Duration) -> bool {
    since.is_some_and(|since| since.elapsed() >= interval)
}
