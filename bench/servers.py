"""The servers under load, each on loopback with TLS, one folder and a bucket whose rule is SSE-KMS."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
from pathlib import Path

import tools
from harness.process import Process, ProcessError, free_ports, wait_until
from harness.stack import Stack, moat_binary

BUCKET = "bench"
KEY = "bench-key"
# SeaweedFS elects a leader and finds its volumes first.
START_SECONDS_MAX = 60.0
# Time that `weed shell` takes at most to set one option.
SHELL_SECONDS_MAX = 60.0
# SeaweedFS makes volumes of up to 30 GB each, as they are needed.
VOLUMES_MAX = 100


class Server:
    """One server: started and stopped on the same folder, reached by `address`."""

    name = ""

    def __init__(self, work: Path) -> None:
        self.folder = work / self.name
        self.folder.mkdir(parents=True)
        self.log = work / f"{self.name}.log"
        self.process: Process | None = None
        self.access_key, self.secret_key = "bench-root", secrets.token_hex(20)

    address: str
    ca: Path

    def start(self) -> None:
        """Starts the process; does not wait until it serves."""
        raise NotImplementedError

    def configure(self) -> None:
        """What has to be set once, when it serves for the first time."""

    def version(self) -> str:
        """What the server says that it is."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            process, self.process = self.process, None
            process.stop()

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} does not run"
        return self.process.pid

    def spawn(self, argv: list[str], env: dict[str, str] | None = None) -> Process:
        """Starts a server program without the caller's own settings."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MOAT_", "MINIO_", "WEED_", "AWS_"))}
        self.process = Process(self.name, argv, self.log, env={**clean, **(env or {})}, cwd=self.folder)
        return self.process


class Moat(Server):
    """`moat up`: store, key manager and proxy in one process. The load goes to the store's own listener."""

    name = "moat"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.folder.rmdir()
        self.stack = Stack(self.folder, buckets=(BUCKET,), log=self.log)
        self.stack.write_settings()
        self.address, self.ca = f"127.0.0.1:{self.stack.ports.store}", self.stack.ca

    def start(self) -> None:
        self.process = self.stack.spawn("up")

    def configure(self) -> None:
        wait_until("Moat serves", lambda: self.ca.exists() and self.stack.healthy(self.stack.store), START_SECONDS_MAX, self.process)
        self.access_key, self.secret_key = self.stack.root_credentials()

    def version(self) -> str:
        said = subprocess.run([str(moat_binary()), "--version"], capture_output=True, text=True, check=True).stdout.strip()
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
        return f"{said} {commit.stdout.strip()}".strip()


class Peer(Server):
    """A server with a certificate that we make for it."""

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self.tls = work / f"{self.name}-tls"
        self.tls.mkdir()
        self.ca = self.tls / "ca.crt"
        make = [str(moat_binary()), "pki"]
        said = subprocess.run([*make, "ca", "bench", "--out", str(self.tls / "ca")], capture_output=True, text=True)
        if said.returncode == 0:
            said = subprocess.run(
                [*make, "leaf", "localhost", "--host", "localhost", "--host", "127.0.0.1", "--ca", str(self.ca), "--out", str(self.tls / "server")],
                capture_output=True, text=True,
            )  # fmt: skip
        if said.returncode != 0:
            raise ProcessError(f"making a certificate for {self.name}: {said.stderr.strip()}")


class Minio(Peer):
    """MinIO with its static KMS key. Its own default is to sync each file, so nothing is set for that."""

    name = "minio"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        certificates = self.tls / "minio"
        certificates.mkdir()
        # The names that MinIO looks for.
        (certificates / "public.crt").write_bytes((self.tls / "server.crt").read_bytes())
        (certificates / "private.key").write_bytes((self.tls / "server.key").read_bytes())
        self.certificates = certificates
        self.port, self.console = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        self.kms_key = f"{KEY}:{base64.b64encode(secrets.token_bytes(32)).decode()}"

    def start(self) -> None:
        env = {"MINIO_ROOT_USER": self.access_key, "MINIO_ROOT_PASSWORD": self.secret_key, "MINIO_KMS_SECRET_KEY": self.kms_key}
        argv = [tools.program("minio"), "server", "--quiet", "--certs-dir", str(self.certificates), "--address", self.address,
                "--console-address", f"127.0.0.1:{self.console}", str(self.folder)]  # fmt: skip
        self.spawn(argv, env)

    def version(self) -> str:
        pin = tools.TOOLS["minio"].pin.strip()
        return f"MinIO {pin.split('@')[-1]}"


class SeaweedFS(Peer):
    """All of SeaweedFS in one process, with its local KMS. Files below /buckets are synced, which is not its default."""

    name = "seaweedfs"

    def __init__(self, work: Path) -> None:
        super().__init__(work)
        ports = free_ports(10)
        self.ports = dict(zip(("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "http", "https", "s3.grpc", "debug"), ports))
        self.address = f"127.0.0.1:{self.ports['https']}"
        self.config = work / "seaweedfs.json"
        identity = {"name": "bench", "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}], "actions": ["Admin"]}
        kms = {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": True}}}
        self.config.write_text(json.dumps({"identities": [identity], "kms": kms}))

    def start(self) -> None:
        p = self.ports
        argv = [
            tools.program("seaweedfs", "weed"), "server", f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={p['master']}", f"-master.port.grpc={p['master.grpc']}", "-master.telemetry=false",
            f"-volume.port={p['volume']}", f"-volume.port.grpc={p['volume.grpc']}", f"-volume.max={VOLUMES_MAX}",
            "-filer", f"-filer.port={p['filer']}", f"-filer.port.grpc={p['filer.grpc']}",
            "-s3", f"-s3.port={p['http']}", f"-s3.port.https={p['https']}", f"-s3.port.grpc={p['s3.grpc']}",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-debug.port={p['debug']}",
            f"-s3.cert.file={self.tls / 'server.crt'}", f"-s3.key.file={self.tls / 'server.key'}", f"-s3.config={self.config}",
        ]  # fmt: skip
        # Its home is where it would look for further settings.
        self.spawn(argv, {"HOME": str(self.folder)})

    def configure(self) -> None:
        wait_until("SeaweedFS takes its setting", self._sync_files, START_SECONDS_MAX, self.process)

    def stop(self) -> None:
        super().stop()
        # It leaves its local sockets behind, named by port, in a folder that no flag changes for all of them.
        for port in self.ports.values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket.unlink(missing_ok=True)

    def _sync_files(self) -> bool:
        p = self.ports
        shell = [tools.program("seaweedfs", "weed"), "shell", f"-master=127.0.0.1:{p['master']}.{p['master.grpc']}",
                 f"-filer=127.0.0.1:{p['filer']}.{p['filer.grpc']}"]  # fmt: skip
        said = subprocess.run(
            shell, input="fs.configure -locationPrefix=/buckets/ -fsync -apply\n", capture_output=True, text=True, timeout=SHELL_SECONDS_MAX
        )
        return '"fsync":  true' in said.stdout

    def version(self) -> str:
        said = subprocess.run([tools.program("seaweedfs", "weed"), "version"], capture_output=True, text=True).stdout
        return f"SeaweedFS {said.strip().splitlines()[0].removeprefix('version ')}"


SERVERS: dict[str, type[Server]] = {kind.name: kind for kind in (Moat, Minio, SeaweedFS)}
