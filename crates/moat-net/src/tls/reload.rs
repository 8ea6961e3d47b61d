//! Watching certificate files by polling: it works on every file system, for symlinks of
//! certbot and Kubernetes alike, where change notifications have gaps.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::Error;

/// How often files are looked at: a `stat` of two or three files costs some microseconds.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(2);

/// Something made of files that can be made anew.
pub(super) trait Reload: Send + Sync + 'static {
    /// Whether the files differ from the last look.
    fn files_changed(&self) -> bool;
    /// Reads the files and, if all is well, puts the result in use.
    fn reload(&self) -> Result<(), Error>;
}

/// Stops the watch when dropped.
#[derive(Debug)]
pub struct ReloadGuard(JoinHandle<()>);

impl Drop for ReloadGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks at the files every [`CHECK_EVERY`] until the guard or the last user is gone.
pub(super) fn watch<T: Reload>(target: &Arc<T>) -> ReloadGuard {
    let target = Arc::downgrade(target);
    ReloadGuard(tokio::spawn(async move {
        let mut tick = tokio::time::interval(CHECK_EVERY);
        loop {
            tick.tick().await;
            let target = Weak::clone(&target);
            // Certificates may lie on a network file system, whose waits must not stop requests.
            let checked = tokio::task::spawn_blocking(move || check(&target)).await;
            if !matches!(checked, Ok(true)) {
                return;
            }
        }
    }))
}

/// False when nobody uses the target any more.
fn check<T: Reload>(target: &Weak<T>) -> bool {
    let Some(target) = target.upgrade() else {
        return false;
    };
    if target.files_changed() {
        match target.reload() {
            Ok(()) => tracing::info!("certificate files changed and were reloaded"),
            // Files are often replaced one after the other, so a mismatch may be a matter of
            // moments. The next change is looked at again; until then the old pair stays.
            Err(error) => {
                tracing::warn!(%error, "changed certificate files were not taken, the old ones stay in use");
            }
        }
    }
    true
}

/// Locks a mutex of this module; a panic while holding it can't leave it half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
