//! Which store a bucket is in, under which name, and what that makes of URIs and copy sources.

use std::collections::{HashMap, HashSet};

use http::Uri;
use http::uri::PathAndQuery;
use moat_s3::request::{CopySource, Hoisting};
use moat_s3::uri::{Slash, decode_query, encode, encode_into};
use moat_s3::{ErrorCode, S3Error};

use super::config::BucketRoute;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The store, as a place in the list of stores.
    pub(super) store: usize,
    /// The bucket's name there; `None` for a request about no bucket.
    pub(super) bucket: Option<String>,
}

/// All routes.
#[derive(Debug)]
pub(super) struct Routes {
    by_name: HashMap<String, Place>,
    /// Names in the first store that are reached under another name, and under that one only: else
    /// the rules for that name could be gone around.
    hidden: HashSet<String>,
    /// The clients' names of buckets with a route, by store and name there.
    by_place: HashMap<(usize, String), String>,
}

impl Routes {
    pub(super) fn new(routes: &[BucketRoute]) -> Self {
        let place = |route: &BucketRoute| Place {
            store: route.store,
            bucket: Some(route.upstream_name.clone()),
        };
        let by_name: HashMap<_, _> = routes
            .iter()
            .map(|route| (route.name.clone(), place(route)))
            .collect();
        let of_first = routes.iter().filter(|route| route.store == 0);
        let hidden = of_first
            .map(|route| route.upstream_name.clone())
            .filter(|upstream| !by_name.contains_key(upstream))
            .collect();
        let by_place = routes.iter().map(|route| {
            let place = (route.store, route.upstream_name.clone());
            (place, route.name.clone())
        });
        Self {
            by_place: by_place.collect(),
            by_name,
            hidden,
        }
    }

    /// The name that clients reach a bucket of a store by; `None` if they can't.
    pub(super) fn name_of<'a>(&'a self, store: usize, upstream: &'a str) -> Option<&'a str> {
        if let Some(name) = self.by_place.get(&(store, upstream.to_owned())) {
            return Some(name);
        }
        // By its own name, unless that leads elsewhere. Of other stores what has no route is not seen.
        (store == 0 && !self.by_name.contains_key(upstream)).then_some(upstream)
    }

    /// The clients' names of the buckets that have a route to a store.
    pub(super) fn names_in(&self, store: usize) -> impl Iterator<Item = &str> {
        let places = self.by_place.iter();
        places.filter_map(move |((other, _), name)| (*other == store).then_some(&name[..]))
    }

    /// The place of a bucket as a client names it; `None`: of what is about no bucket.
    ///
    /// # Errors
    /// `NoSuchBucket` for a name that stands for a bucket behind the gateway only.
    pub(super) fn find(&self, bucket: Option<&str>) -> Result<Place, S3Error> {
        let Some(bucket) = bucket else {
            return Ok(Place {
                store: 0,
                bucket: None,
            });
        };
        if let Some(place) = self.by_name.get(bucket) {
            return Ok(place.clone());
        }
        if self.hidden.contains(bucket) {
            return Err(ErrorCode::NoSuchBucket.into());
        }
        Ok(Place {
            store: 0,
            bucket: Some(bucket.to_owned()),
        })
    }
}

/// Path and query for a store, path style. The key is encoded anew, as the SDKs do it: then stores
/// that sign the path as it came and those that sign it decoded agree.
pub(super) fn uri(bucket: Option<&str>, key: Option<&str>, query: &str) -> Result<Uri, ErrorCode> {
    let mut path = vec![b'/'];
    if let Some(bucket) = bucket {
        encode_into(&mut path, bucket.as_bytes(), Slash::Encode);
        if let Some(key) = key {
            path.push(b'/');
            encode_into(&mut path, key.as_bytes(), Slash::Keep);
        }
    }
    if !query.is_empty() {
        path.push(b'?');
        path.extend_from_slice(query.as_bytes());
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(path))
        .map(Uri::from)
        .map_err(|_| ErrorCode::InvalidUri)
}

/// The query without what signs the client's request, and without headers in it: those of a presigned
/// request have become headers, and those of others have no meaning that all stores share.
///
/// Names and values are encoded anew: a bare plus is a space in S3, but not for every store, and of
/// `prefix=a;b` or `prefix=%zz` some read nothing at all, which would be a list of everything.
pub(super) fn query(raw: &str, hoisting: Option<Hoisting>) -> String {
    let mut kept = Vec::with_capacity(raw.len());
    for part in raw.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (part, None),
        };
        let name = decode_query(name.as_bytes());
        if is_of_signature(&name, hoisting) {
            continue;
        }
        if !kept.is_empty() {
            kept.push(b'&');
        }
        encode_into(&mut kept, &name, Slash::Encode);
        if let Some(value) = value {
            kept.push(b'=');
            encode_into(&mut kept, &decode_query(value.as_bytes()), Slash::Encode);
        }
    }
    String::from_utf8(kept).expect("what is encoded is ASCII")
}

fn is_of_signature(name: &[u8], hoisting: Option<Hoisting>) -> bool {
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    let of_amz = name.len() >= 6 && name[..6].eq_ignore_ascii_case(b"x-amz-");
    let of_version_2 = || {
        name == b"AWSAccessKeyId"
            || name == b"Signature"
            || name == b"Expires"
            || is("content-type")
            || is("content-md5")
    };
    of_amz || (hoisting == Some(Hoisting::Version2) && of_version_2())
}

/// `x-amz-copy-source` under the name of the bucket behind the gateway.
pub(super) fn copy_source(bucket: &str, source: &CopySource) -> String {
    let mut value = format!(
        "/{}/{}",
        encode(bucket.as_bytes(), Slash::Encode),
        encode(source.key.as_bytes(), Slash::Keep)
    );
    if let Some(version) = &source.version_id {
        value.push_str("?versionId=");
        value.push_str(&encode(version.as_bytes(), Slash::Encode));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str, store: usize, upstream_name: &str) -> BucketRoute {
        BucketRoute {
            name: name.to_owned(),
            store,
            upstream_name: upstream_name.to_owned(),
        }
    }

    #[test]
    fn a_bucket_is_reached_by_one_name_only() {
        let routes = Routes::new(&[
            route("lake", 0, "lake-1"),
            route("cold", 1, "cold-1"),
            route("swap-a", 0, "swap-b"),
            route("swap-b", 0, "swap-a"),
        ]);
        let find = |name| {
            let place = routes.find(Some(name)).ok()?;
            Some((place.store, place.bucket.unwrap()))
        };
        assert_eq!(find("lake"), Some((0, "lake-1".to_owned())));
        assert_eq!(find("lake-1"), None);
        assert_eq!(find("cold"), Some((1, "cold-1".to_owned())));
        // The first store may have a bucket of that name, which is another one.
        assert_eq!(find("cold-1"), Some((0, "cold-1".to_owned())));
        assert_eq!(find("swap-a"), Some((0, "swap-b".to_owned())));
        assert_eq!(find("swap-b"), Some((0, "swap-a".to_owned())));
        assert_eq!(find("other"), Some((0, "other".to_owned())));
        assert_eq!(routes.find(None).unwrap().bucket, None);
        // And the way back.
        let name = |store, upstream| routes.name_of(store, upstream);
        assert_eq!(name(0, "lake-1"), Some("lake"));
        assert_eq!(name(0, "swap-a"), Some("swap-b"));
        assert_eq!(name(0, "other"), Some("other"));
        // A bucket of the first store behind a name that leads to another store, and one of another
        // store that no name leads to.
        assert_eq!(name(0, "cold"), None);
        assert_eq!(name(1, "cold-1"), Some("cold"));
        assert_eq!(name(1, "other"), None);
        assert_eq!(routes.names_in(1).collect::<Vec<_>>(), ["cold"]);
    }

    #[test]
    fn paths_keep_their_keys() {
        let path = |bucket, key, query| uri(bucket, key, query).unwrap().to_string();
        assert_eq!(path(None, None, ""), "/");
        assert_eq!(path(Some("b"), None, "delete"), "/b?delete");
        assert_eq!(
            path(Some("b"), Some("/a//./../x y+%\u{e9}"), ""),
            "/b//a//./../x%20y%2B%25%C3%A9"
        );
        assert_eq!(
            path(Some("b"), Some("d/"), "versionId=1"),
            "/b/d/?versionId=1"
        );
    }

    #[test]
    fn queries_lose_signatures_and_nothing_else() {
        let raw = "x-id=GetObject&X-Amz-Signature=1&x-amz-acl=private&prefix=a+b%2Bc&delete&&%58-amz-date=1&Expires=1";
        let kept = "x-id=GetObject&prefix=a%20b%2Bc&delete";
        assert_eq!(query(raw, None), format!("{kept}&Expires=1"));
        assert_eq!(
            query(raw, Some(Hoisting::Version4)),
            format!("{kept}&Expires=1")
        );
        assert_eq!(query(raw, Some(Hoisting::Version2)), kept);
        let odd = "prefix=a;b&marker=%zz/\"'&%61cl&versions=";
        let encoded = "prefix=a%3Bb&marker=%25zz%2F%22%27&acl&versions=";
        assert_eq!(query(odd, None), encoded);
    }

    #[test]
    fn copy_sources_are_encoded_anew() {
        let source = CopySource::parse("b%2Fa b%2F%2B//c?versionId=x").unwrap();
        assert_eq!(
            copy_source("other", &source),
            "/other/a%20b/%2B//c?versionId=x"
        );
    }
}
