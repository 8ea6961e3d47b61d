"""The audit handed on to a web hook over TLS whose certificate is by a CA of its own, and what is said when that is not trusted."""

from __future__ import annotations

import http.server
import json
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from harness.kms import Kms
from harness.process import wait_until
from harness.stack import moat_binary

TOKEN = "hook-token"


def pki(*arguments: object) -> None:
    subprocess.run([moat_binary(), "pki", *map(str, arguments)], check=True, capture_output=True)


class Hook:
    """A receiver of JSON lines on loopback."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca = folder / "ca.crt"
        pki("ca", "hook-ca", "--out", folder / "ca")
        pki("leaf", "hook", "--usage", "server", "--host", "127.0.0.1", "--ca", self.ca, "--out", folder / "hook")
        self.lines: list[dict] = []
        self.tokens: set[str | None] = set()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.tokens.add(self.headers["authorization"])
                hook.lines += [json.loads(line) for line in body.splitlines()]
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "hook.crt", folder / "hook.key")
        self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.server_port}/audit"


@pytest.fixture
def hook(tmp_path):
    running = Hook(tmp_path / "hook")
    yield running
    running.server.shutdown()


def test_a_web_hook_of_a_private_ca_gets_every_line(hook, tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    settings = {"MOAT_KMS_AUDIT_EXPORT": hook.url, "MOAT_KMS_AUDIT_EXPORT_CA": str(hook.ca), "MOAT_KMS_AUDIT_EXPORT_TOKEN_FILE": str(token)}
    kms = Kms(tmp_path / "kms", settings)
    try:
        kms.moat("key", "create", "handed-on")
        made = ("KEY:CREATE", "handed-on", "allowed")
        wait_until("the hook has the line", lambda: made in {(one.get("operation"), one.get("key"), one.get("outcome")) for one in hook.lines}, 30, kms.process)
        kms.stop()
        numbers = [line["seq"] for line in hook.lines]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1)), "none is missing"
        assert hook.tokens == {f"Bearer {TOKEN}"}
        assert TOKEN not in kms.stack.log.read_text()
    finally:
        kms.end()


def test_a_web_hook_that_is_not_trusted_gets_nothing_and_the_log_says_so(hook, tmp_path):
    kms = Kms(tmp_path / "kms", {"MOAT_KMS_AUDIT_EXPORT": hook.url})
    try:
        # The key manager serves all the same; what was not handed on waits in its files.
        kms.moat("key", "create", "kept")
        wait_until("the log tells", lambda: "certificate" in kms.stack.log.read_text().lower(), 30, kms.process)
        assert hook.lines == []
    finally:
        kms.end()


def test_an_hsm_key_in_the_environment_wins_and_an_old_one_there_is_refused(tmp_path):
    kms = Kms(tmp_path / "kms")
    try:
        old = (kms.stack.data / "kms/hsm.key").read_text().strip()
        new = tmp_path / "new.key"
        subprocess.run([moat_binary(), "kms", "hsm", "init", str(new)], check=True, capture_output=True)
        said = kms.moat("hsm", "rotate", "--to", str(new)).stdout
        assert "MOAT_HSM_KEY" in said and str(new) in said, said
        kms.stop()

        kms.stack.env = {"MOAT_HSM_KEY_FILE": str(new), "MOAT_HSM_KEY": old}
        process = kms.stack.spawn("kms", "server")
        assert process.wait(30) == 1
        error = kms.stack.log.read_text().splitlines()[-1]
        assert "MOAT_HSM_KEY" in error and "nothing was changed" in error, error

        kms.stack.env = {"MOAT_HSM_KEY_FILE": str(new)}
        kms.start()
        kms.moat("key", "create", "after")
    finally:
        kms.end()
