"""Slow clients block nobody: a GET that nobody reads, a conditional PUT whose body dribbles. MinIO holds a lock through both."""

from __future__ import annotations

import time

import pytest
from sigv4 import Connection
from support import body, read

BUCKET = "lake"
# What another client's request on the same key may take meanwhile; it takes milliseconds, the margin is for busy machines.
OTHERS_SECONDS_MAX = 10.0


@pytest.fixture(params=["store", "proxy_https", "proxy_http"])
def url(request, stack) -> str:
    return getattr(stack, request.param)


def others_go_on(s3, key: str, expected: bytes) -> None:
    """Read, overwrite, list, copy and delete the key, all promptly."""
    started = time.monotonic()
    assert read(s3, BUCKET, key) == expected
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"overwritten meanwhile")
    assert read(s3, BUCKET, key) == b"overwritten meanwhile"
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] >= 1
    s3.copy_object(Bucket=BUCKET, Key=key + ".copy", CopySource={"Bucket": BUCKET, "Key": key})
    s3.delete_object(Bucket=BUCKET, Key=key)
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"new")
    assert time.monotonic() - started < OTHERS_SECONDS_MAX


def test_a_get_that_nobody_reads_blocks_nobody_and_keeps_its_snapshot(stack, s3, prefix, url):
    key, content = prefix + "key", body(prefix, 24 << 20)
    s3.put_object(Bucket=BUCKET, Key=key, Body=content)
    with Connection(stack, url, receive_buffer=1 << 16) as slow:
        slow.send(slow.head("GET", f"/{BUCKET}/{key}"))
        slow._more()  # The answer has begun; from here on nobody reads.
        others_go_on(s3, key, content)
        answer = slow.answer()
        assert answer.status == 200
        assert answer.body == content, "a read is a snapshot: it ends with the bytes that it began with"


def test_a_conditional_put_that_dribbles_blocks_nobody_and_is_decided_at_its_end(stack, s3, prefix, url):
    key, absent, content = prefix + "key", prefix + "absent", body(prefix, 300_000)
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"before")
    tag = s3.head_object(Bucket=BUCKET, Key=key)["ETag"]
    with Connection(stack, url) as creates, Connection(stack, url) as replaces:
        for slow, name, condition in ((creates, absent, {"if-none-match": "*"}), (replaces, key, {"if-match": tag})):
            slow.send(slow.head("PUT", f"/{BUCKET}/{name}", {"content-length": str(len(content)), **condition}))
            slow.send(content[:1000])
        others_go_on(s3, key, b"before")
        replaces.send(content[1000:])
        assert replaces.answer().status == 412, "the object changed while the body was on its way"
        assert read(s3, BUCKET, key) == b"new"
        s3.put_object(Bucket=BUCKET, Key=absent, Body=b"came first")
        creates.send(content[1000:])
        assert creates.answer().status == 412, "another created the object while the body was on its way"
        assert read(s3, BUCKET, absent) == b"came first"


def test_a_conditional_put_that_dribbles_wins_if_nothing_changed(stack, s3, prefix, url):
    key, content = prefix + "key", body(prefix, 300_000)
    with Connection(stack, url) as slow:
        slow.send(slow.head("PUT", f"/{BUCKET}/{key}", {"content-length": str(len(content)), "if-none-match": "*"}))
        slow.send(content[:1000])
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"came")
        s3.delete_object(Bucket=BUCKET, Key=key)
        slow.send(content[1000:])
        assert slow.answer().status == 200
    assert read(s3, BUCKET, key) == content


def test_many_idle_connections_leave_room_for_others(stack, s3, url):
    idle = [Connection(stack, url) for _ in range(200)]
    try:
        assert s3.list_buckets()["Buckets"]
    finally:
        for connection in idle:
            connection.close()
