//! The audit: an append-only, hash-chained log of every operation, allowed or not.
//!
//! Releases and changes are durable in it before they are answered. A writer thread takes what
//! waits, writes it with one call and syncs once (group commit), so the cost under load is a
//! share of one sync. Checkpoints, signed by a key that is sealed in the state, follow every
//! [`AuditConfig::checkpoint_lines`] lines, some time after the last line, and at close.
//!
//! What a reader of the files can rely on: a line that was changed, removed, moved or put in is
//! found by [`verify`]; so is everything cut off before the last checkpoint that the state, or
//! the reader, knows of. Lines behind the last checkpoint can be cut off unseen; they are at most
//! a checkpoint's distance.

mod company;
mod entry;
mod export;
mod facts;
mod files;
mod line;
mod open;
mod show;
#[cfg(test)]
mod tests;
mod verify;
mod waiting;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use moat_types::Clock;
use tokio::sync::{Semaphore, oneshot, watch};

pub use export::ExportTarget;
pub(crate) use export::Exporter;
pub use facts::{Asked, Facts};
pub use line::{AuditLine, CheckpointSigner, LineKind, LineProblem, Outcome};
pub use show::{Filter, Lines, LinesAfter, after, show, tail};
pub use verify::{Located, Report, Verification, verify};

use crate::feed::{Feed, Follower};
use entry::Entries;
pub(crate) use entry::push_number;
use waiting::Done;
use writer::{Message, Writer};

/// How an audit is kept.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The folder of its files; made if it is missing.
    pub folder: PathBuf,
    /// A file is closed and a new one begun when it is this large.
    pub file_bytes_max: u64,
    /// A checkpoint follows after this many lines.
    pub checkpoint_lines: u64,
    /// A checkpoint follows this long after the first line that no checkpoint covers.
    pub checkpoint_interval: Duration,
}

impl AuditConfig {
    /// 32 MiB: about 60,000 lines, read and checked in a fraction of a second at start.
    pub const FILE_BYTES_MAX: u64 = 32 << 20;
    /// A signature costs 20 µs, so this adds nothing to the cost of a line.
    pub const CHECKPOINT_LINES: u64 = 1000;
    /// What an idle key manager leaves unsigned.
    pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

    /// The defaults, in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            file_bytes_max: Self::FILE_BYTES_MAX,
            checkpoint_lines: Self::CHECKPOINT_LINES,
            checkpoint_interval: Self::CHECKPOINT_INTERVAL,
        }
    }
}

/// Lines that may wait for the writer. With more, callers wait: the audit is never outrun.
const QUEUE_LINES_MAX: usize = 4096;

/// Why the audit can't be written or opened. Cloned to each caller of a failed batch.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No space left on the device. Nothing of the batch was kept.
    #[error("no space left for the audit in {}", folder.display())]
    NoSpace {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder or a file of it can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: Arc<std::io::Error>,
    },
    /// Another process writes this folder.
    #[error("the audit in {} is in use by another process", folder.display())]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// A sync failed, so what the disk holds is not known; only a restart, which reads the log
    /// again, can tell.
    #[error("the audit stopped because a sync failed; restart the key manager")]
    Poisoned,
    /// The log on disk is not one that can be continued.
    #[error(
        "the audit is damaged, {problem}; keep the folder for inspection and start with an empty one"
    )]
    Damaged {
        /// Where, and what.
        problem: Located,
    },
    /// The writer is gone.
    #[error("the audit is closed")]
    Closed,
}

impl AuditError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            let folder = path.parent().unwrap_or(path).to_owned();
            return Self::NoSpace { folder };
        }
        Self::Io {
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }
}

/// The number and hash of a checkpoint: whoever keeps it elsewhere can tell later whether the log
/// was cut off before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    /// The number of the checkpoint's line.
    pub seq: u64,
    /// The hash of that line.
    pub hash: [u8; 32],
}

/// An audit that is open for writing. One process at a time may write a folder; a lock
/// sees to that.
pub struct AuditLog {
    queue: mpsc::Sender<Message>,
    room: Arc<Semaphore>,
    anchors: watch::Receiver<Option<Anchor>>,
    heads: watch::Receiver<u64>,
    folder: PathBuf,
    public_key: [u8; 32],
    /// Set by the writer when it can't go on.
    stopped: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    feed: Feed<Facts>,
}

impl AuditLog {
    /// Opens the log, or begins one. A torn last line, which a crash leaves, is set aside in a
    /// file of its own and a note is written. `anchor` is the last checkpoint known to exist.
    /// Blocks while it reads the last file.
    ///
    /// # Errors
    /// `AuditError::Damaged` if the log can't be continued: changed lines since the last
    /// checkpoint, a checkpoint by another key, or an end before `anchor`.
    pub fn open(
        config: AuditConfig,
        signer: CheckpointSigner,
        clock: Arc<dyn Clock>,
        anchor: Option<Anchor>,
    ) -> Result<Self, AuditError> {
        Self::open_with(config, signer, clock, anchor, Box::new(files::open_append))
    }

    fn open_with(
        config: AuditConfig,
        signer: CheckpointSigner,
        clock: Arc<dyn Clock>,
        anchor: Option<Anchor>,
        open_file: files::OpenFile,
    ) -> Result<Self, AuditError> {
        let (queue, messages) = mpsc::channel();
        let (anchor_sender, anchors) = watch::channel(anchor);
        let (folder, public_key) = (config.folder.clone(), signer.public_key());
        let place = open::open(&config, &signer, &*clock, anchor)?;
        let mut writer = Writer::new(config, signer, clock, open_file, anchor_sender, place)?;
        let (stopped, heads) = (writer.stopped(), writer.heads());
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&messages))
            .map_err(|e| AuditError::io(&folder, e))?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(QUEUE_LINES_MAX)),
            anchors,
            heads,
            folder,
            public_key,
            stopped,
            thread: Mutex::new(Some(thread)),
            feed: Feed::default(),
        })
    }

    /// Writes a line and returns once it is durable. If the future is dropped, the line may still
    /// be written.
    ///
    /// # Errors
    /// `AuditError` if it is not in the log; then it never will be.
    pub async fn commit(&self, facts: &Facts) -> Result<(), AuditError> {
        self.commit_all(std::slice::from_ref(facts)).await
    }

    /// Writes several lines, one behind the other, and returns once all are durable. If the future
    /// is dropped, they may still be written.
    ///
    /// # Errors
    /// `AuditError` if none of them is in the log; then none ever will be.
    pub async fn commit_all(&self, facts: &[Facts]) -> Result<(), AuditError> {
        let (done, durable) = oneshot::channel();
        self.send(facts, Some(done)).await?;
        durable.await.unwrap_or(Err(AuditError::Closed))
    }

    /// Hands a line to the writer without waiting for it; it is durable within a second. If it
    /// can't be written, a later note says how many were lost.
    ///
    /// # Errors
    /// `AuditError::Closed` if the writer is gone.
    pub async fn note(&self, facts: &Facts) -> Result<(), AuditError> {
        self.note_all(std::slice::from_ref(facts)).await
    }

    /// As [`AuditLog::note`], for several lines.
    ///
    /// # Errors
    /// `AuditError::Closed` if the writer is gone.
    pub async fn note_all(&self, facts: &[Facts]) -> Result<(), AuditError> {
        self.send(facts, None).await
    }

    /// Waits until every line that was handed to the writer before can be read, or never will be.
    pub async fn settle(&self) {
        // What stands there can be read even if no further line can be written.
        let _ = self.commit_all(&[]).await;
    }

    async fn send(&self, facts: &[Facts], done: Option<Done>) -> Result<(), AuditError> {
        if self.feed.is_followed() {
            for ended in facts.iter().filter(|f| f.outcome != Outcome::Begun) {
                self.feed.send(ended.clone());
            }
        }
        // A batch that is larger than the queue waits until the queue is empty.
        let room = facts.len().min(QUEUE_LINES_MAX) as u32;
        let permit = match self.room.clone().try_acquire_many_owned(room) {
            Ok(permit) => permit,
            Err(_) => {
                let permit = self.room.clone().acquire_many_owned(room).await;
                permit.map_err(|_| AuditError::Closed)?
            }
        };
        let message = Message::Lines {
            entries: Entries::of_facts(facts),
            done,
            _room: permit,
        };
        self.queue.send(message).map_err(|_| AuditError::Closed)
    }

    /// Follows the operations that end from now on. They come as they are handed to the writer.
    pub(crate) fn follow(&self) -> Follower<Facts> {
        self.feed.follow()
    }

    /// The number of the last line, as lines are written.
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.heads.clone()
    }

    /// The newest checkpoint, as it changes.
    pub fn anchors(&self) -> watch::Receiver<Option<Anchor>> {
        self.anchors.clone()
    }

    /// Whether the audit can't go on without a restart.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The folder of the files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The key that checkpoints are signed with.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// Writes what waits and a last checkpoint. Later lines are refused.
    ///
    /// # Errors
    /// `AuditError` if the checkpoint could not be written.
    pub async fn close(&self) -> Result<(), AuditError> {
        let (done, closed) = oneshot::channel();
        let sent = self.queue.send(Message::Close { done });
        let result = match sent {
            Ok(()) => closed.await.unwrap_or(Err(AuditError::Closed)),
            Err(_) => Err(AuditError::Closed),
        };
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It answered as its last act; a panic in it was reported when it happened.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        result
    }
}

/// Reads a line as the verifier does; see `crate::fuzzing`.
pub(crate) fn fuzz_line(text: &[u8]) {
    if let Ok((line, hash)) = line::read_line(text) {
        assert_eq!(line.hash, Some(hex::encode(hash)));
        let _ = line::check_signature(&line, &hash, None);
    }
}
