"""A PostgreSQL server for tests, from `scripts/tools.py postgres`, on a Unix socket in a folder of its own.

PostgreSQL refuses to run as root: a test that runs as root runs it as the user nobody, from a copy of the programs that
this user may enter (of links, where the file system lets it).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .process import Process, wait_until

NOBODY = 65534
START_SECONDS_MAX = 60.0


class Postgres:
    """A database cluster and its server."""

    def __init__(self, tool: Path) -> None:
        self.root = os.geteuid() == 0
        # Not below pytest's folders, which other users may not enter; and short, as a socket's path must be.
        self.folder = Path(tempfile.mkdtemp(prefix="moat-pg-"))
        self.folder.chmod(0o755)
        self.home = self.folder / "pg"
        self.home.mkdir()
        self.tool = tool
        if self.root:
            self.tool = self.folder / "programs"
            if subprocess.run(["cp", "-al", str(tool), str(self.tool)], capture_output=True).returncode:
                subprocess.run(["cp", "-a", str(tool), str(self.tool)], check=True)
            os.chown(self.home, NOBODY, NOBODY)
        self.process: Process | None = None
        self.port = 5432
        self.options: list[str] = ["-c", "listen_addresses="]

    def listen(self, port: int, certificate: Path, key: Path, password: str) -> None:
        """From the next start on also over TCP on loopback: with TLS, and with a password."""
        for source, name in ((certificate, "server.crt"), (key, "server.key")):
            target = self.home / name
            shutil.copy(source, target)
            target.chmod(0o600)
            if self.root:
                os.chown(target, NOBODY, NOBODY)
        self.sql(f"ALTER ROLE moat PASSWORD '{password}'")
        rules = self.home / "data/pg_hba.conf"
        rules.write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
        files = ("-c", f"ssl_cert_file={self.home}/server.crt", "-c", f"ssl_key_file={self.home}/server.key")
        self.options = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "ssl=on", *files]
        self.port = port

    @property
    def url(self) -> str:
        return f"postgres://moat@/postgres?host={self.home}"

    def start(self) -> "Postgres":
        data = self.home / "data"
        if not data.exists():
            made = subprocess.run(
                self._argv("initdb", "--auth=trust", "--username=moat", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata", str(data)),
                capture_output=True, text=True, cwd="/",
            )  # fmt: skip
            assert made.returncode == 0, made.stderr
        argv = self._argv("postgres", "-D", str(data), "-k", str(self.home), *self.options)
        self.process = Process("postgres", argv, self.folder / "server.log", cwd=Path("/"))
        wait_until("PostgreSQL answers", lambda: self._psql("SELECT 1").returncode == 0, START_SECONDS_MAX, self.process)
        return self

    def sql(self, *texts: str) -> str:
        """Runs statements one after the other, each in a transaction of its own."""
        done = self._psql(*texts)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """As a power cut for the server."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _psql(self, *texts: str) -> subprocess.CompletedProcess:
        argv = self._argv("psql", "--no-psqlrc", "-qtA", "--username=moat", "--dbname=postgres", "--host", str(self.home), "--port", str(self.port))
        argv += [part for text in texts for part in ("-c", text)]
        return subprocess.run(argv, capture_output=True, text=True, cwd="/")

    def _argv(self, program: str, *more: str) -> list[str]:
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"] if self.root else []
        return [*user, str(self.tool / "bin" / program), *more]
