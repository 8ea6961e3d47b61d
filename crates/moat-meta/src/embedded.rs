//! The embedded engine: one folder, one process.
//!
//! A commit is appended to a log and synced, together with all that wait at the same time; then
//! readers see it in memory, then it is answered. In the background, rows move from memory into a
//! tree (redb) in large sorted batches, and their part of the log is used again. At open, the log
//! is read back. `layers` says what readers see, `log` what is on the disk; a commit costs a share
//! of one write and one sync, where the tree alone costs ten times the CPU.
//!
//! Reads run on the caller's thread: a row takes about a microsecond. Only a long scan moves to a
//! blocking thread after its first rows.

mod committer;
mod flusher;
mod layers;
mod log;
mod tree;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use moat_types::{Random, SystemRandom};
use redb::StorageError;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::committer::{Committer, Limits, Request, log_bytes, row_bytes};
use self::flusher::{Flusher, Job, Setup};
use self::layers::{Cut, Layer, View};
use self::log::{Log, RecoveredSegment, Segment, recover, segment_name};
use self::tree::{Flushed, Tree};
use crate::files::{Files, Folder};
use crate::{Check, Error, MetaStore, Outcome, Page, Write};

/// Bytes of a key, as the trait says.
const KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a value, as the trait says.
const VALUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of all writes of a commit: they are held in memory several times, and fit into a frame.
const COMMIT_BYTES_MAX: usize = 256 << 20;
/// Bytes that a page may be asked to hold, which keeps its offsets in 32 bits.
const PAGE_BYTES_MAX: usize = 1 << 30;
/// Commits that wait to be taken. Further ones wait for a place, in the order they came.
const QUEUE_COMMITS: usize = 1_024;
/// Memory of the commits that wait, in KiB. A larger commit waits until it is alone.
const QUEUE_KIBS: usize = 32 << 10;
/// Rows of a scan that are read on the caller's thread, about 0.1 ms; a hop to another thread and
/// back costs about a fifth of that.
const INLINE_ROWS: usize = 128;

/// How the engine uses memory, and where it draws randomness.
#[derive(Clone)]
pub struct Options {
    /// Memory for pages of the tree, in bytes.
    pub cache_bytes: usize,
    /// Size at which the rows in memory are moved to the tree, in bytes. Commits go on meanwhile;
    /// they wait when twice as much has come in before it is done, so up to three times this much
    /// memory is used. Larger means less work for the disk and a longer start after a crash.
    pub log_bytes: u64,
    /// Salts of the log.
    pub random: Arc<dyn Random>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            log_bytes: 8 << 20,
            random: Arc::new(SystemRandom),
        }
    }
}

/// Metadata in one folder of this machine.
///
/// Dropping it waits for the commits that were queued and for the threads to end.
pub struct Embedded {
    view: Arc<View>,
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    committer: Option<JoinHandle<()>>,
}

impl Embedded {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// `Error::InUse` if another process has it open; `Error::Corrupt` if what was answered for
    /// can't be read back whole.
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        Self::open_on(Arc::new(Folder::open(folder)?), options)
    }

    /// Opens an engine on any files, for tests with a simulated disk. The caller has locked them.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_on(files: Arc<dyn Files>, options: Options) -> Result<Self, Error> {
        let tree = Tree::open(files.clone(), options.cache_bytes)?;
        let start = Start::read(&*files, tree.flushed()?, &options)?;
        let view = View::new(
            start.active,
            start.job.as_ref().map(|job| job.layer.clone()),
            tree.snapshot()?,
        );
        let view = Arc::new(view);
        let flusher = Flusher::start(Setup {
            files,
            random: options.random,
            view: view.clone(),
            tree,
            job: start.job,
            next_segment: start.log.segment_number() + 1,
            spare_name: start.spare_name,
            segment_bytes_max: options.log_bytes.saturating_mul(4),
        })?;
        view.connect(flusher.messages());
        let committer = Committer {
            view: view.clone(),
            log: start.log,
            flusher,
            limits: Limits {
                freeze_bytes: options.log_bytes,
                stop_bytes: options.log_bytes.saturating_mul(2),
            },
            active_bytes: start.active_bytes,
        };
        let (queue, requests) = mpsc::channel(QUEUE_COMMITS);
        let thread = std::thread::Builder::new()
            .name("meta-commit".into())
            .spawn(move || committer.run(requests))?;
        Ok(Self {
            view,
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE_KIBS)),
            committer: Some(thread),
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.committer.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that commits metadata died");
        }
    }
}

impl MetaStore for Embedded {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        // Copied even from memory, so that a row kept by the caller does not keep its frame.
        self.view
            .with_row(key, |value| value.map(Bytes::copy_from_slice))
    }

    fn revision(&self) -> Option<u64> {
        // Nobody else has the folder open.
        Some(self.view.revision())
    }

    async fn scan(
        &self,
        range: Range<Bytes>,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Page, Error> {
        if range.start >= range.end || rows_max == 0 {
            return Ok(Page::default());
        }
        let bytes_max = bytes_max.clamp(1, PAGE_BYTES_MAX);
        loop {
            let cut = Arc::new(self.view.cut(range.clone(), rows_max, bytes_max));
            match scan(cut.clone(), rows_max, bytes_max).await? {
                Ok(page) => return Ok(page),
                Err(error) => self.view.read_failed(&cut.base, error)?,
            }
        }
    }

    async fn last(&self, range: Range<Bytes>) -> Result<Page, Error> {
        if range.start >= range.end {
            return Ok(Page::default());
        }
        loop {
            let cut = self.view.cut_end(range.clone());
            match cut.last() {
                Ok(page) => return Ok(page),
                Err(error) => self.view.read_failed(&cut.base, error)?,
            }
        }
    }

    async fn commit(&self, checks: Vec<Check>, writes: Vec<Write>) -> Result<Outcome, Error> {
        check_limits(&writes)?;
        let expected = checks.iter().filter_map(|check| check.expected.as_ref());
        let bytes = log_bytes(&writes) + expected.map(Bytes::len).sum::<usize>();
        let kibs = (bytes >> 10).clamp(1, QUEUE_KIBS) as u32;
        let room = self.room.clone();
        let room = room.acquire_many_owned(kibs).await;
        let queue = self.queue.as_ref().expect("closed only by drop");
        let (answer, answered) = oneshot::channel();
        let request = Request {
            checks,
            writes,
            answer,
            _room: room.expect("never closed"),
        };
        queue.send(request).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)?
    }
}

/// Reads a page: its first rows here, the rest of a long one where it disturbs nobody.
async fn scan(
    cut: Arc<Cut>,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Result<Page, StorageError>, Error> {
    let mut page = Page::default();
    let inline_rows = rows_max.min(INLINE_ROWS);
    if let Err(error) = cut.fill(&mut page, inline_rows, bytes_max) {
        return Ok(Err(error));
    }
    let complete = page.len() < inline_rows || page.bytes() >= bytes_max;
    if complete || inline_rows == rows_max {
        return Ok(Ok(page));
    }
    let rest = tokio::task::spawn_blocking(move || {
        cut.fill(&mut page, rows_max, bytes_max)?;
        Ok(page)
    });
    rest.await.map_err(|stopped| Error::Engine(stopped.into()))
}

fn check_limits(writes: &[Write]) -> Result<(), Error> {
    let mut bytes = 0;
    for write in writes {
        let (key, value_bytes) = match write {
            Write::Put(key, value) => (key, value.len()),
            Write::Delete(key) => (key, 0),
        };
        if key.len() > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            let key_bytes = key.len();
            return Err(Error::Engine(
                format!("a row with a key of {key_bytes} and a value of {value_bytes} bytes is too large")
                    .into(),
            ));
        }
        bytes += key.len() + value_bytes;
    }
    if bytes > COMMIT_BYTES_MAX {
        return Err(Error::Engine(
            format!("a commit of {bytes} bytes is too large").into(),
        ));
    }
    Ok(())
}

/// What is in the folder besides the tree.
struct Start {
    log: Log,
    active: Layer,
    active_bytes: u64,
    /// A complete segment whose rows are not in the tree yet.
    job: Option<Job>,
    spare_name: Option<String>,
}

impl Start {
    fn read(files: &dyn Files, flushed: Flushed, options: &Options) -> Result<Self, Error> {
        let mut recovered = recover(files, flushed)?;
        // A segment that was prepared and not begun is prepared again.
        let prepared = recovered
            .segments
            .pop_if(|last| last.frames.is_empty() && last.segment.number > flushed.segment + 1);
        let mut spare_names = recovered.spare_names;
        spare_names.extend(prepared.map(|last| segment_name(last.segment.number)));

        let last = recovered.segments.pop();
        let mut frozen = Layer::new();
        let mut frozen_bytes = 0;
        let mut frozen_up_to = None;
        for segment in recovered.segments {
            frozen_up_to = Some(segment.flushed(flushed, frozen_up_to));
            frozen_bytes += segment.load(&mut frozen);
        }
        let job = frozen_up_to.map(|flushed| Job {
            layer: Arc::new(frozen),
            bytes: frozen_bytes,
            flushed,
        });

        let mut active = Layer::new();
        let (log, active_bytes) = match last {
            Some(last) => {
                let bytes = last.load(&mut active);
                let log = Log::new(last.segment, last.position, recovered.sequence);
                (log, bytes)
            }
            None => {
                let number = flushed.segment + 1;
                let segment = Segment::prepare(files, &*options.random, number, None, u64::MAX)?;
                (Log::start(segment, recovered.sequence), 0)
            }
        };
        // One file is used again, unless the job leaves one.
        let mut spare_names = spare_names.into_iter();
        let spare_name = match job {
            Some(_) => None,
            None => spare_names.next(),
        };
        for name in spare_names {
            files.remove(&name)?;
        }
        Ok(Self {
            log,
            active,
            active_bytes,
            job,
            spare_name,
        })
    }
}

impl RecoveredSegment {
    /// Puts its rows into a layer; returns the memory they take.
    fn load(&self, layer: &mut Layer) -> u64 {
        let mut bytes = 0;
        for frame in &self.frames {
            bytes += frame.rows().map(|row| row_bytes(&row)).sum::<u64>();
            layer.extend(frame.rows());
        }
        bytes
    }

    /// Up to where the tree contains the log when this segment is in it.
    fn flushed(&self, tree: Flushed, before: Option<Flushed>) -> Flushed {
        let before = before.unwrap_or(tree);
        Flushed {
            segment: self.segment.number,
            sequence: before.sequence + self.frames.len() as u64,
        }
    }
}
