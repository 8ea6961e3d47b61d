//! What holds when many tasks commit and read at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_meta::{Check, MetaStore, Outcome};
use tokio::task::JoinSet;

use super::{MANY, absent, all, bytes, put, value, write};

pub(super) async fn counters_under_contention_lose_nothing(store: impl MetaStore) {
    const TASKS: u64 = 16;
    const STEPS: u64 = 25;
    const COUNTERS: u64 = 3;
    let store = Arc::new(store);
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            for step in 0..STEPS {
                increment(&*store, format!("counter/{}", (task + step) % COUNTERS)).await;
            }
        });
    }
    tasks.join_all().await;
    let mut sum = 0;
    for counter in 0..COUNTERS {
        sum += number(
            value(&*store, format!("counter/{counter}"))
                .await
                .as_deref(),
        );
    }
    assert_eq!(sum, TASKS * STEPS);
}

async fn increment(store: &impl MetaStore, key: String) {
    loop {
        let old = value(store, &key).await;
        let new = number(old.as_deref()) + 1;
        let check = Check {
            key: bytes(&key),
            expected: old,
        };
        let writes = vec![put(&key, new.to_be_bytes())];
        if store.commit(vec![check], writes).await.unwrap() == Outcome::Committed {
            // What returned is seen by a read that begins now, or something newer.
            assert!(number(value(store, &key).await.as_deref()) >= new);
            return;
        }
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()))
}

pub(super) async fn one_of_many_creators_wins(store: impl MetaStore) {
    let store = Arc::new(store);
    let mut tasks = JoinSet::new();
    for task in 0..32_u8 {
        let store = store.clone();
        tasks.spawn(async move {
            let outcome = store
                .commit(vec![absent("only")], vec![put("only", [task])])
                .await
                .unwrap();
            (outcome == Outcome::Committed).then_some(task)
        });
    }
    let winners: Vec<u8> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(value(&*store, "only").await.as_deref(), Some(&winners[..]));
}

pub(super) async fn a_failing_commit_does_not_disturb_its_neighbours(store: impl MetaStore) {
    let store = Arc::new(store);
    write(&*store, [put("taken", "1")]).await;
    let mut tasks = JoinSet::new();
    for task in 0..64 {
        let store = store.clone();
        tasks.spawn(async move {
            let checks = match task % 2 {
                0 => vec![],
                _ => vec![absent("taken")],
            };
            let key = format!("task/{task:02}");
            let outcome = store.commit(checks, vec![put(&key, "1")]).await.unwrap();
            let expected = match task % 2 {
                0 => Outcome::Committed,
                _ => Outcome::CheckFailed(0),
            };
            assert_eq!(outcome, expected);
            assert_eq!(value(&*store, &key).await.is_some(), task % 2 == 0);
        });
    }
    tasks.join_all().await;
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(page.len(), 33);
}

/// Each commit sets ten rows to the same number, while others scan.
pub(super) async fn pages_never_show_half_a_commit(store: impl MetaStore) {
    const ROWS: usize = 10;
    let store = Arc::new(store);
    let rows = |n: u32| (0..ROWS).map(move |row| put(format!("row/{row}"), n.to_be_bytes()));
    write(&*store, rows(0)).await;
    let finished = Arc::new(AtomicBool::new(false));
    let mut scanners = JoinSet::new();
    for _ in 0..4 {
        let (store, finished) = (store.clone(), finished.clone());
        scanners.spawn(async move {
            let mut newest = 0;
            while !finished.load(Ordering::Acquire) {
                let page = store.scan(all(), MANY, MANY).await.unwrap();
                assert_eq!(page.len(), ROWS);
                let first = page.row(0).1;
                assert!(page.rows().all(|(_, value)| value == first));
                let seen = u32::from_be_bytes(first.try_into().unwrap());
                assert!(seen >= newest, "went back from {newest} to {seen}");
                newest = seen;
                tokio::task::yield_now().await;
            }
        });
    }
    for n in 1..=100 {
        write(&*store, rows(n)).await;
    }
    finished.store(true, Ordering::Release);
    scanners.join_all().await;
}

pub(super) async fn a_dropped_commit_happens_whole_or_not_at_all(store: impl MetaStore) {
    let store = Arc::new(store);
    for n in 0..50 {
        let writes = ["a", "b"].map(|half| put(format!("{half}/{n:02}"), "1"));
        let mut commit = std::pin::pin!(store.commit(vec![], writes.into()));
        // One poll hands the commit over; then it is dropped.
        std::future::poll_fn(|context| {
            let _ = commit.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    // A commit that returns afterwards comes after whatever became of them.
    write(&*store, [put("z", "1")]).await;
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    let halves = |half: &str| -> Vec<Vec<u8>> {
        page.rows()
            .filter(|row| row.0.starts_with(half.as_bytes()))
            .map(|row| row.0[2..].to_vec())
            .collect()
    };
    assert_eq!(halves("a"), halves("b"));
}
