//! The PostgreSQL engine keeps the promises of every metadata engine, and loses nothing that it
//! acknowledged when the server is killed.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moat_meta::{Check, DatabaseUrl, Error, MetaStore, Outcome, Postgres, Write};
use moat_testkit::postgres::PostgresServer;

async fn open(server: &PostgresServer, table: &str) -> Postgres {
    let url = DatabaseUrl::parse(&server.url()).unwrap();
    Postgres::connect(&url, table, None).await.unwrap()
}

fn name(number: u32) -> String {
    format!(
        "t_{}",
        "abcdefghij".chars().nth(number as usize % 10).unwrap()
    ) + &"x".repeat(number as usize / 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_keeps_the_contract() {
    let server = PostgresServer::start();
    let mut count = 0;
    moat_testkit::meta_contract::run(|| {
        count += 1;
        let table = name(count);
        let server = &server;
        async move { open(server, &table).await }
    })
    .await;
}

/// Two processes' engines see each other's commits at once, and one check decides between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn engines_of_one_table_are_one_store() {
    let server = PostgresServer::start();
    let (a, b) = tokio::join!(open(&server, "one"), open(&server, "one"));
    let (key, engines) = (Bytes::from_static(b"k"), [a, b]);
    for round in 0..50_u32 {
        let check = |expected: Option<Bytes>| Check {
            key: key.clone(),
            expected,
        };
        let before = engines[0].get(&key).await.unwrap();
        let commits = [0_u8, 1].map(|at| {
            let value = Bytes::from([&round.to_be_bytes()[..], &[at]].concat());
            let commit = engines[usize::from(at)].commit(
                vec![check(before.clone())],
                vec![Write::Put(key.clone(), value.clone())],
            );
            async move { (commit.await.unwrap(), value) }
        });
        let [first, second] = commits;
        let ended = tokio::join!(first, second);
        let won: Vec<_> = [ended.0, ended.1]
            .into_iter()
            .filter(|(outcome, _)| *outcome == Outcome::Committed)
            .collect();
        assert_eq!(won.len(), 1, "round {round}");
        for engine in &engines {
            assert_eq!(engine.get(&key).await.unwrap().as_ref(), Some(&won[0].1));
        }
    }
}

/// A commit that checks that a row is absent and a commit that makes it can't both go through
/// while each misses the other's writes, although no row is there to be locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn checks_of_absent_rows_exclude_each_other() {
    let server = PostgresServer::start();
    let store = open(&server, "skew").await;
    for round in 0..30 {
        let commit = |absent: &str, put: &str| {
            let check = Check {
                key: format!("{round}/{absent}").into(),
                expected: None,
            };
            let write = Write::Put(format!("{round}/{put}").into(), Bytes::from_static(b"1"));
            store.commit(vec![check], vec![write])
        };
        let (x, y) = tokio::join!(commit("a", "b"), commit("b", "a"));
        let committed = [x.unwrap(), y.unwrap()]
            .iter()
            .filter(|outcome| **outcome == Outcome::Committed)
            .count();
        assert_eq!(committed, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_of_the_server_loses_nothing_acknowledged() {
    let mut server = PostgresServer::start();
    let store = Arc::new(open(&server, "crash").await);
    let acknowledged = Arc::new(AtomicU32::new(0));
    let writer = tokio::spawn({
        let (store, acknowledged) = (store.clone(), acknowledged.clone());
        async move {
            for n in 0..100_000_u32 {
                let row = Bytes::copy_from_slice(&n.to_be_bytes());
                match store
                    .commit(vec![], vec![Write::Put(row, Bytes::from_static(b"1"))])
                    .await
                {
                    Ok(_) => acknowledged.store(n + 1, Ordering::Release),
                    Err(Error::Unknown { .. }) => return,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while acknowledged.load(Ordering::Acquire) < 50 {
        assert!(Instant::now() < deadline, "no commits");
        tokio::task::yield_now().await;
    }
    server = tokio::task::spawn_blocking(move || {
        server.crash_and_restart();
        server
    })
    .await
    .unwrap();
    // Either the crash met a commit, whose end is then not known, or commits went on behind it.
    writer.abort();
    let _ = writer.await;
    for n in 0..acknowledged.load(Ordering::Acquire) {
        let row = store.get(&n.to_be_bytes()).await.unwrap();
        assert!(row.is_some(), "{n} was acknowledged");
    }
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_fsync_is_refused() {
    let server = PostgresServer::start();
    server.sql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();");
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.sql("SHOW fsync;").trim() != "off" {
        assert!(Instant::now() < deadline, "the setting is not taken");
    }
    let url = DatabaseUrl::parse(&server.url()).unwrap();
    let refused = Postgres::connect(&url, "t", None).await.err().unwrap();
    assert!(refused.to_string().contains("fsync = on"), "{refused}");
}
