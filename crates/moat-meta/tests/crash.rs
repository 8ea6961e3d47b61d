//! Power cuts. A simulated disk dies at each of its syncs in turn and forgets what was not synced,
//! or keeps any part of it. When the engine is opened again, each commit that was answered is there
//! whole, and no commit is there in part.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use moat_meta::{Embedded, Error, MetaStore, Options, Outcome, Write};
use moat_testkit::sim_disk::{SimDisk, Unsynced};
use tokio::task::JoinSet;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A log so small that rows move to the tree every few commits.
fn options() -> Options {
    Options {
        cache_bytes: 1 << 20,
        log_bytes: 24 << 10,
        ..Options::default()
    }
}

fn open(disk: &SimDisk) -> Result<Embedded, Error> {
    Embedded::open_on(Arc::new(disk.clone()), options())
}

/// Commit number `n` of a task: new rows, a row that all commits change, and one removed.
fn writes(task: usize, n: usize) -> Vec<Write> {
    let key = |name: String| Bytes::from(format!("{task}/{name}"));
    let value = |length: usize| Bytes::from(vec![n as u8; length]);
    let mut writes = vec![
        Write::Put(key(format!("new/{n:04}")), value(50 + n * 37 % 3_000)),
        Write::Put(key("counter".into()), Bytes::from(n.to_string())),
        Write::Put(key(format!("slot/{}", n % 5)), value(10)),
    ];
    if n >= 3 {
        writes.push(Write::Delete(key(format!("new/{:04}", n - 3))));
    }
    if n % 11 == 10 {
        // Longer than what the log keeps in memory: frozen at once.
        writes.push(Write::Put(key("large".into()), value(40_000)));
    }
    writes
}

fn apply(model: &mut Model, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => drop(model.insert(key.to_vec(), value.to_vec())),
            Write::Delete(key) => drop(model.remove(&key[..])),
        }
    }
}

/// The task's rows after its first `count` commits.
fn model(task: usize, count: usize) -> Model {
    let mut model = Model::new();
    for n in 0..count {
        apply(&mut model, &writes(task, n));
    }
    model
}

async fn rows(store: &Embedded, task: usize) -> Model {
    let range = Bytes::from(format!("{task}/"))..Bytes::from(format!("{task}0"));
    let page = store.scan(range, usize::MAX, usize::MAX).await.unwrap();
    page.rows()
        .map(|(key, value)| (key.to_vec(), value.to_vec()))
        .collect()
}

/// Commits one after the other until the power goes; returns how many were answered.
async fn work(store: &Embedded, task: usize, from: usize, to: usize) -> usize {
    for n in from..to {
        match store.commit(vec![], writes(task, n)).await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Committed),
            Err(_) => return n,
        }
    }
    to
}

/// The task's rows are those after `answered` commits, or one more: the one that was under way.
async fn assert_whole(store: &Embedded, task: usize, answered: usize, context: &str) -> usize {
    let found = rows(store, task).await;
    (answered..=answered + 1)
        .find(|count| found == model(task, *count))
        .unwrap_or_else(|| {
            let counter = found.get(format!("{task}/counter").as_bytes());
            let counter = counter.map(|value| String::from_utf8_lossy(value));
            panic!("{context}: {answered} commits were answered; found counter {counter:?}")
        })
}

/// The ways in which the disk is looked at after a cut.
fn ways(cut: u64) -> [Unsynced; 5] {
    [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Torn(cut * 3),
        Unsynced::Torn(cut * 3 + 1),
        Unsynced::Torn(cut * 3 + 2),
    ]
}

#[tokio::test]
async fn every_answered_commit_survives_a_cut_at_each_sync() {
    const COMMITS: usize = 45;
    let mut cut = 0;
    loop {
        let disk = SimDisk::new();
        disk.dies_at_sync(cut);
        let mut answered = 0;
        if let Ok(store) = open(&disk) {
            answered = work(&store, 1, 0, COMMITS).await;
        }
        for unsynced in ways(cut) {
            let context = format!("cut at sync {cut}, {unsynced:?}");
            let after = disk.after_power_cut(unsynced);
            let store = open(&after).unwrap_or_else(|error| panic!("{context}: {error}"));
            let count = assert_whole(&store, 1, answered, &context).await;
            // And it goes on from there, also once it is opened again.
            assert_eq!(work(&store, 1, count, count + 12).await, count + 12);
            drop(store);
            let store = open(&after).unwrap();
            assert_eq!(rows(&store, 1).await, model(1, count + 12), "{context}");
        }
        if !disk.is_dead() {
            assert_eq!(answered, COMMITS);
            break;
        }
        cut += 1;
    }
    // More than one each: rows moved to the tree on the way.
    assert!(cut > COMMITS as u64 + 15, "{cut} syncs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commits_that_share_a_sync_survive_cuts() {
    const TASKS: usize = 8;
    for cut in (0..120).step_by(3) {
        let disk = SimDisk::new();
        disk.dies_at_sync(cut);
        let mut answered = [0; TASKS];
        if let Ok(store) = open(&disk) {
            let store = Arc::new(store);
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let store = store.clone();
                tasks.spawn(async move { (task, work(&store, task, 0, 30).await) });
            }
            for (task, count) in tasks.join_all().await {
                answered[task] = count;
            }
        }
        for unsynced in ways(cut) {
            let context = format!("cut at sync {cut}, {unsynced:?}");
            let after = disk.after_power_cut(unsynced);
            let store = open(&after).unwrap_or_else(|error| panic!("{context}: {error}"));
            for (task, count) in answered.iter().enumerate() {
                assert_whole(&store, task, *count, &context).await;
            }
        }
    }
}

#[tokio::test]
async fn cuts_during_recovery_lose_nothing() {
    for cut in (0..150).step_by(7) {
        let disk = SimDisk::new();
        disk.dies_at_sync(cut);
        let mut answered = 0;
        if let Ok(store) = open(&disk) {
            answered = work(&store, 1, 0, 60).await;
        }
        let mut after = disk.after_power_cut(Unsynced::Torn(cut));
        for second in 0..12 {
            let context = format!("cut at sync {cut}, then at {second} of the recovery");
            after.dies_at_sync(second);
            if let Ok(store) = open(&after) {
                // What was read once stays.
                answered = assert_whole(&store, 1, answered, &context).await;
                answered = work(&store, 1, answered, answered + 1).await;
            }
            after = after.after_power_cut(Unsynced::Torn(second));
        }
        let store = open(&after).unwrap();
        assert_whole(&store, 1, answered, &format!("cut at sync {cut}, at last")).await;
    }
}
