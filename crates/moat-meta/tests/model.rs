//! Random operations against a plain ordered map, on a log so small that rows are in every layer.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use moat_meta::{Check, Embedded, MetaStore, Options, Outcome, Write};
use moat_testkit::sim_disk::{SimDisk, Unsynced};
use proptest::collection::vec;
use proptest::prelude::*;

type Model = BTreeMap<Bytes, Bytes>;

#[derive(Debug, Clone)]
enum Step {
    /// Checks that hold or not, by the flag, and writes.
    Commit(Vec<(Bytes, bool)>, Vec<Write>),
    Get(Bytes),
    Scan(Range<Bytes>, usize, usize),
    Last(Range<Bytes>),
    /// Closes and opens.
    Reopen,
    /// Opens what a power cut left, when all is synced.
    PowerCut(u64),
}

/// Few and short keys, so that rows meet.
fn key() -> impl Strategy<Value = Bytes> {
    vec(
        prop_oneof![Just(0), Just(b'a'), Just(b'b'), Just(0xFF)],
        0..4,
    )
    .prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    (any::<u8>(), prop_oneof![0..20_usize, 500..3_000_usize])
        .prop_map(|(byte, length)| Bytes::from(vec![byte; length]))
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Write::Put(key, value)),
        1 => key().prop_map(Write::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (key(), key()).prop_map(|(start, end)| start..end);
    prop_oneof![
        8 => (vec((key(), prop::bool::weighted(0.8)), 0..3), vec(write(), 0..6))
            .prop_map(|(checks, writes)| Step::Commit(checks, writes)),
        4 => key().prop_map(Step::Get),
        4 => (range(), 0..12_usize, 0..6_000_usize)
            .prop_map(|(range, rows, bytes)| Step::Scan(range, rows, bytes)),
        2 => range().prop_map(Step::Last),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

fn open(disk: &SimDisk) -> Embedded {
    let options = Options {
        cache_bytes: 1 << 20,
        log_bytes: 12 << 10,
        ..Options::default()
    };
    Embedded::open_on(Arc::new(disk.clone()), options).unwrap()
}

/// The page that the contract asks for.
fn page(
    model: &Model,
    range: Range<Bytes>,
    rows_max: usize,
    bytes_max: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let mut bytes = 0;
    if range.start >= range.end {
        return rows;
    }
    for (key, value) in model.range(range) {
        if rows.len() >= rows_max || (bytes >= bytes_max && !rows.is_empty()) {
            break;
        }
        bytes += key.len() + value.len();
        rows.push((key.clone(), value.clone()));
    }
    rows
}

fn commit(model: &mut Model, checks: &[Check], writes: &[Write]) -> Outcome {
    let failed = checks
        .iter()
        .position(|check| model.get(&check.key) != check.expected.as_ref());
    if let Some(index) = failed {
        return Outcome::CheckFailed(index);
    }
    for write in writes {
        match write {
            Write::Put(key, value) => drop(model.insert(key.clone(), value.clone())),
            Write::Delete(key) => drop(model.remove(key)),
        }
    }
    Outcome::Committed
}

async fn run(steps: Vec<Step>) {
    let mut disk = SimDisk::new();
    let mut store = open(&disk);
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Commit(checks, writes) => {
                let checks: Vec<Check> = checks
                    .into_iter()
                    .map(|(key, holds)| {
                        let found = model.get(&key).cloned();
                        let expected = match (holds, found) {
                            (true, found) => found,
                            (false, Some(_)) => None,
                            (false, None) => Some(Bytes::from("not there")),
                        };
                        Check { key, expected }
                    })
                    .collect();
                let expected = commit(&mut model, &checks, &writes);
                assert_eq!(store.commit(checks, writes).await.unwrap(), expected);
            }
            Step::Get(key) => {
                assert_eq!(store.get(&key).await.unwrap().as_ref(), model.get(&key));
            }
            Step::Scan(range, rows_max, bytes_max) => {
                let found = store
                    .scan(range.clone(), rows_max, bytes_max)
                    .await
                    .unwrap();
                let expected = page(&model, range, rows_max, bytes_max);
                let expected = expected.iter().map(|(key, value)| (&key[..], &value[..]));
                assert!(found.rows().eq(expected));
            }
            Step::Last(range) => {
                let found = store.last(range.clone()).await.unwrap();
                let expected = page(&model, range, usize::MAX, usize::MAX);
                let expected = expected.last().map(|(key, value)| (&key[..], &value[..]));
                assert_eq!(found.rows().next(), expected);
            }
            Step::Reopen => {
                drop(store);
                store = open(&disk);
            }
            Step::PowerCut(seed) => {
                // All is answered, so all survives, whatever is torn.
                disk = disk.after_power_cut(Unsynced::Torn(seed));
                store = open(&disk);
            }
        }
    }
    let all = Bytes::new()..Bytes::from(vec![0xFF; 8]);
    let found = store.scan(all, usize::MAX, usize::MAX).await.unwrap();
    let expected = model.iter().map(|(key, value)| (&key[..], &value[..]));
    assert!(found.rows().eq(expected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_is_an_ordered_map(steps in vec(step(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}
