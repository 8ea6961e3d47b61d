//! One sync for everybody who waits for the same thing.

use std::io;
use std::sync::{Condvar, Mutex};

/// Shares the runs of a sync between threads that ask at the same time.
///
/// A caller is answered by a run that began after it asked, so the run covers whatever the caller
/// did before. While a run is under way, all who ask wait for one further run.
#[derive(Default)]
pub(super) struct GroupSync {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    /// Number of runs that were begun.
    begun: u64,
    /// The newest run that succeeded. A failed run answers only the thread that ran it: the
    /// others run again and get the error of their own.
    succeeded: u64,
}

impl GroupSync {
    /// Returns after `sync` succeeded once since the call, on this thread or another.
    pub(super) fn run(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock().expect("no panic while held");
        let wanted = state.begun + 1;
        while state.running && state.succeeded < wanted {
            state = self.changed.wait(state).expect("no panic while held");
        }
        if state.succeeded >= wanted {
            return Ok(());
        }
        state.running = true;
        state.begun += 1;
        let run = state.begun;
        drop(state);

        let result = sync();

        let mut state = self.state.lock().expect("no panic while held");
        state.running = false;
        if result.is_ok() {
            state.succeeded = run;
        }
        self.changed.notify_all();
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    /// Starts a run that stays under way until told, then `others` callers, then lets it go.
    /// Returns how many runs there were and the callers' results.
    fn runs_with_waiters(others: usize, fail_second: bool) -> (usize, Vec<bool>) {
        let group = Arc::new(GroupSync::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let (release, gate) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel();
        let first = {
            let (group, runs) = (group.clone(), runs.clone());
            let gate = Mutex::new(gate);
            thread::spawn(move || {
                group.run(|| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    started.send(()).unwrap();
                    gate.lock().unwrap().recv().unwrap();
                    Ok(())
                })
            })
        };
        is_started.recv().unwrap();
        let waiters: Vec<_> = (0..others)
            .map(|_| {
                let (group, runs) = (group.clone(), runs.clone());
                thread::spawn(move || {
                    group.run(|| {
                        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
                        if fail_second && run == 2 {
                            return Err(io::Error::other("made to fail"));
                        }
                        Ok(())
                    })
                })
            })
            .collect();
        release.send(()).unwrap();
        first.join().unwrap().unwrap();
        let results = waiters
            .into_iter()
            .map(|waiter| waiter.join().unwrap().is_ok())
            .collect();
        (runs.load(Ordering::SeqCst), results)
    }

    #[test]
    fn a_waiter_is_never_answered_by_a_run_that_began_before_it_asked() {
        let (runs, results) = runs_with_waiters(1, false);
        assert_eq!((runs, results), (2, vec![true]));
    }

    #[test]
    fn a_failed_run_fails_one_caller_and_the_others_run_again() {
        let (_, results) = runs_with_waiters(8, true);
        assert_eq!(results.iter().filter(|ok| !**ok).count(), 1);
    }
}
