//! Refusals for asking too often: a line in the audit for the first one, and one line a second for
//! those that follow it, with their number. So an identity that runs wild fills neither the disk
//! nor the time of the audit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use moat_kms_client::Identity;
use moat_meta::MetaStore;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Core;
use crate::audit::Facts;

/// For how long refusals of one identity are gathered into one line.
const GATHER: Duration = Duration::from_secs(1);
/// Identities whose refusals are gathered at the same time. Those of further ones are counted in
/// the metrics only: they can be made up, and each would have a line otherwise.
const IDENTITIES_MAX: usize = 1000;

/// What was refused and stands in no line yet.
#[derive(Default)]
pub(super) struct Refusals {
    gathered: Mutex<HashMap<Identity, Gathered>>,
    /// Tells who writes the lines that there is something to wait for.
    begun: Arc<Notify>,
}

struct Gathered {
    until: Instant,
    count: u64,
    /// Of the last one: stands for all of them.
    facts: Option<Facts>,
}

impl Refusals {
    /// Takes note of a refusal; gives it back if it is to have a line of its own.
    pub(super) fn gather(&self, facts: Facts, now: Instant) -> Option<Facts> {
        let Some(identity) = facts.asked.identity else {
            return Some(facts);
        };
        let mut all = self.all();
        if let Some(gathered) = all.get_mut(&identity) {
            gathered.count += 1;
            gathered.facts = Some(facts);
            return None;
        }
        if all.len() >= IDENTITIES_MAX {
            return None;
        }
        let first = Gathered {
            until: now + GATHER,
            count: 0,
            facts: None,
        };
        all.insert(identity, first);
        self.begun.notify_one();
        Some(facts)
    }

    /// The lines that are due, and when to look again; everything is due at the `end`.
    fn due(&self, now: Instant, end: bool) -> (Vec<Facts>, Option<Instant>) {
        let mut lines = Vec::new();
        let mut all = self.all();
        all.retain(|_, gathered| {
            if gathered.until > now && !end {
                return true;
            }
            let Some(mut facts) = gathered.facts.take() else {
                // Nothing came in the meantime, so the next one is a first one again.
                return false;
            };
            let others = gathered.count - 1;
            if others > 0 {
                let reason = facts.reason.take().unwrap_or_default();
                facts.reason = Some(format!("{reason} (and {others} more in this second)"));
            }
            lines.push(facts);
            gathered.count = 0;
            gathered.until = now + GATHER;
            true
        });
        let next = all.values().map(|gathered| gathered.until).min();
        (lines, next)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Identity, Gathered>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: MetaStore> Core<M> {
    /// Writes the lines of refusals that were gathered; when to do so again.
    pub(super) async fn tell_refusals(&self, end: bool) -> Option<Instant> {
        let (lines, next) = self.refusals.due(Instant::now(), end);
        if !lines.is_empty()
            && let Err(e) = self.audit.note_all(&lines).await
        {
            // Nothing was done and nothing given away that the audit would have to know.
            tracing::warn!(error = %e, "refusals could not be noted in the audit");
        }
        next
    }
}

/// Writes lines of gathered refusals until the core is gone.
pub(super) async fn watch<M: MetaStore>(core: Weak<Core<M>>) {
    let Some(begun) = core.upgrade().map(|core| Arc::clone(&core.refusals.begun)) else {
        return;
    };
    loop {
        begun.notified().await;
        let mut next = Some(Instant::now() + GATHER);
        while let Some(at) = next {
            tokio::time::sleep_until(at).await;
            let Some(core) = core.upgrade() else { return };
            next = core.tell_refusals(false).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use moat_types::UnixMillis;

    use super::*;
    use crate::audit::Asked;

    fn facts(identity: [u8; 32]) -> Facts {
        let asked = Asked {
            time: UnixMillis(0),
            request_id: "R".into(),
            identity: Some(Identity::from_spki_sha256(identity)),
            source: "local".into(),
            enclave: None,
            operation: "KEY:GENERATE",
        };
        Facts {
            reason: Some("too often".into()),
            ..Facts::new(Arc::new(asked))
        }
    }

    #[test]
    fn a_second_of_refusals_is_two_lines_and_none_is_left_out_of_the_count() {
        let refusals = Refusals::default();
        let now = Instant::now();
        assert!(refusals.gather(facts([1; 32]), now).is_some());
        for _ in 0..1000 {
            assert!(refusals.gather(facts([1; 32]), now).is_none());
        }
        assert!(
            refusals.gather(facts([2; 32]), now).is_some(),
            "each for itself"
        );

        assert!(refusals.due(now, false).0.is_empty());
        let (lines, next) = refusals.due(now + GATHER, false);
        let reasons: Vec<_> = lines.iter().map(|line| line.reason.as_deref()).collect();
        assert_eq!(reasons, [Some("too often (and 999 more in this second)")]);
        assert_eq!(next, Some(now + 2 * GATHER));

        // As long as it goes on there is one line a second; afterwards it begins anew.
        assert!(refusals.gather(facts([1; 32]), now + GATHER).is_none());
        let (lines, _) = refusals.due(now + 2 * GATHER, false);
        assert_eq!(lines[0].reason.as_deref(), Some("too often"));
        let (lines, next) = refusals.due(now + 3 * GATHER, false);
        assert_eq!((lines.len(), next), (0, None));
        assert!(refusals.gather(facts([1; 32]), now + 3 * GATHER).is_some());

        // Nothing is lost at the end.
        refusals.gather(facts([1; 32]), now + 3 * GATHER);
        assert_eq!(refusals.due(now + 3 * GATHER, true).0.len(), 1);
    }

    #[test]
    fn made_up_identities_do_not_fill_the_memory() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let mut lines = 0;
        for number in 0..2 * IDENTITIES_MAX {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
            lines += usize::from(refusals.gather(facts(hash), now).is_some());
        }
        assert_eq!(
            (lines, refusals.all().len()),
            (IDENTITIES_MAX, IDENTITIES_MAX)
        );
    }
}
