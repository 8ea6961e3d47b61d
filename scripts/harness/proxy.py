"""A proxy or gateway of its own in front of any store, with certificates of its own."""

from __future__ import annotations

import os
import subprocess
import ssl
import urllib.request
from pathlib import Path

from .process import Process, free_ports, wait_until
from .stack import moat_binary

START_SECONDS_MAX = 30.0


class Certificates:
    """A CA, one server certificate for loopback, and a truststore, made by `moat pki`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._pki("ca", "test-ca")
        self._pki("leaf", "server", "--ca", "test-ca.crt", "--host", "localhost", "--host", "127.0.0.1")
        self._pki("truststore", "test-ca.crt", "--out", "trust.p12")

    def _pki(self, *words: str) -> None:
        done = subprocess.run([str(moat_binary()), "pki", *words], cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    @property
    def ca(self) -> Path:
        return self.folder / "test-ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def truststore(self) -> Path:
        return self.folder / "trust.p12"


class Proxy:
    """`moat proxy` (or another of its commands) on three free ports of loopback: https, http and admin.

    `settings` are lines of its section of `moat.toml`, `more` whole sections after it.
    """

    def __init__(self, folder: Path, certificates: Certificates, settings: str, more: str = "", command: str = "proxy",
                 ports: tuple[int, int, int] | None = None) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.certificates, self.command = folder, certificates, command
        self.settings, self.more = settings, more
        self.https_port, self.http_port, self.admin_port = ports or tuple(free_ports(3))
        self.log = folder / f"{command}.log"
        self.process: Process | None = None

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def config(self) -> Path:
        return self.folder / "moat.toml"

    def write_settings(self) -> None:
        pair = f'certificate = ["{self.certificates.certificate}"]\nprivate_key = ["{self.certificates.key}"]\n'
        listeners = f'listen = ["{self.https}", "{self.http}"]\nadmin_listen = "127.0.0.1:{self.admin_port}"\n'
        self.config.touch(mode=0o600)
        self.config.write_text(f"[proxy]\n{listeners}{pair}{self.settings}\n{self.more}")

    def spawn(self) -> Process:
        """Starts it without waiting for anything."""
        self.write_settings()
        env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self.folder)}
        self.process = Process(f"moat {self.command}", [str(moat_binary()), self.command, "--config", str(self.config)], self.log, env=env, cwd=self.folder)
        return self.process

    def start(self) -> "Proxy":
        process = self.spawn()
        wait_until(f"moat {self.command} is ready", self.ready, START_SECONDS_MAX, process)
        return self

    def ready(self) -> bool:
        """Whether it serves, and one of its stores is up."""
        try:
            with urllib.request.urlopen(f"{self.admin}/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def requests_sent(self) -> int:
        """Requests that it has sent to its stores since it started."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=5) as answer:
            samples = [line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line.startswith("moat_proxy_requests_total")]
        return int(sum(float(value) for _name, value in samples))

    def stop(self) -> int:
        """Drains it; the exit code."""
        process, self.process = self.process, None
        return process.stop()

    def end(self) -> None:
        if self.process is not None and self.process.running():
            self.process.kill()
        self.process = None

    # What clients for a `Stack` ask their server for, so that they can be pointed at a proxy.

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificates.ca))

    def __enter__(self) -> "Proxy":
        return self.start()

    def __exit__(self, *_error) -> None:
        self.end()
