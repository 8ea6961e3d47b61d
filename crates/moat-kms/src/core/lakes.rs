//! What keys guard: counted by the stores, told here, and read before a key is taken away.
//!
//! The key manager never sees an object. A store counts what stands under each KMS key now and then,
//! in the background, and tells it; the last count of each lake is one row per enclave. Nothing else
//! depends on these figures: they are as old as they say, and a lake whose stores never told is
//! unknown.

use bytes::Bytes;
use moat_kms_client::{Identity, wire};
use moat_meta::{Check, MetaStore, Write};
use moat_types::{EnclaveName, KeyName, LakeId, UnixMillis};

use super::access::Rights;
use super::{Caller, Core, KeyInfo};
use crate::error::Error;
use crate::policy::Command;
use crate::rows::{HoldingRow, LakeRow, Scope, lake_row};
use crate::state::{CONTENTION_RETRIES, OpenEnclave};

/// Lakes of one enclave that are remembered; beyond that the one that was silent for longest is
/// forgotten. Whoever may open one epoch key may make up lakes, and they must not fill the state.
const LAKES_MAX: usize = 64;
/// Keys of one report: as many as the key manager is made for, in a megabyte.
const HOLDINGS_MAX: usize = 10_000;

/// What a key guards in one lake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guarded {
    /// The lake.
    pub lake: LakeId,
    /// Buckets that have an object under the key.
    pub buckets: u64,
    /// Objects under it.
    pub objects: u64,
    /// The bytes of those objects, before encryption.
    pub bytes: u64,
    /// When they were counted.
    pub counted: UnixMillis,
    /// The store that counted.
    pub by: Identity,
}

impl<M: MetaStore> Core<M> {
    /// Takes note of what keys guard in a lake, in place of what was told before. What is told of
    /// keys whose epoch keys the caller may not open is left aside, and what others told of them
    /// stays.
    ///
    /// A report that is let through is no line in the audit: it comes every few seconds from each
    /// store, gives nothing away and decides nothing.
    ///
    /// # Errors
    /// `Error::Denied` unless the caller may open epoch keys; `Error::Count` for too many keys.
    pub async fn report_lake(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        lake: LakeId,
        report: &wire::LakeReport,
    ) -> Result<(), Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::EpochOpen);
        let result = async {
            let rights = self.rights(caller, &scope, command).await?;
            rights.check(command, None)?;
            if report.holdings.len() > HOLDINGS_MAX {
                return Err(Error::Count {
                    what: "holdings",
                    max: HOLDINGS_MAX,
                });
            }
            self.keep_report(caller, &rights, enclave, lake, report)
                .await
        }
        .await;
        if result.is_err() {
            let mut trail = self.trail(caller, &scope, command).subject(lake);
            return trail.noted(result).await;
        }
        result
    }

    async fn keep_report(
        &self,
        caller: &Caller,
        rights: &Rights,
        enclave: &EnclaveName,
        lake: LakeId,
        report: &wire::LakeReport,
    ) -> Result<(), Error> {
        let opened = rights.enclave()?;
        let may = |name: &str| rights.check(Command::EpochOpen, Some(name)).is_ok();
        let told = self.told(caller, report, may);
        let meta_key = lake_row(enclave.as_str(), &lake.to_string());
        for _ in 0..CONTENTION_RETRIES {
            let sealed = self.state.sealed(&meta_key).await?;
            let mut holdings = told.clone();
            let mut writes = Vec::new();
            match &sealed {
                Some(sealed) => {
                    let old: LakeRow = self.state.open_row(opened, &meta_key, sealed)?;
                    let others = old.holdings.into_iter();
                    holdings.extend(others.filter(|holding| !may(holding.key.as_str())));
                }
                None => writes.extend(self.forget_oldest_lake(opened, enclave).await?),
            }
            // Only possible where stores with different rights share a lake.
            holdings.truncate(HOLDINGS_MAX);
            let row = LakeRow {
                reported: self.state.clock.now(),
                holdings,
            };
            writes.push(self.state.put(opened, &meta_key, &row));
            let check = Check {
                key: meta_key.clone(),
                expected: sealed,
            };
            if self.state.commit_in(opened, vec![check], writes).await? {
                return Ok(());
            }
        }
        Err(Error::Contended)
    }

    fn told(
        &self,
        caller: &Caller,
        report: &wire::LakeReport,
        may: impl Fn(&str) -> bool,
    ) -> Vec<HoldingRow> {
        let age = i64::try_from(report.age_ms).unwrap_or(i64::MAX);
        let counted = UnixMillis(self.state.clock.now().0.saturating_sub(age).max(0));
        let known = report.holdings.iter().filter_map(|holding| {
            let key = KeyName::parse(&holding.key).ok()?;
            may(key.as_str()).then_some((key, holding))
        });
        known
            .map(|(key, holding)| HoldingRow {
                key,
                buckets: holding.buckets,
                objects: holding.objects,
                bytes: holding.bytes,
                counted,
                by: caller.identity,
            })
            .collect()
    }

    /// The write that makes room for one more lake, if there is none.
    async fn forget_oldest_lake(
        &self,
        opened: &OpenEnclave,
        enclave: &EnclaveName,
    ) -> Result<Option<Write>, Error> {
        let prefix = lake_row(enclave.as_str(), "");
        let (page, _) = self
            .state
            .list(&prefix, prefix.clone(), LAKES_MAX + 1)
            .await?;
        if page.len() < LAKES_MAX {
            return Ok(None);
        }
        let mut oldest = None;
        for (meta_key, sealed) in page.rows() {
            let row: LakeRow = self.state.open_row(opened, meta_key, sealed)?;
            if oldest.is_none_or(|(reported, _)| row.reported < reported) {
                oldest = Some((row.reported, meta_key));
            }
        }
        Ok(oldest.map(|(_, key)| Write::Delete(Bytes::copy_from_slice(key))))
    }

    /// Describes a key, and what it guards.
    ///
    /// # Errors
    /// `Error::KeyNotFound`.
    pub async fn key_info_guarded(
        &self,
        caller: &Caller,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<(KeyInfo, Vec<Guarded>), Error> {
        let (scope, command) = (Scope::Enclave(enclave.clone()), Command::KeyStatus);
        let mut trail = self.trail(caller, &scope, command).key(name);
        let result = async {
            let (opened, row) = self
                .readable_key(caller, &scope, enclave, name, command)
                .await?;
            let guarded = self.guarded(&opened, enclave, name).await?;
            // What was counted before the key was made is about another one of that name.
            let own = |guarded: &Guarded| guarded.counted >= row.created.at;
            let guarded = guarded.into_iter().filter(own).collect();
            Ok((super::keys::describe(name, &row), guarded))
        }
        .await;
        trail.noted(result).await
    }

    async fn guarded(
        &self,
        opened: &OpenEnclave,
        enclave: &EnclaveName,
        name: &KeyName,
    ) -> Result<Vec<Guarded>, Error> {
        let prefix = lake_row(enclave.as_str(), "");
        let (page, _) = self.state.list(&prefix, prefix.clone(), LAKES_MAX).await?;
        let mut found = Vec::new();
        for (meta_key, _) in page.rows() {
            let lake = std::str::from_utf8(&meta_key[prefix.len()..]).ok();
            let meta_key = Bytes::copy_from_slice(meta_key);
            let row = self.state.get(opened, &self.lakes, &meta_key).await?;
            let (Some(lake), Some(row)) = (lake.and_then(LakeId::parse), row) else {
                continue;
            };
            let of_key = row.holdings.iter().filter(|holding| holding.key == *name);
            found.extend(of_key.map(|holding| Guarded {
                lake,
                buckets: holding.buckets,
                objects: holding.objects,
                bytes: holding.bytes,
                counted: holding.counted,
                by: holding.by,
            }));
        }
        Ok(found)
    }
}
