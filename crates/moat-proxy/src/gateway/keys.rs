//! What the gateway signs with for a store: keys that may change while it runs.

mod sts;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moat_s3::sigv4::{Credentials, Signer};
use moat_types::Clock;
use tokio::task::JoinHandle;

pub use sts::WebIdentity;

/// How often a source that may have changed is read again. Certificates are looked at as often.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Reads credentials anew; the error is a sentence for the log.
pub type ReadKeys = Arc<dyn Fn() -> Result<Credentials, String> + Send + Sync>;

/// Where a store's keys come from.
#[derive(Clone)]
pub enum KeySource {
    /// They stay as they are.
    Fixed(Credentials),
    /// A file. What could be read first is used until something else can be read.
    Watched {
        /// What it holds now.
        first: Credentials,
        /// Reads it again.
        read: ReadKeys,
    },
    /// An STS that takes a token for them.
    WebIdentity(Arc<WebIdentity>),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(keys) => f.debug_tuple("Fixed").field(keys).finish(),
            Self::Watched { first, .. } => f.debug_tuple("Watched").field(first).finish(),
            Self::WebIdentity(identity) => f.debug_tuple("WebIdentity").field(identity).finish(),
        }
    }
}

/// The keys of one store, now.
pub(super) struct Keys {
    source: KeySource,
    current: Arc<Current>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// `None` until an STS has answered for the first time.
struct Current {
    store: String,
    region: String,
    signer: ArcSwapOption<(Credentials, Signer)>,
}

impl Keys {
    /// Keys as `source` has them now; those of an STS go on if `before` had them from it.
    pub(super) fn new(
        store: &super::config::Store,
        before: Option<&Self>,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let current = Current {
            store: store.name.clone(),
            region: store.region.clone(),
            signer: ArcSwapOption::empty(),
        };
        match &store.keys {
            KeySource::Fixed(keys) | KeySource::Watched { first: keys, .. } => current.set(keys),
            KeySource::WebIdentity(identity) => {
                let kept = before.and_then(|before| match &before.source {
                    KeySource::WebIdentity(other) if other.is_same(identity) => {
                        before.current.signer.load_full()
                    }
                    _ => None,
                });
                if let Some(kept) = kept {
                    current.set(&kept.0);
                }
            }
        }
        let this = Self {
            source: store.keys.clone(),
            current: Arc::new(current),
            task: Mutex::default(),
        };
        this.keep_fresh(clock);
        this
    }

    fn keep_fresh(&self, clock: &Arc<dyn Clock>) {
        let current = Arc::clone(&self.current);
        let task = match &self.source {
            KeySource::Fixed(_) => return,
            KeySource::Watched { read, .. } => tokio::spawn(watch(current, Arc::clone(read))),
            KeySource::WebIdentity(identity) => {
                let (identity, clock) = (Arc::clone(identity), Arc::clone(clock));
                tokio::spawn(async move { identity.keep_fresh(&current, &*clock).await })
            }
        };
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// What signs, if there is anything to sign with.
    pub(super) fn signer(&self) -> Option<Arc<(Credentials, Signer)>> {
        self.current.signer.load_full()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        task.iter().for_each(JoinHandle::abort);
    }
}

impl Current {
    fn set(&self, keys: &Credentials) {
        let signer = Signer::new(keys.clone(), &self.region, "s3");
        self.signer.store(Some(Arc::new((keys.clone(), signer))));
    }

    /// Puts other keys into use, if they are other ones.
    fn replace(&self, keys: &Credentials) {
        let same = self
            .signer
            .load()
            .as_ref()
            .is_some_and(|current| is_same(&current.0, keys));
        if !same {
            tracing::info!(
                store = self.store,
                access_key_id = keys.access_key_id,
                "other keys are signed with"
            );
            self.set(keys);
        }
    }
}

fn is_same(a: &Credentials, b: &Credentials) -> bool {
    a.access_key_id == b.access_key_id
        && a.secret_access_key == b.secret_access_key
        && a.session_token == b.session_token
}

async fn watch(current: Arc<Current>, read: ReadKeys) {
    let mut told = None;
    loop {
        tokio::time::sleep(READ_EVERY).await;
        match read() {
            Ok(keys) => {
                current.replace(&keys);
                told = None;
            }
            // Once for each reason: the file may be away for the blink of a rotation, or for long.
            Err(error) => {
                if told.as_ref() != Some(&error) {
                    tracing::warn!(store = current.store, error, "the keys can't be read again");
                }
                told = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use moat_types::{SecretString, SystemClock};

    use super::super::config::Store;
    use super::*;

    fn keys(id: &str) -> Credentials {
        Credentials {
            access_key_id: id.to_owned(),
            secret_access_key: SecretString::new("secret".to_owned()),
            session_token: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_changes_the_keys_and_one_that_is_gone_does_not() {
        let content = Arc::new(Mutex::new(Ok(keys("one"))));
        let shared = Arc::clone(&content);
        let store = Store {
            name: "store".to_owned(),
            sites: 0..1,
            region: "us-east-1".to_owned(),
            keys: KeySource::Watched {
                first: keys("one"),
                read: Arc::new(move || shared.lock().unwrap().clone()),
            },
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let watched = Keys::new(&store, None, &clock);
        let id = || watched.signer().unwrap().0.access_key_id.clone();
        assert_eq!(id(), "one");
        let after = |outcome| {
            *content.lock().unwrap() = outcome;
            tokio::time::sleep(READ_EVERY * 2)
        };
        after(Ok(keys("two"))).await;
        assert_eq!(id(), "two");
        after(Err("no such file".to_owned())).await;
        assert_eq!(id(), "two");
        after(Ok(keys("three"))).await;
        assert_eq!(id(), "three");
    }
}
