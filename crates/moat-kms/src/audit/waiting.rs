//! Telling those who wait for a sync.
//!
//! To wake a task from a thread that is not the runtime's costs several times what it costs from
//! within. So the writer wakes one task of the runtime, and that one wakes the others.

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::AuditError;

/// Tells one who waits.
pub(super) type Done = oneshot::Sender<Result<(), AuditError>>;

type Told = (Vec<Done>, Result<(), AuditError>);

/// The way to those who wait.
pub(super) struct Waiting(Option<mpsc::UnboundedSender<Told>>);

impl Waiting {
    /// The runtime that this is called in; outside of one, everybody is told directly.
    pub(super) fn of_this_runtime() -> Self {
        Self(Handle::try_current().ok().map(|runtime| {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            // Ends with the writer.
            runtime.spawn(async move {
                while let Some((waiting, result)) = receiver.recv().await {
                    tell(waiting, &result);
                }
            });
            sender
        }))
    }

    /// Tells all of them. What waits in the channel is bounded by the room of the log's queue.
    pub(super) fn tell(&self, waiting: Vec<Done>, result: Result<(), AuditError>) {
        let told = (waiting, result);
        let left = match &self.0 {
            Some(sender) if told.0.len() > 1 => sender.send(told).err().map(|lost| lost.0),
            _ => Some(told),
        };
        // Few of them, or the runtime is on its way down.
        if let Some((waiting, result)) = left {
            tell(waiting, &result);
        }
    }
}

fn tell(waiting: Vec<Done>, result: &Result<(), AuditError>) {
    for done in waiting {
        // A caller that is gone does not need the answer.
        let _ = done.send(result.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_is_told_inside_and_outside_of_a_runtime() {
        for count in [1, 2, 100] {
            for waiting in [Waiting::of_this_runtime(), Waiting(None)] {
                let (done, told): (Vec<_>, Vec<_>) = (0..count).map(|_| oneshot::channel()).unzip();
                waiting.tell(done, Err(AuditError::Poisoned));
                for told in told {
                    assert!(matches!(told.await.unwrap(), Err(AuditError::Poisoned)));
                }
            }
        }
    }
}
