//! The gateway and what is behind it: several stores, and keys that come from an STS.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "support/mod.rs"]
mod support;

use std::sync::Arc;

use http::{Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use moat_net::{Body, Endpoint};
use moat_proxy::gateway::{BucketRoute, KeySource, Store, WebIdentity};
use moat_proxy::{Mode, SiteConfig, Upstream};
use moat_s3::authenticate::Account;
use moat_s3::sigv4::PayloadHash;
use moat_types::SecretString;

use support::gateway::{
    CheckingStore, Draft, REGION, STORE_KEY, credentials, front, gateway, outcome,
};
use support::{Front, Notes, Server, client, config, soon, text};

#[tokio::test]
async fn buckets_go_to_their_stores_with_the_keys_of_each() {
    let first = CheckingStore::new();
    let second = CheckingStore::knowing(Account {
        access_key_id: "second-key".to_owned(),
        secret_access_key: SecretString::new("second-secret".to_owned()),
        session_token: None,
    });
    let (first_server, second_server) = (first.start(None), second.start(None));
    let mut settings = gateway();
    settings.stores.push(Store {
        name: "second".to_owned(),
        sites: 1..2,
        region: REGION.to_owned(),
        keys: KeySource::Fixed(credentials("second-key", "second-secret")),
    });
    settings.buckets = vec![BucketRoute {
        name: "cold".to_owned(),
        store: 1,
        upstream_name: "cold-7".to_owned(),
    }];
    let mut config = config(&[first_server.url("http")]);
    let mut site = SiteConfig::new(vec![Upstream::parse(&second_server.url("http")).unwrap()]);
    site.health = config.sites[0].health.clone();
    config.sites.push(site);
    config.mode = Mode::Gateway(Arc::new(settings));
    let front = Front::start(config, None);
    for uri in ["/warm/k", "/cold/k"] {
        let put = Draft::put(uri, PayloadHash::Unsigned, uri);
        assert_eq!(outcome(put.send(&front).await).await.0, 200);
    }
    assert_eq!(first.taken()[0].uri, "/warm/k");
    assert_eq!(second.taken()[0].uri, "/cold-7/k");
    let copy = Draft::new(Method::PUT, "/warm/k").with("x-amz-copy-source", "cold/k");
    assert_eq!(outcome(copy.send(&front).await).await.1, "NotImplemented");
    // A store that is away takes nothing of another one's.
    second_server.task.abort();
    front.until_up(&[true, false]).await;
    let got = outcome(Draft::get("/cold/k").send(&front).await).await;
    assert_eq!(got, (503, "ServiceUnavailable".to_owned()));
    assert_eq!(
        outcome(Draft::get("/warm/k").send(&front).await).await.0,
        200
    );
    assert_eq!((first.begun(), second.begun()), (2, 1));
}

/// What a store has, two on a page: a token names the page's first bucket.
fn buckets(owner: &'static str, names: &'static [&'static str]) -> CheckingStore {
    CheckingStore::answering(move |taken| {
        let query = taken.uri.query().unwrap_or_default();
        let from = query.strip_prefix("continuation-token=");
        let from = from.map_or(0, |from| {
            names.iter().position(|name| *name == from).unwrap()
        });
        let listed = |name: &&str| {
            format!(
                "<Bucket><Name>{name}</Name><CreationDate>2026-01-02T03:04:05.000Z</CreationDate></Bucket>"
            )
        };
        let page: String = names[from..].iter().take(2).map(listed).collect();
        let next = names.get(from + 2);
        let next = next.map(|name| format!("<ContinuationToken>{name}</ContinuationToken>"));
        Response::new(Body::full(format!(
            "<ListAllMyBucketsResult><Owner><ID>{owner}</ID></Owner><Buckets>{page}</Buckets>{}</ListAllMyBucketsResult>",
            next.unwrap_or_default()
        )))
    })
}

struct Two {
    first: CheckingStore,
    second: CheckingStore,
    second_server: Server,
    front: Front,
    _first_server: Server,
}

/// A gateway before both, with routes to the second and a renamed bucket in the first.
fn before_both(first: CheckingStore, second: CheckingStore) -> Two {
    let (first_server, second_server) = (first.start(None), second.start(None));
    let mut settings = gateway();
    settings.stores.push(Store {
        name: "second".to_owned(),
        sites: 1..2,
        region: REGION.to_owned(),
        keys: KeySource::Fixed(credentials(STORE_KEY.0, STORE_KEY.1)),
    });
    let route = |name: &str, store, upstream_name: &str| BucketRoute {
        name: name.to_owned(),
        store,
        upstream_name: upstream_name.to_owned(),
    };
    settings.buckets = vec![
        route("lake", 0, "lake-7"),
        route("cold", 1, "cold-7"),
        route("gone", 1, "gone"),
    ];
    let mut config = config(&[first_server.url("http")]);
    let mut site = SiteConfig::new(vec![Upstream::parse(&second_server.url("http")).unwrap()]);
    site.health = config.sites[0].health.clone();
    config.sites.push(site);
    config.mode = Mode::Gateway(Arc::new(settings));
    Two {
        first,
        second,
        second_server,
        front: Front::start(config, None),
        _first_server: first_server,
    }
}

/// The names that the gateway lists, and from whom; the status if it lists none.
async fn listed(front: &Front, query: &str) -> Result<(Vec<String>, String), u16> {
    let response = Draft::get(&format!("/{query}")).send(front).await;
    let status = response.status().as_u16();
    let text = text(response).await;
    let list = moat_s3::xml::read_list_buckets(text.as_bytes()).map_err(|_| status)?;
    let names = list.buckets.into_iter().map(|(name, _)| name).collect();
    Ok((names, list.owner.unwrap().0))
}

#[tokio::test]
async fn buckets_of_all_stores_are_one_list_by_the_clients_names() {
    let two = before_both(
        buckets("root", &["aaa", "cold", "lake-7", "zoo"]),
        buckets("other", &["cold-7", "nobodys"]),
    );
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|one| (*one).to_owned())
            .collect::<Vec<_>>()
    };
    let all = names(&["aaa", "cold", "lake", "zoo"]);
    let got = listed(&two.front, "").await;
    assert_eq!(got, Ok((all.clone(), "root".to_owned())));
    // Two pages of the first, one of the second; the client's own page is none of theirs.
    assert_eq!((two.first.begun(), two.second.begun()), (2, 1));
    let page = listed(&two.front, "?max-buckets=2&prefix=&continuation-token=aaa").await;
    assert_eq!(page.unwrap().0, names(&["cold", "lake"]));
    let uris: Vec<_> = two
        .second
        .taken()
        .iter()
        .map(|one| one.uri.to_string())
        .collect();
    assert_eq!(uris, ["/", "/"]);
    // Without the second its buckets are known by configuration alone.
    two.second_server.task.abort();
    two.front.until_up(&[true, false]).await;
    let got = listed(&two.front, "").await.unwrap().0;
    assert_eq!(got, names(&["aaa", "cold", "gone", "lake", "zoo"]));
}

#[tokio::test]
async fn without_the_first_store_there_is_no_list() {
    let refused = || {
        CheckingStore::answering(|_| {
            let mut response =
                Response::new(Body::full("<Error><Code>AccessDenied</Code></Error>"));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        })
    };
    let first = before_both(refused(), buckets("other", &["cold-7"]));
    assert_eq!(listed(&first.front, "").await, Err(403));
    let second = before_both(buckets("root", &["aaa"]), refused());
    let got = listed(&second.front, "").await.unwrap().0;
    assert_eq!(got, ["aaa", "cold", "gone"]);
    let no_list = CheckingStore::answering(|_| Response::new(Body::full("<html></html>")));
    let none = before_both(no_list, buckets("other", &["cold-7"]));
    assert_eq!(listed(&none.front, "").await, Err(502));
}

/// An STS that gives the store's key away, with a token, to whoever brings the right one.
fn sts(asked: &Notes) -> Server {
    let asked = asked.clone();
    Server::upstream(None, move |request| {
        let asked = asked.clone();
        async move {
            let form = request.into_body().collect().await.unwrap().to_bytes();
            let form = String::from_utf8(form.to_vec()).unwrap();
            let mut response = Response::new(Body::full(format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                 <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>t/+=\
                 </SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
                 </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
                STORE_KEY.0, STORE_KEY.1
            )));
            if !form.contains("WebIdentityToken=the%2Ftoken") {
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
            asked.add(form);
            response
        }
    })
}

#[tokio::test]
async fn keys_of_an_sts_are_used_with_their_token_and_nothing_is_sent_without() {
    let folder = tempfile::tempdir().unwrap();
    let asked = Notes::default();
    let sts = sts(&asked);
    let identity = |token: &str| {
        let token_file = folder.path().join(token);
        std::fs::write(&token_file, format!("the/{token}\n")).unwrap();
        KeySource::WebIdentity(Arc::new(WebIdentity {
            token_file,
            role_arn: Some("arn:aws:iam::1:role/lake".to_owned()),
            session_name: "gateway".to_owned(),
            endpoint: Endpoint::parse(&sts.url("http")).unwrap(),
            client: client(None),
        }))
    };
    let store = CheckingStore::knowing(Account {
        access_key_id: STORE_KEY.0.to_owned(),
        secret_access_key: SecretString::new(STORE_KEY.1.to_owned()),
        session_token: Some(SecretString::new("t/+=".to_owned())),
    });
    let server = store.start(None);
    let start = |token| {
        let mut settings = gateway();
        settings.stores[0].keys = identity(token);
        front(&server, None, settings)
    };
    let refused = start("wrong");
    let got = outcome(Draft::get("/b/k").send(&refused).await).await;
    assert_eq!(got, (503, "ServiceUnavailable".to_owned()));
    assert_eq!(store.begun(), 0);
    let front = start("token");
    soon(async {
        // Until the STS has answered.
        while outcome(Draft::get("/b/k").send(&front).await).await.0 != 200 {}
    })
    .await;
    let taken = store.taken();
    assert_eq!(taken[0].header("x-amz-security-token"), Some("t/+="));
    let forms = asked.all();
    let good = forms.iter().find(|form| form.contains("token")).unwrap();
    assert!(
        good.contains("Action=AssumeRoleWithWebIdentity")
            && good.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Flake"),
        "{good}"
    );
}
