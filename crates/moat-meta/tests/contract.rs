//! The embedded engine keeps the promises of every metadata engine: with its log as large as in
//! production, and with one so small that rows move to the tree all the time.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use moat_meta::{Embedded, Options};

async fn keeps_the_contract(options: Options) {
    let root = tempfile::tempdir().unwrap();
    let mut count = 0;
    moat_testkit::meta_contract::run(|| {
        count += 1;
        let folder = root.path().join(count.to_string());
        let options = options.clone();
        async move { Embedded::open(folder, options).unwrap() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_keeps_the_contract() {
    keeps_the_contract(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_keeps_the_contract_while_rows_move_to_the_tree() {
    keeps_the_contract(Options {
        cache_bytes: 1 << 20,
        log_bytes: 16 << 10,
        ..Options::default()
    })
    .await;
}
