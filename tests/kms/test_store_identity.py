"""A store of its own beside a key manager, set up by the labs' variables: with a client certificate, and what is said when it can't be used."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from pathlib import Path

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError
from harness.kms import ENCLAVE, Kms
from harness.process import Process, free_port, wait_until
from harness.stack import REGION, moat_binary

START_SECONDS_MAX = 60
POLICY = ("EPOCH:GENERATE=*", "EPOCH:OPEN=*", "KEY:STATUS=*", "KEY:CREATE=*")
UNUSABLE = "the key manager does not serve this store"


@pytest.fixture(scope="module")
def kms(tmp_path_factory):
    running = Kms(tmp_path_factory.mktemp("kms"))
    running.moat("policy", "create", "store", *(f"--allow={rule}" for rule in POLICY))
    running.moat("key", "create", "sales")
    yield running
    running.end()


class Lab:
    """A store, as a lab starts it."""

    def __init__(self, kms: Kms, folder: Path, certificate: Path, **more: str) -> None:
        self.folder, self.port, self.log = folder, free_port(), folder / "store.log"
        env = {
            "PATH": "/usr/bin:/bin", "HOME": str(folder), "MINIO_ROOT_USER": "lake-root", "MINIO_ROOT_PASSWORD": "lake-secret",
            "MINIO_KMS_SERVER": kms.stack.kms, "MINIO_KMS_ENCLAVE": ENCLAVE, "MINIO_KMS_SSE_KEY": "sales", "MOAT_KMS_CA": str(kms.stack.ca),
            "MINIO_KMS_TLS_CLIENT_CERT": str(certificate), "MINIO_KMS_TLS_CLIENT_KEY": str(certificate.with_suffix(".key")), **more,
        }  # fmt: skip
        argv = [str(moat_binary()), "store", "--data", str(folder / "data"), "--store-listen", f"127.0.0.1:{self.port}"]
        self.process = Process("moat store", argv, self.log, env=env)
        wait_until("the store answers", self.answers, START_SECONDS_MAX, self.process)

    def answers(self) -> bool:
        trust = self.folder / "data/trust/ca.pem"
        if not trust.exists():
            return False
        try:
            url = f"https://127.0.0.1:{self.port}/minio/health/live"
            return urllib.request.urlopen(url, timeout=2, context=ssl.create_default_context(cafile=str(trust))).status == 200
        except OSError:
            return False

    def client(self):
        config = botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1, "mode": "standard"})
        return boto3.client(
            "s3", endpoint_url=f"https://127.0.0.1:{self.port}", aws_access_key_id="lake-root", aws_secret_access_key="lake-secret",
            region_name=REGION, verify=str(self.folder / "data/trust/ca.pem"), config=config,
        )  # fmt: skip

    def warned(self) -> str:
        wait_until("the store says so", lambda: UNUSABLE in self.log.read_text(), START_SECONDS_MAX, self.process)
        return self.log.read_text()


@pytest.fixture
def start(kms, tmp_path):
    labs: list[Lab] = []

    def make(certificate: Path, **more: str) -> Lab:
        labs.append(Lab(kms, tmp_path, certificate, **more))
        return labs[-1]

    yield make
    for lab in labs:
        lab.process.kill()


def test_a_certificate_is_the_store_s_identity(kms, tmp_path, start):
    certificate = kms.client_certificate(tmp_path)
    kms.moat("identity", "create", "--certificate", str(certificate), "--policy", "store")
    lab = start(certificate)
    client = lab.client()
    client.create_bucket(Bucket="lake")
    with kms.audited("sales", EPOCH_GENERATE=1):
        client.put_object(Bucket="lake", Key="a", Body=b"sold", ServerSideEncryption="aws:kms", SSEKMSKeyId="sales")
    assert client.get_object(Bucket="lake", Key="a")["Body"].read() == b"sold"
    assert UNUSABLE not in lab.log.read_text()
    assert lab.process.stop() == 0


def test_a_store_that_is_not_known_says_so_at_its_start(kms, tmp_path, start):
    lab = start(kms.client_certificate(tmp_path))
    assert "does not exist" in lab.warned()
    client = lab.client()
    client.create_bucket(Bucket="lake")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket="lake", Key="a", Body=b"sold")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_a_key_manager_that_is_not_trusted_is_named_with_the_reason(kms, tmp_path, start):
    other = tmp_path / "other"
    subprocess.run([moat_binary(), "pki", "ca", "other", "--out", other], check=True, capture_output=True)
    lab = start(kms.client_certificate(tmp_path), MOAT_KMS_CA=str(other.with_suffix(".crt")))
    assert "UnknownIssuer" in lab.warned()
