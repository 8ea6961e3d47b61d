//! Multipart uploads below HTTP.

use moat_s3::ErrorCode;
use moat_s3::request::{Conditions, CustomerKey, SseRequest};
use moat_types::{PartNumber, UploadId};

use super::world::{Pieces, World, bucket, content, customer, key, kms};
use crate::multipart::{CompleteOptions, JoinChecksums, NamedPart};
use crate::objects::Description;
use crate::rows::{Checksum, keys};

const PART: usize = 5 << 20;

struct NoChecksums;

impl JoinChecksums for NoChecksums {
    fn join(&self, _: u8, _: &[(Option<Checksum>, u64)]) -> Option<Checksum> {
        None
    }

    fn agree(&self, stated: &Checksum, joined: &Checksum) -> bool {
        stated == joined
    }

    fn kind_of_part(&self, upload_kind: u8) -> u8 {
        upload_kind
    }
}

fn number(n: u32) -> PartNumber {
    PartNumber::new(n).unwrap()
}

async fn begin(world: &World, name: &str, asked: SseRequest) -> UploadId {
    let description = Description {
        metadata: vec![("note".into(), b"kept".to_vec())],
        ..Description::default()
    };
    world
        .store
        .create_upload(&bucket(), &key(name), asked, description, 0)
        .await
        .unwrap()
        .0
}

async fn part(
    world: &World,
    name: &str,
    id: UploadId,
    n: u32,
    plain: &[u8],
    customer: Option<&CustomerKey>,
) -> NamedPart {
    let upload = world.store.upload(&bucket(), &key(name), id).await.unwrap();
    let payload = Pieces::of_unknown_length(plain);
    let written = world
        .store
        .put_part(&bucket(), &key(name), upload, number(n), customer, payload)
        .await
        .unwrap();
    NamedPart {
        number: number(n),
        etag: written.etag,
        checksum: None,
    }
}

async fn complete(
    world: &World,
    name: &str,
    id: UploadId,
    parts: &[NamedPart],
) -> crate::error::Result<String> {
    let options = CompleteOptions::default();
    let done = world
        .store
        .complete_upload(&bucket(), &key(name), id, parts, options, &NoChecksums)
        .await?;
    Ok(done.row.entry.etag)
}

#[tokio::test]
async fn an_object_of_parts_reads_whole_and_in_ranges_under_every_encryption() {
    let world = World::new().await;
    let schemes = [
        (SseRequest::None, None),
        (kms("key-a"), None),
        (SseRequest::Customer(customer(3)), Some(customer(3))),
    ];
    for (asked, key_c) in schemes {
        let plain = content(2 * PART + 12_345, 8);
        let id = begin(&world, "whole", asked).await;
        // Out of order, with a gap in the numbers, and the second part sent twice.
        let last = part(&world, "whole", id, 7, &plain[2 * PART..], key_c.as_ref()).await;
        part(&world, "whole", id, 2, b"replaced", key_c.as_ref()).await;
        let second = part(
            &world,
            "whole",
            id,
            2,
            &plain[PART..2 * PART],
            key_c.as_ref(),
        )
        .await;
        let first = part(&world, "whole", id, 1, &plain[..PART], key_c.as_ref()).await;
        let named = [first, second, last];
        let etag = complete(&world, "whole", id, &named).await.unwrap();
        assert!(etag.ends_with("-3"), "{etag}");
        assert!(world.get("whole", key_c.as_ref()).await.unwrap() == plain);
        let border = PART as u64 - 100..PART as u64 + 70_000;
        let read = world
            .get_range("whole", key_c.as_ref(), Some(border.clone()))
            .await
            .unwrap();
        assert!(read == plain[border.start as usize..border.end as usize]);
        let object = world
            .store
            .open_object(&bucket(), &key("whole"), key_c.as_ref())
            .await
            .unwrap();
        assert_eq!(
            object.attributes.metadata,
            [("note".to_owned(), b"kept".to_vec())]
        );

        // A repeated Complete, as after a lost answer.
        assert_eq!(complete(&world, "whole", id, &named).await.unwrap(), etag);
        let other = complete(&world, "whole", id, &named[..1])
            .await
            .unwrap_err();
        assert_eq!(other.code(), ErrorCode::NoSuchUpload);
    }
}

#[tokio::test]
async fn complete_refuses_lists_that_do_not_fit() {
    let world = World::new().await;
    let id = begin(&world, "object", kms("key-a")).await;
    let first = part(&world, "object", id, 1, b"small", None).await;
    let second = part(&world, "object", id, 2, b"last", None).await;
    let code = async |parts: &[NamedPart]| {
        complete(&world, "object", id, parts)
            .await
            .unwrap_err()
            .code()
    };
    assert_eq!(code(&[]).await, ErrorCode::MalformedXml);
    assert_eq!(
        code(&[second.clone(), first.clone()]).await,
        ErrorCode::InvalidPartOrder
    );
    assert_eq!(
        code(&[first.clone(), second.clone()]).await,
        ErrorCode::EntityTooSmall
    );
    let wrong = NamedPart {
        etag: "0".repeat(32),
        ..first.clone()
    };
    assert_eq!(code(&[wrong]).await, ErrorCode::InvalidPart);
    let absent = NamedPart {
        number: number(9),
        ..first.clone()
    };
    assert_eq!(code(&[absent]).await, ErrorCode::InvalidPart);
    // After all that the upload is still whole; parts that are not named are dropped.
    complete(&world, "object", id, &[second]).await.unwrap();
    assert_eq!(world.get("object", None).await.unwrap(), b"last");
    let left = world.store.meta_rows(keys::parts(id)).await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn parts_of_an_sse_c_upload_need_its_key() {
    let world = World::new().await;
    let id = begin(&world, "object", SseRequest::Customer(customer(1))).await;
    let put = async |key_c: Option<CustomerKey>| {
        let upload = world
            .store
            .upload(&bucket(), &key("object"), id)
            .await
            .unwrap();
        let payload = Pieces::new(b"content");
        let store = &world.store;
        store
            .put_part(
                &bucket(),
                &key("object"),
                upload,
                number(1),
                key_c.as_ref(),
                payload,
            )
            .await
    };
    assert_eq!(
        put(None).await.err().unwrap().code(),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        put(Some(customer(2))).await.err().unwrap().code(),
        ErrorCode::InvalidArgument
    );
    assert!(put(Some(customer(1))).await.is_ok());
    let plain = begin(&world, "object", SseRequest::None).await;
    let upload = world
        .store
        .upload(&bucket(), &key("object"), plain)
        .await
        .unwrap();
    let needless = world
        .store
        .put_part(
            &bucket(),
            &key("object"),
            upload,
            number(1),
            Some(&customer(1)),
            Pieces::new(b"content"),
        )
        .await;
    assert_eq!(needless.err().unwrap().code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn parts_copied_from_ranges_share_the_source_s_blobs() {
    let world = World::new().await;
    let sources = [
        ("kms", kms("key-a"), None),
        ("c", SseRequest::Customer(customer(5)), Some(customer(5))),
    ];
    for (source_name, asked, source_key) in sources {
        // A source of parts, so that a range crosses a border of blobs.
        let plain = content(2 * PART + 777, 11);
        let id = begin(&world, source_name, asked).await;
        let mut named = Vec::new();
        for (n, piece) in plain.chunks(PART).enumerate() {
            named.push(
                part(
                    &world,
                    source_name,
                    id,
                    n as u32 + 1,
                    piece,
                    source_key.as_ref(),
                )
                .await,
            );
        }
        complete(&world, source_name, id, &named).await.unwrap();

        let source_object = key(source_name);
        let target = begin(&world, "target", kms("key-b")).await;
        let cut = PART as u64 + 100_000;
        let mut named = Vec::new();
        for (n, (start, end)) in [(0, cut), (cut, plain.len() as u64)]
            .into_iter()
            .enumerate()
        {
            let source = world
                .store
                .open_object(&bucket(), &source_object, source_key.as_ref())
                .await
                .unwrap();
            let upload = world
                .store
                .upload(&bucket(), &key("target"), target)
                .await
                .unwrap();
            let n = number(n as u32 + 1);
            let row_key = keys::object(&bucket(), &source_object);
            let written = world
                .store
                .copy_part(
                    &bucket(),
                    &key("target"),
                    upload,
                    n,
                    None,
                    row_key,
                    &source,
                    start,
                    end,
                    &NoChecksums,
                )
                .await
                .unwrap();
            named.push(NamedPart {
                number: n,
                etag: written.etag,
                checksum: None,
            });
        }
        complete(&world, "target", target, &named).await.unwrap();
        world
            .store
            .delete_object(&bucket(), &source_object, &Conditions::default())
            .await
            .unwrap();
        world.store.sweep().await.unwrap();
        assert!(world.get("target", None).await.unwrap() == plain);
    }
}

#[tokio::test]
async fn an_aborted_upload_is_gone_with_its_parts() {
    let world = World::new().await;
    let id = begin(&world, "object", SseRequest::None).await;
    part(&world, "object", id, 1, &content(300_000, 2), None).await;
    world
        .store
        .abort_upload(&bucket(), &key("object"), id)
        .await
        .unwrap();
    let again = world
        .store
        .abort_upload(&bucket(), &key("object"), id)
        .await
        .unwrap_err();
    assert_eq!(again.code(), ErrorCode::NoSuchUpload);
    assert_eq!(world.store.meta_rows(keys::parts(id)).await, 0);
}
