"""CopyObject: metadata kept or replaced, conditions on the source, self-copies, errors."""

from __future__ import annotations

import datetime

import pytest
from support import body, keys, read, refused


@pytest.fixture
def source(s3, bucket) -> dict:
    s3.put_object(Bucket=bucket, Key="dir/source é+%", Body=body("s", 100_000), Metadata={"a": "1"}, ContentType="text/a", CacheControl="no-cache")
    return {"Bucket": bucket, "Key": "dir/source é+%"}


def test_a_copy_keeps_content_and_metadata(s3, bucket, source):
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=source)["CopyObjectResult"]
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert read(s3, bucket, "copy") == body("s", 100_000)
    assert (head["Metadata"], head["ContentType"], head["CacheControl"]) == ({"a": "1"}, "text/a", "no-cache")
    assert head["ETag"] == copied["ETag"] == s3.head_object(**source)["ETag"]


def test_replace_sets_new_metadata(s3, bucket, source):
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="text/b")
    head = s3.head_object(Bucket=bucket, Key="copy")
    assert (head["Metadata"], head["ContentType"]) == ({"b": "2"}, "text/b")
    assert "CacheControl" not in head
    assert read(s3, bucket, "copy") == body("s", 100_000)


def test_copies_outlive_their_source(s3, bucket, source):
    for n in range(3):
        s3.copy_object(Bucket=bucket, Key=f"copy{n}", CopySource=source)
    s3.put_object(**source, Body=b"overwritten")
    s3.delete_object(Bucket=bucket, Key="copy0")
    s3.copy_object(Bucket=bucket, Key="copy3", CopySource={"Bucket": bucket, "Key": "copy1"})
    s3.delete_object(Bucket=bucket, Key="copy1")
    for name in ("copy2", "copy3"):
        assert read(s3, bucket, name) == body("s", 100_000)


def test_a_copy_onto_itself_has_to_change_something(s3, bucket, source):
    with refused("InvalidRequest", 400):
        s3.copy_object(**source, CopySource=source)
    s3.copy_object(**source, CopySource=source, MetadataDirective="REPLACE", Metadata={"new": "yes"})
    assert s3.head_object(**source)["Metadata"] == {"new": "yes"}
    s3.copy_object(**source, CopySource=source, ServerSideEncryption="aws:kms", SSEKMSKeyId="key-a")
    assert s3.head_object(**source)["SSEKMSKeyId"] == "key-a"
    assert read(s3, **{"bucket": source["Bucket"], "key": source["Key"]}) == body("s", 100_000)


def test_conditions_on_the_source(s3, bucket, source):
    head = s3.head_object(**source)
    tag, hour = head["ETag"], datetime.timedelta(hours=1)
    earlier, later = head["LastModified"] - hour, head["LastModified"] + hour
    copy = lambda **c: s3.copy_object(Bucket=bucket, Key="copy", CopySource=source, **c)  # noqa: E731
    for good in ({"CopySourceIfMatch": tag}, {"CopySourceIfMatch": tag.strip('"')}, {"CopySourceIfNoneMatch": '"x"'}, {"CopySourceIfModifiedSince": earlier},
                 {"CopySourceIfUnmodifiedSince": later}):  # fmt: skip
        copy(**good)
    s3.delete_object(Bucket=bucket, Key="copy")
    for bad in ({"CopySourceIfMatch": '"x"'}, {"CopySourceIfNoneMatch": tag}, {"CopySourceIfUnmodifiedSince": earlier}):
        with refused("PreconditionFailed", 412):
            copy(**bad)
    assert keys(s3, bucket) == [source["Key"]]


def test_copies_of_nothing_are_not_found(s3, bucket):
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "absent"})
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": "no-such-bucket-here", "Key": "absent"})
    for malformed in ("", "nobucket", "/"):
        with refused("InvalidArgument", 400):
            s3.copy_object(Bucket=bucket, Key="copy", CopySource=malformed)


def test_a_copy_moves_no_bytes(stack, s3, bucket):
    """A gigabyte that is copied a hundred times would fill the disk and the minute if it were moved."""
    content = body("big", 32 << 20)
    s3.put_object(Bucket=bucket, Key="big", Body=content)
    before = used_bytes(stack.data)
    for n in range(100):
        s3.copy_object(Bucket=bucket, Key=f"copy{n}", CopySource={"Bucket": bucket, "Key": "big"}, ServerSideEncryption="aws:kms", SSEKMSKeyId="key-b")
    assert used_bytes(stack.data) - before < len(content)
    assert read(s3, bucket, "copy99") == content


def used_bytes(folder) -> int:
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file())
