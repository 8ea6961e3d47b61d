//! `get`, `scan` and `last`.

use moat_meta::{KEY_BYTES_MAX, MetaStore, prefix_end};

use super::{MANY, all, bytes, delete, keys, put, range, texts, value, write};

pub(super) async fn missing_rows_are_none_and_empty_pages(store: &impl MetaStore) {
    assert_eq!(value(store, "a").await, None);
    assert!(store.scan(all(), MANY, MANY).await.unwrap().is_empty());
    assert!(store.last(all()).await.unwrap().is_empty());
}

pub(super) async fn rows_come_in_byte_order(store: &impl MetaStore) {
    let unordered: [&[u8]; 8] = [
        b"b", b"a\xff", b"a", b"a\0", b"\xfe", b"a/b", b"a\0\0", b"\0",
    ];
    for key in unordered {
        write(store, [put(key, key)]).await;
    }
    let mut ordered = unordered;
    ordered.sort_unstable();
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(keys(&page), ordered);
    assert!(page.rows().all(|(key, value)| key == value));
}

pub(super) async fn range_starts_inclusive_and_ends_exclusive(store: &impl MetaStore) {
    write(store, ["a", "b", "c", "d"].map(|key| put(key, "1"))).await;
    let scan = async |start: &str, end: &str| {
        let page = store.scan(range(start, end), MANY, MANY).await.unwrap();
        let keys: Vec<_> = texts(&page).iter().map(|row| row.0.to_owned()).collect();
        keys.join("")
    };
    assert_eq!(scan("b", "d").await, "bc");
    assert_eq!(scan("a", "a\0").await, "a");
    assert_eq!(scan("b\0", "z").await, "cd");
    assert_eq!(scan("", "a").await, "");
    assert_eq!(scan("d\0", "z").await, "");
}

pub(super) async fn empty_and_inverted_ranges_hold_nothing(store: &impl MetaStore) {
    write(store, ["a", "b", "c"].map(|key| put(key, "1"))).await;
    for (start, end) in [("b", "b"), ("c", "a"), ("", "")] {
        let page = store.scan(range(start, end), MANY, MANY).await.unwrap();
        assert!(page.is_empty(), "scan of {start:?}..{end:?}");
        let page = store.last(range(start, end)).await.unwrap();
        assert!(page.is_empty(), "last of {start:?}..{end:?}");
    }
}

pub(super) async fn row_and_byte_limits_cut_pages(store: &impl MetaStore) {
    // Rows of 10 bytes: a key of 2 and a value of 8.
    write(store, (0..10).map(|n| put(format!("k{n}"), "12345678"))).await;
    let length = async |rows_max, bytes_max| {
        let page = store.scan(all(), rows_max, bytes_max).await.unwrap();
        assert_eq!(page.row(0).0, b"k0");
        page.len()
    };
    assert_eq!(length(1, MANY).await, 1);
    assert_eq!(length(7, MANY).await, 7);
    assert_eq!(length(10, MANY).await, 10);
    assert_eq!(length(11, MANY).await, 10);
    assert_eq!(length(MANY, 1).await, 1, "the first row is always given");
    assert_eq!(length(MANY, 0).await, 1, "the first row is always given");
    assert_eq!(length(MANY, 20).await, 2, "no further row once 20 are held");
    assert_eq!(length(MANY, 21).await, 3);
    assert_eq!(length(2, 100).await, 2);
    let none = store.scan(all(), 0, MANY).await.unwrap();
    assert!(none.is_empty(), "no rows were asked for");
}

pub(super) async fn last_is_the_highest_row_of_the_range(store: &impl MetaStore) {
    write(store, ["a", "b", "c"].map(|key| put(key, key))).await;
    let last = async |start: &str, end: &str| {
        let page = store.last(range(start, end)).await.unwrap();
        assert!(page.len() <= 1);
        page.rows()
            .next()
            .map(|row| (row.0.to_vec(), row.1.to_vec()))
    };
    let row = |key: &str| Some((key.as_bytes().to_vec(), key.as_bytes().to_vec()));
    assert_eq!(last("", "z").await, row("c"));
    assert_eq!(last("", "c").await, row("b"));
    assert_eq!(last("a", "b").await, row("a"));
    assert_eq!(last("b\0", "c").await, None);
    write(store, [delete("c"), put("d", "d"), delete("d")]).await;
    assert_eq!(last("", "z").await, row("b"));
    write(store, [delete("a"), delete("b")]).await;
    assert_eq!(last("", "z").await, None);
}

pub(super) async fn prefix_end_bounds_a_prefix(store: &impl MetaStore) {
    let inside: [&[u8]; 4] = [b"p\xff", b"p\xff\0", b"p\xffx", b"p\xff\xff\xff"];
    let outside: [&[u8]; 4] = [b"p", b"p\xfe\xff", b"q", b"q\0"];
    write(store, inside.iter().chain(&outside).map(|key| put(key, ""))).await;
    assert_eq!(prefix_end(b"p\xff"), bytes("q"));
    let page = store
        .scan(bytes(b"p\xff")..prefix_end(b"p\xff"), MANY, MANY)
        .await
        .unwrap();
    assert_eq!(keys(&page), inside);
}

/// Several thousand rows, so that engines with levels, segments or trees use them.
pub(super) async fn pages_chain_over_many_rows(store: &impl MetaStore) {
    const ROWS: u32 = 5_000;
    let key = |n: u32| format!("row/{n:08}");
    // A stride that is coprime to the count visits each number once, out of order.
    let shuffled: Vec<u32> = (0..ROWS).map(|n| n * 1_237 % ROWS).collect();
    for some in shuffled.chunks(500) {
        write(store, some.iter().map(|n| put(key(*n), n.to_be_bytes()))).await;
    }
    write(store, (0..ROWS).step_by(3).map(|n| delete(key(n)))).await;

    let mut found = Vec::new();
    let mut start = bytes("row/");
    loop {
        let page = store
            .scan(start.clone()..bytes("row0"), 97, MANY)
            .await
            .unwrap();
        found.extend(page.rows().map(|(key, value)| {
            let number = u32::from_be_bytes(value.try_into().unwrap());
            assert_eq!(key, format!("row/{number:08}").as_bytes());
            number
        }));
        if page.len() < 97 {
            break;
        }
        let mut next = page.row(page.len() - 1).0.to_vec();
        next.push(0);
        start = next.into();
    }
    let expected: Vec<u32> = (0..ROWS).filter(|n| n % 3 != 0).collect();
    assert_eq!(found, expected);
}

pub(super) async fn values_of_every_size_come_back_whole(store: &impl MetaStore) {
    let sizes = [
        0,
        1,
        100,
        4_095,
        4_096,
        4_097,
        65_536,
        1 << 20,
        (4 << 20) + 1,
    ];
    let content = |size: usize| -> Vec<u8> { (0..size).map(|n| (n * 7 + size) as u8).collect() };
    write(
        store,
        sizes
            .iter()
            .map(|size| put(format!("{size:08}"), content(*size))),
    )
    .await;
    for size in sizes {
        let found = value(store, format!("{size:08}")).await.unwrap();
        assert!(found == content(size), "value of {size} bytes");
    }
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(page.len(), sizes.len());
    for (row, size) in page.rows().zip(sizes) {
        assert!(row.1 == content(size), "scanned value of {size} bytes");
    }
    let long_key = vec![b'k'; KEY_BYTES_MAX];
    write(store, [put(&long_key, "long")]).await;
    assert_eq!(value(store, &long_key).await, Some(bytes("long")));
}
