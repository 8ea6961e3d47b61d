"""Damaged raw files: never a wrong byte, and an answer that no client retries.

What MinIO does here: 503 `SlowDownRead`, which clients hammer on with.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sigv4 import Connection
from support import PART_MIN, body, multipart

BUCKET = "lake"
SIZE = 1_000_000
# A header, and a tag for each chunk; zeros up to a disk block follow.
SEALED = 32 + SIZE + 16 * -(-SIZE // 65_536)


@pytest.fixture
def damaged(new_stack):
    """A server with two large objects; their blob files can be changed while it is stopped."""
    with new_stack() as stack:
        stack.client().put_object(Bucket=BUCKET, Key="before", Body=body("before", SIZE))
        first = set(blob_files(stack))
        stack.client().put_object(Bucket=BUCKET, Key="victim", Body=body("victim", SIZE))
        (victim,) = set(blob_files(stack)) - first
        (other,) = first
        assert stack.stop() == 0
        stack.victim, stack.other = victim, other
        yield stack


def blob_files(stack) -> list[Path]:
    return [p for p in (stack.data / "store" / "blobs").rglob("*") if p.is_file()]


def flip(offset: int):
    def damage(stack) -> None:
        data = bytearray(stack.victim.read_bytes())
        data[offset] ^= 1
        stack.victim.write_bytes(data)

    return damage


def cut(size: int):
    return lambda stack: stack.victim.write_bytes(stack.victim.read_bytes()[:size])


DAMAGES = {
    "first byte": flip(0),
    "a byte of the first chunk": flip(100),
    "a byte in the middle": flip(SIZE // 2),
    "the last byte": flip(SEALED - 1),
    "cut at a chunk": cut(65_536 + 16),
    "cut in the middle": cut(SIZE // 2),
    "cut by one": cut(SEALED - 1),
    "empty": cut(0),
    "longer": lambda stack: stack.victim.write_bytes(stack.victim.read_bytes() + b"more"),
    "gone": lambda stack: stack.victim.unlink(),
    "another blob in its place": lambda stack: stack.victim.write_bytes(stack.other.read_bytes()),
    "chunks swapped": lambda stack: swap_chunks(stack.victim),
}


# The file's mark and what follows its last chunk hold nothing of the object.
OUTSIDE_THE_CONTENT = ("first byte", "longer")


def swap_chunks(path: Path) -> None:
    chunk = 65_536 + 16
    data = path.read_bytes()
    path.write_bytes(data[chunk : 2 * chunk] + data[:chunk] + data[2 * chunk :])


@pytest.mark.parametrize("name", DAMAGES)
def test_no_wrong_byte_leaves_and_nobody_retries(damaged, name):
    DAMAGES[name](damaged)
    damaged.restart()
    whole = body("victim", SIZE)
    with Connection(damaged) as connection:
        check_whole(connection, whole, name)
    draw = random.Random(name)
    for _ in range(20):
        start = draw.randrange(SIZE - 1000)
        with Connection(damaged) as connection:
            check_range(connection, whole, start, start + 999)
    assert damaged.client().get_object(Bucket=BUCKET, Key="before")["Body"].read() == body("before", SIZE), "others are not concerned"


def test_damage_counts_in_a_metric(damaged):
    flip(100)(damaged)
    damaged.restart()
    with Connection(damaged) as connection:
        connection.send(connection.head("GET", f"/{BUCKET}/victim"))
        assert connection.answer().code == "ObjectDamaged"
    metrics = damaged.fetch_signed(damaged.store + "/minio/v2/metrics/cluster").decode()
    counted = [line for line in metrics.splitlines() if "damage" in line and not line.startswith("#")]
    assert counted and float(counted[0].rsplit(" ", 1)[1]) >= 1, "an operator sees damage without reading logs"


def check_whole(connection: Connection, whole: bytes, name: str) -> None:
    """An error before the first byte, or bytes that are right and then a cut; or all of the object, if what was damaged is no part of it."""
    connection.send(connection.head("GET", f"/{BUCKET}/victim"))
    try:
        answer = connection.answer()
    except ConnectionError:
        # The body was cut: what had come before has to be right.
        assert whole.startswith(connection.pending)
        return
    if answer.status == 200:
        assert answer.body == whole, f"{name}: a wrong byte left"
        assert name in OUTSIDE_THE_CONTENT
    else:
        assert (answer.status, answer.code) == (400, "ObjectDamaged"), f"{name}: {answer.status} {answer.body[:200]!r}"


def check_range(connection: Connection, whole: bytes, start: int, end: int) -> None:
    connection.send(connection.head("GET", f"/{BUCKET}/victim", {"range": f"bytes={start}-{end}"}))
    try:
        answer = connection.answer()
    except ConnectionError:
        assert whole[start : end + 1].startswith(connection.pending)
        return
    if answer.status == 206:
        assert answer.body == whole[start : end + 1]
    else:
        assert (answer.status, answer.code) == (400, "ObjectDamaged")


def test_a_damaged_object_can_be_overwritten_and_deleted(damaged):
    damaged.victim.write_bytes(b"")
    damaged.restart()
    s3 = damaged.client()
    s3.put_object(Bucket=BUCKET, Key="victim", Body=b"new")
    assert s3.get_object(Bucket=BUCKET, Key="victim")["Body"].read() == b"new"
    s3.delete_object(Bucket=BUCKET, Key="victim")


def test_a_damaged_part_hurts_only_its_part(new_stack):
    with new_stack() as stack:
        s3 = stack.client()
        parts = [body(n, PART_MIN) for n in range(2)]
        multipart(s3, BUCKET, "big", parts)
        assert stack.stop() == 0
        first, second = sorted(blob_files(stack), key=lambda p: p.stat().st_mtime_ns)
        data = bytearray(second.read_bytes())
        data[len(data) // 2] ^= 1
        second.write_bytes(data)
        stack.restart()
        assert stack.client().get_object(Bucket=BUCKET, Key="big", Range=f"bytes=0-{PART_MIN - 1}")["Body"].read() == parts[0]
        with Connection(stack) as connection:
            connection.send(connection.head("GET", f"/{BUCKET}/big"))
            try:
                answer = connection.answer()
                assert answer.status == 400
            except ConnectionError:
                assert b"".join(parts).startswith(connection.pending)
