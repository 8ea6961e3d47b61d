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
use support::{Front, Notes, Server, client, config, soon};

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
