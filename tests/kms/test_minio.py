"""An unmodified MinIO server on our key manager: over KES with an API key and with certificate files, and over MinKMS.

What its S3 clients see of a key manager that is restarted, slow, down or refuses is asserted as MinIO answers it, so that a
change of ours that changes it is noticed.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time

from harness.kms import DEFAULT_KEY, Kms
from harness.minio import Minio
from harness.process import wait_until
from support import body, keys, multipart, read, refused

# The parts of a multipart upload: the smallest that S3 takes, and a rest.
PART = 5 << 20


def test_sse_kms_and_sse_s3_objects_are_written_and_read(kms, minio, key):
    s3 = minio.client()
    for size in (0, 1000, 300_000):
        with kms.audited(key, KEY_GENERATE=1, KEY_DECRYPT=1):
            s3.put_object(Bucket="lake", Key=f"kms-{size}", Body=body(key, size), ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
            assert read(s3, "lake", f"kms-{size}") == body(key, size)
        with kms.audited(DEFAULT_KEY, KEY_GENERATE=1, KEY_DECRYPT=1):
            s3.put_object(Bucket="lake", Key=f"s3-{size}", Body=body(key, size), ServerSideEncryption="AES256")
            assert read(s3, "lake", f"s3-{size}") == body(key, size)
    head = s3.head_object(Bucket="lake", Key="kms-1000")
    assert head["ServerSideEncryption"] == "aws:kms" and head["SSEKMSKeyId"].endswith(key)
    assert read(s3, "lake", "kms-300000", Range="bytes=70000-70999") == body(key, 300_000)[70_000:71_000]


def test_multipart_copy_and_listing(kms, minio, key):
    s3 = minio.client()
    parts = [body("a", PART), body("b", 1000)]
    with kms.audited(key, KEY_GENERATE=1, KEY_DECRYPT=2):
        multipart(s3, "lake", "dir/whole", parts, {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key})
        assert read(s3, "lake", "dir/whole") == b"".join(parts)
    with kms.audited(DEFAULT_KEY, KEY_GENERATE=1):
        s3.copy_object(Bucket="lake", Key="dir/copy", CopySource={"Bucket": "lake", "Key": "dir/whole"}, ServerSideEncryption="AES256")
    assert read(s3, "lake", "dir/copy") == b"".join(parts)
    assert keys(s3, "lake", Prefix="dir/") == ["dir/copy", "dir/whole"]


def test_a_bucket_rule_encrypts_what_asks_for_nothing(kms, minio, key):
    s3 = minio.client()
    bucket = "ruled"
    s3.create_bucket(Bucket=bucket)
    minio.mc("encrypt", "set", "sse-kms", key, f"m/{bucket}")
    with kms.audited(key, KEY_GENERATE=1, KEY_DECRYPT=1):
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
    with kms.audited(DEFAULT_KEY, KEY_GENERATE=1, KEY_DECRYPT=1):
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


def test_a_key_manager_that_is_down_at_the_start_ends_minio_with_a_sentence(way, tmp_path, tools):
    tools.ensure("minio", "mc")
    kms = Kms(tmp_path)
    folder = tmp_path / "minio"
    folder.mkdir()
    server = Minio(folder, kms.minio(way, folder))
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


def test_an_unknown_identity_encrypts_nothing(way, kms, tmp_path):
    """MinIO starts nevertheless: it takes a refusal of its default key for a policy that names others."""
    identity, env = kms.stranger(way, tmp_path)
    server = Minio(tmp_path, env)
    try:
        server.start()
        s3 = server.client()
        s3.create_bucket(Bucket="lake")
        with refused("kms:NotAuthorized", 403):
            s3.put_object(Bucket="lake", Key="k", Body=b"x", ServerSideEncryption="AES256")
        denied = [line for line in kms.stack.audit() if line.get("identity") == identity]
        assert denied and {line["outcome"] for line in denied} == {"denied"}
    finally:
        server.kill()


def test_the_audit_verifies_after_all_that(kms):
    assert "one chain" in kms.stack.verify_audit()
