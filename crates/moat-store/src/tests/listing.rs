//! LIST against a plain model.

use std::collections::BTreeSet;

use moat_s3::request::SseRequest;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::world::{World, bucket, key};
use crate::list::{ListQuery, Listed};

/// What S3 documents, in the slowest way: walk all keys in order.
fn model(keys: &BTreeSet<String>, query: &ListQuery) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for key in keys.iter().filter(|key| key.starts_with(&query.prefix)) {
        let rest = &key[query.prefix.len()..];
        let entry = match rest
            .find(&query.delimiter)
            .filter(|_| !query.delimiter.is_empty())
        {
            Some(at) => key[..query.prefix.len() + at + query.delimiter.len()].to_owned(),
            None => key.clone(),
        };
        let is_after = if entry == *key {
            *key > query.after
        } else {
            !query.after.starts_with(&entry) && entry > query.after
        };
        if is_after && out.last() != Some(&entry) {
            out.push(entry);
        }
    }
    out
}

async fn all_pages(world: &World, query: &ListQuery) -> Vec<String> {
    let mut query = query.clone();
    let mut out = Vec::new();
    loop {
        let listing = world.store.list(&bucket(), &query).await.unwrap();
        assert!(listing.entries.len() <= query.entries_max);
        for entry in &listing.entries {
            out.push(match entry {
                Listed::Prefix(prefix) => prefix.clone(),
                Listed::Object(page, row) => listing.object(*page, *row).unwrap().0.to_owned(),
            });
        }
        match listing.next_after {
            Some(next) => query.after = next,
            None => return out,
        }
    }
}

#[test]
fn every_listing_equals_the_model() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let name = "[ab/é\u{10FFFF} ]{1,5}";
    let strategy = (
        prop::collection::btree_set(name, 0..40),
        "[ab/]{0,2}",
        prop_oneof![Just(""), Just("/"), Just("a"), Just("b/")],
        1usize..7,
    );
    let config = ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&strategy, |(names, prefix, delimiter, entries_max)| {
            runtime.block_on(async {
                let world = World::new().await;
                for name in &names {
                    world.put(name, b"x", SseRequest::None).await;
                }
                let query = ListQuery {
                    prefix,
                    delimiter: delimiter.to_owned(),
                    after: String::new(),
                    entries_max,
                };
                prop_assert_eq!(all_pages(&world, &query).await, model(&names, &query));
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn start_after_leaves_out_what_is_before_it() {
    let world = World::new().await;
    for name in ["a", "a/1", "a/2", "b", "b/1", "c"] {
        world.put(name, b"x", SseRequest::None).await;
    }
    let list = async |after: &str, delimiter: &str| {
        let query = ListQuery {
            after: after.into(),
            delimiter: delimiter.into(),
            entries_max: 2,
            ..ListQuery::default()
        };
        all_pages(&world, &query).await
    };
    assert_eq!(list("", "/").await, ["a", "a/", "b", "b/", "c"]);
    assert_eq!(list("a/", "/").await, ["b", "b/", "c"]);
    assert_eq!(list("a", "").await, ["a/1", "a/2", "b", "b/1", "c"]);
    assert_eq!(list("b/1", "").await, ["c"]);
    assert_eq!(list("zzz", "").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_file_and_a_folder_of_one_name_stand_side_by_side() {
    let world = World::new().await;
    for name in ["foo", "foo/", "foo/bar", "foo//", "./", "..", "\u{1}"] {
        world.put(name, name.as_bytes(), SseRequest::None).await;
        assert_eq!(world.get(name, None).await.unwrap(), name.as_bytes());
    }
    world
        .store
        .delete_object(&bucket(), &key("foo/"), &Default::default())
        .await
        .unwrap();
    let query = ListQuery {
        entries_max: 100,
        ..ListQuery::default()
    };
    let expected = ["\u{1}", "..", "./", "foo", "foo//", "foo/bar"];
    assert_eq!(all_pages(&world, &query).await, expected);
}
