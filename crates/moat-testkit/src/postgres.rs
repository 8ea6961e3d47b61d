//! A real PostgreSQL server for a test: on a Unix socket in a temporary folder, ended with the
//! test.
//!
//! The programs come from `scripts/tools.py postgres` (below `MOAT_TOOLS`, else `.tools` of the
//! checkout), or from the system. PostgreSQL refuses to run as root, so a test that runs as root
//! runs it as the user `nobody`, from a copy that this user may enter.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to come up on a machine that is busy building.
const START_MAX: Duration = Duration::from_secs(60);
/// The user `nobody`, on every distribution.
const NOBODY: &str = "65534";

/// A running server.
#[derive(Debug)]
pub struct PostgresServer {
    folder: tempfile::TempDir,
    bin: PathBuf,
    process: Option<Child>,
}

impl PostgresServer {
    /// Makes a database cluster and starts its server.
    ///
    /// # Panics
    /// If there is no PostgreSQL, or it does not start.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode).expect("a folder of ours");
        let mut server = Self {
            bin: programs(folder.path()),
            folder,
            process: None,
        };
        let sockets = server.sockets();
        std::fs::create_dir(&sockets).expect("a folder of ours");
        if is_root() {
            let nobody = NOBODY.parse().ok();
            std::os::unix::fs::chown(&sockets, nobody, nobody).expect("root may");
        }
        let data = sockets.join("data");
        let output = server
            .command("initdb")
            .args([
                "--auth=trust",
                "--username=moat",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("initdb starts");
        assert!(output.status.success(), "{output:?}");
        server.run();
        server
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        format!(
            "postgres://moat@/postgres?host={}",
            self.sockets().display()
        )
    }

    /// Ends it as a power cut would end its process, and starts it again.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn crash_and_restart(&mut self) {
        self.stop("immediate");
        self.run();
    }

    /// Stops it; connections are cut.
    ///
    /// # Panics
    /// If it does not stop.
    pub fn stop(&mut self, mode: &str) {
        let data = self.sockets().join("data");
        let output = self
            .command("pg_ctl")
            .args(["stop", "--wait", "--mode", mode, "--pgdata"])
            .arg(data)
            .output()
            .expect("pg_ctl starts");
        assert!(output.status.success(), "{output:?}");
        if let Some(mut process) = self.process.take() {
            process.wait().expect("it has ended");
        }
    }

    /// Starts it on what is there.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn run(&mut self) {
        let sockets = self.sockets();
        let process = self
            .command("postgres")
            .arg("-D")
            .arg(sockets.join("data"))
            .arg("-k")
            .arg(&sockets)
            .args(["-c", "listen_addresses=", "-c", "max_connections=100"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        self.process = Some(process);
        let deadline = Instant::now() + START_MAX;
        while !self.answers() {
            let ended = self
                .process
                .as_mut()
                .and_then(|p| p.try_wait().ok().flatten());
            assert!(ended.is_none(), "postgres ended: {ended:?}");
            assert!(Instant::now() < deadline, "postgres does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs SQL as the superuser.
    ///
    /// # Panics
    /// If it fails.
    pub fn sql(&self, text: &str) -> String {
        let mut psql = self.psql();
        psql.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = psql.spawn().expect("psql starts");
        let mut input = process.stdin.take().expect("it is a pipe");
        input.write_all(text.as_bytes()).expect("psql reads");
        drop(input);
        let output = process.wait_with_output().expect("psql ends");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn answers(&self) -> bool {
        let asked = self.psql().args(["-c", "SELECT 1"]).output();
        asked.is_ok_and(|output| output.status.success())
    }

    fn psql(&self) -> Command {
        let mut command = self.command("psql");
        command
            .args([
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--no-align",
                "--username=moat",
            ])
            .args(["--set=ON_ERROR_STOP=1", "--dbname=postgres", "--host"])
            .arg(self.sockets());
        command
    }

    fn sockets(&self) -> PathBuf {
        self.folder.path().join("pg")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
                .args(["--clear-groups", "--"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // The postmaster's children end when they see it gone. Nothing of it is kept.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The folder of the programs. Root's tools commonly lie where nobody else may enter, so root gets
/// a copy below `folder`: of links, where the file system lets it.
fn programs(folder: &Path) -> PathBuf {
    // That of the crate under test, as cargo tells it now: it may have been built in another clone.
    let own = || std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let tools = std::env::var_os("MOAT_TOOLS")
        .map_or_else(|| Path::new(&own()).join("../../.tools"), PathBuf::from);
    let ours = tools.join("postgres");
    if !ours.join("bin/initdb").exists() {
        let installed = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten();
        return installed
            .flatten()
            .map(|version| version.path().join("bin"))
            .find(|bin| bin.join("initdb").exists())
            .expect("no PostgreSQL: run scripts/tools.py postgres");
    }
    if !is_root() {
        return ours.join("bin");
    }
    let copy = folder.join("postgres");
    let copied = |flags: &str| {
        let done = Command::new("cp").arg(flags).arg(&ours).arg(&copy).output();
        done.is_ok_and(|output| output.status.success())
    };
    assert!(
        copied("-al") || copied("-a"),
        "can't copy {}",
        ours.display()
    );
    copy.join("bin")
}
