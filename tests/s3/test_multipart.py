"""Multipart uploads whole: parts out of order and again, listings, errors by their codes, completion twice, copies of parts."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import PART_MIN, body, keys, multipart, read, refused, takes


@pytest.fixture
def upload(s3, bucket):
    """An open upload: the parameters that name it."""
    started = s3.create_multipart_upload(Bucket=bucket, Key="big", Metadata={"who": "me"}, ContentType="text/big")
    return {"Bucket": bucket, "Key": "big", "UploadId": started["UploadId"]}


def parts_of(tags: dict[int, str]) -> dict:
    return {"Parts": [{"PartNumber": n, "ETag": tag} for n, tag in sorted(tags.items())]}


def test_parts_arrive_in_any_order_and_again(s3, bucket, upload):
    contents = {1: body(1, PART_MIN), 2: body(2, PART_MIN + 1), 7: body(7, 1234)}
    tags = {}
    for number in (7, 1, 2):
        s3.upload_part(**upload, PartNumber=number, Body=b"an earlier try")
        tags[number] = s3.upload_part(**upload, PartNumber=number, Body=contents[number])["ETag"]
    done = s3.complete_multipart_upload(**upload, MultipartUpload=parts_of(tags))
    whole = b"".join(contents[n] for n in (1, 2, 7))
    assert read(s3, bucket, "big") == whole
    head = s3.head_object(Bucket=bucket, Key="big")
    assert (head["ContentLength"], head["Metadata"], head["ContentType"]) == (len(whole), {"who": "me"}, "text/big")
    joined = hashlib.md5(b"".join(hashlib.md5(contents[n]).digest() for n in (1, 2, 7))).hexdigest()
    assert head["ETag"] == done["ETag"] == f'"{joined}-3"'
    assert keys(s3, bucket) == ["big"]


def test_ranges_and_part_numbers_of_a_multipart_object(s3, bucket):
    parts = [body(n, PART_MIN + n * 1000) for n in range(3)]
    multipart(s3, bucket, "big", parts)
    whole = b"".join(parts)
    for start, end in ((0, 10), (PART_MIN - 5, PART_MIN + 5), (PART_MIN - 70_000, 2 * PART_MIN + 70_000), (len(whole) - 3, len(whole))):
        assert read(s3, bucket, "big", Range=f"bytes={start}-{end - 1}") == whole[start:end]
    for number, part in enumerate(parts, start=1):
        got = s3.get_object(Bucket=bucket, Key="big", PartNumber=number)
        assert got["Body"].read() == part
        assert got["PartsCount"] == 3
        assert s3.head_object(Bucket=bucket, Key="big", PartNumber=number)["ContentLength"] == len(part)
    with refused(("InvalidPartNumber", "InvalidRange"), 416):
        s3.get_object(Bucket=bucket, Key="big", PartNumber=4)


def test_completion_is_idempotent(s3, bucket, upload):
    tags = {1: s3.upload_part(**upload, PartNumber=1, Body=b"only")["ETag"]}
    first = s3.complete_multipart_upload(**upload, MultipartUpload=parts_of(tags))
    again = s3.complete_multipart_upload(**upload, MultipartUpload=parts_of(tags))
    assert first["ETag"] == again["ETag"]
    assert read(s3, bucket, "big") == b"only"


def test_wrong_completions_have_their_codes_and_change_nothing(s3, bucket, upload):
    tags = {n: s3.upload_part(**upload, PartNumber=n, Body=body(n, PART_MIN if n == 1 else 100))["ETag"] for n in (1, 2, 3)}
    complete = lambda parts: s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})  # noqa: E731
    part = lambda n, tag=None: {"PartNumber": n, "ETag": tag or tags[n]}  # noqa: E731
    with refused("InvalidPart", 400):
        complete([part(1), part(4, tags[1])])
    with refused("InvalidPart", 400):
        complete([part(1, '"00000000000000000000000000000000"')])
    with refused("InvalidPartOrder", 400):
        complete([part(2), part(1)])
    with refused("InvalidPartOrder", 400):
        complete([part(1), part(1)])
    with refused("EntityTooSmall", 400):
        complete([part(1), part(2), part(3)])
    with refused("MalformedXML", 400):
        complete([])
    assert keys(s3, bucket) == []
    complete([part(1), part(3)])
    assert read(s3, bucket, "big") == body(1, PART_MIN) + body(3, 100)


@pytest.mark.parametrize("form", ["with the number of parts", "as minio-go writes it"])
def test_a_completion_states_the_checksum_of_the_object_and_not_of_its_document(s3, bucket, form):
    """`mc pipe` sends the composite value without the number of parts."""
    started = s3.create_multipart_upload(Bucket=bucket, Key="stated", ChecksumAlgorithm="SHA256")
    upload = {"Bucket": bucket, "Key": "stated", "UploadId": started["UploadId"]}
    contents = {1: body("a", PART_MIN), 2: b"the end"}
    sums = {n: base64.b64encode(hashlib.sha256(content).digest()).decode() for n, content in contents.items()}
    tags = {n: s3.upload_part(**upload, PartNumber=n, Body=content, ChecksumSHA256=sums[n])["ETag"] for n, content in contents.items()}
    parts = {"Parts": [{"PartNumber": n, "ETag": tags[n], "ChecksumSHA256": sums[n]} for n in (1, 2)]}
    joined = base64.b64encode(hashlib.sha256(b"".join(hashlib.sha256(contents[n]).digest() for n in (1, 2))).digest()).decode()
    suffix = "-2" if form == "with the number of parts" else ""
    for wrong in (sums[1] + suffix, joined + "-3"):
        with refused("BadDigest"):
            s3.complete_multipart_upload(**upload, MultipartUpload=parts, ChecksumSHA256=wrong)
    with refused("InvalidRequest"):
        s3.complete_multipart_upload(**upload, MultipartUpload=parts, ChecksumSHA256="no base64" + suffix)
    done = s3.complete_multipart_upload(**upload, MultipartUpload=parts, ChecksumSHA256=joined + suffix)
    assert done["ChecksumSHA256"] == joined + "-2"
    assert read(s3, bucket, "stated") == b"".join(contents.values())


def test_aborted_and_unknown_uploads_are_no_uploads(s3, bucket, upload):
    tag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    s3.abort_multipart_upload(**upload)
    calls = [
        lambda u: s3.upload_part(**u, PartNumber=1, Body=b"x"),
        lambda u: s3.list_parts(**u),
        lambda u: s3.complete_multipart_upload(**u, MultipartUpload=parts_of({1: tag})),
        lambda u: s3.abort_multipart_upload(**u),
    ]
    for place in (upload, {**upload, "UploadId": "unknown"}, {**upload, "Key": "another"}):
        for call in calls:
            with refused("NoSuchUpload", 404):
                call(place)
    assert keys(s3, bucket) == []


def test_part_numbers_are_1_to_10000(s3, upload):
    s3.upload_part(**upload, PartNumber=10_000, Body=b"x")
    for number in (0, 10_001):
        with refused("InvalidArgument", 400):
            s3.upload_part(**upload, PartNumber=number, Body=b"x")


def test_parts_are_listed_in_pages(s3, upload):
    tags = {n: s3.upload_part(**upload, PartNumber=n, Body=body(n, n))["ETag"] for n in (1, 3, 5, 10, 200)}
    found, marker = [], 0
    while True:
        page = s3.list_parts(**upload, MaxParts=2, PartNumberMarker=marker)
        found += [(p["PartNumber"], p["ETag"], p["Size"]) for p in page.get("Parts", [])]
        if not page["IsTruncated"]:
            break
        marker = page["NextPartNumberMarker"]
    assert found == [(n, tags[n], n) for n in (1, 3, 5, 10, 200)]


def test_open_uploads_are_listed_by_prefix_and_in_pages(s3, bucket):
    ids = {}
    for key in ("a/1", "a/2", "a/2", "b", "c/d/e", "ключ"):
        ids.setdefault(key, []).append(s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
    every = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [u["Key"] for u in every] == ["a/1", "a/2", "a/2", "b", "c/d/e", "ключ"]
    assert {u["UploadId"] for u in every} == {i for group in ids.values() for i in group}
    assert [u["Key"] for u in s3.list_multipart_uploads(Bucket=bucket, Prefix="a/")["Uploads"]] == ["a/1", "a/2", "a/2"]
    grouped = s3.list_multipart_uploads(Bucket=bucket, Delimiter="/")
    assert [p["Prefix"] for p in grouped["CommonPrefixes"]] == ["a/", "c/"]
    assert [u["Key"] for u in grouped["Uploads"]] == ["b", "ключ"]
    paged, markers = [], {}
    while True:
        page = s3.list_multipart_uploads(Bucket=bucket, MaxUploads=2, **markers)
        paged += [(u["Key"], u["UploadId"]) for u in page["Uploads"]]
        if not page["IsTruncated"]:
            break
        markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert paged == [(u["Key"], u["UploadId"]) for u in every]
    for key, upload_id in paged:
        s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload_id)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_parts_can_be_copied_whole_and_by_ranges(s3, bucket, upload):
    source = body("source", 2 * PART_MIN)
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    where = {"Bucket": bucket, "Key": "source"}
    whole = s3.upload_part_copy(**upload, PartNumber=1, CopySource=where)["CopyPartResult"]["ETag"]
    ranged = s3.upload_part_copy(**upload, PartNumber=2, CopySource=where, CopySourceRange=f"bytes=100-{PART_MIN + 99}")["CopyPartResult"]["ETag"]
    for bad in ("bytes=0-99999999", "bytes=-5", "bytes=5-"):
        with refused(("InvalidArgument", "InvalidRange", "InvalidRequest")):
            s3.upload_part_copy(**upload, PartNumber=3, CopySource=where, CopySourceRange=bad)
    s3.delete_object(**where)
    s3.complete_multipart_upload(**upload, MultipartUpload=parts_of({1: whole, 2: ranged}))
    assert read(s3, bucket, "big") == source + source[100 : PART_MIN + 100]


def test_conditional_completion_has_one_winner(s3, bucket, upload):
    if not takes(s3, "CompleteMultipartUpload", "IfNoneMatch"):
        pytest.skip("this boto3 has no conditional completion")
    tag = s3.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    s3.put_object(Bucket=bucket, Key="big", Body=b"first")
    with refused("PreconditionFailed", 412):
        s3.complete_multipart_upload(**upload, MultipartUpload=parts_of({1: tag}), IfNoneMatch="*")
    assert read(s3, bucket, "big") == b"first"
    s3.delete_object(Bucket=bucket, Key="big")
    s3.complete_multipart_upload(**upload, MultipartUpload=parts_of({1: tag}), IfNoneMatch="*")
    assert read(s3, bucket, "big") == b"x"


def test_the_transfer_manager_round_trips_a_large_file(stack, bucket, tmp_path):
    s3 = stack.client(max_pool_connections=10)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(body("large", 40 << 20))
    s3.upload_file(str(source), bucket, "large")
    assert "-" in s3.head_object(Bucket=bucket, Key="large")["ETag"]
    s3.download_file(bucket, "large", str(target))
    assert target.read_bytes() == source.read_bytes()


def test_parts_in_parallel_make_one_object(stack, bucket):
    s3 = stack.client(stack.proxy_https, max_pool_connections=8)
    started = s3.create_multipart_upload(Bucket=bucket, Key="big")
    place = {"Bucket": bucket, "Key": "big", "UploadId": started["UploadId"]}
    contents = {n: body(n, PART_MIN) for n in range(1, 9)}
    with ThreadPoolExecutor(8) as pool:
        tags = dict(pool.map(lambda n: (n, s3.upload_part(**place, PartNumber=n, Body=contents[n])["ETag"]), contents))
    s3.complete_multipart_upload(**place, MultipartUpload=parts_of(tags))
    assert read(s3, bucket, "big") == b"".join(contents.values())
