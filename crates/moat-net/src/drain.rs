//! The signal to end gracefully: stop accepting, finish what runs, but not for ever.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// A clonable drain signal. All clones of one signal start together, once.
#[derive(Clone, Debug)]
pub struct Drain {
    deadline: watch::Sender<Option<Instant>>,
}

impl Drain {
    /// A signal that has not started.
    pub fn new() -> Self {
        Self {
            deadline: watch::Sender::new(None),
        }
    }

    /// Starts draining: whatever still runs after `within` is cut. A second start can only bring
    /// the deadline nearer (the second Ctrl-C of an impatient operator).
    pub fn start(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.deadline.send_if_modified(|current| {
            let sooner = current.is_none_or(|old| deadline < old);
            if sooner {
                *current = Some(deadline);
            }
            sooner
        });
    }

    /// Whether draining has started.
    pub fn is_started(&self) -> bool {
        self.deadline.borrow().is_some()
    }

    /// Returns when draining starts; at once if it has.
    pub async fn started(&self) {
        let mut deadline = self.deadline.subscribe();
        // `self` holds a sender, so the channel cannot close while we wait.
        let _ = deadline.wait_for(Option::is_some).await;
    }

    /// Returns when draining has started and its deadline has passed.
    pub async fn expired(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let current = *deadline.borrow_and_update();
            match current {
                None => {
                    let _ = deadline.changed().await;
                }
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => return,
                    _ = deadline.changed() => {}
                },
            }
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_second_start_only_brings_the_deadline_nearer() {
        let drain = Drain::new();
        assert!(!drain.is_started());
        let began = Instant::now();
        drain.start(Duration::from_secs(30));
        drain.clone().start(Duration::from_secs(5));
        drain.start(Duration::from_secs(60));
        drain.started().await;
        drain.expired().await;
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
