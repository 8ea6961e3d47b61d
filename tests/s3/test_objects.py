"""Objects and buckets as S3 has them: create, read, update, delete, ranges, conditions, metadata, presigned URLs."""

from __future__ import annotations

import base64
import datetime

import boto3
import pytest
from botocore.exceptions import FlexibleChecksumError, MissingDependencyException
from botocore.handlers import validate_bucket_name
from support import body, keys, md5, needs, read, refused

ODD_KEYS = [
    "plain", "with space", "plus+plus", "percent%20sign", "percent%zz", "a//b", "/leading", "trailing/", "a/./b", "a/../b", "..", ".",
    "unicode-ключ-鍵-🔑", "quote'\"quote", "amp&lt<gt>", "question?mark", "hash#mark", "semi;colon:at@eq=", "comma,star*tilde~", "back\\slash",
    "new\nline", "tab\ttab", "a" * 1024, "é", "e\u0301",
]  # fmt: skip


def test_what_is_put_is_what_is_got(s3, bucket):
    for size in (0, 1, 65_535, 65_536, 65_537, 200_000, 3_000_000):
        content = body(size, size)
        put = s3.put_object(Bucket=bucket, Key=f"size-{size}", Body=content)
        got = s3.get_object(Bucket=bucket, Key=f"size-{size}")
        assert got["Body"].read() == content
        assert got["ContentLength"] == size
        assert got["ETag"] == put["ETag"] == f'"{md5(content)}"', "an SSE-S3 object's ETag is its MD5"
        head = s3.head_object(Bucket=bucket, Key=f"size-{size}")
        assert (head["ContentLength"], head["ETag"]) == (size, put["ETag"])
        assert head["ServerSideEncryption"] == "AES256"


def test_an_overwrite_replaces_content_and_metadata(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"one", Metadata={"a": "1"}, ContentType="text/one")
    s3.put_object(Bucket=bucket, Key="k", Body=b"second")
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"second"
    assert got["Metadata"] == {}
    assert got["ContentType"] == "binary/octet-stream"


def test_delete_is_idempotent_and_deleted_is_gone(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=bucket, Key="k")
    with refused("404", 404):
        s3.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda k: ascii(k[:20]))
def test_odd_keys_are_taken_as_they_are(s3, bucket, key):
    s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert read(s3, bucket, key) == key.encode()
    assert keys(s3, bucket) == [key]
    s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": key})
    assert read(s3, bucket, "copy") == key.encode()
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}, {"Key": "copy"}]})
    assert sorted(d["Key"] for d in done["Deleted"]) == sorted([key, "copy"])
    assert keys(s3, bucket) == []


def test_a_key_over_1024_bytes_is_refused(s3, bucket):
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=bucket, Key="k" * 1025, Body=b"x")
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=bucket, Key="é" * 513, Body=b"x")


def test_files_and_folders_of_the_same_name_live_side_by_side(s3, bucket):
    for key in ("a", "a/", "a/b", "a/b/"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert keys(s3, bucket) == ["a", "a/", "a/b", "a/b/"]
    s3.delete_object(Bucket=bucket, Key="a/")
    assert keys(s3, bucket) == ["a", "a/b", "a/b/"]
    assert read(s3, bucket, "a") == b"a"


RANGES = [
    ("bytes=0-0", 0, 1), ("bytes=100-199", 100, 200), ("bytes=65530-65545", 65_530, 65_546), ("bytes=131071-131072", 131_071, 131_073),
    ("bytes=199990-", 199_990, 200_000), ("bytes=-10", 199_990, 200_000), ("bytes=-999999", 0, 200_000), ("bytes=0-999999", 0, 200_000),
    ("bytes=65536-131071", 65_536, 131_072),
]  # fmt: skip


@pytest.mark.parametrize("spec, start, end", RANGES, ids=[r[0] for r in RANGES])
def test_ranges_are_served_exactly(s3, bucket, spec, start, end):
    content = body("ranges", 200_000)
    s3.put_object(Bucket=bucket, Key="k", Body=content)
    got = s3.get_object(Bucket=bucket, Key="k", Range=spec)
    assert got["Body"].read() == content[start:end]
    assert got["ContentRange"] == f"bytes {start}-{end - 1}/200000"
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    head = s3.head_object(Bucket=bucket, Key="k", Range=spec)
    assert head["ContentLength"] == end - start


def test_a_range_outside_the_object_is_416(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    for spec in ("bytes=10-", "bytes=50-60", "bytes=-0"):
        with refused("InvalidRange", 416):
            s3.get_object(Bucket=bucket, Key="k", Range=spec)
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    with refused("InvalidRange", 416):
        s3.get_object(Bucket=bucket, Key="empty", Range="bytes=0-0")


def test_a_malformed_range_is_ignored_as_http_says(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=bucket, Key="k", Range="bytes=7-3")
    assert (got["ResponseMetadata"]["HTTPStatusCode"], got["Body"].read()) == (200, b"0123456789")


def test_conditions_on_get_and_head(s3, bucket):
    tag = s3.put_object(Bucket=bucket, Key="k", Body=b"content")["ETag"]
    modified = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    earlier, later = modified - datetime.timedelta(hours=1), modified + datetime.timedelta(hours=1)
    for call in (s3.get_object, s3.head_object):
        place = {"Bucket": bucket, "Key": "k"}
        for good in ({"IfMatch": tag}, {"IfMatch": tag.strip('"')}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": earlier}, {"IfUnmodifiedSince": later}):
            assert call(**place, **good)["ETag"] == tag, good
        with refused(("PreconditionFailed", "412"), 412):
            call(**place, IfMatch='"other"')
        with refused(("PreconditionFailed", "412"), 412):
            call(**place, IfUnmodifiedSince=earlier)
        for unchanged in ({"IfNoneMatch": tag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": modified}):
            with refused("304", 304):
                call(**place, **unchanged)
        # RFC 9110: If-Match wins over If-Unmodified-Since, If-None-Match over If-Modified-Since.
        assert call(**place, IfMatch=tag, IfUnmodifiedSince=earlier)["ETag"] == tag
        with refused("304", 304):
            call(**place, IfNoneMatch=tag, IfModifiedSince=earlier)


def test_conditional_puts_have_one_winner(s3, bucket):
    needs(s3, "PutObject", "IfNoneMatch")
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert read(s3, bucket, "k") == b"first"
    needs(s3, "PutObject", "IfMatch")
    s3.put_object(Bucket=bucket, Key="k", Body=b"third", IfMatch=first)
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=bucket, Key="k", Body=b"fourth", IfMatch=first)
    assert read(s3, bucket, "k") == b"third"
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=bucket, Key="absent", Body=b"x", IfMatch=first)


def test_user_metadata_and_content_headers_come_back(s3, bucket):
    expires = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    s3.put_object(
        Bucket=bucket, Key="k", Body=b"x", Metadata={"Mixed-Case": "Value", "empty": "", "spaces": "a  b", "dash_under": "1"},
        ContentType="text/csv; charset=utf-8", ContentEncoding="gzip", ContentLanguage="de", ContentDisposition='attachment; filename="a b.csv"',
        CacheControl="max-age=60", Expires=expires,
    )  # fmt: skip
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["Metadata"] == {"mixed-case": "Value", "empty": "", "spaces": "a  b", "dash_under": "1"}
    assert head["ContentType"] == "text/csv; charset=utf-8"
    assert head["ContentEncoding"] == "gzip", "aws-chunked is a framing, not an encoding of the object"
    assert head["ContentLanguage"] == "de"
    assert head["ContentDisposition"] == 'attachment; filename="a b.csv"'
    assert head["CacheControl"] == "max-age=60"
    assert head["ResponseMetadata"]["HTTPHeaders"]["expires"] == "Tue, 06 May 2031 07:08:09 GMT"


def test_answers_can_be_given_other_headers(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ContentType="text/plain")
    got = s3.get_object(Bucket=bucket, Key="k", ResponseContentType="text/html", ResponseContentDisposition="inline", ResponseCacheControl="no-store")
    assert (got["ContentType"], got["ContentDisposition"], got["CacheControl"]) == ("text/html", "inline", "no-store")


def test_user_metadata_over_2_kib_is_refused(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "v" * 2000})
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=bucket, Key="k2", Body=b"x", Metadata={"m": "v" * 2100})
    assert keys(s3, bucket) == ["k"]


@pytest.mark.parametrize("endpoint", ["store", "proxy_https", "proxy_http"])
def test_presigned_urls_work_for_whoever_holds_them(stack, bucket, endpoint):
    s3 = stack.client(getattr(stack, endpoint))
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k é+ %"}, ExpiresIn=60)
    assert stack.fetch(url, method="PUT", data=b"by url").status == 200
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k é+ %"}, ExpiresIn=60)
    assert stack.fetch(url).read() == b"by url"
    with pytest.raises(OSError, match="403"):
        stack.fetch(url.replace("X-Amz-Expires=60", "X-Amz-Expires=61"))
    with pytest.raises(OSError, match="403"):
        stack.fetch(url, method="DELETE")


def test_buckets_are_made_found_and_removed(s3, bucket):
    assert s3.head_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"] == "us-east-1"
    assert bucket in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    with refused(("BucketAlreadyOwnedByYou", "BucketAlreadyExists"), 409):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    with refused("404", 404):
        s3.head_bucket(Bucket=bucket)
    for call in (s3.list_objects_v2, s3.get_bucket_location, s3.delete_bucket):
        with refused("NoSuchBucket", 404):
            call(Bucket=bucket)
    with refused("NoSuchBucket", 404):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_bad_bucket_names_are_refused(s3):
    for name in ("ab", "UPPER", "under_score", "a..b", "-lead", "192.168.1.1"):
        with refused(("InvalidBucketName",), 400):
            create_unchecked(s3, name)


def create_unchecked(s3, name: str) -> None:
    """boto3 checks names itself before anything is sent; the server is what is tested here."""
    handlers = boto3.client("s3", **connection(s3))
    handlers.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    handlers.create_bucket(Bucket=name)


def connection(s3) -> dict:
    credentials = s3._request_signer._credentials
    return {
        "endpoint_url": s3.meta.endpoint_url, "region_name": s3.meta.region_name, "aws_access_key_id": credentials.access_key,
        "aws_secret_access_key": credentials.secret_key, "verify": s3._endpoint.http_session._verify, "config": s3.meta.config,
    }  # fmt: skip


def test_bulk_delete_counts_missing_keys_as_deleted(s3, bucket):
    names = [f"k{n:04}" for n in range(1000)]
    for name in names[:50]:
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": n} for n in names]})
    assert len(done["Deleted"]) == 1000 and "Errors" not in done
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    quiet = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}, {"Key": "none"}], "Quiet": True})
    assert "Deleted" not in quiet and "Errors" not in quiet
    assert keys(s3, bucket) == []
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"k{n}"} for n in range(1001)]})


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
@pytest.mark.parametrize("endpoint", ["store", "proxy_http"])
def test_checksums_are_verified_and_kept(stack, bucket, algorithm, endpoint):
    s3 = stack.client(getattr(stack, endpoint))
    needs(s3, "PutObject", f"Checksum{algorithm}")
    try:
        put = s3.put_object(Bucket=bucket, Key="k", Body=body(algorithm, 100_000), ChecksumAlgorithm=algorithm)
    except (MissingDependencyException, FlexibleChecksumError):
        put = put_with_own_checksum(s3, bucket, algorithm)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    with refused(("BadDigest", "XAmzContentChecksumMismatch"), 400):
        wrong = {4: "AAAAAA==", 8: "AAAAAAAAAAA=", 20: "A" * 27 + "=", 32: "A" * 43 + "="}
        size = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}[algorithm]
        s3.put_object(Bucket=bucket, Key="k2", Body=b"content", **{f"Checksum{algorithm}": wrong[size]})
    assert keys(s3, bucket) == ["k"]


def put_with_own_checksum(s3, bucket: str, algorithm: str) -> dict:
    """boto3 computes CRC32C and CRC64NVME only with the awscrt package; here they are computed by hand."""
    content = body(algorithm, 100_000)
    value = {"CRC32C": crc32c, "CRC64NVME": crc64nvme}[algorithm](content)
    return s3.put_object(Bucket=bucket, Key="k", Body=content, **{f"Checksum{algorithm}": value})


def crc(content: bytes, width: int, reflected_polynomial: int) -> int:
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ reflected_polynomial if n & 1 else n >> 1
        table.append(n)
    ones = (1 << width) - 1
    value = ones
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ ones


def crc32c(content: bytes) -> str:
    return base64.b64encode(crc(content, 32, 0x82F63B78).to_bytes(4, "big")).decode()


def crc64nvme(content: bytes) -> str:
    return base64.b64encode(crc(content, 64, 0x9A6C9329AC4BC9B5).to_bytes(8, "big")).decode()


def test_bucket_encryption_can_be_set_read_and_removed(s3, bucket):
    def rule(algorithm: str, key: str | None = None) -> dict:
        default = {"SSEAlgorithm": algorithm, **({"KMSMasterKeyID": key} if key else {})}
        return {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}

    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule("aws:kms", "key-a"))
    stored = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert stored == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "key-a"}
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", "key-a")
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule("AES256"))
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256"
    s3.delete_bucket_encryption(Bucket=bucket)
    with refused("ServerSideEncryptionConfigurationNotFoundError", 404):
        s3.get_bucket_encryption(Bucket=bucket)
    assert s3.put_object(Bucket=bucket, Key="k", Body=b"x")["ServerSideEncryption"] == "AES256", "no rule means SSE-S3"
    with refused(("KMS.NotFoundException", "KMS.NotFound"), 400):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration=rule("aws:kms", "no-such-key"))
