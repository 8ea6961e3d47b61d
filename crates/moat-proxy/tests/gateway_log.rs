//! Guards what the access log tells of a gateway's requests: who asked, about which bucket, where it went.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/mod.rs"]
mod support;

use std::io;
use std::sync::{Arc, Mutex};

use moat_proxy::gateway::BucketRoute;
use serde_json::Value;
use support::gateway::{CheckingStore, Draft, STORE_KEY, front, gateway, outcome, user};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn accesses(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let accesses = lines.filter(|line: &Value| line["target"] == "moat::access");
        accesses.map(|line| line["fields"].clone()).collect()
    }
}

#[tokio::test]
async fn a_line_tells_the_user_and_the_bucket_on_both_sides() {
    let lines = Lines::default();
    tracing_subscriber::fmt()
        .json()
        .with_env_filter("moat=trace,moat_proxy=trace")
        .with_writer(lines.clone())
        .init();
    let mut config = gateway();
    config.users.push(user("bob", "readonly"));
    config.buckets = vec![BucketRoute {
        name: "lake".to_owned(),
        store: 0,
        upstream_name: "lake-7".to_owned(),
    }];
    let store = CheckingStore::new();
    let server = store.start(None);
    let front = front(&server, None, config);
    let bob = |method: &str, uri: &str| Draft {
        as_user: ("bob", "bob-secret"),
        ..Draft::new(method.parse().unwrap(), uri)
    };
    let stranger = Draft {
        as_user: ("bob", "a-guess"),
        ..Draft::get("/lake/k")
    };
    let drafts = [
        (Draft::get("/lake/k"), 200),
        (bob("GET", "/other"), 200),
        (bob("DELETE", "/lake/k"), 403),
        (bob("GET", "/lake-7/k"), 404),
        (stranger, 403),
    ];
    for (draft, status) in &drafts {
        assert_eq!(outcome(draft.send(&front).await).await.0, *status);
    }
    front
        .until(|_| lines.accesses().len() == drafts.len())
        .await;
    let told: Vec<_> = lines
        .accesses()
        .iter()
        .map(|line| {
            ["user", "access_key", "bucket", "store", "store_bucket"]
                .map(|name| line[name].as_str().unwrap_or("-").to_owned())
                .join(" ")
        })
        .collect();
    assert_eq!(
        told,
        [
            "ann ann lake default lake-7",
            "bob bob other default other",
            "bob bob lake default lake-7",
            // No name of the gateway's, so it is nowhere.
            "bob bob lake-7 - -",
            // Whoever signs with another secret is nobody.
            "- - - - -",
        ]
    );
    let all = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for secret in ["ann-secret", "bob-secret", "a-guess", STORE_KEY.1] {
        assert!(!all.contains(secret), "{secret}");
    }
}
