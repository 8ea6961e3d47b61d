"""The encryption matrix: every pair of {none asked, SSE-S3, SSE-KMS A, SSE-KMS B, SSE-C} as source and as destination.

For each pair: CopyObject, UploadPartCopy (whole and by range), ranged and conditional reads of what came out, the headers that S3
answers on each of these calls, and then the raw files: no 16 bytes of content, metadata or content headers may stand in them.
MinIO fails most of this for the headers alone, and keeps metadata in the clear.
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.scan import Known
from support import PART_MIN, body, md5, read, refused

CUSTOMER_KEY, OTHER_CUSTOMER_KEY = body("customer key", 32), body("another customer key", 32)


@dataclass(frozen=True)
class Sse:
    """A way to ask for encryption, and what answers must say."""

    name: str
    asked: tuple[tuple[str, object], ...]
    algorithm: str | None
    key_id: str | None = None
    customer_key: bytes | None = None

    @property
    def on_write(self) -> dict:
        return dict(self.asked)

    @property
    def on_read(self) -> dict:
        return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": self.customer_key} if self.customer_key else {}

    @property
    def on_copy_source(self) -> dict:
        return {f"CopySource{k}": v for k, v in self.on_read.items()}

    def check(self, answer: dict, what: str) -> None:
        assert answer.get("ServerSideEncryption") == self.algorithm, f"{what}: {answer}"
        assert (answer.get("SSEKMSKeyId") or "").removeprefix("arn:aws:kms:") == (self.key_id or ""), f"{what}: {answer}"
        assert answer.get("SSECustomerAlgorithm") == ("AES256" if self.customer_key else None), f"{what}: {answer}"


def customer(name: str, key: bytes) -> Sse:
    return Sse(name, (("SSECustomerAlgorithm", "AES256"), ("SSECustomerKey", key)), None, None, key)


NONE = Sse("none", (), "aws:kms", "lake-key")
SSE_S3 = Sse("SSE-S3", (("ServerSideEncryption", "AES256"),), "AES256")
KMS_A = Sse("SSE-KMS-A", (("ServerSideEncryption", "aws:kms"), ("SSEKMSKeyId", "key-a")), "aws:kms", "key-a")
KMS_B = Sse("SSE-KMS-B", (("ServerSideEncryption", "aws:kms"), ("SSEKMSKeyId", "key-b")), "aws:kms", "key-b")
SSE_C = customer("SSE-C", CUSTOMER_KEY)
KINDS = (NONE, SSE_S3, KMS_A, KMS_B, SSE_C)
PAIRS = [(a, b if b is not SSE_C or a is not SSE_C else customer("SSE-C", OTHER_CUSTOMER_KEY)) for a in KINDS for b in KINDS]

# Small enough to be scanned often: one under the limit of what is kept in rows, one of several chunks.
SIZES = {"small": 3_000, "chunks": 200_000}
BUCKET = "lake"


# Of each content so much is looked for at its beginning, at a third of it and at its end.
PIECE_BYTES = 8 << 10


class Watched:
    """Contents that a test writes, and the files that it may have changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.started = folder, Known(), time.time()

    def content(self, name: str, size: int) -> bytes:
        value = body(name, size)
        # Whole pieces of it: what is written in the clear is written by the chunk, not by the byte.
        for start in {0, size // 3, max(0, size - PIECE_BYTES)}:
            self.known.add(name, value[start : start + PIECE_BYTES])
        return value

    def text(self, name: str) -> str:
        # Key names are no secret and do stand in the clear, so the text must not hold one.
        value = f"mark {body(name, 24).hex()}"
        self.known.add(name, value.encode(), encoded=True)
        return value

    def assert_nothing_in_the_clear(self) -> None:
        # Files are immutable or are written in place: an old modification time means nothing of ours is in it.
        changed = [p for p in self.folder.rglob("*") if p.is_file() and p.stat().st_mtime >= self.started - 2]
        assert changed, "the test wrote nothing, so the scan would prove nothing"
        result = self.known.scan(*changed)
        assert not result.hits, "\n".join(map(str, result.hits))


@pytest.fixture
def watched(stack) -> Watched:
    return Watched(stack.data)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("source, target", PAIRS, ids=[f"{a.name}-to-{b.name}" for a, b in PAIRS])
def test_copy_object(s3, prefix, watched, source, target, size):
    content = put(s3, prefix + "source", source, watched, size)
    answer = s3.copy_object(
        Bucket=BUCKET, Key=prefix + "copy", CopySource={"Bucket": BUCKET, "Key": prefix + "source"}, **target.on_write, **source.on_copy_source
    )
    target.check(answer, "CopyObject")
    check_reads(s3, prefix + "copy", target, content)
    head = s3.head_object(Bucket=BUCKET, Key=prefix + "copy", **target.on_read)
    assert head["Metadata"] == s3.head_object(Bucket=BUCKET, Key=prefix + "source", **source.on_read)["Metadata"]
    check_reads(s3, prefix + "source", source, content)
    watched.assert_nothing_in_the_clear()


@pytest.mark.parametrize("source, target", PAIRS, ids=[f"{a.name}-to-{b.name}" for a, b in PAIRS])
def test_multipart_copy(s3, prefix, watched, source, target):
    content = put(s3, prefix + "source", source, watched, PART_MIN + 100_000)
    started = s3.create_multipart_upload(Bucket=BUCKET, Key=prefix + "copy", Metadata={"note": watched.text(prefix + "note")}, **target.on_write)
    target.check(started, "CreateMultipartUpload")
    place = {"Bucket": BUCKET, "Key": prefix + "copy", "UploadId": started["UploadId"]}
    more = {"CopySource": {"Bucket": BUCKET, "Key": prefix + "source"}, **source.on_copy_source, **target.on_read}
    whole = s3.upload_part_copy(**place, PartNumber=1, **more)
    ranged = s3.upload_part_copy(**place, PartNumber=2, CopySourceRange="bytes=65000-199999", **more)
    tail = watched.content(prefix + "tail", 5_000)
    last = s3.upload_part(**place, PartNumber=3, Body=tail, **target.on_read)
    # The part by range is small, so it has to be the last: the tail was uploaded for its headers alone.
    for answer, what in ((whole, "UploadPartCopy"), (ranged, "UploadPartCopy by range"), (last, "UploadPart")):
        target.check(answer, what)
    parts = [(1, whole["CopyPartResult"]["ETag"]), (2, ranged["CopyPartResult"]["ETag"])]
    done = s3.complete_multipart_upload(**place, MultipartUpload={"Parts": [{"PartNumber": n, "ETag": t} for n, t in parts]}, **target.on_read)
    if not target.customer_key:
        target.check(done, "CompleteMultipartUpload")
    check_reads(s3, prefix + "copy", target, content + content[65_000:200_000])
    watched.assert_nothing_in_the_clear()


@pytest.mark.parametrize("kind", KINDS, ids=[k.name for k in KINDS])
@pytest.mark.parametrize("endpoint", ["store", "proxy_https"])
def test_multipart_upload(stack, prefix, watched, kind, endpoint):
    s3 = stack.client(getattr(stack, endpoint))
    parts = [watched.content(f"{prefix}{n}", size) for n, size in enumerate((PART_MIN, PART_MIN, 70_000))]
    started = s3.create_multipart_upload(Bucket=BUCKET, Key=prefix + "big", **kind.on_write)
    place = {"Bucket": BUCKET, "Key": prefix + "big", "UploadId": started["UploadId"]}
    done = []
    for number, part in enumerate(parts, start=1):
        answer = s3.upload_part(**place, PartNumber=number, Body=part, **kind.on_read)
        kind.check(answer, "UploadPart")
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    watched.assert_nothing_in_the_clear()
    s3.complete_multipart_upload(**place, MultipartUpload={"Parts": done}, **kind.on_read)
    check_reads(s3, prefix + "big", kind, b"".join(parts))


def put(s3, key: str, kind: Sse, watched: Watched, size: int) -> bytes:
    content = watched.content(key, size)
    answer = s3.put_object(
        Bucket=BUCKET, Key=key, Body=content, Metadata={"note": watched.text(key + " metadata")}, CacheControl=watched.text(key + " cache-control"),
        ContentDisposition=watched.text(key + " disposition"), **kind.on_write,
    )  # fmt: skip
    kind.check(answer, "PutObject")
    return content


def check_reads(s3, key: str, kind: Sse, content: bytes) -> None:
    """Whole, by ranges, under conditions; and the headers of GET and HEAD."""
    place = {"Bucket": BUCKET, "Key": key, **kind.on_read}
    got = s3.get_object(**place)
    kind.check(got, "GetObject")
    assert got["Body"].read() == content
    head = s3.head_object(**place)
    kind.check(head, "HeadObject")
    assert (head["ContentLength"], head["ETag"]) == (len(content), got["ETag"])
    assert "-" in head["ETag"] or head["ETag"] == f'"{md5(content)}"', "an ETag that looks like an MD5 has to be one"
    for start, end in ((0, 1), (len(content) // 2, len(content) // 2 + 100), (len(content) - 7, len(content)), (65_530, 65_540)):
        if end <= len(content):
            assert s3.get_object(**place, Range=f"bytes={start}-{end - 1}")["Body"].read() == content[start:end]
    assert s3.get_object(**place, IfMatch=head["ETag"], Range="bytes=1-5")["Body"].read() == content[1:6]
    with refused("PreconditionFailed", 412):
        s3.get_object(**place, IfMatch='"another"')
    with refused("304", 304):
        s3.get_object(**place, IfNoneMatch=head["ETag"])
    listed = s3.list_objects_v2(Bucket=BUCKET, Prefix=key)["Contents"][0]
    assert (listed["ETag"], listed["Size"]) == (head["ETag"], len(content))


# ---- what S3 refuses ----


def test_a_customers_object_needs_its_key(s3, prefix):
    key = {"Bucket": BUCKET, "Key": prefix + "c"}
    s3.put_object(**key, Body=b"secret", **SSE_C.on_write)
    wrong = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": OTHER_CUSTOMER_KEY}
    with refused("InvalidRequest", 400):
        s3.get_object(**key)
    with refused("AccessDenied", 403):
        s3.get_object(**key, **wrong)
    with refused("400", 400):
        s3.head_object(**key)
    with refused("403", 403):
        s3.head_object(**key, **wrong)
    copy = {"Bucket": BUCKET, "Key": prefix + "copy", "CopySource": key}
    with refused("InvalidRequest", 400):
        s3.copy_object(**copy)
    with refused("AccessDenied", 403):
        s3.copy_object(**copy, **{f"CopySource{k}": v for k, v in wrong.items()})
    assert read(s3, BUCKET, prefix + "c", **SSE_C.on_read) == b"secret"


def test_a_customers_key_for_another_object_is_refused(s3, prefix):
    s3.put_object(Bucket=BUCKET, Key=prefix + "k", Body=b"x", **KMS_A.on_write)
    with refused("InvalidRequest", 400):
        s3.get_object(Bucket=BUCKET, Key=prefix + "k", **SSE_C.on_read)


def test_parts_need_the_customers_key_of_the_upload(s3, prefix):
    started = s3.create_multipart_upload(Bucket=BUCKET, Key=prefix + "c", **SSE_C.on_write)
    place = {"Bucket": BUCKET, "Key": prefix + "c", "UploadId": started["UploadId"]}
    with refused("InvalidRequest", 400):
        s3.upload_part(**place, PartNumber=1, Body=b"x")
    with refused(("InvalidRequest", "AccessDenied", "InvalidArgument")):
        s3.upload_part(**place, PartNumber=1, Body=b"x", SSECustomerAlgorithm="AES256", SSECustomerKey=OTHER_CUSTOMER_KEY)


@pytest.mark.parametrize(
    "asked",
    [
        {"ServerSideEncryption": "AES257"},
        {"ServerSideEncryption": "AES256", "SSEKMSKeyId": "key-a"},
        {"SSECustomerAlgorithm": "AES128", "SSECustomerKey": CUSTOMER_KEY},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": b"short"},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": base64.b64encode(CUSTOMER_KEY).decode(), "SSECustomerKeyMD5": "AAAAAAAAAAAAAAAAAAAAAA=="},
        {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": CUSTOMER_KEY, "ServerSideEncryption": "aws:kms"},
    ],
    ids=["algorithm", "key-with-aes256", "customer-algorithm", "customer-key", "customer-md5", "both"],
)
def test_wrong_encryption_headers_are_refused_and_nothing_is_written(s3, prefix, asked):
    with refused(("InvalidArgument", "InvalidRequest", "InvalidEncryptionAlgorithmError"), 400):
        s3.put_object(Bucket=BUCKET, Key=prefix + "k", Body=b"x", **asked)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)


def test_an_unknown_kms_key_is_400_and_nothing_is_written(s3, prefix):
    with refused("KMS.NotFoundException", 400):
        s3.put_object(Bucket=BUCKET, Key=prefix + "k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId="nobody-made-this")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)


@pytest.mark.parametrize("named", ["key-a", "arn:aws:kms:key-a", "arn:aws:kms:us-east-1:123456789012:key/key-a"])
def test_a_key_id_comes_back_as_it_was_named(s3, prefix, named):
    put_answer = s3.put_object(Bucket=BUCKET, Key=prefix + "k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=named)
    assert put_answer["SSEKMSKeyId"] == named
    assert s3.head_object(Bucket=BUCKET, Key=prefix + "k")["SSEKMSKeyId"] == named


def test_an_encryption_context_is_kept_and_answered(s3, prefix):
    context = base64.b64encode(json.dumps({"team": "lake"}).encode()).decode()
    s3.put_object(Bucket=BUCKET, Key=prefix + "k", Body=b"x", **KMS_A.on_write, SSEKMSEncryptionContext=context)
    headers = s3.head_object(Bucket=BUCKET, Key=prefix + "k")["ResponseMetadata"]["HTTPHeaders"]
    assert json.loads(base64.b64decode(headers["x-amz-server-side-encryption-context"])) == {"team": "lake"}


# ---- plain http ----


@pytest.mark.parametrize("operation", ["put", "get", "head", "create", "copy"])
def test_the_plain_listener_refuses_customers_keys(stack, s3, prefix, operation):
    key = {"Bucket": BUCKET, "Key": prefix + "c"}
    s3.put_object(**key, Body=b"secret", **SSE_C.on_write)
    plain = stack.client(stack.proxy_http)
    calls = {
        "put": lambda: plain.put_object(Bucket=BUCKET, Key=prefix + "new", Body=b"x", **SSE_C.on_write),
        "get": lambda: plain.get_object(**key, **SSE_C.on_read),
        "head": lambda: plain.head_object(**key, **SSE_C.on_read),
        "create": lambda: plain.create_multipart_upload(Bucket=BUCKET, Key=prefix + "new", **SSE_C.on_write),
        "copy": lambda: plain.copy_object(Bucket=BUCKET, Key=prefix + "new", CopySource=key, **SSE_C.on_copy_source),
    }
    with refused(("InvalidRequest", "400"), 400):
        calls[operation]()
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]] == [prefix + "c"]


def test_head_on_plain_http_leaves_out_only_the_buckets_own_key(stack, s3, prefix):
    """What lets SDK v1 rename on an http endpoint; see the Spark rows for the whole of it."""
    for name, kind in (("none", NONE), ("a", KMS_A)):
        s3.put_object(Bucket=BUCKET, Key=prefix + name, Body=b"x", **kind.on_write)
    plain = stack.client(stack.proxy_http)
    assert "SSEKMSKeyId" not in plain.head_object(Bucket=BUCKET, Key=prefix + "none")
    assert plain.head_object(Bucket=BUCKET, Key=prefix + "none")["ServerSideEncryption"] == "aws:kms"
    assert plain.get_object(Bucket=BUCKET, Key=prefix + "none")["SSEKMSKeyId"] == "lake-key"
    assert plain.put_object(Bucket=BUCKET, Key=prefix + "none", Body=b"y")["SSEKMSKeyId"] == "lake-key"
    assert stack.client(stack.proxy_https).head_object(Bucket=BUCKET, Key=prefix + "none")["SSEKMSKeyId"] == "lake-key"
