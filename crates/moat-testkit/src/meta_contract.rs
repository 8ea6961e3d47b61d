//! What every metadata engine promises (`moat_meta::MetaStore`).

mod commits;
mod concurrency;
mod reads;

use std::future::Future;
use std::ops::Range;

use bytes::Bytes;
use moat_meta::{Check, MetaStore, Outcome, Page, Write};

/// Runs the whole suite. `empty` makes a store without rows; it is called once for each promise,
/// so the stores must not share rows. Call it on a runtime with several threads.
///
/// # Panics
/// When the engine breaks a promise.
pub async fn run<S: MetaStore, F: Future<Output = S>>(mut empty: impl FnMut() -> F) {
    reads::missing_rows_are_none_and_empty_pages(&empty().await).await;
    reads::rows_come_in_byte_order(&empty().await).await;
    reads::range_starts_inclusive_and_ends_exclusive(&empty().await).await;
    reads::empty_and_inverted_ranges_hold_nothing(&empty().await).await;
    reads::row_and_byte_limits_cut_pages(&empty().await).await;
    reads::last_is_the_highest_row_of_the_range(&empty().await).await;
    reads::prefix_end_bounds_a_prefix(&empty().await).await;
    reads::pages_chain_over_many_rows(&empty().await).await;
    reads::values_of_every_size_come_back_whole(&empty().await).await;

    commits::a_later_write_of_the_same_row_wins(&empty().await).await;
    commits::delete_of_a_missing_row_is_no_error(&empty().await).await;
    commits::deleted_rows_are_gone_from_every_read(&empty().await).await;
    commits::checks_compare_the_row_as_it_was_before(&empty().await).await;
    commits::a_failed_check_names_its_index_and_writes_nothing(&empty().await).await;
    commits::checks_alone_commit(&empty().await).await;
    commits::an_empty_value_is_a_row(&empty().await).await;
    commits::a_revision_that_stays_means_that_no_row_changed(&empty().await).await;

    concurrency::counters_under_contention_lose_nothing(empty().await).await;
    concurrency::one_of_many_creators_wins(empty().await).await;
    concurrency::a_failing_commit_does_not_disturb_its_neighbours(empty().await).await;
    concurrency::pages_never_show_half_a_commit(empty().await).await;
    concurrency::a_dropped_commit_happens_whole_or_not_at_all(empty().await).await;
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Write {
    Write::Put(bytes(key), bytes(value))
}

fn delete(key: impl AsRef<[u8]>) -> Write {
    Write::Delete(bytes(key))
}

fn is(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Check {
    Check {
        key: bytes(key),
        expected: Some(bytes(value)),
    }
}

fn absent(key: impl AsRef<[u8]>) -> Check {
    Check {
        key: bytes(key),
        expected: None,
    }
}

fn bytes(from: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(from.as_ref())
}

fn range(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> Range<Bytes> {
    bytes(start)..bytes(end)
}

/// A range that holds every key of the suite.
fn all() -> Range<Bytes> {
    range("", [0xFF; 8])
}

/// No limit that matters.
const MANY: usize = 1 << 30;

async fn write(store: &impl MetaStore, writes: impl IntoIterator<Item = Write>) {
    let writes = writes.into_iter().collect();
    let outcome = store.commit(Vec::new(), writes).await.unwrap();
    assert_eq!(outcome, Outcome::Committed);
}

async fn value(store: &impl MetaStore, key: impl AsRef<[u8]>) -> Option<Bytes> {
    store.get(key.as_ref()).await.unwrap()
}

fn keys(page: &Page) -> Vec<&[u8]> {
    page.rows().map(|(key, _)| key).collect()
}

fn texts(page: &Page) -> Vec<(&str, &str)> {
    page.rows()
        .map(|(key, value)| {
            (
                std::str::from_utf8(key).unwrap(),
                std::str::from_utf8(value).unwrap(),
            )
        })
        .collect()
}
