//! The disk engine keeps the promises of every blob engine.

use moat_blob::Disk;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn disk_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let mut count = 0;
    moat_testkit::blob_contract::run(|| {
        count += 1;
        let folder = root.path().join(count.to_string());
        async move { Disk::open(folder).unwrap() }
    })
    .await;
}
