//! The server's log as clients with the right to it can follow it.
//!
//! One per process, as the log itself is: the program's logging hands each event on with
//! [`publish`].

use std::sync::LazyLock;

use moat_types::UnixMillis;

use crate::feed::{Feed, Follower};

/// One event of the log.
#[derive(Clone, Debug)]
pub struct LogEvent {
    /// When.
    pub time: UnixMillis,
    /// How grave it is.
    pub level: tracing::Level,
    /// The part of the program that it comes from.
    pub target: String,
    /// What it says, with its fields.
    pub message: String,
}

static LOG: LazyLock<Feed<LogEvent>> = LazyLock::new(Feed::default);

/// Hands on what `event` makes, if anyone follows the log.
pub fn publish(event: impl FnOnce() -> LogEvent) {
    if LOG.is_followed() {
        LOG.send(event());
    }
}

/// Follows the log from now on.
pub(crate) fn follow() -> Follower<LogEvent> {
    LOG.follow()
}
