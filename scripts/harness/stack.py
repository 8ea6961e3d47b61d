"""A running Moat: `moat up` (or its servers apart) on a data folder, and how to reach it.

Settings are written to `moat.toml` in the data folder, where later starts and `examples/spark-sql/run.sh` find them too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from .process import Process, ProcessError, free_port, free_ports, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
# First start makes keys and certificates and syncs each file; on a busy machine that is seconds, not minutes.
START_SECONDS_MAX = 60.0
# More lines than any test or demo makes: "all of them" for `moat kms audit show`.
AUDIT_LINES_MAX = 10_000_000
REGION = "us-east-1"
# The ports that the documentation names.
DEFAULT_PORTS = (9000, 8090, 8091, 7373)


@dataclass(frozen=True)
class Ports:
    """Where the four listeners are, all on loopback."""

    store: int
    proxy_https: int
    proxy_http: int
    kms: int

    @staticmethod
    def free() -> "Ports":
        """Four ports that nobody uses now."""
        return Ports(*free_ports(4))

    @staticmethod
    def preferred() -> "Ports":
        """The documented ports where they are free, others where not."""
        return Ports(*(free_port(p) for p in DEFAULT_PORTS))


def moat_binary() -> Path:
    """The program under test: $MOAT_BIN, else the release build, else the debug build, of the shared target folder."""
    if given := os.environ.get("MOAT_BIN"):
        return Path(given)
    for target in [Path(t) for t in (os.environ.get("CARGO_TARGET_DIR"),) if t] + [REPOSITORY / "target"]:
        for profile in ("release", "debug"):
            if (target / profile / "moat").is_file():
                return target / profile / "moat"
    raise ProcessError("no moat binary: build one (`cargo build -p moat`) or name one in MOAT_BIN")


class Stack:
    """One data folder and the server on it."""

    def __init__(self, data: Path, ports: Ports | None = None, buckets: tuple[str, ...] = ("lake",), env: dict[str, str] | None = None,
                 log: Path | None = None, keep: bool = False) -> None:  # fmt: skip
        self.data, self.buckets, self.keep = data, buckets, keep
        self.ports = ports or Ports.free()
        self.env = env or {}
        self.log = log or data.parent / f"{data.name}.log"
        self.process: Process | None = None

    # ---- life ----

    def write_settings(self) -> None:
        """Writes moat.toml, unless one stands there already."""
        self.data.mkdir(parents=True, exist_ok=True)
        settings = self.data / "moat.toml"
        if settings.exists():
            return
        p = self.ports
        names = ", ".join(f'"{b}"' for b in self.buckets)
        settings.write_text(
            f"# Written for this folder's servers; flags and environment variables win over it.\n"
            f"buckets = [{names}]\n\n"
            f'[store]\nlisten = "127.0.0.1:{p.store}"\n\n'
            f'[kms]\nlisten = "127.0.0.1:{p.kms}"\n\n'
            f'[proxy]\nlisten_https = "127.0.0.1:{p.proxy_https}"\nlisten_http = "127.0.0.1:{p.proxy_http}"\n'
        )

    def start(self, seconds: float = START_SECONDS_MAX) -> "Stack":
        """Starts `moat up` and returns once all listeners answer."""
        self.write_settings()
        self.process = self.spawn("up")
        for url in (self.store, self.proxy_https, self.proxy_http):
            wait_until(f"{url} is ready", lambda url=url: self.healthy(url), seconds, self.process)
        return self

    def spawn(self, *command: str, env: dict[str, str] | None = None, preexec=None) -> Process:
        """Starts `moat COMMAND` on the folder, without waiting for it."""
        argv = [str(moat_binary()), *command, "--data", str(self.data)]
        return Process(f"moat {command[0]}", argv, self.log, env=self.environment(env), keep=self.keep, preexec=preexec)

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of the servers: nothing of the caller's own Moat or MinIO settings leaks in."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MOAT_", "MINIO_"))}
        return {**clean, **self.env, **(more or {})}

    def stop(self) -> int:
        """Drains the server; the exit code."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        return process.stop()

    def kill(self) -> None:
        """`kill -9`, as a power cut for the process."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self.process.kill()
        self.process = None

    def restart(self) -> "Stack":
        return self.start()

    def __enter__(self) -> "Stack":
        return self.start()

    def __exit__(self, *_error) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None

    def healthy(self, url: str, path: str = "/minio/health/live") -> bool:
        try:
            return self.fetch(url + path, timeout=2).status == 200
        except OSError:
            return False

    # ---- addresses and secrets ----

    @property
    def store(self) -> str:
        return f"https://127.0.0.1:{self.ports.store}"

    @property
    def proxy_https(self) -> str:
        return f"https://127.0.0.1:{self.ports.proxy_https}"

    @property
    def proxy_http(self) -> str:
        return f"http://127.0.0.1:{self.ports.proxy_http}"

    @property
    def kms(self) -> str:
        return f"https://127.0.0.1:{self.ports.kms}"

    @property
    def ca(self) -> Path:
        return self.data / "trust" / "ca.pem"

    def root_credentials(self) -> tuple[str, str]:
        """Access key id and secret of the root user, as `moat up` wrote them for people."""
        pairs = dict(
            line.strip().removeprefix("export ").split("=", 1)
            for line in (self.data / "root.env").read_text().splitlines()
            if "=" in line and not line.startswith("#")
        )
        return pairs["MOAT_ROOT_USER"].strip("\"'"), pairs["MOAT_ROOT_PASSWORD"].strip("\"'")

    # ---- talking to it ----

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca))

    def fetch(self, url: str, timeout: float = 30, **request):
        """An unsigned request; an HTTP error raises, and is an OSError."""
        return urllib.request.urlopen(urllib.request.Request(url, **request), timeout=timeout, context=self.tls())

    def fetch_signed(self, url: str) -> bytes:
        """The body of a GET signed by the root user."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        request = AWSRequest("GET", url)
        S3SigV4Auth(Credentials(*self.root_credentials()), "s3", REGION).add_auth(request)
        return self.fetch(url, headers=dict(request.headers.items())).read()

    def client(self, url: str | None = None, ca: Path | None = None, **config):
        """A boto3 client of the root user; elsewhere than at our own servers, another CA is to be trusted."""
        import boto3
        import botocore.config

        access_key, secret_key = self.root_credentials()
        # Without the signature's name boto3 presigns for us-east-1 with version 2, which AWS has retired.
        settings = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1, "mode": "standard"}, "read_timeout": 60, **config}
        return boto3.client(
            "s3", endpoint_url=url or self.store, aws_access_key_id=access_key, aws_secret_access_key=secret_key,
            region_name=REGION, verify=str(ca or self.ca), config=botocore.config.Config(**settings),
        )  # fmt: skip

    def moat(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        """Runs a `moat` command on the folder to its end."""
        argv = [str(moat_binary()), *command, "--data", str(self.data)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=self.environment(env))
        if check and done.returncode != 0:
            raise ProcessError(f"`{' '.join(argv)}` ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    # ---- what it tells about itself ----

    def requests_served(self) -> int:
        """S3 requests that the store has answered since its start."""
        text = self.fetch_signed(f"{self.store}/minio/v2/metrics/cluster").decode()
        samples = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("moat_s3_requests_total")]
        return int(sum(float(value) for _name, value in samples))

    def audit(self) -> list[dict]:
        """Every line of the key manager's audit."""
        shown = self.moat("kms", "audit", "show", "--json", "--last", str(AUDIT_LINES_MAX)).stdout
        return [json.loads(line) for line in shown.splitlines() if line.strip()]

    def verify_audit(self) -> str:
        """What `moat kms audit verify` says; it raises if the chain is broken."""
        return self.moat("kms", "audit", "verify").stdout.strip()


def copy_folder(stack: Stack, to: Path) -> Stack:
    """A second stack on a copy of a stopped one's folder, with ports of its own."""
    shutil.copytree(stack.data, to)
    (to / "moat.toml").unlink()
    return Stack(to, Ports.free(), stack.buckets, stack.env)
