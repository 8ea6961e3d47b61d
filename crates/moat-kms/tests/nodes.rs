//! Several key managers over one PostgreSQL: each sees at once what another changed, the HSM key
//! can be changed under all of them, and a backup of one is whole.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::sync::Arc;
use std::time::Duration;

use moat_kms::audit::{self, AuditConfig, Verification};
use moat_kms::{
    BackupError, Caller, Core, CoreConfig, Error, Hsm, HsmKey, NodeConfig, OpenError, restore,
};
use moat_kms_client::Identity;
use moat_meta::{DatabaseUrl, Embedded, MetaStore, Options, Postgres};
use moat_testkit::postgres::PostgresServer;
use moat_types::{EnclaveName, KeyName, SecretBytes, SystemClock, SystemRandom};

const ROOT: Identity = Identity::from_spki_sha256([0; 32]);

struct Cluster {
    server: PostgresServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        Self {
            server: PostgresServer::start(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn store(&self) -> Postgres {
        let url = DatabaseUrl::parse(&self.server.url()).unwrap();
        Postgres::connect(&url, "moat_kms", None).await.unwrap()
    }

    async fn node(&self, name: &str, hsms: &[&str]) -> Result<Arc<Core<Postgres>>, OpenError> {
        let (config, mut node) = self.config(name, hsms);
        node.name = Some(name.to_owned());
        Core::open_node(self.store().await, config, node).await
    }

    fn config(&self, name: &str, hsms: &[&str]) -> (CoreConfig, NodeConfig) {
        let mut keys = hsms.iter().map(|text| hsm(text));
        let config = CoreConfig {
            hsm: keys.next().unwrap(),
            root: Some(ROOT),
            lease_ttl: Duration::from_secs(300),
            audit: AuditConfig::new(self.folder.path().join(name)),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        };
        let node = NodeConfig {
            hsms_old: keys.collect(),
            hsm_source: Some(Box::new(|text| Ok(hsm(text)))),
            ..NodeConfig::default()
        };
        (config, node)
    }
}

fn hsm(text: &str) -> Box<dyn Hsm> {
    Box::new(HsmKey::parse(text).unwrap())
}

fn new_key() -> String {
    HsmKey::generate(&SystemRandom)
        .to_text()
        .expose()
        .to_owned()
}

fn root() -> Caller {
    Caller::local(ROOT)
}

fn lake() -> EnclaveName {
    EnclaveName::parse("lake").unwrap()
}

fn key(name: &str) -> KeyName {
    KeyName::parse(name).unwrap()
}

async fn works<M: MetaStore>(core: &Core<M>, name: &str) -> Result<(), Error> {
    let made = core
        .generate_data_key(&root(), &lake(), &key(name), b"context", 32)
        .await?;
    let opened = core
        .decrypt(&root(), &lake(), &key(name), b"context", &made.ciphertext)
        .await?;
    assert_eq!(opened.plaintext, made.plaintext);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_on_one_node_holds_on_the_others_at_once() {
    let cluster = Cluster::start();
    let hsm = new_key();
    // Both begin the state at the same moment; one of them makes it.
    let hsms = [hsm.as_str()];
    let (a, b) = tokio::join!(cluster.node("a", &hsms), cluster.node("b", &hsms));
    let (a, b) = (a.unwrap(), b.unwrap());
    a.create_enclave(&root(), &lake()).await.unwrap();
    b.create_key(&root(), &lake(), &key("k")).await.unwrap();
    for round in 0..10 {
        works(&*a, "k").await.unwrap();
        works(&*b, "k").await.unwrap();
        b.disable_key(&root(), &lake(), &key("k")).await.unwrap();
        let refused = works(&*a, "k").await;
        assert!(
            matches!(refused, Err(Error::KeyDisabled { .. })),
            "{round}: {refused:?}"
        );
        a.enable_key(&root(), &lake(), &key("k")).await.unwrap();
    }
    let sealed = a
        .encrypt(
            &root(),
            &lake(),
            &key("k"),
            b"",
            &SecretBytes::new(b"secret".to_vec()),
        )
        .await
        .unwrap();
    b.rotate_key(&root(), &lake(), &key("k")).await.unwrap();
    let opened = b
        .decrypt(&root(), &lake(), &key("k"), b"", &sealed.ciphertext)
        .await
        .unwrap();
    assert_eq!(opened.plaintext.expose(), b"secret");
    assert_eq!(
        a.key_info(&root(), &lake(), &key("k"))
            .await
            .unwrap()
            .version
            .number(),
        2
    );

    // An enclave that is deleted and made again elsewhere has another key; after one answer that a
    // retry is safe, at most, this node has noticed.
    b.delete_enclave(&root(), &lake()).await.unwrap();
    b.create_enclave(&root(), &lake()).await.unwrap();
    b.create_key(&root(), &lake(), &key("k")).await.unwrap();
    match works(&*a, "k").await {
        Ok(()) | Err(Error::Contended) => works(&*a, "k").await.unwrap(),
        Err(other) => panic!("{other}"),
    }

    // Each node has its own chain, and the state knows the newest checkpoint of each.
    for (core, name) in [(&a, "a"), (&b, "b")] {
        core.close().await.unwrap();
        let against = Verification {
            public_key: Some(*core.audit_public_key()),
            anchor: core.audit_anchor(),
        };
        let report = audit::verify(&cluster.folder.path().join(name), &against).unwrap();
        assert!(
            report.is_good() && report.lines > 5,
            "{name}: {:?}",
            report.problem
        );
    }
    assert_ne!(
        a.audit_anchor().unwrap().hash,
        b.audit_anchor().unwrap().hash
    );
    drop((a, b));
    cluster
        .node("a", &[&hsm])
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn changes_at_the_same_time_lose_nothing() {
    let cluster = Cluster::start();
    let hsm = new_key();
    let (a, b) = (
        cluster.node("a", &[&hsm]).await.unwrap(),
        cluster.node("b", &[&hsm]).await.unwrap(),
    );
    a.create_enclave(&root(), &lake()).await.unwrap();
    a.create_key(&root(), &lake(), &key("k")).await.unwrap();
    let mut rotations = tokio::task::JoinSet::new();
    for n in 0..20 {
        let core = if n % 2 == 0 { a.clone() } else { b.clone() };
        rotations.spawn(async move { core.rotate_key(&root(), &lake(), &key("k")).await });
    }
    let done = rotations.join_all().await;
    let succeeded = done.iter().filter(|done| done.is_ok()).count();
    for failed in done.iter().filter_map(|done| done.as_ref().err()) {
        assert!(matches!(failed, Error::Contended), "{failed}");
    }
    let versions = a.key_versions(&root(), &lake(), &key("k")).await.unwrap();
    assert_eq!(versions.len(), succeeded + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_hsm_key_changes_under_nodes_that_go_on() {
    let cluster = Cluster::start();
    let (old, new) = (new_key(), new_key());
    let a = cluster.node("a", &[&old]).await.unwrap();
    // Node b was restarted with both keys, as before a rotation of several nodes.
    let b = cluster.node("b", &[&old, &new]).await.unwrap();
    for n in 0..5 {
        let enclave = EnclaveName::parse(&format!("e{n}")).unwrap();
        a.create_enclave(&root(), &enclave).await.unwrap();
    }
    a.create_enclave(&root(), &lake()).await.unwrap();
    b.create_key(&root(), &lake(), &key("k")).await.unwrap();

    let traffic = tokio::spawn({
        let b = b.clone();
        async move {
            for _ in 0..100 {
                works(&*b, "k").await.unwrap();
            }
        }
    });
    let done = a.rotate_hsm(&root(), Some(&new)).await.unwrap();
    assert_eq!(done.enclaves, 7, "six enclaves and the system");
    traffic.await.unwrap();

    // Changes on the node that did not rotate go on without an error, and under the new key.
    b.create_key(&root(), &lake(), &key("k2")).await.unwrap();
    b.create_enclave(&root(), &EnclaveName::parse("late").unwrap())
        .await
        .unwrap();
    let status = b.hsm_status(&root()).await.unwrap();
    let of = |id: &str| status.keys.iter().find(|key| key.id == id).unwrap();
    assert!(
        of(&done.id).current && of(&done.id).enclaves == 8,
        "{status:?}"
    );
    assert_eq!(status.keys.iter().map(|key| key.enclaves).sum::<u64>(), 8);

    // A repetition has nothing to do.
    assert_eq!(a.rotate_hsm(&root(), Some(&new)).await.unwrap().enclaves, 0);
    let wrong = cluster.node("c", &[&old]).await.err().unwrap();
    assert!(matches!(wrong, OpenError::WrongHsmKey), "{wrong}");
    works(&*cluster.node("c", &[&new]).await.unwrap(), "k2")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_of_one_moment_and_opens_only_with_the_hsm_key() {
    let cluster = Cluster::start();
    let hsm_text = new_key();
    let core = cluster.node("a", &[&hsm_text]).await.unwrap();
    core.create_enclave(&root(), &lake()).await.unwrap();
    core.create_key(&root(), &lake(), &key("k")).await.unwrap();
    let sealed = core
        .encrypt(
            &root(),
            &lake(),
            &key("k"),
            b"",
            &SecretBytes::new(b"secret".to_vec()),
        )
        .await
        .unwrap();
    // Pairs of keys are made while the backup is taken.
    let writer = tokio::spawn({
        let core = core.clone();
        async move {
            for n in 0..40 {
                core.create_key(&root(), &lake(), &key(&format!("n{n:03}")))
                    .await
                    .unwrap();
            }
        }
    });
    let (file, info) = core.backup(&root()).await.unwrap();
    writer.await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let engine = |name: &str| Embedded::open(folder.path().join(name), Options::default()).unwrap();
    let random = Arc::new(SystemRandom);
    let put_back = |store: Embedded, text: String, file: Vec<u8>| {
        let random = random.clone();
        async move {
            let done = restore(&store, hsm(&text), Vec::new(), random, &file).await;
            (store, done)
        }
    };

    let (untouched, refused) = put_back(engine("wrong"), new_key(), file.clone()).await;
    assert!(matches!(refused, Err(BackupError::Hsm(_))), "{refused:?}");
    let (start, end) = ("".into(), "\u{7f}".into());
    assert!(untouched.last(start..end).await.unwrap().is_empty());

    for at in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        let (_, refused) = put_back(engine(&format!("c{at}")), hsm_text.clone(), changed).await;
        assert!(refused.is_err(), "byte {at}");
    }
    for cut in [0, 7, 20, file.len() / 2, file.len() - 1] {
        let part = file[..cut].to_vec();
        let (_, refused) = put_back(engine(&format!("p{cut}")), hsm_text.clone(), part).await;
        assert!(refused.is_err(), "cut to {cut}");
    }

    let (store, done) = put_back(engine("new"), hsm_text.clone(), file.clone()).await;
    assert_eq!(done.unwrap(), info);
    let again = restore(&store, hsm(&hsm_text), Vec::new(), random, &file).await;
    assert!(matches!(again, Err(BackupError::NotEmpty)), "{again:?}");
    let (config, node) = cluster.config("restored", &[&hsm_text]);
    let restored = Core::open_node(store, config, node).await.unwrap();
    let opened = restored
        .decrypt(&root(), &lake(), &key("k"), b"", &sealed.ciphertext)
        .await
        .unwrap();
    assert_eq!(opened.plaintext.expose(), b"secret");
    // Of one moment: if a key is there, all that were made before it are.
    let page = restored
        .list_keys(&root(), &lake(), &moat_kms::ListQuery::default())
        .await
        .unwrap();
    let names: Vec<_> = page
        .items
        .iter()
        .map(|item| item.name.as_str().to_owned())
        .collect();
    let made: Vec<_> = (0..names.len() - 1).map(|n| format!("n{n:03}")).collect();
    assert_eq!(names[1..], made[..]);
    for name in &names {
        works(&*restored, name).await.unwrap();
    }
}

/// What somebody has who stole the database or a backup: no key, in no usual form.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stolen_database_or_backup_holds_no_key() {
    let cluster = Cluster::start();
    let hsm_text = new_key();
    let core = cluster.node("a", &[&hsm_text]).await.unwrap();
    core.create_enclave(&root(), &lake()).await.unwrap();
    let material: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x5A);
    let import = moat_kms::Import {
        algorithm: moat_kms::Algorithm::Aes256,
        material: SecretBytes::new(material.to_vec()),
        mac_material: None,
        exportable: false,
        add_version: false,
    };
    core.import_key(&root(), &lake(), &key("imported"), &import)
        .await
        .unwrap();
    let (file, _) = core.backup(&root()).await.unwrap();
    core.close().await.unwrap();
    let dump = cluster.server.sql("COPY moat_kms TO STDOUT;");
    assert!(dump.contains("\\x6b6d732f"), "the dump has rows in hex");
    let database: Vec<u8> = dump
        .split(['\t', '\n'])
        .filter_map(|field| hex::decode(field.strip_prefix("\\\\x")?).ok())
        .flatten()
        .collect();
    assert!(database.len() > 500);
    let audit: Vec<u8> = std::fs::read_dir(cluster.folder.path().join("a"))
        .unwrap()
        .flat_map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    for (place, bytes) in [
        ("backup", &file),
        ("database", &database),
        ("audit", &audit),
    ] {
        for needle in [
            &material[..],
            &material[..16],
            hex::encode(material).as_bytes(),
        ] {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{place}");
        }
    }
}
