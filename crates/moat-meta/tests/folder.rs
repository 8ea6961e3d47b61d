//! The engine on real files: who may read them, and who has them open.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use moat_meta::{Embedded, Error, MetaStore, Options, Write};

#[tokio::test]
async fn a_folder_has_one_engine_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("deep/meta");
    let store = Embedded::open(&folder, Options::default()).unwrap();
    match Embedded::open(&folder, Options::default()) {
        Err(Error::InUse { place }) => assert!(place.ends_with("deep/meta"), "{place}"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("opened twice"),
    }
    let writes = vec![Write::Put(Bytes::from("a"), Bytes::from("1"))];
    let _ = store.commit(vec![], writes).await.unwrap();
    drop(store);
    let store = Embedded::open(&folder, Options::default()).unwrap();
    assert_eq!(store.get(b"a").await.unwrap(), Some(Bytes::from("1")));
}

#[test]
fn files_are_for_the_owner_only() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("meta");
    drop(Embedded::open(&folder, Options::default()).unwrap());
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(folder.clone()), 0o700);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(path.clone()), 0o600, "{path:?}");
        count += 1;
    }
    assert!(count >= 3, "lock, tree and log: {count}");
}

#[test]
fn a_folder_that_is_a_file_is_an_error() {
    let root = tempfile::NamedTempFile::new().unwrap();
    assert!(Embedded::open(root.path(), Options::default()).is_err());
}

#[test]
fn what_is_no_tree_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("rows.redb"), vec![b'x'; 10_000]).unwrap();
    assert!(Embedded::open(root.path(), Options::default()).is_err());
}

#[tokio::test]
async fn rows_beyond_the_limits_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = Embedded::open(root.path(), Options::default()).unwrap();
    let commit = async |key: usize, value: usize| {
        let write = Write::Put(vec![0; key].into(), vec![0; value].into());
        store.commit(vec![], vec![write]).await
    };
    assert!(commit(4_097, 0).await.is_err());
    assert!(commit(1, (64 << 20) + 1).await.is_err());
    assert!(commit(4_096, 1).await.is_ok());
}
