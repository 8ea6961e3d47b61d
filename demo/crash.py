"""`kill -9` in the middle of writes: what was acknowledged is intact, what was not is whole or absent.

Writers put new objects, overwrite one key each again and again, and upload parts, until the server is killed under
them. What they were told is written down only once the answer has come. After a restart every note is checked.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from rows import RowFailure

BUCKET = "lake"
PREFIX = "crash/"
WRITERS = 6
PART_BYTES = 5 << 20
# The kill comes once so much has been acknowledged, with all writers busy.
ACKNOWLEDGED_MIN = 200
# Far more than the writes take; a stuck server must not hang the demo.
WRITE_SECONDS_MAX = 90.0
SIZES = (100, 4_000, 70_000, 300_000, 2_000_000)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Notes:
    """What the server has acknowledged, and what it was just being told."""

    objects: dict[str, str] = field(default_factory=dict)
    # For keys that are overwritten: the last acknowledged content, and the one that was on the wire.
    overwritten: dict[str, str] = field(default_factory=dict)
    on_the_wire: dict[str, str] = field(default_factory=dict)
    # Upload id and acknowledged parts (number to ETag and content) by key.
    uploads: dict[str, tuple[str, dict[int, tuple[str, bytes]]]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    failed: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        return len(self.objects) + sum(len(parts) for _id, parts in self.uploads.values())


@dataclass(frozen=True)
class Outcome:
    """What the check after the restart saw."""

    acknowledged: int
    parts: int
    unacknowledged_present: int
    unacknowledged_absent: int
    downtime_seconds: float
    kills: int


def crash_and_check(stack, kills: int = 1, acknowledged_min: int = ACKNOWLEDGED_MIN, seed: int = 1) -> Outcome:
    """Writes, kills, restarts and checks; `kills` times over the same folder. Raises RowFailure for any loss."""
    kept = Notes()
    downtime = 0.0
    for number in range(kills):
        write_until_killed(stack, kept, f"{PREFIX}{number}/", kept.acknowledged + acknowledged_min, seed + number)
        started = time.monotonic()
        stack.restart()
        downtime = max(downtime, time.monotonic() - started)
        present, absent = check_objects(stack.client(max_pool_connections=WRITERS), kept)
        parts = sum(len(p) for _id, p in kept.uploads.values())
        finish_uploads(stack.client(), kept)
    return Outcome(len(kept.objects), parts, present, absent, downtime, kills)


def write_until_killed(stack, notes: Notes, prefix: str, target: int, seed: int) -> None:
    stop = threading.Event()
    writers = [threading.Thread(target=write, args=(stack, notes, f"{prefix}{n}/", random.Random(seed * 100 + n), stop)) for n in range(WRITERS)]
    writers.append(threading.Thread(target=upload_parts, args=(stack, notes, f"{prefix}upload", random.Random(seed * 100 + 99), stop)))
    for writer in writers:
        writer.start()
    deadline = time.monotonic() + WRITE_SECONDS_MAX
    try:
        while notes.acknowledged < target and time.monotonic() < deadline and not notes.failed:
            time.sleep(0.01)
        if notes.failed or notes.acknowledged < target:
            raise RowFailure(f"writes failed before the kill: {notes.failed[:1] or 'too slow'}")
        stack.kill()
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def write(stack, notes: Notes, prefix: str, draw: random.Random, stop: threading.Event) -> None:
    """New objects, and every third time an overwrite of one key."""
    client, count = stack.client(), 0
    while not stop.is_set():
        count += 1
        content = draw.randbytes(draw.choice(SIZES))
        key = prefix + ("again" if count % 3 == 0 else f"{count:05}")
        with notes.lock:
            notes.on_the_wire[key] = digest(content)
        try:
            client.put_object(Bucket=BUCKET, Key=key, Body=content)
        except (ClientError, BotoCoreError) as error:
            note_failure(stack, notes, error)
            return
        with notes.lock:
            (notes.overwritten if count % 3 == 0 else notes.objects)[key] = digest(content)
            del notes.on_the_wire[key]


def upload_parts(stack, notes: Notes, key: str, draw: random.Random, stop: threading.Event) -> None:
    """One multipart upload that is never completed before the kill."""
    client = stack.client()
    try:
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        with notes.lock:
            notes.uploads[key] = (upload, {})
        number = 0
        while not stop.is_set():
            number += 1
            content = draw.randbytes(PART_BYTES)
            tag = client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=content)["ETag"]
            with notes.lock:
                notes.uploads[key][1][number] = (tag, content)
    except (ClientError, BotoCoreError) as error:
        note_failure(stack, notes, error)


def note_failure(stack, notes: Notes, error: Exception) -> None:
    """An error is what a killed server gives; an answer with an error, or one from a living server, is not."""
    if isinstance(error, ClientError) or (stack.process is not None and stack.process.running()):
        with notes.lock:
            notes.failed.append(str(error))


def check_objects(client, notes: Notes) -> tuple[int, int]:
    """Every acknowledged object by its content, in GET and in LIST; then what was on the wire."""
    listed = {item["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX) for item in page.get("Contents", [])}
    for key, wanted in notes.objects.items():
        if key not in listed:
            raise RowFailure(f"{key} was acknowledged and is not listed after the restart")
        if content_digest(client, key) != wanted:
            raise RowFailure(f"{key} was acknowledged and has another content after the restart")
    for key, wanted in notes.overwritten.items():
        if content_digest(client, key) not in (wanted, notes.on_the_wire.get(key)):
            raise RowFailure(f"{key} holds neither its last acknowledged content nor the one on the wire")
    present = absent = 0
    for key, wanted in notes.on_the_wire.items():
        found = content_digest(client, key)
        if found is None:
            absent += 1
        elif found in (wanted, notes.overwritten.get(key)):
            present += 1
        else:
            raise RowFailure(f"{key} was not acknowledged and stands there in part")
    # From now on whatever stands there is what has to stay.
    for key in list(notes.on_the_wire):
        found = content_digest(client, key)
        if found is not None:
            (notes.overwritten if key.endswith("/again") else notes.objects)[key] = found
        del notes.on_the_wire[key]
    return present, absent


def content_digest(client, key: str) -> str | None:
    try:
        return digest(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise RowFailure(f"GET {key} after the restart: {error}") from error


def finish_uploads(client, notes: Notes) -> None:
    """Acknowledged parts are there, and the upload can be gone on with and completed."""
    for key, (upload, parts) in notes.uploads.items():
        place = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        listed = {p["PartNumber"]: p["ETag"] for p in client.list_parts(**place).get("Parts", [])}
        for number, (tag, _content) in parts.items():
            if listed.get(number) != tag:
                raise RowFailure(f"part {number} of {key} was acknowledged and is not listed after the restart")
        last, tail = len(parts) + 1, b"the last part, after the restart"
        tag = client.upload_part(**place, PartNumber=last, Body=tail)["ETag"]
        tags = {**{n: t for n, (t, _c) in parts.items()}, last: tag}
        client.complete_multipart_upload(**place, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": t} for n, t in sorted(tags.items())]})
        whole = b"".join(content for _n, (_t, content) in sorted(parts.items())) + tail
        if content_digest(client, key) != digest(whole):
            raise RowFailure(f"{key}, completed after the restart, is not the sum of its parts")
        notes.objects[key] = digest(whole)
    notes.uploads.clear()
