//! What a commit does, alone.

use moat_meta::{MetaStore, Outcome};

use super::{MANY, absent, all, bytes, delete, is, keys, put, texts, value, write};

pub(super) async fn a_later_write_of_the_same_row_wins(store: &impl MetaStore) {
    write(
        store,
        [
            put("a", "1"),
            put("a", "2"),
            delete("b"),
            put("b", "1"),
            put("c", "1"),
            delete("c"),
        ],
    )
    .await;
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(texts(&page), [("a", "2"), ("b", "1")]);
}

pub(super) async fn delete_of_a_missing_row_is_no_error(store: &impl MetaStore) {
    write(store, [delete("a")]).await;
    assert_eq!(value(store, "a").await, None);
}

pub(super) async fn deleted_rows_are_gone_from_every_read(store: &impl MetaStore) {
    write(store, ["a", "b", "c"].map(|key| put(key, "1"))).await;
    write(store, [delete("b"), delete("c")]).await;
    assert_eq!(value(store, "b").await, None);
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(keys(&page), [b"a"]);
    assert_eq!(keys(&store.last(all()).await.unwrap()), [b"a"]);
    write(store, [put("b", "2")]).await;
    assert_eq!(value(store, "b").await, Some(bytes("2")));
}

pub(super) async fn checks_compare_the_row_as_it_was_before(store: &impl MetaStore) {
    let commit = async |checks, writes| store.commit(checks, writes).await.unwrap();
    let replaced = commit(vec![absent("a")], vec![put("a", "1")]).await;
    assert_eq!(replaced, Outcome::Committed);
    // The commit's own writes are not seen by its checks.
    let replaced = commit(vec![is("a", "1")], vec![delete("a"), put("a", "2")]).await;
    assert_eq!(replaced, Outcome::Committed);
    let stale = commit(vec![is("a", "1")], vec![put("a", "3")]).await;
    assert_eq!(stale, Outcome::CheckFailed(0));
    let longer = commit(vec![is("a", "20")], vec![put("a", "3")]).await;
    assert_eq!(longer, Outcome::CheckFailed(0));
    let exists = commit(vec![absent("a")], vec![put("a", "3")]).await;
    assert_eq!(exists, Outcome::CheckFailed(0));
    let missing = commit(vec![is("b", "1")], vec![put("a", "3")]).await;
    assert_eq!(missing, Outcome::CheckFailed(0));
    assert_eq!(value(store, "a").await, Some(bytes("2")));
}

pub(super) async fn a_failed_check_names_its_index_and_writes_nothing(store: &impl MetaStore) {
    write(store, [put("a", "1"), put("b", "1")]).await;
    let outcome = store
        .commit(
            vec![is("a", "1"), absent("c"), is("b", "2"), absent("a")],
            vec![put("a", "2"), put("c", "2"), delete("b")],
        )
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::CheckFailed(2));
    let page = store.scan(all(), MANY, MANY).await.unwrap();
    assert_eq!(texts(&page), [("a", "1"), ("b", "1")]);
}

pub(super) async fn checks_alone_commit(store: &impl MetaStore) {
    write(store, [put("a", "1")]).await;
    let holds = store.commit(vec![is("a", "1")], vec![]).await.unwrap();
    assert_eq!(holds, Outcome::Committed);
    let fails = store.commit(vec![absent("a")], vec![]).await.unwrap();
    assert_eq!(fails, Outcome::CheckFailed(0));
    let nothing = store.commit(vec![], vec![]).await.unwrap();
    assert_eq!(nothing, Outcome::Committed);
}

pub(super) async fn an_empty_value_is_a_row(store: &impl MetaStore) {
    write(store, [put("a", "")]).await;
    assert_eq!(value(store, "a").await, Some(bytes("")));
    let outcome = store.commit(vec![absent("a")], vec![]).await.unwrap();
    assert_eq!(outcome, Outcome::CheckFailed(0));
    let outcome = store.commit(vec![is("a", "")], vec![]).await.unwrap();
    assert_eq!(outcome, Outcome::Committed);
}

/// An engine need not know its revision; one that does never keeps it over a change.
pub(super) async fn a_revision_that_stays_means_that_no_row_changed(store: &impl MetaStore) {
    let Some(mut before) = store.revision() else {
        return;
    };
    for change in [put("a", "1"), put("a", "2"), delete("a"), put("b", "")] {
        write(store, [change]).await;
        let after = store.revision().expect("it is known once and for all");
        assert!(after > before, "{after} after {before}");
        before = after;
        value(store, "a").await;
        assert_eq!(store.revision(), Some(before), "reads change nothing");
    }
}
