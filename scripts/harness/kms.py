"""A key manager alone, and what the MinIO servers need that use it, whichever protocol they speak."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from pathlib import Path

from .process import Process, free_port, wait_until
from .stack import Ports, Stack, moat_binary

# The key that MinIO makes for itself.
DEFAULT_KEY = "minio-default"
# What docs/kms.md tells to allow, as KES writes it; on the other protocol the commands are the same.
POLICY = ("/v1/key/create/*", "/v1/key/generate/minio-*", "/v1/key/decrypt/minio-*", "/v1/key/describe/*", "/v1/key/list/*", "/v1/status")
# The ways in which a MinIO reaches its key manager and shows who it is.
WAYS = ("kes-api-key", "kes-certificate", "minkms")
ENCLAVE = "moat"


class Kms:
    """A key manager on a folder of its own."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        # Only the key manager runs, so the other ports do not matter.
        self.stack = Stack(folder / "data", Ports(*(free_port() for _ in range(4))), buckets=(), env=env)
        self.process: Process | None = None
        self.start()
        self.moat("policy", "create", "minio", *(f"--allow={path}" for path in POLICY))

    def start(self) -> None:
        self.stack.write_settings()
        self.process = self.stack.spawn("kms", "server")
        wait_until("the key manager answers", lambda: self.moat("status", check=False).returncode == 0, 60, self.process)

    def stop(self) -> None:
        process, self.process = self.process, None
        assert process.stop() == 0

    def end(self) -> None:
        if self.process is not None and self.process.running():
            self.process.kill()

    def moat(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.stack.moat("kms", *command, check=check)

    # ---- MinIO's settings ----

    def minio(self, way: str, folder: Path) -> dict[str, str]:
        """The environment of a MinIO whose home is `folder`: a new identity with the policy above."""
        match way:
            case "kes-api-key":
                return self.kes(MINIO_KMS_KES_API_KEY=self.new_identity()["kes_api_key"])
            case "kes-certificate":
                return self.kes_certificate(self.client_certificate(folder))
            case "minkms":
                return self.minkms(folder, self.new_identity()["api_key"])
        raise ValueError(way)

    def stranger(self, way: str, folder: Path) -> tuple[str, dict[str, str]]:
        """An identity that the key manager does not know, and the environment of a MinIO with it."""
        said = subprocess.run([moat_binary(), "kms", "identity", "new", "--json"], check=True, capture_output=True)
        made = json.loads(said.stdout)
        if way == "minkms":
            return made["identity"], self.minkms(folder, made["api_key"])
        return made["identity"], self.kes(MINIO_KMS_KES_API_KEY=made["kes_api_key"])

    def new_identity(self) -> dict[str, str]:
        return json.loads(self.moat("identity", "create", "--policy", "minio", "--json").stdout)

    def kes(self, **credential: str) -> dict[str, str]:
        return {
            "MINIO_KMS_KES_ENDPOINT": self.stack.kms, "MINIO_KMS_KES_KEY_NAME": DEFAULT_KEY,
            "MINIO_KMS_KES_CAPATH": str(self.stack.ca), **credential,
        }  # fmt: skip

    def kes_certificate(self, certificate: Path) -> dict[str, str]:
        self.moat("identity", "create", "--certificate", str(certificate), "--policy", "minio")
        return self.kes(MINIO_KMS_KES_CERT_FILE=str(certificate), MINIO_KMS_KES_KEY_FILE=str(certificate.with_suffix(".key")))

    def minkms(self, folder: Path, api_key: str) -> dict[str, str]:
        # This protocol has no setting for a CA: MinIO looks where it looks for all of its own.
        trusted = folder / ".minio" / "certs" / "CAs"
        trusted.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.stack.ca, trusted / "moat.crt")
        return {
            "MINIO_KMS_SERVER": self.stack.kms, "MINIO_KMS_ENCLAVE": ENCLAVE,
            "MINIO_KMS_API_KEY": api_key, "MINIO_KMS_SSE_KEY": DEFAULT_KEY,
        }  # fmt: skip

    def client_certificate(self, folder: Path) -> Path:
        """A client certificate by the CA of the data folder."""
        out = folder / "minio-client"
        ca = self.stack.data / "ca" / "ca.crt"
        subprocess.run([moat_binary(), "pki", "leaf", "minio-client", "--usage", "client", "--ca", ca, "--out", out], check=True, capture_output=True)
        return out.with_suffix(".crt")

    # ---- what it noted ----

    def counts(self, key: str | None = None) -> dict[tuple[str, str], int]:
        """How many audit lines there are of each operation and outcome."""
        counts: dict[tuple[str, str], int] = {}
        for line in self.stack.audit():
            if key is None or line.get("key") == key:
                pair = (line.get("operation", ""), line.get("outcome", ""))
                counts[pair] = counts.get(pair, 0) + 1
        return counts

    @contextlib.contextmanager
    def audited(self, key: str | None, **expected: int):
        """What happens inside makes at least so many lines about a key (any, without one), e.g. `KEY_GENERATE=1`."""
        before = self.counts(key)
        yield
        after = self.counts(key)
        for operation, count in expected.items():
            pair = (operation.replace("_", ":"), "allowed")
            made = after.get(pair, 0) - before.get(pair, 0)
            assert made >= count, f"{made} lines of {pair}, not {count}: {after}"
