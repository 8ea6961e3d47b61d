//! What the core promises about identities, policies and enclaves that come and go: service
//! accounts have the rights of their parent and die with it, a deleted enclave takes everything
//! with it, and a policy check says what decides.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::sync::Arc;

use moat_kms::{
    Command, Core, Decider, DenyReason, Error, Force, IdentityInfo, ListQuery, PathPolicy, Scope,
    Tags, Verdict,
};
use moat_kms_client::Privilege;
use moat_kms_client::wire::PolicyDocument;
use moat_meta::Embedded;
use moat_types::EnclaveName;
use support::{World, caller, identity, key, lake, root, scope};

fn policy(json: &str) -> PolicyDocument {
    serde_json::from_str(json).unwrap()
}

/// The user 1 with a policy for data keys under `k*`, and the Admin 2.
async fn with_people(world: &World) -> Arc<Core<Embedded>> {
    let core = world.open_with_key().await;
    let rules = policy(
        r#"{"allow":{"KEY:GENERATE":"k*","KEY:STATUS":"*"},"deny":{"KEY:GENERATE":"k-secret"}}"#,
    );
    core.set_policy(&root(), &scope(), &key("p"), &rules)
        .await
        .unwrap();
    let (user, admin) = (identity(1), identity(2));
    core.create_identity(&root(), &scope(), &user, Privilege::User, Some(&key("p")))
        .await
        .unwrap();
    core.create_identity(&root(), &scope(), &admin, Privilege::Admin, None)
        .await
        .unwrap();
    core
}

async fn account(core: &Core<Embedded>, of: u8, number: u8) -> Result<IdentityInfo, Error> {
    core.create_service_account(
        &caller(identity(of)),
        &scope(),
        &identity(number),
        &Tags::new(),
    )
    .await
}

async fn generates(core: &Core<Embedded>, number: u8) -> bool {
    core.generate_data_key(&caller(identity(number)), &lake(), &key("k"), b"", 32)
        .await
        .is_ok()
}

#[tokio::test]
async fn service_accounts_have_the_rights_of_their_parent_and_die_with_it() {
    let world = World::new();
    let core = with_people(&world).await;
    let made = account(&core, 1, 11).await.unwrap();
    assert_eq!(made.parent, Some(identity(1)));
    account(&core, 1, 12).await.unwrap();
    assert!(generates(&core, 11).await);
    let created = core
        .create_key(&caller(identity(11)), &lake(), &key("k2"))
        .await;
    assert!(matches!(created, Err(Error::Denied { .. })));

    let parent = core
        .identity_info(&root(), &scope(), &identity(1))
        .await
        .unwrap();
    assert_eq!(parent.service_accounts, [identity(11), identity(12)]);
    let twice = account(&core, 1, 11).await;
    assert!(matches!(twice, Err(Error::IdentityExists { .. })));
    let nested = account(&core, 11, 13).await;
    assert!(matches!(nested, Err(Error::IdentityForm(_))));
    let with_policy = core
        .assign_policy(&root(), &scope(), &identity(11), Some(&key("p")))
        .await;
    assert!(matches!(with_policy, Err(Error::IdentityForm(_))));

    // What the parent loses, they lose.
    core.assign_policy(&root(), &scope(), &identity(1), None)
        .await
        .unwrap();
    assert!(!generates(&core, 11).await);
    core.assign_policy(&root(), &scope(), &identity(1), Some(&key("p")))
        .await
        .unwrap();
    assert!(generates(&core, 11).await);

    // A user may forget its own accounts, and nobody else's.
    account(&core, 2, 21).await.unwrap();
    core.create_key(&caller(identity(21)), &lake(), &key("k3"))
        .await
        .unwrap();
    let refused = core
        .delete_identity(&caller(identity(1)), &scope(), &identity(21))
        .await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    core.delete_identity(&caller(identity(1)), &scope(), &identity(12))
        .await
        .unwrap();
    assert!(!generates(&core, 12).await);

    core.delete_identity(&root(), &scope(), &identity(1))
        .await
        .unwrap();
    assert!(!generates(&core, 1).await && !generates(&core, 11).await);
    assert_eq!(core.home(&identity(11)).await.unwrap(), None);
    let gone = core.delete_identity(&root(), &scope(), &identity(1)).await;
    assert!(matches!(gone, Err(Error::IdentityNotFound { .. })));
    // The identity is free again.
    core.create_identity(&root(), &scope(), &identity(11), Privilege::User, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn who_may_not_make_service_accounts_is_told_so() {
    let world = World::new();
    let core = with_people(&world).await;
    let stranger = account(&core, 7, 71).await;
    assert!(matches!(stranger, Err(Error::Denied { .. })));
    let of_root = core
        .create_service_account(&root(), &scope(), &identity(3), &Tags::new())
        .await;
    assert!(matches!(of_root, Err(Error::IdentityForm(_))));
    let rules = policy(r#"{"allow":{"KEY:GENERATE":"*"},"deny":{"IDENTITY:CREATE":"*"}}"#);
    core.set_policy(&root(), &scope(), &key("p"), &rules)
        .await
        .unwrap();
    let denied = account(&core, 1, 11).await;
    assert!(matches!(
        denied,
        Err(Error::Denied {
            reason: DenyReason::DeniedByRule,
            ..
        })
    ));
    let long: Tags = [("n".repeat(257), String::new())].into();
    let odd = core
        .create_tagged_identity(
            &root(),
            &scope(),
            &identity(5),
            Privilege::User,
            None,
            &long,
        )
        .await;
    assert!(matches!(odd, Err(Error::IdentityForm(_))));
    let tags: Tags = [("team".to_owned(), "lake".to_owned())].into();
    let made = core
        .create_tagged_identity(
            &root(),
            &scope(),
            &identity(5),
            Privilege::User,
            None,
            &tags,
        )
        .await;
    assert_eq!(made.unwrap().tags, tags);
}

#[tokio::test]
async fn users_can_not_forget_admins() {
    let world = World::new();
    let core = with_people(&world).await;
    let rules = policy(r#"{"allow":{"IDENTITY:DELETE":"*"}}"#);
    core.set_policy(&root(), &scope(), &key("p"), &rules)
        .await
        .unwrap();
    let refused = core
        .delete_identity(&caller(identity(1)), &scope(), &identity(2))
        .await;
    assert!(matches!(
        refused,
        Err(Error::Denied {
            reason: DenyReason::NeedsAdmin,
            ..
        })
    ));
    core.delete_identity(&caller(identity(2)), &scope(), &identity(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_policy_check_names_what_decides() {
    let world = World::new();
    let core = with_people(&world).await;
    account(&core, 1, 11).await.unwrap();
    let user = Decider::Policy(key("p"));
    for (number, name, verdict, by, pattern) in [
        (1, "k-1", Verdict::Allowed, user.clone(), Some("k*")),
        (11, "k-1", Verdict::Allowed, user.clone(), Some("k*")),
        (
            1,
            "k-secret",
            Verdict::DeniedByRule,
            user.clone(),
            Some("k-secret"),
        ),
        (1, "other", Verdict::NotAllowed, user, None),
        (
            2,
            "other",
            Verdict::Allowed,
            Decider::Privilege(Privilege::Admin),
            None,
        ),
        (
            7,
            "k",
            Verdict::NotAllowed,
            Decider::Nothing(DenyReason::UnknownIdentity),
            None,
        ),
    ] {
        let who = identity(number);
        let decision = core
            .check_policy(&root(), &scope(), &who, Command::KeyGenerate, name)
            .await
            .unwrap();
        assert_eq!(decision.verdict, verdict, "{number} {name}");
        assert_eq!(decision.by, by, "{number} {name}");
        assert_eq!(decision.pattern.as_deref(), pattern, "{number} {name}");
    }
    let (user, admin) = (identity(1), identity(2));
    core.check_policy(&caller(user), &scope(), &user, Command::KeyList, "k")
        .await
        .unwrap();
    for (asker, who) in [(user, admin), (identity(7), identity(7))] {
        let refused = core
            .check_policy(&caller(asker), &scope(), &who, Command::KeyList, "k")
            .await;
        assert!(matches!(refused, Err(Error::Denied { .. })));
    }
}

#[tokio::test]
async fn a_deleted_policy_leaves_its_users_without_rights() {
    let world = World::new();
    let core = with_people(&world).await;
    core.policy_status(&root(), &scope(), &key("p"))
        .await
        .unwrap();
    // While somebody has it, it goes only by force, and whoever has it is named.
    let delete = |force| {
        let core = core.clone();
        async move {
            core.delete_policy(&root(), &scope(), &key("p"), force)
                .await
        }
    };
    let refused = delete(Force::No).await.unwrap_err();
    let expected = format!(
        "1 identity has the policy p, and may do nothing without it: {};",
        identity(1)
    );
    assert!(refused.to_string().starts_with(&expected), "{refused}");
    assert!(generates(&core, 1).await);
    for number in 30..50 {
        core.create_identity(
            &root(),
            &scope(),
            &identity(number),
            Privilege::User,
            Some(&key("p")),
        )
        .await
        .unwrap();
    }
    let refused = delete(Force::No).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("21 identities have") && refused.contains(" and 11 more;"),
        "{refused}"
    );

    delete(Force::Yes).await.unwrap();
    assert!(!generates(&core, 1).await);
    let decision = core
        .check_policy(&root(), &scope(), &identity(1), Command::KeyGenerate, "k")
        .await
        .unwrap();
    assert_eq!(decision.verdict, Verdict::NotAllowed);
    assert_eq!(decision.by, Decider::Nothing(DenyReason::PolicyGone));
    let gone = delete(Force::Yes).await;
    assert!(matches!(gone, Err(Error::PolicyNotFound { .. })));
    let rules = policy(r#"{"allow":{"KEY:GENERATE":"k*"}}"#);
    core.set_policy(&root(), &scope(), &key("unused"), &rules)
        .await
        .unwrap();
    core.delete_policy(&root(), &scope(), &key("unused"), Force::No)
        .await
        .unwrap();
    let gone = core.policy_status(&root(), &scope(), &key("p")).await;
    assert!(matches!(gone, Err(Error::PolicyNotFound { .. })));
}

#[tokio::test]
async fn path_policies_are_policies_like_any_other() {
    let world = World::new();
    let core = with_people(&world).await;
    let paths = PathPolicy {
        allow: vec!["/v1/key/generate/k*".into(), "/v1/status".into()],
        deny: vec!["/v1/key/generate/k2".into()],
    };
    core.set_policy(&root(), &scope(), &key("p"), &paths.to_document().unwrap())
        .await
        .unwrap();
    assert!(generates(&core, 1).await);
    let user = caller(identity(1));
    core.permit(&user, &scope(), Command::ServerStatus, PathPolicy::STATUS)
        .await
        .unwrap();
    let refused = core
        .permit_quietly(&user, &scope(), Command::ServerStatus, PathPolicy::API)
        .await;
    assert!(matches!(refused, Err(Error::Denied { .. })));
    let read = core
        .policy_info(&root(), &scope(), &key("p"))
        .await
        .unwrap();
    assert_eq!(PathPolicy::from_policy(&read.policy), paths);
}

#[tokio::test]
async fn a_deleted_enclave_takes_everything_with_it() {
    let world = World::new();
    let core = with_people(&world).await;
    let other = EnclaveName::parse("lake2").unwrap();
    core.create_enclave(&root(), &other).await.unwrap();
    core.create_key(&root(), &other, &key("k")).await.unwrap();
    let data_key = core
        .generate_data_key(&root(), &lake(), &key("k"), b"", 32)
        .await
        .unwrap();
    let by_admin = core.delete_enclave(&caller(identity(2)), &lake()).await;
    assert!(matches!(by_admin, Err(Error::Denied { .. })));

    core.delete_enclave(&root(), &lake()).await.unwrap();
    let gone = core.delete_enclave(&root(), &lake()).await;
    assert!(matches!(gone, Err(Error::EnclaveNotFound { .. })));
    let gone = core.create_key(&root(), &lake(), &key("k")).await;
    assert!(matches!(gone, Err(Error::EnclaveNotFound { .. })));
    assert!(!generates(&core, 1).await);
    core.key_info(&root(), &other, &key("k")).await.unwrap();

    // A new one of the name knows nothing of the old one.
    core.create_enclave(&root(), &lake()).await.unwrap();
    let listed = core
        .list_keys(&root(), &lake(), &ListQuery::default())
        .await;
    assert!(listed.unwrap().items.is_empty());
    core.create_key(&root(), &lake(), &key("k")).await.unwrap();
    let old = core
        .decrypt(&root(), &lake(), &key("k"), b"", &data_key.ciphertext)
        .await;
    assert!(matches!(old, Err(Error::InvalidCiphertext { .. })));
    core.create_identity(&root(), &scope(), &identity(1), Privilege::User, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn everyone_learns_who_they_are_and_strangers_nothing() {
    let world = World::new();
    let core = with_people(&world).await;
    let own = core.own_identity(&caller(identity(1)), &scope()).await;
    assert_eq!(own.unwrap().unwrap().policy, Some(key("p")));
    let stranger = core.own_identity(&caller(identity(7)), &scope()).await;
    assert!(stranger.unwrap().is_none());
    assert_eq!(core.home(&identity(1)).await.unwrap(), Some(scope()));
    assert_eq!(
        core.home(&support::ROOT).await.unwrap(),
        Some(Scope::System)
    );
    assert_eq!(core.home(&identity(7)).await.unwrap(), None);
}
