//! The one thread that commits: takes what is queued, decides it in order, and makes it durable
//! with one sync.
//!
//! Readers see a commit when it is durable, and it is answered when they can see it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::vec::Drain;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::flusher::{Flusher, Job};
use super::layers::View;
use super::log::Log;
use super::log::format::{FRAME_HEADER_BYTES, FrameBuilder, blocks, encoded_bytes};
use super::tree::Flushed;
use crate::{Check, Error, Outcome, Write};

/// Commits taken at once. More than that are rarely waiting, and each waits for the whole batch.
const BATCH_COMMITS: usize = 256;
/// How long a batch waits for company, if the last one had some. A fraction of what a sync takes;
/// who commits alone never waits.
const GATHER: Duration = Duration::from_micros(50);
/// Payload bytes after which no further commit joins a frame: writing this much takes about as
/// long as a sync, so a larger frame would only make its first commits wait.
const FRAME_BYTES: usize = 4 << 20;
/// What a row costs in memory besides its bytes: its place in the ordered map.
const ROW_BYTES: u64 = 128;

/// A commit on its way.
pub(super) struct Request {
    pub(super) checks: Vec<Check>,
    pub(super) writes: Vec<Write>,
    pub(super) answer: oneshot::Sender<Result<Outcome, Error>>,
    /// The request's share of the queue's memory.
    pub(super) _room: OwnedSemaphorePermit,
}

pub(super) struct Committer {
    pub(super) view: Arc<View>,
    pub(super) log: Log,
    pub(super) flusher: Flusher,
    pub(super) limits: Limits,
    /// Memory of the active layer, in bytes.
    pub(super) active_bytes: u64,
}

/// How much the active layer may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From here on it is frozen as soon as the flusher is free.
    pub(super) freeze_bytes: u64,
    /// From here on commits wait for that.
    pub(super) stop_bytes: u64,
}

impl Committer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut taken = Vec::with_capacity(BATCH_COMMITS);
        let mut shared = false;
        while let Some(first) = queue.blocking_recv() {
            taken.push(first);
            // Those who were answered with the last batch are about to commit again: they get to
            // it now, and share this sync instead of the next one.
            if shared {
                std::thread::sleep(GATHER);
            }
            while taken.len() < BATCH_COMMITS
                && let Ok(further) = queue.try_recv()
            {
                taken.push(further);
            }
            shared = taken.len() > 1;
            let mut requests = taken.drain(..);
            while !requests.as_slice().is_empty() {
                self.commit(&mut requests);
            }
        }
    }

    /// Decides as many requests as fit into a frame, makes them durable, and answers.
    fn commit(&mut self, requests: &mut Drain<'_, Request>) {
        let mut batch = Batch::new(requests.as_slice());
        let result = self.make_room().and_then(|()| {
            batch.decide(&self.view, requests.as_slice())?;
            self.make_durable(&mut batch)
        });
        // Nothing was decided if there is no room: then all wait for the same reason.
        let count = match batch.outcomes.len() {
            0 => requests.len(),
            decided => decided,
        };
        let mut outcomes = batch.outcomes.into_iter();
        for request in requests.take(count) {
            let answer = match (&result, outcomes.next()) {
                (Ok(()), Some(outcome)) => Ok(outcome),
                // A failed check may have failed because of a commit in the same frame.
                (Err(error), _) => Err(error.again()),
                (Ok(()), None) => Err(Error::Closed),
            };
            // Nobody may be waiting any more.
            let _ = request.answer.send(answer);
        }
    }

    /// Freezes the active layer if it is large enough and the flusher is free; waits for the
    /// flusher if there is no room at all.
    fn make_room(&mut self) -> Result<(), Error> {
        if self.active_bytes < self.limits.freeze_bytes {
            return Ok(());
        }
        let must = self.active_bytes >= self.limits.stop_bytes;
        let Some(segment) = self.flusher.take_segment(must)? else {
            return Ok(());
        };
        let job = Job {
            layer: self.view.freeze(),
            bytes: self.active_bytes,
            flushed: Flushed {
                segment: self.log.segment_number(),
                sequence: self.log.newest_sequence(),
            },
        };
        self.log.rotate(segment);
        self.active_bytes = 0;
        self.flusher.flush(job);
        Ok(())
    }

    /// Appends the batch's writes to the log and shows them to readers.
    fn make_durable(&mut self, batch: &mut Batch) -> Result<(), Error> {
        let Some(frame) = batch.frame.take().filter(|frame| !frame.is_empty()) else {
            return Ok(());
        };
        let frame = self.log.append(frame).map_err(|error| {
            tracing::error!(error = %error.source, undone = error.undone, "the log can't be written");
            match Error::from(error.source) {
                // Only if nothing of it can come back is it sure that nothing was kept.
                Error::NoSpace if !error.undone => {
                    Error::Engine("no space left, and the commit could not be taken back".into())
                }
                other => other,
            }
        })?;
        self.active_bytes += frame.rows().map(|row| row_bytes(&row)).sum::<u64>();
        self.view.publish(frame.rows());
        Ok(())
    }
}

/// Memory that a row takes in a layer.
pub(super) fn row_bytes((key, value): &(Bytes, Option<Bytes>)) -> u64 {
    let value = value.as_ref().map_or(0, Bytes::len);
    (key.len() + value) as u64 + ROW_BYTES
}

/// Requests that share a frame.
struct Batch {
    frame: Option<FrameBuilder>,
    outcomes: Vec<Outcome>,
    /// Rows written by commits of this batch, which are not visible to readers yet.
    pending: HashMap<Bytes, Option<Bytes>>,
    /// How many of the requests are taken.
    count: usize,
}

impl Batch {
    /// Measures how many requests share a frame.
    fn new(requests: &[Request]) -> Self {
        let mut count = 0;
        let mut rows = 0;
        let mut bytes = 0;
        for request in requests {
            if count > 0 && bytes >= FRAME_BYTES {
                break;
            }
            count += 1;
            rows += request.writes.len();
            bytes += request.writes.iter().map(encoded_bytes).sum::<usize>();
        }
        Self {
            frame: Some(FrameBuilder::with_capacity(bytes, rows)),
            outcomes: Vec::with_capacity(count),
            pending: HashMap::new(),
            count,
        }
    }

    /// Decides each request in order: those after it see its writes.
    fn decide(&mut self, view: &View, requests: &[Request]) -> Result<(), Error> {
        for (index, request) in requests[..self.count].iter().enumerate() {
            let failed = self.failed_check(view, &request.checks)?;
            let outcome = match failed {
                Some(check) => Outcome::CheckFailed(check),
                None => {
                    let seen_by_others = index + 1 < self.count;
                    self.write(&request.writes, seen_by_others);
                    Outcome::Committed
                }
            };
            self.outcomes.push(outcome);
        }
        Ok(())
    }

    fn failed_check(&self, view: &View, checks: &[Check]) -> Result<Option<usize>, Error> {
        for (index, check) in checks.iter().enumerate() {
            let holds = match self.pending.get(&check.key) {
                Some(value) => *value == check.expected,
                None => view.with_row(&check.key, |found| found == check.expected.as_deref())?,
            };
            if !holds {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn write(&mut self, writes: &[Write], seen_by_others: bool) {
        let frame = self.frame.as_mut().expect("taken after all are decided");
        for write in writes {
            frame.push(write);
            if seen_by_others {
                let (key, value) = match write {
                    Write::Put(key, value) => (key, Some(value.clone())),
                    Write::Delete(key) => (key, None),
                };
                self.pending.insert(key.clone(), value);
            }
        }
    }
}

/// Bytes that a commit takes in the log.
pub(super) fn log_bytes(writes: &[Write]) -> usize {
    blocks(FRAME_HEADER_BYTES + writes.iter().map(encoded_bytes).sum::<usize>())
}
