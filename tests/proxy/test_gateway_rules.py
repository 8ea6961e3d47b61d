"""Ways around the gateway's rules that a real store would take: its administration, archives that it unpacks, appended bytes.

The gateway signs with the root credentials of a MinIO, so whatever reaches that store is done. Each way is shown to work at the store
itself before it is shown to be closed at the gateway.
"""

from __future__ import annotations

import io
import tarfile

import botocore.exceptions
import pytest
import sigv4
from harness.gateway import Gateway, Rule, Store
from harness.minio import KEY, PASSWORD, USER

BUCKET = "rules-lake"


@pytest.fixture(scope="module")
def gateway(minio, certificates, tmp_path_factory):
    minio.client().create_bucket(Bucket=BUCKET)
    rules = [Rule(BUCKET, f'add = "aws:kms"\nkey = "{KEY}"\nrequire = "key"')]
    with Gateway(tmp_path_factory.mktemp("gateway"), certificates, {"minio": Store(minio.url, USER, PASSWORD)}, rules=rules) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def ask(gateway):
    def send(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, query: str = "") -> sigv4.Answer:
        with sigv4.Connection(gateway, gateway.http) as connection:
            return connection.request(method, path, body, headers, query=query)

    return send


def archive() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("unpacked")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"inner"))
    return packed.getvalue()


def keys(minio) -> dict[str, str | None]:
    """What the store has, and the algorithm of each."""
    client = minio.client()
    listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {item["Key"]: client.head_object(Bucket=BUCKET, Key=item["Key"]).get("ServerSideEncryption") for item in listed}


def test_the_administration_of_the_store_is_out_of_reach(gateway, minio, ask):
    access, secret = gateway.root_credentials()
    minio.mc("alias", "set", "beyond", gateway.http, access, secret)
    minio.mc("admin", "user", "list", "m")
    for command in (("admin", "user", "list", "beyond"), ("admin", "user", "add", "beyond", "mallory", "mallory-secret"), ("quota", "info", f"beyond/{BUCKET}")):
        done = minio.mc(*command, check=False)
        assert done.returncode != 0, f"{command}: {done.stdout}"
    assert "mallory" not in minio.mc("admin", "user", "list", "m").stdout
    for path in ("/minio/admin/v3/info", "/minio/v2/metrics/cluster", "/minio/kms/v1/status"):
        answer = ask("GET", path)
        assert (answer.status, answer.code) == (403, "AllAccessDisabled"), path


def test_an_archive_is_not_unpacked_past_the_rule(gateway, minio, ask):
    headers = {"x-amz-meta-snowball-auto-extract": "true"}
    with sigv4.Connection(Direct(minio), minio.url) as connection:
        assert connection.request("PUT", f"/{BUCKET}/a.tar", archive(), headers).status == 200
    # The store makes objects of which a request about `a.tar` says nothing.
    assert "unpacked" in keys(minio)
    minio.client().delete_object(Bucket=BUCKET, Key="unpacked")
    answer = ask("PUT", f"/{BUCKET}/a.tar", archive(), headers)
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert "unpacked" not in keys(minio)


def test_what_is_written_through_the_gateway_is_sealed(gateway, minio, ask):
    client = gateway.client()
    client.put_object(Bucket=BUCKET, Key="plain", Body=b"x")
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key="other", Body=b"x", ServerSideEncryption="AES256")
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    for headers in ({"x-amz-write-offset-bytes": "0"}, {"x-minio-source-replication-request": "true"}, {"x-amz-rename-source": f"{BUCKET}/plain"}):
        assert ask("PUT", f"/{BUCKET}/tricked", b"x", headers).code == "NotImplemented", headers
    for query in ("append=&position=0", "uploads=", "versionId=null", "encryption="):
        assert ask("PUT", f"/{BUCKET}/tricked", b"x", query=query).code == "NotImplemented", query
    assert keys(minio)["plain"] == "aws:kms"
    assert not {"other", "tricked"} & set(keys(minio))


def test_the_encryption_of_the_bucket_stays(gateway, minio):
    minio.mc("encrypt", "set", "sse-kms", KEY, f"m/{BUCKET}")
    client = gateway.client()
    rule = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
    with pytest.raises(botocore.exceptions.ClientError) as refused:
        client.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=rule)
    assert refused.value.response["Error"]["Code"] == "AccessDenied"
    with pytest.raises(botocore.exceptions.ClientError):
        client.delete_bucket_encryption(Bucket=BUCKET)
    [kept] = client.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert kept["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"


class Direct:
    """The store itself, for requests by hand."""

    def __init__(self, minio) -> None:
        self.store = minio.url

    @staticmethod
    def root_credentials() -> tuple[str, str]:
        return USER, PASSWORD
