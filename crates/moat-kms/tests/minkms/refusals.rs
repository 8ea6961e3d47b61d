//! What is refused, and that the words are those that clients compare.

use std::collections::BTreeSet;

use http::StatusCode;
use moat_kms_client::{ApiKey, Privilege};
use moat_types::SystemRandom;

use crate::client::*;
use crate::rig::{Http, Rig};
use crate::{DENIED, NO_ENCLAVE, NO_IDENTITY, NO_KEY, NO_POLICY};
use crate::{assert_refused, connect, member, operator};

/// Every command, with a message that would do.
fn every_command(identity: &str) -> Vec<(u16, Message)> {
    let material = [1; 32];
    let of_key = |command| (command, named("k"));
    vec![
        (1, named("host")),
        (2, named("host")),
        (CLUSTER_STATUS, message()),
        (4, named("host")),
        (5, named("hsm")),
        (6, named("hsm")),
        (ENCLAVE_CREATE, named("fresh")),
        (ENCLAVE_DELETE, named("lake")),
        (ENCLAVE_STATUS, named("lake")),
        (ENCLAVE_LIST, message()),
        (KEY_CREATE, named("fresh")),
        (KEY_CREATE, named("k").number(3, 1)),
        of_key(KEY_DELETE),
        (KEY_DELETE, named("k").number(3, 1)),
        (
            KEY_IMPORT,
            named("fresh").bytes(2, "AES256").bytes(3, material),
        ),
        of_key(KEY_STATUS),
        (KEY_STATUS, named("k").number(2, 1)),
        of_key(KEY_ENCRYPT),
        of_key(KEY_DECRYPT),
        of_key(KEY_GENERATE),
        (KEY_GENERATE, named("missing")),
        (KEY_LIST, message()),
        of_key(KEY_MAC),
        (POLICY_CREATE, named("fresh")),
        (POLICY_DELETE, named("p")),
        (POLICY_ASSIGN, named(identity).bytes(2, "p")),
        (POLICY_GET, named("p")),
        (POLICY_STATUS, named("p")),
        (POLICY_LIST, message()),
        (IDENTITY_CREATE, named(identity)),
        (IDENTITY_CREATE, named(identity).bytes(2, "Admin")),
        (IDENTITY_CREATE, named(identity).number(3, 1)),
        (IDENTITY_DELETE, named(identity)),
        (IDENTITY_STATUS, named(identity)),
        (IDENTITY_LIST, message()),
    ]
}

#[tokio::test]
async fn nobody_sees_or_changes_what_is_in_an_enclave_that_is_not_theirs() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    lake.change(POLICY_CREATE, named("p")).await.unwrap();
    let (_, victim) = member(&rig, "lake", Privilege::User).await;
    let victim = victim.identity().to_string();

    let stranger = ApiKey::generate(&SystemRandom);
    let (_, foreign_admin) = member(&rig, "other", Privilege::Admin).await;
    let (_, no_policy) = member(&rig, "lake", Privilege::User).await;
    for (who, key) in [
        ("a stranger", &stranger),
        ("an admin of another enclave", &foreign_admin),
        ("a user without a policy", &no_policy),
    ] {
        for place in ["lake", ""] {
            let mut client = connect(&rig, key, place).await;
            for (command, message) in every_command(&victim) {
                let of_enclave = (200..300).contains(&command);
                let expected = if place.is_empty() && of_enclave {
                    NO_ENCLAVE
                } else {
                    DENIED
                };
                // Users may have service accounts of their own; not ones that are someone already.
                let own_account = command == IDENTITY_CREATE && message.0.ends_with(&[0x18, 1]);
                let answer = client.call(command, message).await;
                if own_account && who.starts_with("a user") && place == "lake" {
                    assert_eq!(answer.unwrap_err().0, 409, "{who} {command}");
                } else {
                    let (status, text) = answer.unwrap_err();
                    assert_eq!(
                        (status, text.as_str()),
                        expected,
                        "{who} {command} {place:?}"
                    );
                }
            }
        }
    }
    // An enclave that does not exist looks like one that is not theirs.
    let mut client = connect(&rig, &stranger, "nowhere").await;
    assert_refused(client.call(KEY_GENERATE, named("k")).await, DENIED);

    // Nothing of it happened.
    assert_eq!(lake.list(KEY_LIST, "", 0).await, ["k"]);
    let status = lake.call(KEY_STATUS, named("k")).await.unwrap();
    assert_eq!(status.number(2), 1);
    assert_eq!(lake.list(POLICY_LIST, "", 0).await, ["p"]);
    let status = lake.call(IDENTITY_STATUS, named(&victim)).await.unwrap();
    assert_eq!((status.number(2), status.text(3)), (3, ""));
    rig.stop().await;
}

/// Every code that the server knows is walked above: one that is not in the list is unknown to it,
/// or has no meaning on this wire. So a new command can't be forgotten there.
#[tokio::test]
async fn no_command_is_missing_in_the_walk() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    let mut system = operator(&rig, "").await;
    let walked: BTreeSet<u16> = every_command("h1:x").iter().map(|one| one.0).collect();
    let own = moat_kms::Command::ALL.iter();
    let own = own.map(|command| *command as u16);
    let of_wire: BTreeSet<u16> = own.filter(|code| *code < 1000).collect();
    let missing: Vec<_> = of_wire.difference(&walked).collect();
    assert_eq!(
        missing,
        [&KEY_LIST_VERSIONS],
        "it has no message on this wire"
    );
    for code in (0..2000).filter(|code| !walked.contains(code)) {
        for client in [&mut lake, &mut system] {
            let (status, text) = client.call(code, named("k")).await.unwrap_err();
            assert!([400, 501].contains(&status), "{code}: {status} {text}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_admin_rules_its_enclave_and_nothing_above_it() {
    let rig = Rig::start().await;
    let (mut admin, _) = member(&rig, "lake", Privilege::Admin).await;
    admin.change(KEY_CREATE, named("k")).await.unwrap();
    for (command, message) in every_command("h1:x") {
        if command < 200 {
            assert_refused(admin.call(command, message).await, DENIED);
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_ciphertext_of_another_enclave_or_key_does_not_open() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    let mut other = operator(&rig, "other").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    lake.change(KEY_CREATE, named("l")).await.unwrap();
    other.change(KEY_CREATE, named("k")).await.unwrap();
    let made = lake.call(KEY_GENERATE, named("k")).await.unwrap();
    let here = |key| named(key).bytes(3, made.bytes(3));
    lake.call(KEY_DECRYPT, here("k")).await.unwrap();
    for refused in [
        other.call(KEY_DECRYPT, here("k")).await,
        lake.call(KEY_DECRYPT, here("l")).await,
    ] {
        assert_refused(refused, crate::BAD_CIPHERTEXT);
    }
    rig.stop().await;
}

#[tokio::test]
async fn names_that_nothing_can_have_do_not_exist_and_can_not_be_made() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    let long = "k".repeat(200);
    for name in ["", "a/b", "../k", "a b", "é", long.as_str()] {
        for command in [
            KEY_STATUS,
            KEY_GENERATE,
            KEY_DECRYPT,
            KEY_ENCRYPT,
            KEY_MAC,
            KEY_DELETE,
        ] {
            assert_refused(lake.call(command, named(name)).await, NO_KEY);
        }
        for command in [POLICY_GET, POLICY_STATUS, POLICY_DELETE] {
            assert_refused(lake.call(command, named(name)).await, NO_POLICY);
        }
        for command in [IDENTITY_STATUS, IDENTITY_DELETE] {
            assert_refused(lake.call(command, named(name)).await, NO_IDENTITY);
        }
        for command in [ENCLAVE_STATUS, ENCLAVE_DELETE] {
            assert_refused(lake.call(command, named(name)).await, NO_ENCLAVE);
        }
        for command in [
            KEY_CREATE,
            KEY_IMPORT,
            POLICY_CREATE,
            IDENTITY_CREATE,
            ENCLAVE_CREATE,
        ] {
            let (status, text) = lake.call(command, named(name)).await.unwrap_err();
            assert_eq!(status, 400, "{command} {name:?}: {text}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_400_and_harm_nobody() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    let good = frame(KEY_GENERATE, &named("k"));
    let two = |a, b| [frame(a, &named("k")), frame(b, &named("l"))].concat();
    let cut: Vec<Vec<u8>> = (0..good.len()).map(|at| good[..at].to_vec()).collect();
    for body in cut.into_iter().chain([
        // Longer than the body.
        [&[0, 207, 0xff, 0xff, 0xff, 0xff][..], &good[6..]].concat(),
        [&good[..], &[0]].concat(),
        // Commands that do not exist, or not on this wire.
        frame(0, &message()),
        frame(7, &message()),
        frame(209, &named("k")),
        frame(999, &message()),
        frame(1003, &named("k")),
        frame(u16::MAX, &message()),
        // Not protobuf.
        frame(KEY_GENERATE, &Message(vec![0x0a, 0xff])),
        frame(KEY_GENERATE, &Message(vec![0x0a, 1, 0xff])),
        frame(KEY_GENERATE, &named("k").bytes(4, "x")),
        frame(KEY_STATUS, &named("k").number(2, 1 << 32)),
        // Batches of what can't be batched, and of different commands.
        two(KEY_CREATE, KEY_CREATE),
        two(KEY_LIST, KEY_LIST),
        two(KEY_DELETE, KEY_DELETE),
        two(KEY_GENERATE, KEY_DECRYPT),
        two(KEY_GENERATE, KEY_CREATE),
        frame(KEY_GENERATE, &named("k")).repeat(4097),
        // What the messages say makes no sense.
        frame(KEY_CREATE, &named("n").bytes(2, "DES")),
        frame(KEY_DELETE, &named("k").number(2, 1).number(3, 1)),
        frame(IDENTITY_CREATE, &named("h1:AAAA")),
        frame(KEY_LIST, &named(&"p".repeat(1000))),
        frame(KEY_GENERATE, &named("k").bytes(3, vec![0; 17 << 10])),
    ]) {
        let shown = hex::encode(&body[..body.len().min(40)]);
        let (status, text) = lake.post(body).await.unwrap_err();
        assert_eq!(status, 400, "{shown}: {text}");
        assert!(!text.is_empty());
    }
    let many = frame(KEY_GENERATE, &named("k")).repeat(4096);
    assert_eq!(lake.post(many).await.unwrap().len(), 4096);
    let huge = vec![0; (4 << 20) + 1];
    assert_eq!(lake.post(huge).await.unwrap_err().0, 413);
    let mut lake = operator(&rig, "lake").await;
    lake.call(KEY_GENERATE, named("k")).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_say_so() {
    let rig = Rig::start().await;
    let mut root = operator(&rig, "").await;
    for (method, path, status) in [
        ("GET", "/v1/kms/lake", StatusCode::METHOD_NOT_ALLOWED),
        ("PUT", "/v1/kms", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/v1/debug/log", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/health/metrics", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/debug/nothing", StatusCode::NOT_FOUND),
        ("GET", "/v1/db", StatusCode::OK),
        ("PUT", "/v1/db", StatusCode::NOT_IMPLEMENTED),
        ("POST", "/v1/db", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/v1/debug/pprof", StatusCode::NOT_IMPLEMENTED),
        ("POST", "/v1/debug/restart", StatusCode::NOT_IMPLEMENTED),
        ("POST", "/v1/rpc/vote", StatusCode::NOT_IMPLEMENTED),
        ("GET", "/v1/health/metrics", StatusCode::OK),
    ] {
        let answer = root.send(method, path, "").await;
        assert_eq!(answer.status, status.as_u16(), "{method} {path}");
        assert_eq!(answer.headers["x-request-id"].len(), 16, "{method} {path}");
        assert_eq!(
            answer.headers["content-length"],
            answer.body.len().to_string().as_str()
        );
        assert_eq!(
            answer.headers.contains_key("allow"),
            status == StatusCode::METHOD_NOT_ALLOWED
        );
    }
    let connection = rig.connect_with(None, Http::One, rustls::DEFAULT_VERSIONS);
    let mut nobody = Client::new(connection.await, "lake");
    let refused = nobody.call(KEY_GENERATE, named("k")).await;
    assert_eq!(refused.unwrap_err().0, 401);
    let (mut stranger, _) = member(&rig, "other", Privilege::Admin).await;
    for (method, path) in [
        ("POST", "/v1/debug/log"),
        ("GET", "/v1/health/metrics"),
        ("GET", "/v1/db"),
    ] {
        let answer = stranger.send(method, path, "").await;
        let text = Fields::parse(&answer.body).text(1).to_owned();
        assert_eq!((answer.status, text.as_str()), DENIED, "{path}");
    }
    rig.stop().await;
}
