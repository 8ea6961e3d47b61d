"""The log streams of KES, followed by curl over HTTP/1.1 and HTTP/2 while real things happen: what goes wrong in the server, and what clients do.

The original sends nothing at all over them; a client waits for the head of the answer before it hands the stream on, and then for each line.
"""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness.kms import Kms
from harness.process import wait_until

LINE_SECONDS_MAX = 30.0
VERSIONS = ("1.1", "2")


class Follower:
    """A curl that follows a stream."""

    def __init__(self, kms: Kms, certificate: Path, path: str, version: str, head: Path) -> None:
        curl = shutil.which("curl")
        assert curl, "these tests follow streams with curl: install it"
        self.version, self.head, self.lines = version, head, queue.Queue()
        argv = [
            curl, "--silent", "--show-error", "--no-buffer", f"--http{version}", "--cacert", kms.stack.ca, "--cert", certificate,
            "--key", certificate.with_suffix(".key"), "--dump-header", head, kms.stack.kms + path,
        ]  # fmt: skip
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        self.begins()

    def read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def begins(self) -> None:
        """The head comes before there is anything to tell."""
        wait_until("the head came", lambda: self.process.poll() is not None or (self.head.exists() and "\n" in self.head.read_text()), LINE_SECONDS_MAX)
        assert self.process.poll() is None, self.process.stderr.read()
        assert self.head.read_text().startswith(f"HTTP/{self.version} 200"), self.head.read_text()

    def until(self, is_wanted) -> dict:
        """The first line that is wanted."""
        deadline = time.monotonic() + LINE_SECONDS_MAX
        while True:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
            if is_wanted(line):
                return line

    def ends(self) -> int:
        return self.process.wait(LINE_SECONDS_MAX)


@pytest.fixture
def kms(tmp_path):
    running = Kms(tmp_path)
    yield running
    running.end()


def test_errors_and_the_audit_are_followed_as_they_happen(kms, tmp_path):
    # The log is the whole server's, so it is an operator's to read.
    certificate = kms.client_certificate(tmp_path)
    kms.moat("identity", "create", "--system", "--admin", "--certificate", str(certificate))

    def follow(name: str, version: str) -> Follower:
        return Follower(kms, certificate, f"/v1/log/{name}", version, tmp_path / f"{name}-{version}.head")

    errors = [follow("error", version) for version in VERSIONS]
    audits = [follow("audit", version) for version in VERSIONS]

    kms.moat("key", "create", "followed")
    for follower in audits:
        line = follower.until(lambda line: line["request"]["path"] == "/v1/key/create/followed")
        assert line["response"]["code"] == 200 and line["request"]["ip"] == "127.0.0.1" and len(line["request"]["identity"]) == 64
    missing = kms.moat("datakey", "none", check=False)
    assert missing.returncode == 1
    for follower in audits:
        assert follower.until(lambda line: line["request"]["path"] == "/v1/key/generate/none")["response"]["code"] == 404

    # A certificate file that somebody damages while the server runs.
    (kms.stack.data / "tls/kms.crt").write_text("no certificate\n")
    for follower in errors:
        line = follower.until(lambda line: "certificate" in line["message"])
        assert set(line) == {"message"} and "were not taken" in line["message"] and "kms.crt" in line["message"], line
    assert all(follower.lines.empty() for follower in errors), "what is no warning is not told"

    kms.stop()
    assert [follower.ends() for follower in errors + audits] == [0] * 4


def test_who_may_not_follow_is_refused(kms, tmp_path):
    certificate = kms.client_certificate(tmp_path)
    kms.moat("identity", "create", "--certificate", str(certificate), "--policy", "minio")
    for name in ("error", "audit"):
        for version in VERSIONS:
            argv = [
                "curl", "--silent", f"--http{version}", "--cacert", kms.stack.ca, "--cert", certificate, "--key", certificate.with_suffix(".key"),
                "--max-time", "30", "--write-out", " %{http_code}", f"{kms.stack.kms}/v1/log/{name}",
            ]  # fmt: skip
            said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            assert "not authorized: insufficient permissions" in said and said.endswith(" 403"), said
