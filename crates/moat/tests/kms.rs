//! `moat kms` against a running key manager: the life of a key, its use, identities and policies,
//! the audit; what is asked before something is taken away, and that nothing is without an answer.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;
#[path = "support/up.rs"]
mod up_support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::Value;
use support::{Ran, moat, run};
use up_support::{Server, up};

struct World {
    _folder: tempfile::TempDir,
    data: PathBuf,
    _server: Server,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let server = Server::start(&mut up(&data, &[]));
        Self {
            _folder: folder,
            data,
            _server: server,
        }
    }

    fn try_kms(&self, arguments: &[&str]) -> Ran {
        let mut command = moat();
        command
            .arg("kms")
            .args(arguments)
            .arg("--data")
            .arg(&self.data);
        run(command.stdin(Stdio::null()))
    }

    /// What a command that succeeds prints.
    fn kms(&self, arguments: &[&str]) -> String {
        let ran = self.try_kms(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.kms(&arguments)).unwrap()
    }

    /// What a command that fails says.
    fn refused(&self, arguments: &[&str]) -> String {
        let ran = self.try_kms(arguments);
        assert_ne!(ran.code, 0, "{arguments:?}: {}", ran.out);
        ran.err
    }

    /// With something on standard input.
    fn fed(&self, arguments: &[&str], input: &str) -> Ran {
        let mut command = moat();
        command
            .arg("kms")
            .args(arguments)
            .arg("--data")
            .arg(&self.data);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.data.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[test]
fn a_key_is_made_used_and_deleted_by_hand() {
    let world = World::start();
    let made = world.json(&[
        "key",
        "create",
        "a",
        "--algorithm",
        "ChaCha20",
        "--rotate-every",
        "30d",
    ]);
    assert_eq!(
        (&made["algorithm"], &made["rotation_seconds"]),
        (&"ChaCha20".into(), &2_592_000.into())
    );
    let sealed = world.fed(&["encrypt", "a", "--context", "c"], "secret").out;
    let sealed = sealed.trim();
    world.kms(&["key", "rotate", "a"]);
    assert_eq!(
        world.kms(&["decrypt", "a", sealed, "--context", "c"]),
        "secret"
    );
    let wrong = world.refused(&["decrypt", "a", sealed, "--context", "d"]);
    assert!(wrong.contains("does not open"), "{wrong}");
    let versions = world.kms(&["key", "versions", "a"]);
    assert_eq!(versions.lines().count(), 3, "{versions}");

    let data_key = world.json(&["datakey", "a", "--length", "16"]);
    let wrapped = data_key["ciphertext"].as_str().unwrap();
    let out = world.data.join("opened");
    world.kms(&["decrypt", "a", wrapped, "--out", out.to_str().unwrap()]);
    assert_eq!(std::fs::read(&out).unwrap().len(), 16);
    assert_mode(&out, 0o600);

    let code = world.fed(&["mac", "a"], "m").out;
    let right = world.fed(&["mac", "a", "--verify", code.trim()], "m");
    assert!(
        right.code == 0 && right.out.contains("a@2"),
        "{}",
        right.out
    );
    let wrong = world.fed(&["mac", "a", "--verify", code.trim()], "n");
    assert!(
        wrong.code != 0 && wrong.out.contains("WRONG"),
        "{}",
        wrong.out
    );

    // Nothing is taken away without an answer.
    for command in [
        &["key", "disable", "a"][..],
        &["key", "delete", "a"],
        &["key", "delete", "a", "--version", "1"],
    ] {
        let said = world.refused(command);
        assert!(said.contains("--yes"), "{said}");
    }
    assert_eq!(world.json(&["key", "info", "a"])["enabled"], true);
    let gone = world.kms(&["key", "delete", "a", "--grace", "1d", "--yes"]);
    assert!(gone.contains("key restore a"), "{gone}");
    let used = world.refused(&["decrypt", "a", sealed, "--context", "c"]);
    assert!(used.contains("is being deleted"), "{used}");
    assert!(
        world
            .kms(&["key", "list"])
            .contains("deleted, restorable until")
    );
    world.kms(&["key", "restore", "a"]);
    world.kms(&["key", "delete", "a", "--version", "1", "--yes"]);
    let destroyed = world.refused(&["decrypt", "a", sealed, "--context", "c"]);
    assert!(destroyed.contains("does not open"), "{destroyed}");
    let said = world.kms(&["key", "delete", "a", "--now", "--yes"]);
    assert!(said.contains("for good"), "{said}");
    let gone = world.refused(&["key", "info", "a"]);
    assert!(gone.contains("does not exist"), "{gone}");
    // A key that guards a bucket says so; the store of `moat up` leased under its default key.
    assert!(world.kms(&["status"]).contains("ready     yes"));
}

#[test]
fn keys_are_imported_from_every_source_and_exported_to_a_private_file() {
    let world = World::start();
    let material = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let plain = world.file("material", material);
    let minio = world.file("minio", &format!("minio-key:{material}\n"));
    world.kms(&[
        "key",
        "import",
        "plain",
        "--material-file",
        &plain,
        "--exportable",
    ]);
    world.kms(&["key", "import", "--minio-secret-key-file", &minio]);
    let names = world.kms(&["key", "list"]);
    assert!(
        names.contains("minio-key") && names.contains("plain"),
        "{names}"
    );
    let unnamed = world.refused(&["key", "import", "--material-file", &plain]);
    assert!(unnamed.contains("name it"), "{unnamed}");
    // The vector of the KES reference.
    let sealed = "pQksFIelEEG8yo33fXIPtrjL3WsNfx8MiYrG4z/eGE+dB/iS0p+7VO2qlzaWY599oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6uw==";
    let opened = world.kms(&[
        "decrypt",
        "minio-key",
        sealed,
        "--context",
        "{\"bucket\":\"bucket/object\"}",
    ]);
    assert_eq!(opened.as_bytes(), [0x11; 32]);

    let out = world.data.join("exported.json");
    world.kms(&["key", "export", "plain", "--out", out.to_str().unwrap()]);
    assert_mode(&out, 0o600);
    assert!(std::fs::read_to_string(&out).unwrap().contains(material));
    let again = world.refused(&["key", "export", "plain", "--out", out.to_str().unwrap()]);
    assert!(again.contains("can't make"), "{again}");
    let refused = world.refused(&["key", "export", "minio-key", "--out", "/nonexistent"]);
    assert!(refused.contains("not made exportable"), "{refused}");
}

#[test]
fn identities_policies_and_enclaves_come_and_go() {
    let world = World::start();
    world.kms(&["enclave", "create", "other"]);
    world.kms(&["enclave", "info", "other"]);
    world.kms(&[
        "policy",
        "create",
        "p",
        "--allow",
        "KEY:GENERATE=a*",
        "--deny",
        "KEY:GENERATE=ab",
    ]);
    let made = world.json(&["identity", "create", "--policy", "p", "--tag", "team=lake"]);
    let (identity, key) = (
        made["identity"].as_str().unwrap(),
        made["api_key"].as_str().unwrap(),
    );
    let shown = world.kms(&["identity", "info", identity]);
    assert!(
        shown.contains("team=lake") && shown.contains(made["kes_identity"].as_str().unwrap()),
        "{shown}"
    );

    let allowed = world.kms(&["policy", "check", identity, "KEY:GENERATE", "a1"]);
    assert_eq!(allowed, "allowed: policy p says: allow KEY:GENERATE a*\n");
    for (name, why) in [("ab", "deny KEY:GENERATE ab"), ("b", "no rule of policy p")] {
        let ran = world.try_kms(&["policy", "check", identity, "KEY:GENERATE", name]);
        assert!(
            ran.code == 1 && ran.out.starts_with("refused") && ran.out.contains(why),
            "{}",
            ran.out
        );
    }

    // A service account, made with the user's own key.
    let mut as_user = moat();
    as_user
        .args([
            "kms",
            "identity",
            "create",
            "--service-account",
            "--json",
            "--data",
        ])
        .arg(&world.data)
        .env("MOAT_KMS_API_KEY", key);
    let account = run(&mut as_user);
    let account: Value = serde_json::from_str(&account.out).expect(&account.err);
    let account = account["identity"].as_str().unwrap();
    assert!(world.kms(&["identity", "info", identity]).contains(account));

    let said = world.refused(&["policy", "delete", "p"]);
    assert!(said.contains("1 identity has the policy p"), "{said}");
    world.kms(&["policy", "delete", "p", "--force", "--yes"]);
    let said = world.refused(&["identity", "delete", identity]);
    assert!(said.contains("its service account"), "{said}");
    world.kms(&["identity", "delete", identity, "--yes"]);
    let gone = world.refused(&["identity", "info", account]);
    assert!(gone.contains("does not exist"), "{gone}");
    let said = world.refused(&["enclave", "delete", "other"]);
    assert!(said.contains("0 keys and 0 identities"), "{said}");
    world.kms(&["enclave", "delete", "other", "--yes"]);
    let gone = world.refused(&["enclave", "info", "other"]);
    assert!(gone.contains("does not exist"), "{gone}");
}

#[test]
fn the_audit_is_shown_followed_and_exported() {
    let world = World::start();
    let mut follow = moat();
    follow
        .args([
            "kms",
            "audit",
            "follow",
            "--operation",
            "KEY:CREATE",
            "--json",
            "--data",
        ])
        .arg(&world.data)
        .stdout(Stdio::piped());
    let mut follow = Ending(follow.spawn().unwrap());
    let mut lines = BufReader::new(follow.0.stdout.take().unwrap()).lines();
    // It may begin to follow behind the first; it follows the others.
    let followed = std::thread::spawn(move || lines.next().unwrap().unwrap());
    let mut made = 0;
    while !followed.is_finished() {
        made += 1;
        world.kms(&["key", "create", &format!("k{made}")]);
    }
    let line: Value = serde_json::from_str(&followed.join().unwrap()).unwrap();
    assert_eq!(line["operation"], "KEY:CREATE");

    let shown = world.kms(&["audit", "show", "--operation", "key:create", "--key", "k1"]);
    assert!(
        shown.contains("KEY:CREATE") && shown.contains("k1"),
        "{shown}"
    );
    let out = world.data.join("export.jsonl");
    world.kms(&["audit", "export", "--out", out.to_str().unwrap()]);
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for pair in lines
        .windows(2)
        .filter(|pair| pair[1]["kind"] == "operation" && pair[0]["kind"] == "operation")
    {
        assert!(pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64());
        assert!(pair[1]["micros"].is_u64());
    }
    let last = lines.last().unwrap()["seq"].as_u64().unwrap();
    let rest = world.kms(&[
        "audit",
        "export",
        "--after",
        &last.to_string(),
        "--of-enclave",
        "nowhere",
    ]);
    assert_eq!(rest, "");
    assert!(world.kms(&["audit", "verify"]).contains("form one chain"));
}

/// A child that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn assert_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let found = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(found & 0o777, mode, "{}", path.display());
}

#[test]
fn the_audit_is_handed_on_to_a_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (
        folder.path().join("data"),
        folder.path().join("audit.jsonl"),
    );
    for _ in 0..2 {
        let mut command = up(&data, &[]);
        command.env("MOAT_KMS_AUDIT_EXPORT", format!("file:{}", out.display()));
        assert!(Server::start(&mut command).terminate().success());
    }
    let mut files: Vec<_> = std::fs::read_dir(data.join("kms/audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
        .collect();
    files.sort();
    let audit = files
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        audit.collect::<String>()
    );
    assert_mode(&out, 0o600);
}

#[test]
fn odd_limits_and_targets_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = up(&folder.path().join("data"), &[]);
    command
        .env("MOAT_KMS_AUDIT_EXPORT", "ftp://example.com/")
        .env("MOAT_KMS_RATE_LIMIT", "0/s");
    let ran = run(&mut command);
    assert_ne!(ran.code, 0);
    for word in ["kms.audit_export", "kms.rate_limit"] {
        assert!(ran.err.contains(word), "{}", ran.err);
    }
}
