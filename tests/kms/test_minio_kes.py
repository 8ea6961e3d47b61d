"""An unmodified MinIO server on our key manager over KES, with an API key and with certificate files.

What its S3 clients see of a key manager that is restarted, slow, down or refuses is asserted as MinIO answers it, so that a
change of ours that changes it is noticed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness.minio import Minio
from harness.process import Process, free_port, wait_until
from harness.stack import REPOSITORY, Ports, Stack, moat_binary
from support import body, keys, multipart, read, refused

DEFAULT_KEY = "minio-default"
# What docs/kms.md tells to allow.
POLICY = ("/v1/key/create/*", "/v1/key/generate/minio-*", "/v1/key/decrypt/minio-*", "/v1/key/describe/*", "/v1/key/list/*", "/v1/status")
# The parts of a multipart upload: the smallest that S3 takes, and a rest.
PART = 5 << 20


class Kms:
    """A key manager alone, and what a MinIO needs to use it."""

    def __init__(self, folder: Path) -> None:
        # Only the key manager runs, so the other ports do not matter.
        self.stack = Stack(folder / "data", Ports(*(free_port() for _ in range(4))), buckets=())
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

    def moat(self, *command: str, check: bool = True):
        return self.stack.moat("kms", *command, check=check)

    def environment(self, **more: str) -> dict[str, str]:
        """MinIO's settings, without its credential."""
        return {
            "MINIO_KMS_KES_ENDPOINT": self.stack.kms, "MINIO_KMS_KES_KEY_NAME": DEFAULT_KEY,
            "MINIO_KMS_KES_CAPATH": str(self.stack.ca), **more,
        }  # fmt: skip

    def with_api_key(self) -> dict[str, str]:
        made = json.loads(self.moat("identity", "create", "--policy", "minio", "--json").stdout)
        return self.environment(MINIO_KMS_KES_API_KEY=made["kes_api_key"])

    def with_certificate(self, certificate: Path) -> dict[str, str]:
        self.moat("identity", "create", "--certificate", str(certificate), "--policy", "minio")
        return self.environment(MINIO_KMS_KES_CERT_FILE=str(certificate), MINIO_KMS_KES_KEY_FILE=str(certificate.with_suffix(".key")))

    def client_certificate(self, folder: Path) -> Path:
        """A client certificate by the CA of the data folder."""
        out = folder / "minio-client"
        ca = self.stack.data / "ca" / "ca.crt"
        subprocess.run([moat_binary(), "pki", "leaf", "minio-client", "--usage", "client", "--ca", ca, "--out", out], check=True, capture_output=True)
        return out.with_suffix(".crt")

    def counts(self, key: str | None = None) -> dict[tuple[str, str], int]:
        """How many audit lines there are of each operation and outcome."""
        counts: dict[tuple[str, str], int] = {}
        for line in self.stack.audit():
            if key is None or line.get("key") == key:
                pair = (line.get("operation", ""), line.get("outcome", ""))
                counts[pair] = counts.get(pair, 0) + 1
        return counts


@contextlib.contextmanager
def audited(kms: Kms, key: str, **expected: int):
    """What happens inside makes at least so many lines about a key, e.g. `KEY_GENERATE=1`."""
    before = kms.counts(key)
    yield
    after = kms.counts(key)
    for operation, count in expected.items():
        pair = (operation.replace("_", ":"), "allowed")
        made = after.get(pair, 0) - before.get(pair, 0)
        assert made >= count, f"{made} lines of {pair}, not {count}: {after}"


@pytest.fixture(scope="module")
def kms(tmp_path_factory, tools):
    tools.ensure("minio", "mc")
    running = Kms(tmp_path_factory.mktemp("kms"))
    yield running
    running.end()


@pytest.fixture(scope="module", params=["api-key", "certificate"])
def minio(request, kms, tmp_path_factory):
    """A MinIO that most tests share, once for each way to show who it is."""
    folder = tmp_path_factory.mktemp(request.param)
    env = kms.with_api_key() if request.param == "api-key" else kms.with_certificate(kms.client_certificate(folder))
    server = Minio(folder, env).start()
    server.client().create_bucket(Bucket="lake")
    yield server
    server.kill()


@pytest.fixture
def key(kms, minio, request) -> str:
    """A KMS key that no other test uses, made as MinIO's administrators do it."""
    name = f"minio-{minio.folder.name}-{request.node.originalname}"[:60].replace("_", "-").strip("-")
    with audited(kms, name, KEY_CREATE=1):
        minio.mc("admin", "kms", "key", "create", "m", name)
    return name


def test_sse_kms_and_sse_s3_objects_are_written_and_read(kms, minio, key):
    s3 = minio.client()
    for size in (0, 1000, 300_000):
        with audited(kms, key, KEY_GENERATE=1, KEY_DECRYPT=1):
            s3.put_object(Bucket="lake", Key=f"kms-{size}", Body=body(key, size), ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
            assert read(s3, "lake", f"kms-{size}") == body(key, size)
        with audited(kms, DEFAULT_KEY, KEY_GENERATE=1, KEY_DECRYPT=1):
            s3.put_object(Bucket="lake", Key=f"s3-{size}", Body=body(key, size), ServerSideEncryption="AES256")
            assert read(s3, "lake", f"s3-{size}") == body(key, size)
    head = s3.head_object(Bucket="lake", Key="kms-1000")
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"].endswith(key)
    assert read(s3, "lake", "kms-300000", Range="bytes=70000-70999") == body(key, 300_000)[70_000:71_000]


def test_multipart_copy_and_listing(kms, minio, key):
    s3 = minio.client()
    parts = [body("a", PART), body("b", 1000)]
    with audited(kms, key, KEY_GENERATE=1, KEY_DECRYPT=2):
        multipart(s3, "lake", "dir/whole", parts, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key})
        assert read(s3, "lake", "dir/whole") == b"".join(parts)
    with audited(kms, DEFAULT_KEY, KEY_GENERATE=1):
        s3.copy_object(Bucket="lake", Key="dir/copy", CopySource={"Bucket": "lake", "Key": "dir/whole"}, ServerSideEncryption="AES256")
    assert read(s3, "lake", "dir/copy") == b"".join(parts)
    assert keys(s3, "lake", Prefix="dir/") == ["dir/copy", "dir/whole"]


def test_a_bucket_rule_encrypts_what_asks_for_nothing(kms, minio, key):
    s3 = minio.client()
    bucket = f"ruled-{minio.folder.name.strip('0123456789')}".replace("_", "-")
    s3.create_bucket(Bucket=bucket)
    minio.mc("encrypt", "set", "sse-kms", key, f"m/{bucket}")
    with audited(kms, key, KEY_GENERATE=1, KEY_DECRYPT=1):
        s3.put_object(Bucket=bucket, Key="k", Body=b"asked for nothing")
        assert read(s3, bucket, "k") == b"asked for nothing"
    assert s3.head_object(Bucket=bucket, Key="k")["ServerSideEncryption"] == "aws:kms"
    info = minio.mc("encrypt", "info", f"m/{bucket}").stdout
    assert key in info


def test_a_lost_shard_is_healed(kms, minio, key):
    s3 = minio.client()
    s3.put_object(Bucket="lake", Key="healed", Body=body(1, 1 << 20), ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    minio.lose(2, "lake", "healed")
    minio.mc("admin", "heal", "--recursive", "m/lake")
    wait_until("the shard is back", lambda: minio.has(2, "lake", "healed"), 60)
    assert read(s3, "lake", "healed") == body(1, 1 << 20)


def test_administrators_see_their_keys_and_the_key_manager(kms, minio, key):
    with audited(kms, DEFAULT_KEY, KEY_GENERATE=1, KEY_DECRYPT=1):
        status = json.loads(minio.mc("admin", "kms", "key", "status", "m").stdout)
    assert status["keyId"] == DEFAULT_KEY and not status.get("encryptionError") and not status.get("decryptionError")
    json.loads(minio.mc("admin", "kms", "key", "status", "m", key).stdout)
    listed = minio.mc("admin", "kms", "key", "list", "m").stdout
    assert key in listed and DEFAULT_KEY in listed
    again = minio.mc("admin", "kms", "key", "create", "m", key, check=False)
    assert again.returncode != 0 and "already exi" in again.stdout
    info = json.loads(minio.mc("admin", "info", "m").stdout)
    assert info["status"] == "success" and info["info"]["mode"] == "online"


def test_what_the_policy_does_not_allow_is_a_403_and_stands_in_the_audit(kms, minio, key):
    s3 = minio.client()
    kms.moat("key", "create", f"secret-{key}")
    for name, code, status in (
        (f"secret-{key}", "kms:NotAuthorized", 403),
        (f"{key}-missing", "kms:KeyNotFound", 404),
    ):
        with refused(code, status):
            s3.put_object(Bucket="lake", Key="no", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=name)
    assert kms.counts(f"secret-{key}")[("KEY:GENERATE", "denied")] >= 1
    assert kms.counts(f"{key}-missing")[("KEY:GENERATE", "error")] >= 1


def test_a_disabled_key_takes_its_objects_away_and_gives_them_back(kms, minio, key):
    s3 = minio.client()
    s3.put_object(Bucket="lake", Key="shut", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    kms.moat("key", "disable", key, "--yes")
    with refused("kms:NotAuthorized", 403):
        read(s3, "lake", "shut")
    kms.moat("key", "enable", key)
    assert read(s3, "lake", "shut") == b"x"


def test_a_restart_of_the_key_manager_is_survived(kms, minio, key):
    s3 = minio.client()
    s3.put_object(Bucket="lake", Key="before", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    kms.stop()
    # MinIO holds no data keys: without its key manager, it can neither write nor read.
    with refused("kms:KeyGenerationFailed", 500):
        s3.put_object(Bucket="lake", Key="during", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    with refused("kms:DecryptionFailed", 500):
        read(s3, "lake", "before")
    kms.start()
    assert read(s3, "lake", "before") == b"x"
    s3.put_object(Bucket="lake", Key="after", Body=b"y", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert read(s3, "lake", "after") == b"y"


def test_a_slow_key_manager_is_waited_for(kms, minio, key):
    s3 = minio.client()
    s3.put_object(Bucket="lake", Key="slow", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    os.kill(kms.process.pid, signal.SIGSTOP)
    seconds = 2.0
    waking = threading.Timer(seconds, os.kill, (kms.process.pid, signal.SIGCONT))
    started = time.monotonic()
    waking.start()
    try:
        assert read(s3, "lake", "slow") == b"x"
        assert time.monotonic() - started >= seconds * 0.9
    finally:
        waking.join()
        os.kill(kms.process.pid, signal.SIGCONT)


def test_the_audit_verifies_after_all_that(kms, minio):
    assert "one chain" in kms.stack.verify_audit()


def test_an_expired_client_certificate_is_still_its_key(kms, tmp_path):
    """An identity is a key, not a date: what ends it is the operator, at once, and not a calendar at night."""
    certificate = kms.client_certificate(tmp_path)
    certificate.write_text(expired(certificate.read_text()))
    server = Minio(tmp_path / "minio", kms.with_certificate(certificate)).start()
    try:
        s3 = server.client()
        s3.create_bucket(Bucket="lake")
        s3.put_object(Bucket="lake", Key="k", Body=b"x", ServerSideEncryption="AES256")
        assert read(s3, "lake", "k") == b"x"
    finally:
        server.kill()


def expired(pem: str) -> str:
    """The first certificate of a chain with dates of long ago. Nobody on the way checks its signature."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    der = base64.b64decode(pem[pem.index(begin) + len(begin) : pem.index(end)])
    # Two UTCTimes, one behind the other (RFC 5280, section 4.1.2.5): the years become 2001 and 2002.
    dates = re.search(rb"\x17\x0d\d{12}Z\x17\x0d\d{12}Z", der)
    old = dates.group()
    new = old[:2] + b"01" + old[4:17] + b"02" + old[19:]
    assert len(new) == len(old) and new != old
    changed = base64.encodebytes(der.replace(old, new)).decode()
    return f"{begin}\n{changed}{end}\n"


def test_a_key_manager_that_is_down_at_the_start_ends_minio_with_a_sentence(tmp_path, tools):
    tools.ensure("minio", "mc")
    kms = Kms(tmp_path)
    server = Minio(tmp_path / "minio", kms.with_api_key())
    try:
        kms.stop()
        assert server.spawn().wait(90) == 1
        assert "Failed to connect to KMS" in server.log.read_text(errors="replace")
        kms.start()
        server.start()
        server.client().create_bucket(Bucket="lake")
    finally:
        server.kill()
        kms.end()


def test_an_unknown_identity_encrypts_nothing(kms, tmp_path):
    """MinIO starts nevertheless: it takes a refusal of its default key for a policy that names others."""
    stranger = json.loads(subprocess.run([moat_binary(), "kms", "identity", "new", "--json"], check=True, capture_output=True).stdout)
    server = Minio(tmp_path / "minio", kms.environment(MINIO_KMS_KES_API_KEY=stranger["kes_api_key"]))
    try:
        server.start()
        s3 = server.client()
        s3.create_bucket(Bucket="lake")
        with refused("kms:NotAuthorized", 403):
            s3.put_object(Bucket="lake", Key="k", Body=b"x", ServerSideEncryption="AES256")
        denied = [line for line in kms.stack.audit() if line.get("identity") == stranger["identity"]]
        assert denied and {line["outcome"] for line in denied} == {"denied"}
    finally:
        server.kill()


def test_the_example_runs(tmp_path, tools):
    """`examples/minio-kes/run.sh` from an empty folder, in both variants."""
    tools.ensure("minio", "mc")
    for variant in ("api-key", "certificate"):
        done = subprocess.run(
            [REPOSITORY / "examples/minio-kes/run.sh", variant, str(tmp_path / variant)], capture_output=True, text=True, timeout=200,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MOAT": str(moat_binary()), "MINIO": tools.program("minio"), "MC": tools.program("mc")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a MinIO server encrypts with Moat's key manager" in done.stdout
