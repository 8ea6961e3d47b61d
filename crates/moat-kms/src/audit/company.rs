//! Whether lines that are about to come are worth a wait.

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

/// How often the runtime is looked at: a wake of the thread costs a tenth of a sync.
const STEP: Duration = Duration::from_micros(200);
/// The longest wait: as long as a sync takes on a usual disk. With 64 connections on 2 busy cores it
/// makes a fifth fewer syncs and a lower p99; more steps made latency worse where something else
/// keeps the processors busy.
const STEPS_MAX: usize = 2;

/// The runtime whose requests make the lines; none outside of one.
pub(super) struct Company(Option<RuntimeMetrics>);

impl Company {
    /// The runtime that this is called in.
    pub(super) fn of_this_runtime() -> Self {
        Self(Handle::try_current().ok().map(|handle| handle.metrics()))
    }

    /// Waits until the runtime has nothing to do, because then no line is on its way, or for a
    /// short while.
    pub(super) fn wait(&self) {
        for _ in 0..STEPS_MAX {
            if !self.is_busy() {
                return;
            }
            std::thread::sleep(STEP);
        }
    }

    /// Whether a thread of the runtime is at work.
    fn is_busy(&self) -> bool {
        // The count goes up when a thread rests and when it is woken, so it is odd while it rests.
        self.0.as_ref().is_some_and(|runtime| {
            (0..runtime.num_workers()).any(|at| runtime.worker_park_unpark_count(at) % 2 == 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_runtime_at_rest_is_not_waited_for_and_one_at_work_is() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let company = {
            let _inside = runtime.enter();
            Company::of_this_runtime()
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while company.is_busy() {
            assert!(Instant::now() < deadline, "it never came to rest");
            std::thread::yield_now();
        }
        let (begun, began) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = ended.recv();
        });
        began.recv().unwrap();
        assert!(company.is_busy());
        let before = Instant::now();
        company.wait();
        assert!(before.elapsed() >= STEP * STEPS_MAX as u32);
        end.send(()).unwrap();
        while company.is_busy() {
            assert!(Instant::now() < deadline, "it never came to rest");
            std::thread::yield_now();
        }
    }

    #[test]
    fn outside_of_a_runtime_nobody_is_waited_for() {
        assert!(!Company::of_this_runtime().is_busy());
    }
}
