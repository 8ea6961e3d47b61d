//! What the audit promises: nothing acknowledged is lost, one sync serves many, a full disk keeps
//! the chain whole, a crash is continued, and every manipulation is found where it was done.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moat_kms_client::Identity;
use moat_types::{EnclaveName, KeyName, SystemClock, UnixMillis};

use super::files::{LogFile, list, open_append};
use super::*;

const SEED: [u8; 32] = [4; 32];

fn signer() -> CheckpointSigner {
    CheckpointSigner::from_seed(&SEED).unwrap()
}

fn facts(key: &str) -> Facts {
    let asked = Asked {
        time: SystemClock.now(),
        request_id: "R1".into(),
        identity: Some(Identity::from_spki_sha256([1; 32])),
        source: "127.0.0.1:1".into(),
        enclave: Some(EnclaveName::parse("lake").unwrap()),
        operation: "EPOCH:OPEN",
    };
    Facts {
        key: Some(KeyName::parse(key).unwrap()),
        version: Some(1),
        context: Some([2; 32]),
        bucket: Some("sales".into()),
        epoch: Some("00".repeat(16)),
        outcome: Outcome::Allowed,
        micros: 7,
        ..Facts::new(Arc::new(asked))
    }
}

fn config(folder: &Path) -> AuditConfig {
    AuditConfig {
        checkpoint_lines: 10,
        ..AuditConfig::new(folder)
    }
}

fn open_log(folder: &Path, anchor: Option<Anchor>) -> Result<AuditLog, AuditError> {
    AuditLog::open(config(folder), signer(), Arc::new(SystemClock), anchor)
}

/// A closed log of `count` operations in one file.
async fn filled(folder: &Path, count: usize) {
    let log = open_log(folder, None).unwrap();
    for index in 0..count {
        log.commit(&facts(&format!("key-{index}"))).await.unwrap();
    }
    log.close().await.unwrap();
}

fn checked(folder: &Path) -> Report {
    let against = Verification {
        public_key: Some(signer().public_key()),
        anchor: None,
    };
    verify(folder, &against).unwrap()
}

fn lines_of(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn write_lines(path: &Path, lines: &[String]) {
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[tokio::test]
async fn a_closed_log_verifies_whole_and_ends_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 25).await;
    let report = checked(folder.path());
    assert_eq!(report.problem, None);
    assert_eq!((report.unsigned, report.torn_bytes), (0, 0));
    assert!(report.checkpoints >= 4, "{report:?}");
    let shown: Vec<_> = show(folder.path(), Filter::default()).unwrap().collect();
    assert_eq!(shown.len(), 25);
}

#[tokio::test]
async fn every_manipulation_is_found_at_its_line() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 25).await;
    let path = list(folder.path()).unwrap().remove(0);
    let good = lines_of(&path);
    let check = |lines: &[String], line: u64, expected: &dyn Fn(&LineProblem) -> bool| {
        write_lines(&path, lines);
        let found = checked(folder.path()).problem.expect("a problem is found");
        assert_eq!((&found.file, found.line), (&path, line), "{found}");
        assert!(expected(&found.problem), "{found}");
    };
    for at in 0..good.len() - 1 {
        let line = at as u64 + 1;
        let mut removed = good.clone();
        removed.remove(at);
        check(&removed, line, &|p| {
            matches!(p, LineProblem::Removed { .. })
        });

        let mut swapped = good.clone();
        swapped.swap(at, at + 1);
        check(&swapped, line, &|p| {
            matches!(p, LineProblem::Removed { .. })
        });

        let mut doubled = good.clone();
        doubled.insert(at + 1, good[at].clone());
        check(&doubled, line + 1, &|p| {
            matches!(p, LineProblem::Reordered { .. })
        });

        let mut changed = good.clone();
        changed[at] = good[at].replacen("\"time\":\"2", "\"time\":\"3", 1);
        check(&changed, line, &|p| *p == LineProblem::Changed);
    }
}

#[tokio::test]
async fn a_rewritten_chain_lacks_the_signature() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 5).await;
    let path = list(folder.path()).unwrap().remove(0);
    // Someone who can compute hashes, but not sign, changes a name and links all lines anew.
    let mut head = line::Head::START;
    let mut forged = Vec::new();
    for text in lines_of(&path) {
        let mut line: AuditLine = serde_json::from_str(&text).unwrap();
        line.key = line.key.map(|key| key.replace("key-3", "key-9"));
        head.append(&Entries::of_line(&line), &mut forged);
    }
    std::fs::write(&path, &forged).unwrap();
    let problem = checked(folder.path()).problem.expect("a problem is found");
    assert_eq!(problem.problem, LineProblem::Signature);
    // Even if a key of its own signs, the known key is missed.
    let other = Verification {
        public_key: Some([9; 32]),
        anchor: None,
    };
    filled(&folder.path().join("b"), 1).await;
    let report = verify(&folder.path().join("b"), &other).unwrap();
    assert_eq!(report.problem.unwrap().problem, LineProblem::Signer);
}

#[tokio::test]
async fn a_log_cut_behind_a_known_checkpoint_is_found_and_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 25).await;
    let anchor = checked(folder.path()).last_checkpoint;
    let path = list(folder.path()).unwrap().remove(0);
    let mut lines = lines_of(&path);
    lines.truncate(lines.len() - 4);
    write_lines(&path, &lines);
    let against = Verification {
        public_key: None,
        anchor,
    };
    let problem = verify(folder.path(), &against).unwrap().problem.unwrap();
    assert!(
        matches!(problem.problem, LineProblem::Truncated { .. }),
        "{problem}"
    );
    let refused = open_log(folder.path(), anchor).err();
    assert!(
        matches!(refused, Some(AuditError::Damaged { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_damaged_line_since_the_last_checkpoint_is_not_continued() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 3).await;
    let path = list(folder.path()).unwrap().remove(0);
    let mut lines = lines_of(&path);
    // Without the closing checkpoint, as after a crash, and with one line changed.
    lines.pop();
    let at = lines.len() - 2;
    lines[at] = lines[at].replace("key-2", "key-7");
    write_lines(&path, &lines);
    match open_log(folder.path(), None).err() {
        Some(AuditError::Damaged { problem }) => {
            assert_eq!(problem.line, at as u64 + 1);
            assert_eq!(problem.problem, LineProblem::Changed);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_torn_last_line_is_set_aside_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 3).await;
    let path = list(folder.path()).unwrap().remove(0);
    let whole = std::fs::read(&path).unwrap();
    for cut in [1, 20, 200] {
        std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert!(checked(folder.path()).torn_bytes > 0);
        let log = open_log(folder.path(), None).unwrap();
        log.commit(&facts("after")).await.unwrap();
        log.close().await.unwrap();
        let report = checked(folder.path());
        assert_eq!(report.problem, None);
        let all = Filter {
            all_kinds: true,
            ..Filter::default()
        };
        let noted = show(folder.path(), all).unwrap().any(|line| {
            let note = line.unwrap().note.unwrap_or_default();
            note.contains("a torn line of")
        });
        assert!(noted);
    }
    let aside = std::fs::read_dir(folder.path()).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().contains("torn-")
    });
    assert!(aside);
}

/// Only the end of a large file is read at the start; wherever its last checkpoint is, it is found.
#[tokio::test]
async fn a_large_file_is_continued_from_its_end() {
    for checkpoint_lines in [100, 1_000_000] {
        let folder = tempfile::tempdir().unwrap();
        let config = || AuditConfig {
            checkpoint_lines,
            checkpoint_interval: Duration::from_secs(3600),
            ..AuditConfig::new(folder.path())
        };
        let open = || AuditLog::open(config(), signer(), Arc::new(SystemClock), None).unwrap();
        let log = open();
        for number in 0..40 {
            let lines = (0..100).map(|at| facts(&format!("key-{number}-{at}")));
            log.note_all(&lines.collect::<Vec<_>>()).await.unwrap();
        }
        for key in ["one", "more", "last"] {
            log.commit(&facts(key)).await.unwrap();
        }
        // As a crash leaves it: with the beginning of a line, and no checkpoint at the end.
        let copy = tempfile::tempdir().unwrap();
        let path = list(folder.path()).unwrap().remove(0);
        let mut whole = std::fs::read(&path).unwrap();
        assert!(whole.len() > 3 << 19, "{}", whole.len());
        whole.extend_from_slice(b"{\"seq\":");
        std::fs::write(copy.path().join(path.file_name().unwrap()), &whole).unwrap();
        let again = open_log(copy.path(), None).unwrap();
        again.commit(&facts("after")).await.unwrap();
        again.close().await.unwrap();
        assert_eq!(checked(copy.path()).problem, None);

        // A line that is wrong behind the last checkpoint is told by its number in the file.
        let text = String::from_utf8(whole).unwrap();
        let damaged = text.replace("\"key\":\"last\"", "\"key\":\"lost\"");
        let copy = tempfile::tempdir().unwrap();
        let at = copy.path().join(path.file_name().unwrap());
        std::fs::write(&at, damaged).unwrap();
        let Err(AuditError::Damaged { problem }) = open_log(copy.path(), None) else {
            panic!("it was continued");
        };
        let found = text.lines().position(|line| line.contains("\"last\""));
        assert_eq!(problem.line, found.unwrap() as u64 + 1);
    }
}

#[tokio::test]
async fn a_process_that_dies_without_closing_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(folder.path(), None).unwrap();
    log.commit(&facts("a")).await.unwrap();
    // The file as it stands while the first log is still open: what a killed process leaves.
    let copy = tempfile::tempdir().unwrap();
    for path in list(folder.path()).unwrap() {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    let again = open_log(copy.path(), None).unwrap();
    again.commit(&facts("b")).await.unwrap();
    again.close().await.unwrap();
    assert!(checked(copy.path()).is_good());
    let keys: Vec<_> = show(copy.path(), Filter::default())
        .unwrap()
        .map(|line| line.unwrap().key.unwrap())
        .collect();
    assert_eq!(keys, ["a", "b"]);
}

#[tokio::test]
async fn a_folder_that_was_moved_away_is_missed_in_the_new_chain() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    filled(&old, 3).await;
    let anchor = checked(&old).last_checkpoint;
    let log = open_log(&new, anchor).unwrap();
    log.close().await.unwrap();
    let report = checked(&new);
    assert!(report.is_good());
    let all = Filter {
        all_kinds: true,
        ..Filter::default()
    };
    let expected = format!("a checkpoint at line {}", anchor.unwrap().seq);
    let noted = show(&new, all).unwrap().any(|line| {
        let note = line.unwrap().note.unwrap_or_default();
        note.contains(&expected)
    });
    assert!(noted);
}

#[tokio::test]
async fn a_folder_is_written_by_one_log_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(folder.path(), None).unwrap();
    let second = open_log(folder.path(), None).err();
    assert!(
        matches!(second, Some(AuditError::InUse { .. })),
        "{second:?}"
    );
    log.close().await.unwrap();
    open_log(folder.path(), None).unwrap();
}

#[tokio::test]
async fn files_rotate_by_size_and_the_chain_spans_them() {
    let folder = tempfile::tempdir().unwrap();
    let small = AuditConfig {
        file_bytes_max: 4096,
        ..config(folder.path())
    };
    for _ in 0..2 {
        let log = AuditLog::open(small.clone(), signer(), Arc::new(SystemClock), None).unwrap();
        for index in 0..30 {
            log.commit(&facts(&index.to_string())).await.unwrap();
        }
        log.close().await.unwrap();
    }
    let files = list(folder.path()).unwrap();
    assert!(files.len() > 3, "{files:?}");
    assert!(checked(folder.path()).is_good());
    assert_eq!(
        tail(folder.path(), &Filter::default(), 45).unwrap().len(),
        45
    );

    std::fs::remove_file(&files[1]).unwrap();
    let problem = checked(folder.path()).problem.unwrap();
    assert_eq!((problem.file, problem.line), (files[2].clone(), 0));
    std::fs::remove_file(&files[0]).unwrap();
    let problem = checked(folder.path()).problem.unwrap();
    assert!(
        matches!(problem.problem, LineProblem::Beheaded { .. }),
        "{problem}"
    );
}

#[tokio::test]
async fn filters_choose_by_key_identity_operation_and_time() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 4).await;
    let count = |filter: Filter| show(folder.path(), filter).unwrap().count();
    let key = Some("key-2".to_owned());
    assert_eq!(
        count(Filter {
            key,
            ..Filter::default()
        }),
        1
    );
    let operation = Some("epoch:open".to_owned());
    assert_eq!(
        count(Filter {
            operation,
            ..Filter::default()
        }),
        4
    );
    let identity = Some(Identity::from_spki_sha256([2; 32]).to_string());
    assert_eq!(
        count(Filter {
            identity,
            ..Filter::default()
        }),
        0
    );
    let since = Some(UnixMillis(SystemClock.now().0 + 60_000));
    assert_eq!(
        count(Filter {
            since,
            ..Filter::default()
        }),
        0
    );
}

/// A disk that counts syncs, holds them back, and can be full.
#[derive(Default)]
struct Disk {
    syncs: AtomicU64,
    full: AtomicBool,
    sync_fails: AtomicBool,
    /// While it is shut, syncs wait.
    shut: Mutex<bool>,
    opened: std::sync::Condvar,
}

impl Disk {
    fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }
}

struct DiskFile {
    disk: Arc<Disk>,
    file: Box<dyn LogFile>,
}

impl LogFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.disk.full.load(Ordering::SeqCst) {
            // Half of it fits, as on a real disk.
            self.file.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let shut = self.disk.shut.lock().unwrap();
        drop(self.disk.opened.wait_while(shut, |shut| *shut).unwrap());
        self.disk.syncs.fetch_add(1, Ordering::SeqCst);
        if self.disk.sync_fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

fn open_on(disk: &Arc<Disk>, folder: &Path) -> AuditLog {
    let disk = disk.clone();
    let open_file = move |path: &Path| -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(DiskFile {
            disk: disk.clone(),
            file: open_append(path)?,
        }))
    };
    let config = AuditConfig::new(folder);
    AuditLog::open_with(
        config,
        signer(),
        Arc::new(SystemClock),
        None,
        Box::new(open_file),
    )
    .unwrap()
}

#[tokio::test]
async fn waiting_lines_share_one_sync() {
    const CALLERS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let log = Arc::new(open_on(&disk, folder.path()));
    let before = disk.syncs.load(Ordering::SeqCst);
    // While the disk is shut the first sync hangs and everyone else queues behind it.
    disk.shut(true);
    let callers = (0..CALLERS).map(|index| {
        let log = log.clone();
        tokio::spawn(async move { log.commit(&facts(&index.to_string())).await })
    });
    let callers: Vec<_> = callers.collect();
    while log.room.available_permits() > QUEUE_LINES_MAX - CALLERS as usize {
        tokio::task::yield_now().await;
    }
    disk.shut(false);
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 2, "{syncs} syncs for {CALLERS} lines");
    log.close().await.unwrap();
    assert!(checked(folder.path()).is_good());
}

#[tokio::test]
async fn a_full_disk_fails_the_operation_and_keeps_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let log = open_on(&disk, folder.path());
    log.commit(&facts("before")).await.unwrap();
    disk.full.store(true, Ordering::SeqCst);
    log.note(&facts("lost")).await.unwrap();
    let refused = log.commit(&facts("refused")).await;
    assert!(
        matches!(refused, Err(AuditError::NoSpace { .. })),
        "{refused:?}"
    );
    disk.full.store(false, Ordering::SeqCst);
    log.commit(&facts("after")).await.unwrap();
    log.close().await.unwrap();
    assert!(checked(folder.path()).is_good());
    let all = Filter {
        all_kinds: true,
        ..Filter::default()
    };
    let lines: Vec<_> = show(folder.path(), all)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let keys: Vec<_> = lines
        .iter()
        .filter_map(|line| line.key.as_deref())
        .collect();
    assert_eq!(keys, ["before", "after"]);
    let lost = lines.iter().filter_map(|line| line.note.as_deref());
    assert_eq!(
        lost.filter(|note| note.starts_with("1 lines before"))
            .count(),
        1
    );
}

#[tokio::test]
async fn a_failed_sync_stops_the_audit_until_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let log = open_on(&disk, folder.path());
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(matches!(
        log.commit(&facts("a")).await,
        Err(AuditError::Poisoned)
    ));
    disk.sync_fails.store(false, Ordering::SeqCst);
    assert!(matches!(
        log.commit(&facts("b")).await,
        Err(AuditError::Poisoned)
    ));
    assert!(log.close().await.is_err());
    let again = open_log(folder.path(), None).unwrap();
    again.commit(&facts("c")).await.unwrap();
    again.close().await.unwrap();
    assert!(checked(folder.path()).is_good());
}
