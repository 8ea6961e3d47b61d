//! Moves frozen rows into the tree and prepares the next segment, on a thread of its own.
//!
//! The committer hands over one frozen layer at a time and goes on in the segment that was
//! prepared. When the rows are in the tree, the segment's file becomes the next one prepared.
//! A step that failed is repeated when the committer asks, from where it stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use moat_types::Random;

use super::layers::{Layer, View};
use super::log::{Segment, segment_name};
use super::tree::{Flushed, Tree};
use crate::Error;
use crate::files::Files;

/// Free space that must be left after a layer is written to the tree, on top of twice its size.
/// Checked before, because redb has to be opened again after it ran out of space half-way.
const FREE_BYTES_MIN: u64 = 8 << 20;

/// A layer on its way to the tree.
pub(super) struct Job {
    pub(super) layer: Arc<Layer>,
    /// Bytes of its keys and values.
    pub(super) bytes: u64,
    /// Up to where the tree contains the log afterwards.
    pub(super) flushed: Flushed,
}

pub(super) enum Message {
    Flush(Job),
    /// Repeat what failed.
    Again,
    /// Reads fail until the tree is opened again.
    Reopen,
    Close,
}

/// The committer's side.
pub(super) struct Flusher {
    control: Arc<Control>,
    work: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// What the flusher is doing.
enum State {
    /// Nothing is frozen, and the next segment is prepared.
    Ready(Segment),
    Busy,
    /// The last attempt failed; rows may be frozen.
    Failed(Error),
}

struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a flusher needs to begin with.
pub(super) struct Setup {
    pub(super) files: Arc<dyn Files>,
    pub(super) random: Arc<dyn Random>,
    pub(super) view: Arc<View>,
    pub(super) tree: Tree,
    /// A layer that is frozen already.
    pub(super) job: Option<Job>,
    /// The number of the segment to prepare.
    pub(super) next_segment: u64,
    /// Its file, if there is one to be used again.
    pub(super) spare_name: Option<String>,
    pub(super) segment_bytes_max: u64,
}

impl Flusher {
    /// Starts the thread; it begins by itself with what is set up.
    pub(super) fn start(setup: Setup) -> Result<Self, Error> {
        let control = Arc::new(Control {
            state: Mutex::new(State::Busy),
            changed: Condvar::new(),
        });
        let (work, jobs) = channel();
        let worker = Worker {
            setup,
            control: control.clone(),
        };
        let thread = std::thread::Builder::new()
            .name("meta-flush".into())
            .spawn(move || worker.run(&jobs))?;
        Ok(Self {
            control,
            work,
            thread: Some(thread),
        })
    }

    /// The prepared segment, if nothing is frozen. If there is none and `must` is set, waits for
    /// it, and has a failed attempt repeated.
    ///
    /// # Errors
    /// With `must`: why there is none.
    pub(super) fn take_segment(&self, must: bool) -> Result<Option<Segment>, Error> {
        let mut state = self.control.lock();
        let mut repeated = false;
        loop {
            match std::mem::replace(&mut *state, State::Busy) {
                State::Ready(segment) => return Ok(Some(segment)),
                State::Busy if must => {
                    state = self.control.wait(state);
                }
                State::Busy => return Ok(None),
                State::Failed(error) if must && !repeated => {
                    repeated = true;
                    tracing::info!(%error, "writing to the tree again after an error");
                    self.send(Message::Again);
                }
                State::Failed(error) => {
                    let answer = error.again();
                    *state = State::Failed(error);
                    return match must {
                        true => Err(answer),
                        false => Ok(None),
                    };
                }
            }
        }
    }

    /// Hands over a layer, after a segment was taken.
    pub(super) fn flush(&self, job: Job) {
        self.send(Message::Flush(job));
    }

    /// For readers, to ask for `Message::Reopen`.
    pub(super) fn messages(&self) -> Sender<Message> {
        self.work.clone()
    }

    fn send(&self, message: Message) {
        // The thread catches its panics and ends only when it is told to.
        self.work.send(message).expect("the flusher's thread lives");
    }
}

impl Drop for Flusher {
    /// Waits for the attempt under way. What is not in the tree then is in the log.
    fn drop(&mut self) {
        self.send(Message::Close);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that writes the tree died");
        }
    }
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).expect("no panic while held")
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }
}

/// The thread's side.
struct Worker {
    setup: Setup,
    control: Arc<Control>,
}

impl Worker {
    fn run(mut self, messages: &Receiver<Message>) {
        self.attempt();
        while let Ok(message) = messages.recv() {
            match message {
                Message::Flush(job) => {
                    self.setup.job = Some(job);
                    self.attempt();
                }
                Message::Again => self.attempt(),
                Message::Reopen => self.reopen(),
                Message::Close => return,
            }
        }
    }

    /// Does what is to be done and says how it went.
    fn attempt(&mut self) {
        match self.work() {
            Ok(segment) => self.control.set(State::Ready(segment)),
            Err(error) => {
                tracing::error!(%error, "metadata can't be moved to the tree; it is safe in the log");
                self.control.set(State::Failed(error));
            }
        }
    }

    fn work(&mut self) -> Result<Segment, Error> {
        if let Some(job) = &self.setup.job {
            self.check_space(job)?;
            let flushed = job.flushed;
            if let Err(error) = self.apply() {
                self.reopen();
                return Err(error);
            }
            let setup = &mut self.setup;
            setup.job = None;
            setup.spare_name = Some(segment_name(flushed.segment));
            // The one between is active.
            setup.next_segment = flushed.segment + 2;
        }
        let setup = &mut self.setup;
        let segment = Segment::prepare(
            &*setup.files,
            &*setup.random,
            setup.next_segment,
            setup.spare_name.as_deref(),
            setup.segment_bytes_max,
        )?;
        setup.spare_name = None;
        Ok(segment)
    }

    fn apply(&mut self) -> Result<(), Error> {
        let setup = &self.setup;
        let Some(job) = &setup.job else {
            return Ok(());
        };
        // redb asserts what it expects to find in its file; a damaged one may make it panic.
        let applied = catch_unwind(AssertUnwindSafe(|| {
            setup.tree.apply(&job.layer, job.flushed)?;
            setup.tree.snapshot()
        }));
        let snapshot = applied
            .unwrap_or_else(|_| Err(Error::Corrupt("writing to the tree panicked".into())))?;
        setup.view.settle(snapshot);
        Ok(())
    }

    fn check_space(&self, job: &Job) -> Result<(), Error> {
        match self.setup.files.free_bytes() < job.bytes.saturating_mul(2) + FREE_BYTES_MIN {
            true => Err(Error::NoSpace),
            false => Ok(()),
        }
    }

    /// redb does nothing more after an I/O error: opens the tree again, so that reads go on.
    fn reopen(&mut self) {
        let setup = &mut self.setup;
        let reopened = catch_unwind(AssertUnwindSafe(|| {
            setup.tree.reopen()?;
            setup.tree.snapshot()
        }));
        match reopened {
            Ok(Ok(snapshot)) => setup.view.rebase(snapshot),
            Ok(Err(error)) => tracing::error!(%error, "the tree could not be opened again"),
            Err(_) => tracing::error!("opening the tree again panicked"),
        }
    }
}
