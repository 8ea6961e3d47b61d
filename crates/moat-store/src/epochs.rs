//! Epochs: the key-encryption keys of one (bucket, KMS key) for a day.
//!
//! The wrapped form of an epoch key is one row; the key itself is leased from the key manager and
//! held by the `KeyRing`. Sealing an object inside a lease asks nobody.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use moat_crypto::{EpochKey, EpochScope, KeyRing, NewEpoch};
use moat_meta::{Check, MetaStore, Outcome, Write};
use moat_types::{BucketName, Clock, EpochId, KeyName, Random, UnixMillis};

use crate::error::{Error, Result};
use crate::rows::{Damaged, EpochRow, keys};

/// How long new objects are sealed under one epoch. Bounds what one epoch key guards, and keeps
/// the number of wraps far below the 2^32 of random nonces: a day at 10,000/s is under 2^30.
const EPOCH_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The epoch in which a (bucket, KMS key) seals.
#[derive(Clone)]
struct Current {
    epoch: EpochId,
    created: UnixMillis,
}

pub(crate) struct Epochs<M> {
    meta: Arc<M>,
    ring: Arc<dyn KeyRing>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    current: RwLock<HashMap<(BucketName, KeyName), Current>>,
}

impl<M: MetaStore> Epochs<M> {
    pub(crate) fn new(
        meta: Arc<M>,
        ring: Arc<dyn KeyRing>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            meta,
            ring,
            clock,
            random,
            current: RwLock::default(),
        }
    }

    pub(crate) fn ring(&self) -> &dyn KeyRing {
        &*self.ring
    }

    /// The epoch and key under which a new object of `bucket` is sealed.
    pub(crate) async fn sealing(
        &self,
        bucket: &BucketName,
        key: &KeyName,
    ) -> Result<(EpochId, Arc<EpochKey>)> {
        let name = (bucket.clone(), key.clone());
        let known = self
            .current
            .read()
            .expect("no panic under this lock")
            .get(&name)
            .cloned();
        if let Some(current) = known.filter(|current| self.is_fresh(current.created)) {
            if let Some(held) = self.ring.held(&current.epoch) {
                return Ok((current.epoch, held));
            }
            let opened = self.opening(bucket, key, current.epoch).await?;
            return Ok((current.epoch, opened));
        }
        self.sealing_from_rows(name).await
    }

    /// The key of an epoch in which an existing object was sealed.
    pub(crate) async fn opening(
        &self,
        bucket: &BucketName,
        key: &KeyName,
        epoch: EpochId,
    ) -> Result<Arc<EpochKey>> {
        if let Some(held) = self.ring.held(&epoch) {
            return Ok(held);
        }
        let row = self.meta.get(&keys::epoch(bucket, epoch)).await?;
        let row = row.ok_or(Damaged("the row of an epoch is missing"))?;
        let row = EpochRow::decode(&row)?;
        if row.key != *key {
            return Err(Damaged("an object and its epoch name different keys").into());
        }
        let scope = EpochScope {
            bucket: bucket.clone(),
            key: row.key,
            epoch,
        };
        Ok(self.ring.open(scope, row.wrapped).await?)
    }

    fn is_fresh(&self, created: UnixMillis) -> bool {
        let age = self.clock.now().0.saturating_sub(created.0);
        (0..EPOCH_AGE_MAX.as_millis() as i64).contains(&age)
    }

    /// Finds the current epoch in the rows, or makes the next one. Several stores may try at
    /// once: the commit lets one win, the others take its epoch.
    async fn sealing_from_rows(
        &self,
        name: (BucketName, KeyName),
    ) -> Result<(EpochId, Arc<EpochKey>)> {
        let (bucket, key) = &name;
        let pointer_key = keys::current_epoch(bucket, key);
        loop {
            let pointer = self.meta.get(&pointer_key).await?;
            if let Some(id) = &pointer {
                let id: [u8; 16] = id[..]
                    .try_into()
                    .map_err(|_| Damaged("current epoch row"))?;
                let epoch = EpochId::from_bytes(id);
                let row = self.meta.get(&keys::epoch(bucket, epoch)).await?;
                let row = EpochRow::decode(&row.ok_or(Damaged("current epoch row"))?)?;
                if self.is_fresh(row.created) {
                    self.remember(&name, epoch, row.created);
                    let opened = self.opening(bucket, key, epoch).await?;
                    return Ok((epoch, opened));
                }
            }
            let epoch = EpochId::random(&*self.random);
            let scope = EpochScope {
                bucket: bucket.clone(),
                key: key.clone(),
                epoch,
            };
            let NewEpoch {
                version,
                wrapped,
                key: epoch_key,
            } = self.ring.generate(scope).await?;
            let created = self.clock.now();
            let row = EpochRow {
                created,
                key: key.clone(),
                version,
                wrapped,
            };
            let outcome = self
                .meta
                .commit(
                    vec![Check {
                        key: pointer_key.clone(),
                        expected: pointer,
                    }],
                    vec![
                        Write::Put(keys::epoch(bucket, epoch), row.encode().into()),
                        Write::Put(pointer_key.clone(), epoch.as_bytes().to_vec().into()),
                    ],
                )
                .await?;
            if outcome == Outcome::Committed {
                self.remember(&name, epoch, created);
                return Ok((epoch, epoch_key));
            }
        }
    }

    fn remember(&self, name: &(BucketName, KeyName), epoch: EpochId, created: UnixMillis) {
        let mut current = self.current.write().expect("no panic under this lock");
        current.insert(name.clone(), Current { epoch, created });
    }

    /// Forgets what is known of a bucket that was deleted.
    pub(crate) fn forget_bucket(&self, bucket: &BucketName) {
        let mut current = self.current.write().expect("no panic under this lock");
        current.retain(|(name, _), _| name != bucket);
    }

    /// Whether the key exists and may be used.
    pub(crate) async fn check(&self, key: &KeyName) -> Result<()> {
        self.ring.check(key.clone()).await.map_err(Error::from)
    }
}
