"""The boto3 rows: every kind of encryption over every endpoint, CRUD, multipart and presigned URLs.

What is written here carries marks that the scan for plaintext looks for: bodies, user metadata, content headers, tags.
"""

from __future__ import annotations

import base64
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from botocore.exceptions import ClientError

from rows import Row, RowFailure, encryption_of, measure, say

BUCKET = "lake"
# The smallest part that S3 takes, so that a multipart upload here is a small one.
PART_BYTES = 5 << 20
SMALL_BYTES = 10_000
WORDS = "harbour lantern gravel orchard compass thimble saddle velvet copper meadow".split()


@dataclass(frozen=True)
class Mode:
    """A way to ask for encryption."""

    name: str
    asked: str
    wanted: str
    customer_key: bytes | None = None

    @property
    def on_write(self) -> dict:
        if self.customer_key:
            return self.on_read
        return {
            "SSE-S3": {"ServerSideEncryption": "AES256"},
            "SSE-KMS": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "demo-key"},
        }.get(self.name, {})

    @property
    def on_read(self) -> dict:
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": self.customer_key} if self.customer_key else {}

    @property
    def on_copy_source(self) -> dict:
        return {f"CopySource{name}": value for name, value in self.on_read.items()}


MODES = (
    Mode("none", "none", "aws:kms lake-key"),
    Mode("SSE-S3", "SSE-S3", "AES256"),
    Mode("SSE-KMS", "SSE-KMS demo-key", "aws:kms demo-key"),
    Mode("SSE-C", "SSE-C", "SSE-C AES256", customer_key=hashlib.sha256(b"the demo's customer key").digest()),
)


@dataclass
class Marks:
    """Everything written by these rows that must never stand in a file in the clear."""

    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    texts: list[tuple[str, bytes]] = field(default_factory=list)
    # Whether object tags could be written; a store that refuses them has none on its disk either.
    tags: bool = False

    def text(self, name: str, seed: str) -> str:
        """A sentence that exists nowhere else, remembered."""
        draw = random.Random(seed)
        value = " ".join(draw.choices(WORDS, k=7)) + " " + hashlib.sha256(seed.encode()).hexdigest()[:12]
        self.texts.append((f"{name} of {seed}", value.encode()))
        return value

    def body(self, seed: str, size: int) -> bytes:
        """Bytes that do not repeat and look like text at the front, remembered."""
        draw = random.Random(seed)
        content = (" ".join(draw.choices(WORDS, k=200)).encode() + draw.randbytes(size))[:size]
        self.bodies.append((f"body of {seed}", content))
        return content


def run_boto3_rows(stack, work: Path, marks: Marks) -> list[Row]:
    endpoints = (("direct", "https store", stack.store), ("proxy-https", "https proxy", stack.proxy_https), ("proxy-http", "http proxy", stack.proxy_http))
    rows = []
    for short, words, url in endpoints:
        for mode in MODES:
            name = f"boto3-{short} {mode.name}"
            row = Row(name, words, mode.asked, work / "logs" / "boto3.log")
            if mode.customer_key and url.startswith("http://"):
                measure(row, stack, lambda: refuses_customer_keys(stack.client(url), mode))
                row.asked, row.name = "SSE-C (must be refused)", name
            else:
                row.prefix = f"boto3/{short}/{mode.name}/"
                # HEAD of an SSE-C object needs its key, so that row looks itself.
                row.wanted = None if mode.customer_key else mode.wanted
                measure(row, stack, lambda: Boto3Row(stack, url, mode, row, marks).run())
            rows.append(row)
    return rows


def refuses_customer_keys(client, mode: Mode) -> None:
    """A customer's key must not be taken over plain http, where it has crossed the network in the clear."""
    try:
        client.put_object(Bucket=BUCKET, Key="boto3/sse-c-over-http", Body=b"x", **mode.on_write)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status != 400:
            raise RowFailure(f"SSE-C over http answered {status}, expected 400") from error
        return
    raise RowFailure("SSE-C over http was accepted")


class Boto3Row:
    """One endpoint with one kind of encryption."""

    def __init__(self, stack, url: str, mode: Mode, row: Row, marks: Marks) -> None:
        self.client, self.mode, self.row, self.marks, self.stack = stack.client(url), mode, row, marks, stack
        self.http = url.startswith("http://")
        self.prefix = row.prefix

    def run(self) -> None:
        self.create_read_update_delete()
        self.multipart()
        self.copy()
        self.presigned()
        if self.mode.customer_key:
            self.row.reported.add(self.mode.wanted)
        say(f"    {self.row.name}: objects, multipart, copy and presigned URLs are as they should be")

    # ---- the four things that every row does ----

    def create_read_update_delete(self) -> None:
        key, body = self.prefix + "object", self.marks.body(self.prefix + "object", SMALL_BYTES)
        seed = self.prefix
        headers = {
            "Metadata": {"note": self.marks.text("user metadata", seed)},
            "ContentDisposition": f'attachment; filename="{self.marks.text("Content-Disposition", seed + "d")}"',
            "ContentLanguage": self.marks.text("Content-Language", seed + "l"),
            "CacheControl": self.marks.text("Cache-Control", seed + "c"),
            "ContentType": f"text/{self.marks.text('Content-Type', seed + 't').replace(' ', '-')}",
        }
        self.marks.texts.append((f"Content-Type of {seed}", headers["ContentType"].removeprefix("text/").encode()))
        self.client.put_object(Bucket=BUCKET, Key=key, Body=b"an earlier content", **self.mode.on_write)
        self.effective(self.client.put_object(Bucket=BUCKET, Key=key, Body=body, **headers, **self.mode.on_write), "PUT")
        got = self.client.get_object(Bucket=BUCKET, Key=key, **self.mode.on_read)
        self.same(got["Body"].read(), body, "GET")
        for name, wanted in headers.items():
            self.same(got[name], wanted, name)
        part = self.client.get_object(Bucket=BUCKET, Key=key, Range="bytes=100-299", **self.mode.on_read)
        self.same(part["Body"].read(), body[100:300], "a range")
        self.effective(self.client.head_object(Bucket=BUCKET, Key=key, **self.mode.on_read), "HEAD", head=True)
        listed = self.client.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"]
        self.same([(o["Key"], o["Size"]) for o in listed], [(key, SMALL_BYTES)], "LIST")
        self.tag(key)
        self.client.put_object(Bucket=BUCKET, Key=key + ".gone", Body=body, **self.mode.on_write)
        self.client.delete_object(Bucket=BUCKET, Key=key + ".gone")
        self.missing(key + ".gone")

    def tag(self, key: str) -> None:
        tags = {"TagSet": [{"Key": "project", "Value": self.marks.text("tag", key)}]}
        try:
            self.client.put_object_tagging(Bucket=BUCKET, Key=key, Tagging=tags)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NotImplemented":
                raise
            return
        self.marks.tags = True
        self.same(self.client.get_object_tagging(Bucket=BUCKET, Key=key)["TagSet"], tags["TagSet"], "the tag")

    def multipart(self) -> None:
        key = self.prefix + "multipart"
        parts = [self.marks.body(f"{key} {n}", size) for n, size in ((1, PART_BYTES), (2, PART_BYTES), (3, 77_777))]
        meta = {"Metadata": {"note": self.marks.text("user metadata", key)}}
        upload = self.client.create_multipart_upload(Bucket=BUCKET, Key=key, **meta, **self.mode.on_write)
        self.effective(upload, "CreateMultipartUpload")
        place = {"Bucket": BUCKET, "Key": key, "UploadId": upload["UploadId"]}
        tags = [
            self.client.upload_part(**place, PartNumber=n, Body=part, **self.mode.on_read)["ETag"] for n, part in enumerate(parts, start=1)
        ]
        done = {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in enumerate(tags, start=1)]}
        self.client.complete_multipart_upload(**place, MultipartUpload=done, **self.mode.on_read)
        whole = b"".join(parts)
        self.same(self.client.get_object(Bucket=BUCKET, Key=key, **self.mode.on_read)["Body"].read(), whole, "GET of the multipart object")
        window = self.client.get_object(Bucket=BUCKET, Key=key, Range=f"bytes={PART_BYTES - 10}-{PART_BYTES + 9}", **self.mode.on_read)
        self.same(window["Body"].read(), whole[PART_BYTES - 10 : PART_BYTES + 10], "a range over two parts")

    def copy(self) -> None:
        source, target = self.prefix + "object", self.prefix + "copy"
        answer = self.client.copy_object(
            Bucket=BUCKET, Key=target, CopySource={"Bucket": BUCKET, "Key": source}, **self.mode.on_write, **self.mode.on_copy_source
        )
        self.effective(answer, "CopyObject")
        read = lambda key: self.client.get_object(Bucket=BUCKET, Key=key, **self.mode.on_read)["Body"].read()  # noqa: E731
        self.same(read(target), read(source), "the copy")

    def presigned(self) -> None:
        key, body = self.prefix + "presigned", self.marks.body(self.prefix + "presigned", SMALL_BYTES)
        self.presigned_call("put_object", key, "PUT", body, self.mode.on_write)
        self.same(self.presigned_call("get_object", key, "GET", None, self.mode.on_read), body, "the presigned GET")

    # ---- helpers ----

    def presigned_call(self, operation: str, key: str, method: str, body: bytes | None, more: dict) -> bytes:
        url = self.client.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": key, **more}, ExpiresIn=300)
        # Encryption headers are part of what is signed, so whoever uses the URL sends them.
        headers = {
            "ServerSideEncryption": "x-amz-server-side-encryption",
            "SSEKMSKeyId": "x-amz-server-side-encryption-aws-kms-key-id",
            "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
        }
        sent = {headers[name]: value for name, value in more.items() if name in headers}
        if secret := more.get("SSECustomerKey"):
            sent["x-amz-server-side-encryption-customer-key"] = base64.b64encode(secret).decode()
            sent["x-amz-server-side-encryption-customer-key-MD5"] = base64.b64encode(hashlib.md5(secret).digest()).decode()
        with self.stack.fetch(url, method=method, data=body, headers=sent) as answer:
            return answer.read()

    def effective(self, answer: dict, what: str, head: bool = False) -> None:
        """The answer names what the object is encrypted with; a HEAD over plain http leaves the key out."""
        found = encryption_of(answer)
        allowed = {self.mode.wanted}
        if head and self.http and self.mode.wanted.startswith("aws:kms"):
            # That is the rule that lets SDK v1 rename on an http endpoint; the store itself tells the key.
            allowed = {"aws:kms"}
        if found not in allowed:
            raise RowFailure(f"{what} answered {found}, expected {' or '.join(sorted(allowed))}")

    def same(self, found, wanted, what: str) -> None:
        if found != wanted:
            shown = f"{len(found)} bytes" if isinstance(found, bytes) else repr(found)
            raise RowFailure(f"{what} is not what was written (got {shown})")

    def missing(self, key: str) -> None:
        try:
            self.client.head_object(Bucket=BUCKET, Key=key, **self.mode.on_read)
        except ClientError as error:
            self.same(error.response["ResponseMetadata"]["HTTPStatusCode"], 404, "HEAD after DELETE")
            return
        raise RowFailure(f"{key} is still there after DELETE")
