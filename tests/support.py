"""Small helpers that several suites use."""

from __future__ import annotations

import contextlib
import hashlib
import random

import pytest
from botocore.exceptions import ClientError

# The smallest part that S3 takes, except for the last.
PART_MIN = 5 << 20


def body(seed: object, size: int) -> bytes:
    """Bytes that depend on the seed alone and compress to nothing."""
    return random.Random(str(seed)).randbytes(size)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@contextlib.contextmanager
def refused(code: str | tuple[str, ...], status: int | None = None):
    """The call inside has to end with this S3 error code (HEAD has no body, so there it is the status)."""
    with pytest.raises(ClientError) as caught:
        yield caught
    error = caught.value.response
    codes = (code,) if isinstance(code, str) else code
    assert error["Error"]["Code"] in codes, error
    if status is not None:
        assert error["ResponseMetadata"]["HTTPStatusCode"] == status, error


def read(client, bucket: str, key: str, **more) -> bytes:
    return client.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def keys(client, bucket: str, **more) -> list[str]:
    """All keys that LIST v2 gives, page by page."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, **more)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]


def takes(client, operation: str, parameter: str) -> bool:
    """Whether this version of boto3 knows a parameter; older ones miss the newer ones."""
    return parameter in client.meta.service_model.operation_model(operation).input_shape.members


def needs(client, operation: str, parameter: str) -> None:
    if not takes(client, operation, parameter):
        pytest.skip(f"this boto3 has no {parameter} for {operation}")


def multipart(client, bucket: str, key: str, parts: list[bytes], on_create: dict | None = None, on_part: dict | None = None) -> dict:
    """A whole multipart upload; the answer of Complete."""
    upload = client.create_multipart_upload(Bucket=bucket, Key=key, **(on_create or {}))["UploadId"]
    place = {"Bucket": bucket, "Key": key, "UploadId": upload}
    done = [
        {"PartNumber": n, "ETag": client.upload_part(**place, PartNumber=n, Body=part, **(on_part or {}))["ETag"]}
        for n, part in enumerate(parts, start=1)
    ]
    return client.complete_multipart_upload(**place, MultipartUpload={"Parts": done}, **(on_part or {}))
