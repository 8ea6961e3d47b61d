//! Many operations of one kind at once: they are decided one by one, each has a line of its own in
//! the audit, and all wait for the disk once.
//!
//! What the items of a batch share is looked up, hashed and written once: the rights, the key
//! (with the one derived from it) and the context where they are those of the item before, and the beginning of their audit lines.

use std::sync::Arc;
use std::time::Instant;

use moat_meta::MetaStore;
use moat_types::{EnclaveName, KeyName, KeyVersion};

use super::access::Rights;
use super::items::{BATCH_ITEMS_MAX, Item};
use super::keys::check_usable;
use super::trail::{OUTCOMES, conclude, context_hash};
use super::{Caller, Core};
use crate::audit::{Asked, Facts};
use crate::envelope::OperationKeys;
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{KeyRow, Scope};

impl<M: MetaStore> Core<M> {
    /// Decides and does a batch. `work` gives the version that was used and the result.
    pub(super) async fn batch<I: Item, T>(
        &self,
        (caller, enclave, command): (&Caller, &EnclaveName, Command),
        items: &[I],
        mut work: impl FnMut(&I, &KeyRow, &mut OperationKeys) -> Result<(KeyVersion, T), Error>,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let scope = Scope::Enclave(enclave.clone());
        if items.len() > BATCH_ITEMS_MAX {
            let what = "items";
            let max = BATCH_ITEMS_MAX;
            let refused = Err(Error::Count { what, max });
            return self.trail(caller, &scope, command).noted(refused).await;
        }
        let started = Instant::now();
        let asked = Arc::new(self.asked(caller, &scope, command));
        // The rights themselves count as one operation.
        let more = items.len().saturating_sub(1);
        let rights = match self.rights(caller, &scope, command).await {
            Ok(rights) => {
                self.limiter_debit(caller, more);
                rights
            }
            Err(e) => return self.trail(caller, &scope, command).noted(Err(e)).await,
        };
        let mut last = LastItem::default();
        let mut lines = Vec::with_capacity(items.len());
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            let mut line = last.line(&asked, item);
            let row = self.key_of_item(&rights, enclave, command, item.key(), &mut last);
            let result = match row.await {
                Ok(row) => work(item, &row, &mut last.operations),
                Err(e) => Err(e),
            };
            results.push(result.map(|(version, value)| {
                line.version = Some(version.number());
                value
            }));
            lines.push(line);
        }
        self.end_batch(command, started, lines, results).await
    }

    async fn key_of_item(
        &self,
        rights: &Rights,
        enclave: &EnclaveName,
        command: Command,
        name: &KeyName,
        last: &mut LastItem<'_>,
    ) -> Result<Arc<KeyRow>, Error> {
        rights.check(command, Some(name.as_str()))?;
        if let Some((last, row)) = &last.key
            && last == name
        {
            return Ok(row.clone());
        }
        let row = self.key(rights.enclave()?, enclave, name).await?;
        check_usable(name, &row)?;
        last.key = Some((name.clone(), row.clone()));
        last.operations = OperationKeys::default();
        Ok(row)
    }

    /// Ends a batch: one wait for all its lines. If any of it was a release, nothing of it is
    /// answered before all lines are durable.
    async fn end_batch<T>(
        &self,
        command: Command,
        started: Instant,
        mut lines: Vec<Facts>,
        results: Vec<Result<T, Error>>,
    ) -> Result<Vec<Result<T, Error>>, Error> {
        let taken = started.elapsed();
        for (line, result) in lines.iter_mut().zip(&results) {
            conclude(line, result, taken);
        }
        for outcome in OUTCOMES {
            let ended = lines.iter().filter(|line| line.outcome == outcome).count();
            if ended > 0 {
                self.meters.count(command, outcome, taken, ended);
            }
        }
        let releases = results.iter().any(Result::is_ok);
        let written = if releases {
            self.audit.commit_all(&lines).await
        } else {
            self.audit.note_all(&lines).await
        };
        match written {
            Err(e) if releases => Err(e.into()),
            _ => Ok(results),
        }
    }
}

/// What the item before had: most batches are about one key, and many about one context.
#[derive(Default)]
struct LastItem<'a> {
    key: Option<(KeyName, Arc<KeyRow>)>,
    /// Of this key, as it was read.
    operations: OperationKeys,
    context: Option<(&'a [u8], [u8; 32])>,
}

impl<'a> LastItem<'a> {
    /// The line of an item, as far as it is known.
    fn line<I: Item>(&mut self, asked: &Arc<Asked>, item: &'a I) -> Facts {
        let mut line = Facts::new(asked.clone());
        line.key = Some(item.key().clone());
        line.context = item.context().map(|context| match self.context {
            Some((last, hash)) if last == context => hash,
            _ => {
                let hash = context_hash(context);
                self.context = Some((context, hash));
                hash
            }
        });
        line
    }
}
