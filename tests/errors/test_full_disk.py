"""A full disk is a clean 507: nothing half-written, everything acknowledged still there, and writes go on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from botocore.exceptions import ClientError
from harness.process import wait_until
from harness.stack import Stack
from support import PART_MIN, body, keys, read

BUCKET = "lake"
DISK_MIB = 96


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own for the data folder, small enough to be filled."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount the small file system that this test fills")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_a_507_and_nothing_is_lost(small_disk):
    with Stack(small_disk / "data", buckets=("lake",), log=small_disk.parent / "moat.log") as stack:
        s3 = stack.client()
        s3.put_object(Bucket=BUCKET, Key="first", Body=body("first", 1_000_000))
        acknowledged = fill(s3)
        assert acknowledged, "some objects fit before the disk was full"
        for size in (3 << 20, 2_000_000, 300_000):
            assert put_status(s3, "more", size) in (507, 200)
        # A part, a copy with new metadata and a small object end cleanly as well, whichever way.
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key="big")["UploadId"] if put_status(s3, "probe", 10) == 200 else None
        if upload:
            with pytest.raises(ClientError) as caught:
                for number in range(1, 50):
                    s3.upload_part(Bucket=BUCKET, Key="big", UploadId=upload, PartNumber=number, Body=body(number, PART_MIN))
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 507
        check(s3, acknowledged)
        stack.kill()
        stack.restart()
        check(stack.client(), acknowledged)
        s3 = stack.client()
        if upload:
            s3.abort_multipart_upload(Bucket=BUCKET, Key="big", UploadId=upload)
        for key in list(acknowledged)[::2]:
            s3.delete_object(Bucket=BUCKET, Key=key)
            del acknowledged[key]
        wait_until("there is room again", lambda: put_status(s3, "after", 2_000_000) == 200, 60)
        check(s3, acknowledged)


def fill(s3) -> dict[str, int]:
    """Writes until the disk is full; the keys and sizes that were acknowledged."""
    written = {}
    for n in range(200):
        if put_status(s3, f"fill{n:03}", 3 << 20) != 200:
            return written
        written[f"fill{n:03}"] = 3 << 20
    raise AssertionError(f"600 MiB fitted on a disk of {DISK_MIB} MiB")


def put_status(s3, key: str, size: int) -> int:
    try:
        return s3.put_object(Bucket=BUCKET, Key=key, Body=body(key, size))["ResponseMetadata"]["HTTPStatusCode"]
    except ClientError as error:
        answer = error.response
        assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (507, "InsufficientStorage"), answer
        return 507


def check(s3, acknowledged: dict[str, int]) -> None:
    listed = keys(s3, BUCKET)
    for key, size in acknowledged.items():
        assert key in listed
        assert read(s3, BUCKET, key) == body(key, size)
    assert read(s3, BUCKET, "first") == body("first", 1_000_000)
