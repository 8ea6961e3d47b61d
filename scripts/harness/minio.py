"""A real MinIO server on four drives, with whatever key manager its environment names, and its clients."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from .process import Process, free_port, wait_until

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS))

import tools  # noqa: E402

USER, PASSWORD = "minio-root", "minio-root-secret"
# MinIO formats its drives and asks its key manager on the way; on a busy machine that is seconds.
START_SECONDS_MAX = 90.0
# The one key of a MinIO that has it from its environment, and the variable that says so.
KEY = "minio-key"
KEY_ENVIRONMENT = {"MINIO_KMS_SECRET_KEY": f"{KEY}:{base64.b64encode(bytes(range(32))).decode()}"}
# An erasure set, so that there is something to heal.
DRIVES = 4


class Minio:
    """A MinIO on folders of its own. `kms` is what its environment says about the key manager."""

    def __init__(self, folder: Path, kms: dict[str, str]) -> None:
        self.folder, self.kms = folder, kms
        self.port = free_port()
        self.log = folder / "minio.log"
        self.process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def drive(self, number: int) -> Path:
        return self.folder / f"drive{number}"

    def spawn(self) -> Process:
        """Starts it without waiting for anything."""
        for number in range(1, DRIVES + 1):
            self.drive(number).mkdir(parents=True, exist_ok=True)
        program = tools.program("minio")
        argv = [program, "server", f"{self.folder}/drive{{1...{DRIVES}}}", "--address", f"127.0.0.1:{self.port}",
                "--console-address", f"127.0.0.1:{free_port()}"]  # fmt: skip
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD,
            # Drives of a test lie on one file system, which MinIO refuses unless it is told that this is a test.
            "MINIO_CI_CD": "1", "MINIO_BROWSER": "off", **self.kms,
        }  # fmt: skip
        self.process = Process("minio", argv, self.log, env=env)
        return self.process

    def start(self, seconds: float = START_SECONDS_MAX) -> "Minio":
        self.spawn()
        wait_until("MinIO is ready", self.ready, seconds, self.process)
        return self

    def ready(self) -> bool:
        """Whether it serves S3: its storage, and its users and configuration, are there."""
        try:
            with urllib.request.urlopen(f"{self.url}/minio/health/cluster", timeout=5) as answer:
                return answer.status == 200 and not answer.headers.get("x-minio-server-status")
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.running():
            self.process.stop()
        self.process = None

    def kill(self) -> None:
        if self.process is not None and self.process.running():
            self.process.kill()
        self.process = None

    def client(self, **config):
        """A boto3 client of the root user. It tries nothing twice, so that a test sees each answer."""
        import boto3
        import botocore.config

        settings = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1, "mode": "standard"}, "read_timeout": 90, **config}
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=USER, aws_secret_access_key=PASSWORD, region_name="us-east-1",
            config=botocore.config.Config(**settings),
        )  # fmt: skip

    def mc(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Runs `mc` to its end; the server is its alias `m`."""
        host = self.url.replace("://", f"://{USER}:{PASSWORD}@")
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "MC_HOST_m": host}
        done = subprocess.run([tools.program("mc"), "--json", *command], capture_output=True, text=True, timeout=120, env=env)
        assert not check or done.returncode == 0, f"mc {' '.join(command)}: {done.stdout}{done.stderr}"
        return done

    def lose(self, drive: int, bucket: str, key: str) -> None:
        """Takes an object's shard from one drive, as a bad disk does."""
        shutil.rmtree(self.drive(drive) / bucket / key)

    def has(self, drive: int, bucket: str, key: str) -> bool:
        return (self.drive(drive) / bucket / key / "xl.meta").exists()
