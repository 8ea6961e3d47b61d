//! What becomes due by itself: the deletion of a key at the end of its grace period, the next
//! version of a key that rotates on schedule.
//!
//! A row for each stands in order of time, so looking for what is due reads no more than that.
//! The key's own row decides: a due row that does not fit it any more is only removed. Several
//! nodes may look at the same time; the commit lets one of them win.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use moat_meta::{Check, MetaStore};
use moat_types::{EnclaveName, KeyName, UnixMillis};

use super::Core;
use super::keys::Change;
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{DUE_ROWS, KeyRow, Origin, Scope, parse_due_row};

/// How often the core looks. A key whose grace period is over counts as gone at once, so this only
/// says how long its row may still stand, and how late a scheduled rotation may be.
pub const DUE_INTERVAL: Duration = Duration::from_secs(60);
/// Rows that are looked at in one go.
const DUE_ROWS_MAX: usize = 100;

impl<M: MetaStore> Core<M> {
    /// Does what is due by now. Returns how many keys were deleted or rotated.
    ///
    /// # Errors
    /// `Error::Store`, `Error::Audit`: what was not done stays due.
    pub async fn do_what_is_due(&self) -> Result<usize, Error> {
        let mut done = 0;
        let prefix = Bytes::from_static(DUE_ROWS.as_bytes());
        loop {
            let now = self.state.clock.now();
            let (page, _) = self
                .state
                .list(&prefix, prefix.clone(), DUE_ROWS_MAX)
                .await?;
            let rows: Vec<Bytes> = page
                .rows()
                .map(|(key, _)| Bytes::copy_from_slice(key))
                .collect();
            let mut looked_at = 0;
            for meta_key in rows {
                match parse_due_row(&meta_key) {
                    Some((at, ..)) if at > now => return Ok(done),
                    Some((_, enclave, key)) => {
                        done += usize::from(self.do_due(&enclave, &key, now).await?);
                    }
                    None => {}
                }
                self.state.remove(vec![meta_key]).await?;
                looked_at += 1;
            }
            if looked_at < DUE_ROWS_MAX {
                return Ok(done);
            }
        }
    }

    /// Does what is due for one key, if its row says that something is.
    async fn do_due(
        &self,
        enclave: &EnclaveName,
        key: &KeyName,
        now: UnixMillis,
    ) -> Result<bool, Error> {
        let scope = Scope::Enclave(enclave.clone());
        let Some(opened) = self.state.enclave_for_change(&scope).await? else {
            return Ok(false);
        };
        let meta_key = crate::rows::key_row(enclave.as_str(), key.as_str());
        let Some(sealed) = self.state.sealed(&meta_key).await? else {
            return Ok(false);
        };
        let row: KeyRow = self.state.open_row(&opened, &meta_key, &sealed)?;
        if self.is_deleted(&row) {
            let mut trail = self
                .own_trail(&scope, Command::KeyDelete)
                .key(key)
                .subject("the grace period is over");
            trail.begin().await?;
            let check = Check {
                key: meta_key.clone(),
                expected: Some(sealed),
            };
            let gone = vec![moat_meta::Write::Delete(meta_key)];
            let removed = self.state.commit_in(&opened, vec![check], gone).await;
            return trail.committed(removed).await;
        }
        let is_due = |row: &KeyRow| row.rotation_due().is_some_and(|at| at <= now);
        // A key that is disabled or waits for its deletion needs no version; its turn comes when
        // it is enabled and changed again.
        if !is_due(&row) || super::keys::check_usable(key, &row).is_err() {
            return Ok(false);
        }
        let mut trail = self
            .own_trail(&scope, Command::KeyCreate)
            .key(key)
            .subject("scheduled rotation");
        trail.begin().await?;
        let created = Origin { at: now, by: None };
        let rotate = |row: &KeyRow| {
            Ok(if is_due(row) {
                Change::Put(self.rotated(key, row, created)?)
            } else {
                Change::Keep
            })
        };
        let rotated = self.update_key(&opened, enclave, key, rotate).await;
        let rotated = rotated.map(|row| {
            trail.version(row.latest().number);
            true
        });
        trail.committed(rotated).await
    }
}

/// Looks for what is due until the core is gone.
pub(super) async fn watch<M: MetaStore>(core: Weak<Core<M>>) {
    loop {
        tokio::time::sleep(DUE_INTERVAL).await;
        let Some(core) = core.upgrade() else { return };
        if let Err(e) = core.do_what_is_due().await {
            tracing::warn!(error = %e, "what is due for keys could not be done; it is tried again");
        }
    }
}
