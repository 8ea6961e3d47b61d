"""The course of tests/clients/java, for whatever boto3 runs this: the same targets on standard input, the same results.

What boto3 does by default depends on its version: since 1.36 it sends a checksum behind each body, in chunks.
"""

from __future__ import annotations

import os
import random
import ssl
import sys
import traceback
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

PART_MIN = 5 << 20
METADATA = {"plain": "a value", "spaces": "two words, and a comma", "number": "0042"}
ODD = ("a b", "a+b", "a%2Fb", "a&b=c", "ünïcode/日本", "q?x", "tilde~(1)*'!", "semi;colon:,@$")


class Target:
    """One line of input; tests/clients/java/common/Target.java says what the words mean."""

    def __init__(self, line: str) -> None:
        words = [None if word == "-" else word for word in line.rstrip("\n").split("\t")]
        self.name, self.endpoint, self.bucket, self.prefix, self.algorithm, self.key, self.seen_algorithm, self.seen_key, tells = words
        self.head_tells_key = tells == "yes"

    def client(self):
        # One attempt: a second one would hide that the first one failed.
        config = Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1, "mode": "standard"}, read_timeout=60)
        return boto3.client("s3", endpoint_url=self.endpoint, region_name="us-east-1", config=config)

    def sse(self) -> dict[str, str]:
        asked = {"ServerSideEncryption": self.algorithm, "SSEKMSKeyId": self.key}
        return {name: value for name, value in asked.items() if value}


class Course:
    """What is done at one target, step by step."""

    def __init__(self, target: Target) -> None:
        self.target, self.s3, self.step = target, target.client(), "start"
        self.place = {"Bucket": target.bucket}

    def run(self) -> None:
        self.objects()
        self.copies()
        self.parts()
        self.presigned()
        self.removal()

    def key(self, name: str) -> str:
        return self.target.prefix + name

    def get(self, key: str, **more) -> bytes:
        return self.s3.get_object(**self.place, Key=key, **more)["Body"].read()

    def objects(self) -> None:
        for size in (0, 1, 300_000):
            self.step = f"PUT, HEAD and GET of {size} bytes"
            key = self.key(f"objects/{size}")
            put = self.s3.put_object(**self.place, Key=key, Body=body(key, size), ContentType="application/x-course", Metadata=METADATA, **self.target.sse())
            self.check_sealed("PUT", put, True)
            head = self.s3.head_object(**self.place, Key=key)
            equal("head", (size, "application/x-course", METADATA), (head["ContentLength"], head["ContentType"], head["Metadata"]))
            self.check_sealed("HEAD", head, self.target.head_tells_key)
            equal("GET", body(key, size), self.get(key))
        self.step = "ranges and conditions"
        equal("a range", body(key, 300_000)[65_000:140_000], self.get(key, Range="bytes=65000-139999"))
        equal("GET with If-Match", body(key, 300_000), self.get(key, IfMatch=head["ETag"]))
        refused("PreconditionFailed", lambda: self.get(key, IfMatch='"0123456789abcdef0123456789abcdef"'))
        refused("NoSuchKey", lambda: self.get(self.key("missing")))
        self.step = "a checksum"
        put = self.s3.put_object(**self.place, Key=self.key("sum"), Body=b"content", ChecksumAlgorithm="SHA256", **self.target.sse())
        head = self.s3.head_object(**self.place, Key=self.key("sum"), ChecksumMode="ENABLED")
        equal("SHA-256", put["ChecksumSHA256"], head["ChecksumSHA256"])
        self.step = "odd keys and LIST"
        for name in ODD:
            self.s3.put_object(**self.place, Key=self.key(f"odd/{name}"), Body=body(name, 100), **self.target.sse())
            equal(name, body(name, 100), self.get(self.key(f"odd/{name}")))
        equal("keys", sorted(self.key(f"odd/{name}") for name in ODD), sorted(self.list("odd/", PaginationConfig={"PageSize": 3})))

    def list(self, prefix: str, **more) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(**self.place, Prefix=self.key(prefix), **more)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def copies(self) -> None:
        self.step = "CopyObject"
        source, copy = self.key("objects/300000"), self.key("copies/the copy ü")
        self.s3.copy_object(**self.place, Key=copy, CopySource={**self.place, "Key": source}, **self.target.sse())
        equal("the copy", body(source, 300_000), self.get(copy))
        self.check_sealed("HEAD of the copy", self.s3.head_object(**self.place, Key=copy), self.target.head_tells_key)

    def parts(self) -> None:
        self.step = "a multipart upload"
        key, parts = self.key("parts/whole"), [body("one", PART_MIN), body("two", PART_MIN), body("three", 12_345)]
        upload = {**self.place, "Key": key, "UploadId": self.s3.create_multipart_upload(**self.place, Key=key, **self.target.sse())["UploadId"]}
        with ThreadPoolExecutor(len(parts)) as pool:
            etags = list(pool.map(lambda n: self.s3.upload_part(**upload, PartNumber=n + 1, Body=parts[n])["ETag"], range(len(parts))))
        self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]})
        whole = b"".join(parts)
        equal("the whole", whole, self.get(key))
        self.check_sealed("HEAD of the whole", self.s3.head_object(**self.place, Key=key), self.target.head_tells_key)
        self.step = "a copy in parts, and a managed upload"
        settings = TransferConfig(multipart_threshold=PART_MIN, multipart_chunksize=PART_MIN)
        copy = self.key("parts/copy")
        self.s3.copy({**self.place, "Key": key}, self.target.bucket, copy, ExtraArgs=self.target.sse(), Config=settings)
        equal("the copy in parts", whole, self.get(copy))
        self.step = "an upload that is given up"
        upload["UploadId"] = self.s3.create_multipart_upload(**self.place, Key=key, **self.target.sse())["UploadId"]
        self.s3.upload_part(**upload, PartNumber=1, Body=b"left")
        self.s3.abort_multipart_upload(**upload)
        refused("NoSuchUpload", lambda: self.s3.list_parts(**upload))

    def presigned(self) -> None:
        self.step = "presigned URLs"
        place = {**self.place, "Key": self.key("presigned/a key")}
        url = self.s3.generate_presigned_url("put_object", Params=place, ExpiresIn=60)
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=body("url", 70_000)), timeout=30, context=trust()) as answer:
            equal("status of a presigned PUT", 200, answer.status)
        with urllib.request.urlopen(self.s3.generate_presigned_url("get_object", Params=place, ExpiresIn=60), timeout=30, context=trust()) as answer:
            equal("a presigned GET", body("url", 70_000), answer.read())

    def removal(self) -> None:
        self.step = "DELETE"
        key = self.key("objects/1")
        self.s3.delete_object(**self.place, Key=key)
        refused("NoSuchKey", lambda: self.get(key))
        objects = [{"Key": key} for key in self.list("odd/")]
        answer = self.s3.delete_objects(**self.place, Delete={"Objects": objects})
        equal("deleted", len(ODD), len(answer.get("Deleted", [])))
        equal("keys after all were deleted", [], self.list("odd/"))

    def check_sealed(self, what: str, answer: dict, tells_key: bool) -> None:
        equal(f"encryption that {what} reports", self.target.seen_algorithm, answer.get("ServerSideEncryption"))
        if self.target.seen_key and tells_key:
            assert (answer.get("SSEKMSKeyId") or "").endswith(self.target.seen_key), f"key that {what} reports: {answer.get('SSEKMSKeyId')}"
        elif self.target.seen_key:
            equal(f"key that {what} must not tell", None, answer.get("SSEKMSKeyId"))


def body(seed: str, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def equal(what: str, wanted, found) -> None:
    assert wanted == found, f"{what}: {str(found)[:300]}, not {str(wanted)[:300]}"


def refused(code: str, call) -> None:
    try:
        call()
    except ClientError as error:
        equal("code", code, error.response["Error"]["Code"])
    else:
        raise AssertionError(f"no {code}")


def trust():
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return ssl.create_default_context(cafile=bundle) if bundle else None


def main() -> int:
    failed = False
    for line in sys.stdin:
        course = Course(Target(line))
        try:
            course.run()
            said = "ok"
        except Exception as error:  # Whatever a client raises is this target's failure; the others still run.
            traceback.print_exc()
            said, failed = f"FAIL {course.step}: {type(error).__name__}: {' '.join(str(error).split())}", True
        print(f"{course.target.name}\t{said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
