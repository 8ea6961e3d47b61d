//! Running out of file handles. Alone in its file, because the limit holds for the whole process
//! and would disturb other tests.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use moat_blob::{BlobReader, BlobStore, BlobWriter, Disk, Error};
use moat_types::BlobId;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn id(first: u8) -> BlobId {
    BlobId::from_bytes([first; 16])
}

async fn write(disk: &Disk, id: BlobId, bytes: &[u8]) {
    let mut writer = disk.create(id, 0).await.unwrap();
    writer.append(bytes).await.unwrap();
    writer.finish().await.unwrap();
}

#[test]
fn running_out_of_file_handles_is_an_error_and_not_the_end() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let root = tempfile::tempdir().unwrap();
    let disk = Disk::open(root.path()).unwrap();
    runtime.block_on(async {
        write(&disk, id(1), b"content").await;
        write(&disk, id(2), b"content").await;
        let before = getrlimit(Resource::Nofile);
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(0),
                ..before
            },
        )
        .unwrap();
        let opened = disk.open(id(1)).await;
        let mut writer = disk.create(id(3), 0).await.unwrap();
        writer.append(b"content").await.unwrap();
        let written = writer.finish().await;
        setrlimit(Resource::Nofile, before).unwrap();

        assert!(matches!(opened, Err(Error::Io { .. })));
        assert!(matches!(written, Err(Error::Io { .. })), "{written:?}");
        let blob = disk.open(id(1)).await.unwrap();
        assert_eq!(blob.read(0..7).await.unwrap()[..], *b"content");
        write(&disk, id(3), b"content").await;
    });
}
