"""What only a MinIO on MinKMS's protocol has: its enclave, several servers, and what its calls bind. What all have stands in
test_minio.py; the calls are those of the protocol's description, counted in our audit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest
from harness.kms import DEFAULT_KEY
from harness.minio import PASSWORD, USER, Minio
from harness.process import free_port, wait_until
from harness.stack import REPOSITORY, moat_binary
from support import body, read


def context(**entries: str) -> str:
    """The hash that the audit keeps of a context, as MinIO writes one: canonical JSON."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def lines(kms, key: str) -> list[tuple[str, str]]:
    """Operation and outcome of each line about a key."""
    return [(line["operation"], line["outcome"]) for line in kms.stack.audit() if line.get("key") == key]


def contexts(kms, key: str, operation: str) -> list[str]:
    return [line["context"] for line in kms.stack.audit() if (line.get("key"), line.get("operation")) == (key, operation)]


@pytest.fixture
def new_minio(kms, tmp_path):
    """Starts servers of one test, each with settings of its own."""
    made: list[Minio] = []

    def make(**settings: str) -> Minio:
        folder = tmp_path / f"minio{len(made)}"
        folder.mkdir()
        server = Minio(folder, {**kms.minio("minkms", folder), **settings})
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


def test_a_first_start_makes_its_key_and_each_call_is_bound_to_what_it_is_for(kms, new_minio):
    key = "minio-first-start"
    server = new_minio(MINIO_KMS_SSE_KEY=key).start()
    first = lines(kms, key)
    assert first[:3] == [("KEY:GENERATE", "error"), ("KEY:CREATE", "begun"), ("KEY:CREATE", "allowed")]
    generated = contexts(kms, key, "KEY:GENERATE")
    # The existence test has an empty context; what is stored is bound to its place.
    assert generated[0] == context()
    for path in (".minio.sys/config/config.json", ".minio.sys/config/iam/format.json"):
        assert context(**{".minio.sys": path}) in generated

    s3 = server.client()
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="a/b", Body=b"x", ServerSideEncryption="AES256")
    assert contexts(kms, key, "KEY:GENERATE")[-1] == context(lake="lake/a/b")
    assert read(s3, "lake", "a/b") == b"x"
    assert contexts(kms, key, "KEY:DECRYPT")[-1] == context(lake="lake/a/b")
    s3.put_object(
        Bucket="lake", Key="c", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key, SSEKMSEncryptionContext="eyJ0ZWFtIjoibGFrZSJ9",
    )  # fmt: skip
    assert contexts(kms, key, "KEY:GENERATE")[-1] == context(lake="lake/c", team="lake")

    # A second start finds the key, and opens what the first one stored.
    server.stop()
    before = len(lines(kms, key))
    server.start()
    again = lines(kms, key)[before:]
    assert again[0] == ("KEY:GENERATE", "allowed") and ("KEY:DECRYPT", "allowed") in again
    assert not [line for line in again if line[0] == "KEY:CREATE"]
    assert read(server.client(), "lake", "c") == b"x"


def test_a_listing_opens_the_etag_of_each_sse_s3_object(kms, new_minio):
    server = new_minio().start()
    s3 = server.client()
    s3.create_bucket(Bucket="lake")
    for number in range(10):
        s3.put_object(Bucket="lake", Key=f"s3-{number}", Body=body(number, 100), ServerSideEncryption="AES256")
    with kms.audited(DEFAULT_KEY, KEY_DECRYPT=10):
        listed = s3.list_objects_v2(Bucket="lake")["Contents"]
    assert [item["ETag"].strip('"') for item in listed] == [hashlib.md5(body(n, 100)).hexdigest() for n in range(10)]


def test_an_enclave_that_does_not_exist_ends_minio(kms, new_minio):
    root = (kms.stack.data / "identity" / "root.key").read_text().strip()
    server = new_minio(MINIO_KMS_ENCLAVE="nowhere", MINIO_KMS_API_KEY=root)
    assert server.spawn().wait(90) == 1
    assert "Failed to connect to KMS" in server.log.read_text(errors="replace")


def test_the_readiness_of_minio_is_that_of_its_key(kms, new_minio):
    key = "minio-readiness"
    server = new_minio(MINIO_KMS_SSE_KEY=key).start()
    ready = f"{server.url}/minio/health/ready"
    assert urllib.request.urlopen(ready, timeout=30).status == 200
    kms.moat("key", "disable", key, "--yes")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(ready, timeout=30)
    assert refused.value.code == 403
    kms.moat("key", "enable", key)
    assert urllib.request.urlopen(ready, timeout=30).status == 200


def test_a_second_server_bridges_one_that_is_down(kms, new_minio):
    dead = f"https://127.0.0.1:{free_port()}"
    server = new_minio(MINIO_KMS_SERVER=f"{dead},{kms.stack.kms}").start()
    s3 = server.client()
    s3.create_bucket(Bucket="lake")
    for number in range(5):
        s3.put_object(Bucket="lake", Key=f"k{number}", Body=body(number, 1000), ServerSideEncryption="AES256")
        assert read(s3, "lake", f"k{number}") == body(number, 1000)
    status = kms_status(server)
    assert status["name"] == "MinIO KMS" and status["default-key-id"] == DEFAULT_KEY
    online = [endpoint for endpoint, state in status["endpoints"].items() if state == "online"]
    # An endpoint that answers is shown by the name that it gives itself.
    assert online == [kms.stack.kms.removeprefix("https://")], status


def kms_status(server: Minio) -> dict:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", f"{server.url}/minio/kms/v1/status")
    S3SigV4Auth(Credentials(USER, PASSWORD), "s3", "us-east-1").add_auth(request)
    with urllib.request.urlopen(urllib.request.Request(request.url, headers=dict(request.headers.items())), timeout=30) as answer:
        return json.load(answer)


def test_a_key_manager_killed_and_started_again_loses_no_key(kms, new_minio):
    server = new_minio().start()
    s3 = server.client()
    s3.create_bucket(Bucket="lake")
    key = "minio-kill"
    server.mc("admin", "kms", "key", "create", "m", key)
    s3.put_object(Bucket="lake", Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    kms.process.kill()
    kms.start()
    assert wait_until("MinIO reads again", lambda: try_read(s3), 60) == b"x"
    assert ("KEY:GENERATE", "allowed") in lines(kms, key)


def try_read(s3) -> bytes | None:
    from botocore.exceptions import ClientError

    try:
        return read(s3, "lake", "k")
    except ClientError as error:
        assert error.response["Error"]["Code"] == "kms:DecryptionFailed", error
        return None


def test_the_example_runs_and_runs_again(tmp_path, tools):
    """`examples/minio-minkms/run.sh` from an empty folder, and on what it left."""
    tools.ensure("minio", "mc")
    for _ in range(2):
        done = subprocess.run(
            [REPOSITORY / "examples/minio-minkms/run.sh", str(tmp_path / "example")], capture_output=True, text=True, timeout=200,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MOAT": str(moat_binary()), "MINIO": tools.program("minio"), "MC": tools.program("mc")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a MinIO server encrypts with Moat's key manager" in done.stdout
    assert "enclave aistor-deployment already exists" in done.stdout
    assert "key spark-encryption-key already exists" in done.stdout
