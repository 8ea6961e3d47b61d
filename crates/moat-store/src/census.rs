//! What each KMS key guards: counted in the background, and told to the key manager, so that nobody
//! takes a key away without knowing what goes with it.
//!
//! The count walks over the rows of objects, page by page, and rests after each page for many times
//! as long as the page took; after a whole count it rests again. So it takes a few percent of one
//! core while it runs, less than one in the long run, and the larger a lake, the older its figures. Nothing
//! is counted per request and no row holds a sum, which several stores would have to fight over.
//!
//! Objects only: parts of uploads that are not complete and epochs without an object count for
//! nothing. Objects under a key of the client (SSE-C) are guarded by no KMS key.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use moat_blob::BlobStore;
use moat_crypto::{Census, Holding};
use moat_meta::{Check, MetaStore, Write};
use moat_types::{KeyName, LakeId};
use tokio::time::{Instant, sleep};

use crate::Store;
use crate::error::Result;
use crate::rows::{Damaged, keys, sealed_under};

/// Rows of a page: a millisecond's work.
const PAGE_ROWS: usize = 1000;
/// Rows are some hundred bytes, of which attributes may be 8 KiB.
const PAGE_BYTES: usize = 1 << 20;
/// How much longer than the page the rest after it is: a fiftieth of a core at most.
const REST_AFTER_PAGE: u32 = 50;
/// How much longer than the count the rest after it is.
const REST_AFTER_COUNT: u32 = 10;
/// The shortest and the longest rest between two counts: an operator who looks sees what was just
/// written, and a lake that takes hours to count is counted once a day.
const REST_MIN: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(24 * 3600);
/// Before the first count, so that a start is not slowed down.
const FIRST_REST: Duration = Duration::from_secs(2);
/// Keys that are told of, those with the most objects first: what one request may hold.
const KEYS_MAX: usize = 10_000;

/// A count that is under way.
#[derive(Default)]
struct Count {
    by_key: BTreeMap<String, (KeyName, Tally)>,
    /// The bucket of the last row: rows of one bucket stand together.
    bucket: Vec<u8>,
    /// How many buckets have been seen.
    buckets: u64,
}

#[derive(Default)]
struct Tally {
    buckets: u64,
    objects: u64,
    bytes: u64,
    /// The number of the last bucket that was counted.
    last_bucket: u64,
}

impl Count {
    fn add(&mut self, meta_key: &[u8], row: &[u8]) -> std::result::Result<(), Damaged> {
        let bucket = keys::bucket_of_object(meta_key).ok_or(Damaged("the key of an object"))?;
        if bucket != self.bucket {
            self.bucket = bucket.to_vec();
            self.buckets += 1;
        }
        let (size, key) = sealed_under(row)?;
        let Some(key) = key else { return Ok(()) };
        let tally = match self.by_key.get_mut(key) {
            Some((_, tally)) => tally,
            None => {
                let name = KeyName::parse(key).map_err(|_| Damaged("the KMS key of an object"))?;
                let new = (name, Tally::default());
                &mut self.by_key.entry(key.to_owned()).or_insert(new).1
            }
        };
        if tally.last_bucket != self.buckets {
            tally.last_bucket = self.buckets;
            tally.buckets += 1;
        }
        tally.objects += 1;
        tally.bytes = tally.bytes.saturating_add(size);
        Ok(())
    }

    fn into_holdings(self) -> Vec<Holding> {
        let holdings = self.by_key.into_values().map(|(key, tally)| Holding {
            key,
            buckets: tally.buckets,
            objects: tally.objects,
            bytes: tally.bytes,
        });
        let mut holdings: Vec<_> = holdings.collect();
        holdings.sort_by_key(|holding| std::cmp::Reverse(holding.objects));
        holdings.truncate(KEYS_MAX);
        holdings
    }
}

/// Counts and tells until the store is gone.
pub(crate) async fn count_for_ever<M: MetaStore, B: BlobStore>(store: Weak<Store<M, B>>) {
    let mut rest = FIRST_REST;
    loop {
        sleep(rest).await;
        let started = Instant::now();
        match count(&store).await {
            Ok(Some(holdings)) => tell(&store, holdings).await,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(cause = %error.cause, "what the KMS keys guard could not be counted");
            }
        }
        rest = (started.elapsed() * REST_AFTER_COUNT).clamp(REST_MIN, REST_MAX);
    }
}

/// One count over all objects; `None` if the store is gone.
pub(crate) async fn count<M: MetaStore, B: BlobStore>(
    store: &Weak<Store<M, B>>,
) -> Result<Option<Vec<Holding>>> {
    let mut range = keys::objects();
    let mut count = Count::default();
    loop {
        let Some(alive) = store.upgrade() else {
            return Ok(None);
        };
        let started = Instant::now();
        let page = alive
            .meta
            .scan(range.clone(), PAGE_ROWS, PAGE_BYTES)
            .await?;
        drop(alive);
        let Some(last) = page.len().checked_sub(1) else {
            return Ok(Some(count.into_holdings()));
        };
        for (meta_key, row) in page.rows() {
            count.add(meta_key, row)?;
        }
        range.start = [page.row(last).0, &[0]].concat().into();
        sleep(started.elapsed() * REST_AFTER_PAGE).await;
    }
}

async fn tell<M: MetaStore, B: BlobStore>(store: &Weak<Store<M, B>>, holdings: Vec<Holding>) {
    let Some(store) = store.upgrade() else { return };
    let told = async {
        let lake = store.lake().await?;
        let census = Census {
            lake,
            age: Duration::ZERO,
            holdings,
        };
        Result::Ok(store.epochs.ring().report(census).await?)
    };
    if let Err(error) = told.await {
        // The next count is told again.
        tracing::debug!(cause = %error.cause, "what the KMS keys guard could not be told");
    }
}

impl<M: MetaStore, B: BlobStore> Store<M, B> {
    /// The id of the lake, which is drawn when it is first asked for.
    pub(crate) async fn lake(&self) -> Result<LakeId> {
        let key = keys::lake();
        loop {
            if let Some(id) = self.meta.get(&key).await? {
                let id = id[..].try_into().map_err(|_| Damaged("the lake's id"))?;
                return Ok(LakeId::from_bytes(id));
            }
            let drawn = LakeId::random(&*self.random);
            let check = Check {
                key: key.clone(),
                expected: None,
            };
            let write = Write::Put(key.clone(), drawn.as_bytes().to_vec().into());
            // Another store may have drawn one: then that one counts.
            let _ = self.meta.commit(vec![check], vec![write]).await?;
        }
    }
}
