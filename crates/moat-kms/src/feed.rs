//! Feeds that clients follow: what happens is handed on to whoever listens at the moment.
//!
//! A feed never holds up whoever writes to it. A follower that is too slow misses items and is
//! told how many.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

/// Items that a follower may be behind: some seconds of a busy server, a few hundred KiB.
const BACKLOG_MAX: usize = 2048;

/// A feed. Whoever follows it gets what is sent from then on.
pub(crate) struct Feed<T>(broadcast::Sender<Arc<T>>);

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG_MAX))
    }
}

impl<T> Feed<T> {
    /// Whether anyone listens: if not, nothing has to be made for them. It takes a lock.
    pub(crate) fn is_followed(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Sends an item to whoever listens.
    pub(crate) fn send(&self, item: T) {
        // It fails if nobody does, which is as good.
        let _ = self.0.send(Arc::new(item));
    }

    /// Follows the feed from now on.
    pub(crate) fn follow(&self) -> Follower<T> {
        Follower(self.0.subscribe())
    }
}

/// One who follows a feed.
pub(crate) struct Follower<T>(broadcast::Receiver<Arc<T>>);

/// What a follower gets.
#[derive(Debug)]
pub(crate) enum Next<T> {
    /// The next item.
    Item(Arc<T>),
    /// So many were missed.
    Missed(u64),
}

impl<T> Follower<T> {
    /// Waits for what comes next; `None` when the feed is gone.
    pub(crate) async fn next(&mut self) -> Option<Next<T>> {
        match self.0.recv().await {
            Ok(item) => Some(Next::Item(item)),
            Err(RecvError::Lagged(count)) => Some(Next::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_get_what_comes_after_them_until_the_end() {
        let feed = Feed::default();
        assert!(!feed.is_followed());
        feed.send(1);
        let mut follower = feed.follow();
        assert!(feed.is_followed());
        feed.send(2);
        drop(feed);
        assert!(matches!(follower.next().await, Some(Next::Item(item)) if *item == 2));
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_what_it_missed() {
        let feed = Feed::default();
        let mut follower = feed.follow();
        for number in 0..=BACKLOG_MAX {
            feed.send(number);
        }
        assert!(matches!(follower.next().await, Some(Next::Missed(1))));
        assert!(matches!(follower.next().await, Some(Next::Item(item)) if *item == 1));
    }
}
