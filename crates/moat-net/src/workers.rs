//! Threads that each drive connections of their own, from the client's socket to the upstream's.
//!
//! tokio's runtime moves tasks between threads to keep all of them busy. A proxy has nothing to
//! move: its tasks are short and bound to sockets. What stays on one thread needs no wake-up of
//! another, finds its data in that core's cache, and takes no contended lock; with one request at a
//! time that is half of the CPU. [`Listener::on_workers`](crate::Listener::on_workers) gives each
//! connection to the thread that has the fewest, and [`crate::HttpClient`] keeps its unused
//! connections per thread.
//!
//! Not for services that compute: a slow request holds up its thread's others.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// Which worker this thread is, counted from 1; 0 is every other thread.
pub(crate) fn current() -> usize {
    INDEX.get()
}

/// Threads for connections. Clones share them; they end when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
    /// Ends the thread when it is dropped.
    _running: oneshot::Sender<()>,
}

impl Workers {
    /// Starts so many threads, at least one.
    ///
    /// # Errors
    /// What the system says if a thread can't be had.
    pub fn start(count: usize) -> io::Result<Self> {
        (1..=count.max(1)).map(Worker::start).collect()
    }

    /// Starts a thread for each processor that this process may use.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn per_processor() -> io::Result<Self> {
        Self::start(thread::available_parallelism().map_or(1, usize::from))
    }

    /// The thread that has the fewest tasks, to spawn one on; it counts for as long as what is given
    /// beside it lives. (A task around the task would hold its memory twice.)
    pub(crate) fn place(&self) -> (&Handle, Counted) {
        let least = self.0.iter().min_by_key(|one| one.tasks.load(Relaxed));
        let worker = least.expect("there is at least one worker");
        (&worker.runtime, Counted::new(&worker.tasks))
    }
}

impl FromIterator<Worker> for Workers {
    fn from_iter<I: IntoIterator<Item = Worker>>(workers: I) -> Self {
        Self(workers.into_iter().collect())
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        thread::Builder::new()
            .name(format!("moat-worker-{index}"))
            .spawn(move || {
                INDEX.set(index);
                // Nothing is sent: the other end is dropped.
                let _ = runtime.block_on(ended);
            })?;
        Ok(Self {
            runtime: handle,
            tasks: Arc::default(),
            _running: running,
        })
    }
}

/// Counts one task until it is dropped, also when it is aborted before it began.
pub(crate) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn tasks_go_where_the_fewest_are() {
        let workers = Workers::start(3).unwrap();
        let mut set = JoinSet::new();
        let (seen, mut places) = mpsc::unbounded_channel();
        for _ in 0..9 {
            let seen = seen.clone();
            let (runtime, counted) = workers.place();
            let task = async move {
                seen.send(current()).unwrap();
                std::future::pending::<()>().await;
                drop(counted);
            };
            set.spawn_on(task, runtime);
        }
        let mut counts = [0; 4];
        for _ in 0..9 {
            counts[places.recv().await.unwrap()] += 1;
        }
        assert_eq!((counts, current()), ([0, 3, 3, 3], 0));
        set.shutdown().await;
        assert!(workers.0.iter().all(|one| one.tasks.load(Relaxed) == 0));
    }
}
