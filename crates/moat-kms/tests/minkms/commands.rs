//! Every command does what the protocol says, for one who may.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use moat_kms_client::{ApiKey, Privilege};
use moat_types::SystemRandom;

use crate::client::*;
use crate::rig::{Credential, Http, Rig};
use crate::{
    BAD_CIPHERTEXT, ENCLAVE_EXISTS, KEY_EXISTS, NO_ENCLAVE, NO_IDENTITY, NO_KEY, NO_POLICY,
    assert_refused, connect, member, operator,
};

/// What a busy machine may take.
const SLACK: Duration = Duration::from_secs(20);

#[tokio::test]
async fn keys_are_made_described_rotated_listed_and_deleted() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    assert_refused(lake.call(KEY_CREATE, named("k")).await, KEY_EXISTS);
    lake.change(KEY_CREATE, named("c").bytes(2, "ChaCha20"))
        .await
        .unwrap();
    lake.change(KEY_CREATE, named("k").number(3, 1))
        .await
        .unwrap();

    let status = lake.call(KEY_STATUS, named("k")).await.unwrap();
    assert_eq!((status.text(1), status.number(2)), ("k", 2));
    assert_eq!(status.text(3), "AES256");
    assert!(status.message(4).number(1) > 1_600_000_000);
    assert_eq!(status.text(5), rig.root.identity().to_string());
    let first = lake
        .call(KEY_STATUS, named("k").number(2, 1))
        .await
        .unwrap();
    assert_eq!(first.number(2), 1);
    assert_refused(lake.call(KEY_STATUS, named("k").number(2, 3)).await, NO_KEY);
    let chacha = lake.call(KEY_STATUS, named("c")).await.unwrap();
    assert_eq!(chacha.text(3), "ChaCha20");

    assert_eq!(lake.list(KEY_LIST, "", 0).await, ["c", "k"]);
    lake.change(KEY_DELETE, named("k")).await.unwrap();
    let status = lake.call(KEY_STATUS, named("k")).await.unwrap();
    assert_eq!(status.number(2), 1);
    lake.change(KEY_DELETE, named("c").number(3, 1))
        .await
        .unwrap();
    assert_refused(lake.call(KEY_DELETE, named("c")).await, NO_KEY);
    assert_eq!(lake.list(KEY_LIST, "", 0).await, ["k"]);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_generated_or_encrypted_decrypts_only_where_it_belongs() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    for (key, kind) in [("a", "AES256"), ("c", "ChaCha20")] {
        lake.change(KEY_CREATE, named(key).bytes(2, kind))
            .await
            .unwrap();
        // The published example, with the name of this key.
        let made = lake
            .call(KEY_GENERATE, named(key).bytes(3, "{}").number(4, 32))
            .await
            .unwrap();
        assert_eq!((made.number(1), made.bytes(2).len()), (1, 32));
        assert_ne!(made.bytes(3).first(), Some(&b'{'), "clients look for JSON");
        let opened = |ciphertext: &[u8], context: &str, version| {
            let request = named(key).bytes(3, ciphertext).bytes(4, context);
            request.number(2, version)
        };
        // MinIO names no version when it decrypts.
        for version in [0, 1] {
            let request = opened(made.bytes(3), "{}", version);
            let plain = lake.call(KEY_DECRYPT, request).await.unwrap();
            assert_eq!(plain.bytes(1), made.bytes(2));
        }
        let mut changed = made.bytes(3).to_vec();
        *changed.last_mut().unwrap() ^= 1;
        for request in [
            opened(made.bytes(3), "{ }", 0),
            opened(&changed, "{}", 0),
            opened(&made.bytes(3)[1..], "{}", 0),
            opened(b"", "{}", 0),
            opened(made.bytes(3), "{}", 2),
        ] {
            assert_refused(lake.call(KEY_DECRYPT, request).await, BAD_CIPHERTEXT);
        }

        let secret = named(key).bytes(3, "secret").bytes(4, "context");
        let sealed = lake.call(KEY_ENCRYPT, secret).await.unwrap();
        assert_eq!(sealed.number(1), 1);
        let request = opened(sealed.bytes(2), "context", 0);
        let plain = lake.call(KEY_DECRYPT, request).await.unwrap();
        assert_eq!(plain.text(1), "secret");
    }
    let made = lake.call(KEY_GENERATE, named("a").number(4, 1024)).await;
    assert_eq!(made.unwrap().bytes(2).len(), 1024);
    let made = lake.call(KEY_GENERATE, named("a")).await;
    assert_eq!(made.unwrap().bytes(2).len(), 32);
    let too_long = lake.call(KEY_GENERATE, named("a").number(4, 1025)).await;
    assert_eq!(too_long.unwrap_err().0, 400);

    let code = |answer: Fields| (answer.number(1), answer.bytes(2).to_vec());
    let request = named("a").bytes(3, "message");
    let mac = code(lake.call(KEY_MAC, request.clone()).await.unwrap());
    assert_eq!((mac.0, mac.1.len()), (1, 32));
    assert_eq!(code(lake.call(KEY_MAC, request).await.unwrap()), mac);
    let other = named("a").bytes(3, "massage");
    assert_ne!(code(lake.call(KEY_MAC, other).await.unwrap()), mac);
    rig.stop().await;
}

#[tokio::test]
async fn old_versions_open_after_a_rotation_and_imported_keys_open_what_kes_sealed() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    lake.change(KEY_CREATE, named("k")).await.unwrap();
    let old = lake.call(KEY_GENERATE, named("k")).await.unwrap();
    lake.change(KEY_CREATE, named("k").number(3, 1))
        .await
        .unwrap();
    let new = lake.call(KEY_GENERATE, named("k")).await.unwrap();
    let named_old = lake
        .call(KEY_GENERATE, named("k").number(2, 1))
        .await
        .unwrap();
    assert_eq!((new.number(1), named_old.number(1)), (2, 1));
    for made in [old, new, named_old] {
        let request = named("k").bytes(3, made.bytes(3));
        let plain = lake.call(KEY_DECRYPT, request).await.unwrap();
        assert_eq!(plain.bytes(1), made.bytes(2));
    }

    let material: Vec<u8> = (0..32).collect();
    let import = named("i").bytes(2, "AES256").bytes(3, &material);
    lake.change(KEY_IMPORT, import.clone()).await.unwrap();
    assert_refused(lake.call(KEY_IMPORT, import).await, KEY_EXISTS);
    let short = named("j").bytes(2, "AES256").bytes(3, &material[1..]);
    assert_eq!(lake.call(KEY_IMPORT, short).await.unwrap_err().0, 400);
    let made = lake.call(KEY_GENERATE, named("i")).await.unwrap();
    let request = named("i").bytes(3, made.bytes(3));
    let plain = lake.call(KEY_DECRYPT, request).await.unwrap();
    assert_eq!(plain.bytes(1), made.bytes(2));
    rig.stop().await;
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one_in_order_or_with_its_first_error() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    for key in ["k", "l"] {
        lake.change(KEY_CREATE, named(key)).await.unwrap();
    }
    let key = |number: usize| if number.is_multiple_of(3) { "l" } else { "k" };
    let context = |number: usize| number.to_string();
    let requests: Vec<Message> = (0..100)
        .map(|number| named(key(number)).bytes(3, context(number)))
        .collect();
    let made = lake.batch(KEY_GENERATE, &requests).await.unwrap();
    let mut requests: Vec<Message> = made
        .iter()
        .enumerate()
        .map(|(number, made)| {
            let request = named(key(number)).bytes(3, made.bytes(3));
            request.bytes(4, context(number))
        })
        .collect();
    let opened = lake.batch(KEY_DECRYPT, &requests).await.unwrap();
    for (made, opened) in made.iter().zip(&opened) {
        assert_eq!(made.bytes(2), opened.bytes(1));
    }
    requests[40] = named("k").bytes(3, "nonsense");
    requests[60] = named("missing");
    let refused = lake.batch(KEY_DECRYPT, &requests).await;
    assert_refused(refused, BAD_CIPHERTEXT);

    for command in [KEY_STATUS, KEY_MAC, KEY_ENCRYPT] {
        let answers = lake.batch(command, &[named("k"), named("l")]).await;
        assert_eq!(answers.unwrap().len(), 2, "{command}");
    }
    let missing = lake.batch(KEY_STATUS, &[named("k"), named("m")]).await;
    assert_refused(missing, NO_KEY);
    let enclaves = [named("lake"), named("other")];
    let statuses = lake.batch(ENCLAVE_STATUS, &enclaves);
    assert_eq!(statuses.await.unwrap()[1].text(1), "other");
    rig.stop().await;
}

#[tokio::test]
async fn listings_continue_with_the_name_that_they_stopped_at() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    let names: Vec<String> = (0..25).map(|n| format!("a-{n:02}")).collect();
    for name in names.iter().map(String::as_str).chain(["b", "_c"]) {
        lake.change(KEY_CREATE, named(name)).await.unwrap();
    }
    let first = lake
        .call(KEY_LIST, named("a-").number(3, 10))
        .await
        .unwrap();
    assert_eq!(first.messages(1).len(), 10);
    assert_eq!(first.text(2), "a-10");
    for limit in [0, 1, 7, 25, 1000, u64::from(u32::MAX)] {
        assert_eq!(lake.list(KEY_LIST, "a-", limit).await, names, "{limit}");
    }
    assert_eq!(lake.list(KEY_LIST, "", 10).await.len(), 27);
    assert!(lake.list(KEY_LIST, "nothing", 0).await.is_empty());
    // All defaults, as MinIO asks: an empty message.
    let all = lake.call(KEY_LIST, message()).await.unwrap();
    assert_eq!(all.messages(1).len(), 27);
    rig.stop().await;
}

#[tokio::test]
async fn enclaves_come_and_go_whatever_path_their_commands_take() {
    let rig = Rig::start().await;
    for place in ["", "lake"] {
        let mut system = operator(&rig, place).await;
        system.change(ENCLAVE_CREATE, named("new")).await.unwrap();
        let again = system.call(ENCLAVE_CREATE, named("new")).await;
        assert_refused(again, ENCLAVE_EXISTS);
        let status = system.call(ENCLAVE_STATUS, named("new")).await.unwrap();
        assert_eq!(status.text(1), "new");
        assert_eq!(status.text(3), rig.root.identity().to_string());
        assert_eq!(
            system.list(ENCLAVE_LIST, "", 2).await,
            ["lake", "new", "other"]
        );
        system.change(ENCLAVE_DELETE, named("new")).await.unwrap();
        let gone = system.call(ENCLAVE_DELETE, named("new")).await;
        assert_refused(gone, NO_ENCLAVE);
    }
    let mut nowhere = operator(&rig, "nowhere").await;
    assert_refused(nowhere.call(KEY_CREATE, named("k")).await, NO_ENCLAVE);
    let mut system = operator(&rig, "").await;
    assert_refused(system.call(KEY_CREATE, named("k")).await, NO_ENCLAVE);

    let status = system.call(CLUSTER_STATUS, message()).await.unwrap();
    let node = status.message(1).message(2);
    assert_eq!(node.text(1), "test");
    assert_eq!(node.text(3), rig.address.to_string());
    assert_eq!(node.text(5), "Leader");
    assert!(status.messages(2).is_empty());
    rig.stop().await;
}

/// `{ command: { pattern: {} } }` as a field.
fn rule(field: u8, command: &str, patterns: &[&str]) -> Message {
    let set = patterns.iter().fold(message(), |set, pattern| {
        set.message(1, named(pattern).message(2, message()))
    });
    message().message(field, named(command).message(2, set))
}

fn join(messages: impl IntoIterator<Item = Message>) -> Message {
    Message(messages.into_iter().flat_map(|one| one.0).collect())
}

#[tokio::test]
async fn policies_and_identities_decide_who_may_do_what() {
    let rig = Rig::start().await;
    let mut lake = operator(&rig, "lake").await;
    for key in ["lake-1", "lake-secret"] {
        lake.change(KEY_CREATE, named(key)).await.unwrap();
    }
    let policy = join([
        named("p"),
        rule(2, "KEY:GENERATE", &["lake-*"]),
        rule(2, "key:list", &["lake-1"]),
        rule(3, "KEY:GENERATE", &["lake-secret"]),
    ]);
    lake.change(POLICY_CREATE, policy).await.unwrap();
    let got = lake.call(POLICY_GET, named("p")).await.unwrap();
    let commands: Vec<_> = got
        .messages(2)
        .iter()
        .map(|rule| rule.text(1).to_owned())
        .collect();
    assert_eq!(commands, ["KEY:GENERATE", "KEY:LIST"]);
    let patterns = got.messages(3)[0].message(2).messages(1);
    assert_eq!(patterns[0].text(1), "lake-secret");
    let status = lake.call(POLICY_STATUS, named("p")).await.unwrap();
    assert!(status.all(2).is_empty() && status.message(4).number(1) > 0);
    assert_eq!(status.text(5), rig.root.identity().to_string());
    assert_eq!(lake.list(POLICY_LIST, "", 0).await, ["p"]);
    let unknown = join([named("q"), rule(2, "KEY:CRAETE", &["*"])]);
    assert_eq!(lake.call(POLICY_CREATE, unknown).await.unwrap_err().0, 400);

    let key = ApiKey::generate(&SystemRandom);
    let identity = key.identity().to_string();
    let tag = named("team").bytes(2, "lake");
    let create = named(&identity).bytes(2, "User").message(4, tag);
    lake.change(IDENTITY_CREATE, create.clone()).await.unwrap();
    assert_eq!(lake.call(IDENTITY_CREATE, create).await.unwrap_err().0, 409);
    let assign = named(&identity).bytes(2, "p");
    lake.change(POLICY_ASSIGN, assign).await.unwrap();
    let status = lake.call(IDENTITY_STATUS, named(&identity)).await.unwrap();
    assert_eq!((status.text(1), status.number(2)), (identity.as_str(), 3));
    assert_eq!((status.text(3), status.number(6)), ("p", 0));
    let tags = status.messages(8);
    assert_eq!((tags[0].text(1), tags[0].text(2)), ("team", "lake"));

    let mut user = connect(&rig, &key, "lake").await;
    user.call(KEY_GENERATE, named("lake-1")).await.unwrap();
    let secret = user.call(KEY_GENERATE, named("lake-secret")).await;
    assert_refused(secret, crate::DENIED);
    assert_eq!(user.list(KEY_LIST, "", 0).await, ["lake-1"]);

    let account = ApiKey::generate(&SystemRandom);
    let account_identity = account.identity().to_string();
    let create = named(&account_identity).number(3, 1);
    user.change(IDENTITY_CREATE, create).await.unwrap();
    let mut service = connect(&rig, &account, "lake").await;
    service.call(KEY_GENERATE, named("lake-1")).await.unwrap();
    let status = lake.call(IDENTITY_STATUS, named(&account_identity)).await;
    assert_eq!(status.unwrap().number(6), 1);
    let status = lake.call(IDENTITY_STATUS, named(&identity)).await.unwrap();
    assert_eq!(status.text(7), account_identity);
    assert_eq!(lake.list(IDENTITY_LIST, "h1:", 1).await.len(), 2);

    lake.change(IDENTITY_DELETE, named(&identity))
        .await
        .unwrap();
    for (client, who) in [(&mut user, "user"), (&mut service, "its service account")] {
        let refused = client.call(KEY_GENERATE, named("lake-1")).await;
        assert_eq!(refused.unwrap_err().1, crate::DENIED.1, "{who}");
    }
    let gone = lake.call(IDENTITY_STATUS, named(&identity)).await;
    assert_refused(gone, NO_IDENTITY);
    // The protocol has no word for a policy that somebody has, so it goes whoever has it.
    lake.change(IDENTITY_CREATE, named(&identity))
        .await
        .unwrap();
    let assign = named(&identity).bytes(2, "p");
    lake.change(POLICY_ASSIGN, assign).await.unwrap();
    lake.change(POLICY_DELETE, named("p")).await.unwrap();
    let refused = user.call(KEY_GENERATE, named("lake-1")).await;
    assert_refused(refused, crate::DENIED);
    for command in [POLICY_GET, POLICY_STATUS, POLICY_DELETE] {
        assert_refused(lake.call(command, named("p")).await, NO_POLICY);
    }
    rig.stop().await;
}

#[tokio::test]
async fn every_command_is_a_line_of_the_audit() {
    let rig = Rig::start().await;
    let (mut admin, key) = member(&rig, "lake", Privilege::Admin).await;
    admin.change(KEY_CREATE, named("k")).await.unwrap();
    let requests = vec![named("k").bytes(3, "{}"); 10];
    admin.batch(KEY_GENERATE, &requests).await.unwrap();
    admin.call(KEY_GENERATE, named("m")).await.unwrap_err();
    let filter = moat_kms::audit::Filter {
        identity: Some(key.identity().to_string()),
        ..Default::default()
    };
    let lines = rig
        .core
        .audit_tail(&rig.operator(), filter, 100)
        .await
        .unwrap();
    let count = |operation: &str, outcome: &str| {
        let of = |line: &&moat_kms::audit::AuditLine| {
            line.operation.as_deref() == Some(operation)
                && line.outcome.is_some_and(|found| found.as_str() == outcome)
                && line.enclave.as_deref() == Some("lake")
        };
        lines.iter().filter(of).count()
    };
    assert_eq!(count("KEY:CREATE", "allowed"), 1);
    assert_eq!(count("KEY:GENERATE", "allowed"), 10);
    assert_eq!(count("KEY:GENERATE", "error"), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_log_stream_delivers_until_the_server_stops() {
    for http in [Http::One, Http::Two] {
        let rig = Rig::start().await;
        let mut reader = rig.connect(&Credential::of(&rig.root), http).await;
        let body = Full::new(message().0.into()).boxed();
        let answer = tokio::time::timeout(SLACK, reader.open("POST", "/v1/debug/log", body)).await;
        // The head comes before anything has happened, because clients wait for it.
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
        let mut body = answer.into_body();

        let mut lake = operator(&rig, "lake").await;
        lake.call(KEY_GENERATE, named("missing")).await.unwrap_err();
        let record = next_record(&mut body, "KEY:GENERATE").await;
        assert_eq!(record.number(1), 8, "WARN (4), zig-zag");
        assert!(record.text(3).contains("missing"), "{}", record.text(3));
        assert!(record.message(2).number(1) > 1_600_000_000);
        let request = record.message(5);
        assert_eq!((request.text(1), request.text(2)), ("POST", "/v1/kms/lake"));
        assert_eq!(request.text(3), rig.root.identity().to_string());
        assert_eq!(request.text(4), "127.0.0.1");
        rig.core.end_streams();
        while let Some(frame) = tokio::time::timeout(SLACK, body.frame()).await.unwrap() {
            assert!(frame.is_ok());
        }
        rig.stop().await;
    }
}

/// The next record whose text holds `text`.
async fn next_record(body: &mut hyper::body::Incoming, text: &str) -> Fields {
    let mut received = Vec::new();
    loop {
        while let Some((length, rest)) = received.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            assert!(length <= 4096);
            let Some((record, rest)) = rest.split_at_checked(length) else {
                break;
            };
            let record = Fields::parse(record);
            if record.text(3).contains(text) {
                return record;
            }
            received = rest.to_vec();
        }
        let frame = tokio::time::timeout(SLACK, body.frame()).await;
        let data = frame.unwrap().unwrap().unwrap().into_data().unwrap();
        received.extend_from_slice(&data);
    }
}
