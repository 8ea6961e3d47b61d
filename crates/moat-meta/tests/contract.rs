//! The embedded engine keeps the promises of every metadata engine.

use moat_meta::{Embedded, Options};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn embedded_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let mut count = 0;
    moat_testkit::meta_contract::run(|| {
        count += 1;
        let folder = root.path().join(count.to_string());
        async move { Embedded::open(folder, Options::default()).unwrap() }
    })
    .await;
}
