"""The key manager's part of reads and writes: unknown and disabled keys, and a key manager that is down, cold and inside a lease."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError
from harness.process import wait_until
from support import body, keys, read, refused

BUCKET = "lake"
# A lease so short that a test can wait for its end, and the time that everything may take after it.
LEASE = {"MOAT_KMS_LEASE_TTL": "2s"}
LEASE_END_SECONDS_MAX = 30.0


class Apart:
    """Key manager and store as two processes on one folder, as on two machines."""

    def __init__(self, stack) -> None:
        self.stack = stack
        stack.write_settings()
        self.kms = self.store = None

    def start_kms(self) -> None:
        self.kms = self.stack.spawn("kms", "server")
        wait_until("the key manager answers", lambda: self.stack.moat("kms", "status", check=False).returncode == 0, 60, self.kms)

    def start_store(self) -> None:
        self.store = self.stack.spawn("store")
        wait_until("the store answers", lambda: self.stack.healthy(self.stack.store), 60, self.store)

    def kill_kms(self) -> None:
        self.kms.kill()

    def restart_store(self) -> None:
        assert self.store.stop() == 0
        self.start_store()

    def end(self) -> None:
        for process in (self.store, self.kms):
            if process is not None and process.running():
                process.kill()


@pytest.fixture
def apart(new_stack):
    """A folder that `moat up` has filled (buckets, keys), then served by two processes."""
    with new_stack() as first:
        first.moat("kms", "key", "create", "key-a")
        assert first.stop() == 0
    servers = Apart(first)
    servers.start_kms()
    servers.start_store()
    yield servers
    servers.end()


def test_a_key_manager_that_is_down_is_bridged_by_leases(apart):
    s3 = apart.stack.client()
    for n in range(5):
        s3.put_object(Bucket=BUCKET, Key=f"k{n}", Body=body(n, 100_000))
    apart.kill_kms()
    for n in range(5):
        assert read(s3, BUCKET, f"k{n}") == body(n, 100_000)
    s3.put_object(Bucket=BUCKET, Key="later", Body=b"written inside the lease")
    assert read(s3, BUCKET, "later") == b"written inside the lease"


def test_a_key_manager_that_is_down_for_a_cold_store_is_a_503_that_passes(apart):
    s3 = apart.stack.client()
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"before")
    apart.kill_kms()
    apart.restart_store()
    s3 = apart.stack.client()
    for call in (
        lambda: s3.get_object(Bucket=BUCKET, Key="k"),
        lambda: s3.put_object(Bucket=BUCKET, Key="new", Body=b"x"),
        lambda: s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "k"}),
    ):
        with refused(("ServiceUnavailable", "SlowDown", "503"), 503):
            call()
    # Names and sizes need no key, so LIST still answers; nothing was written.
    assert keys(s3, BUCKET) == ["k"]
    apart.start_kms()
    assert wait_until("reads go on", lambda: try_read(s3, "k"), 60) == b"before"
    s3.put_object(Bucket=BUCKET, Key="new", Body=b"x")


def try_read(s3, key: str) -> bytes | None:
    try:
        return read(s3, BUCKET, key)
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503, error
        return None


def test_a_disabled_key_makes_its_objects_unreadable_within_the_lease(new_stack):
    with new_stack(env=LEASE) as stack:
        stack.moat("kms", "key", "create", "key-a")
        s3 = stack.client()
        s3.put_object(Bucket=BUCKET, Key="a", Body=b"under key-a", ServerSideEncryption="aws:kms", SSEKMSKeyId="key-a")
        s3.put_object(Bucket=BUCKET, Key="own", Body=b"under lake-key")
        stack.moat("kms", "key", "disable", "key-a", "--yes")
        error = wait_until("the lease has ended", lambda: read_error(s3, "a"), LEASE_END_SECONDS_MAX)
        assert error["Code"] == "KMS.DisabledException"
        assert "key-a" in error["Message"], "the error names the key"
        with refused("KMS.DisabledException", 400):
            s3.put_object(Bucket=BUCKET, Key="new", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="key-a")
        with refused("KMS.DisabledException", 400):
            s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": "a"})
        assert keys(s3, BUCKET) == ["a", "own"]
        assert read(s3, BUCKET, "own") == b"under lake-key", "other keys are not concerned"
        stack.moat("kms", "key", "enable", "key-a")
        assert wait_until("the key is usable again", lambda: try_read_disabled(s3, "a"), LEASE_END_SECONDS_MAX) == b"under key-a"


def read_error(s3, key: str) -> dict | None:
    try:
        read(s3, BUCKET, key)
    except ClientError as error:
        return error.response["Error"]
    return None


def try_read_disabled(s3, key: str) -> bytes | None:
    return None if read_error(s3, key) else read(s3, BUCKET, key)


def test_every_key_is_asked_for_once_and_the_audit_says_so(new_stack):
    with new_stack() as stack:
        s3 = stack.client()
        before = len(stack.audit())
        for n in range(50):
            s3.put_object(Bucket=BUCKET, Key=f"k{n}", Body=b"x")
            assert read(s3, BUCKET, f"k{n}") == b"x"
        new = stack.audit()[before:]
        assert {line["key"] for line in new} == {"lake-key"}
        assert 1 <= len(new) <= 3, "the key manager is off the data path"
        assert "one chain" in stack.verify_audit()


def test_a_changed_audit_is_seen(new_stack):
    with new_stack() as stack:
        stack.client().put_object(Bucket=BUCKET, Key="k", Body=b"x")
        assert stack.stop() == 0
        files = sorted((stack.data / "kms" / "audit").glob("*.jsonl"))
        whole = files[-1].read_bytes()
        lines = whole.splitlines(keepends=True)
        for forged in (whole.replace(b'"outcome":"allowed"', b'"outcome":"denied!"', 1), b"".join(lines[:1] + lines[2:]), b"".join(lines[1::-1] + lines[2:])):
            assert forged != whole
            files[-1].write_bytes(forged)
            assert stack.moat("kms", "audit", "verify", check=False).returncode != 0
        files[-1].write_bytes(whole)
        stack.verify_audit()
