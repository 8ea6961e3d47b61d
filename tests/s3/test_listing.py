"""LIST v1 and v2 against a naive model: order, prefixes, delimiters, paging, encoding."""

from __future__ import annotations

import random

import pytest
from support import body, keys, refused

NAMES = sorted(
    [
        "a", "a/", "a/b", "a/b/c", "a/b/d", "a//b", "a-b", "a.b", "a b", "a+b", "a%b", "a%2Fb", "ab", "b/c/d", "b/c/e", "b/f", "c",
        "photos/2024/01.jpg", "photos/2024/02.jpg", "photos/2025/01.jpg", "photos/readme", "z/", "é/x", "é/y", "日本/語", "/lead", "//two",
        "./dot", "../dotdot", "_SUCCESS", "part-0000", "A", "Z", "~", "\U0001f511/key", "\uffee/low",
    ],
    key=lambda k: k.encode(),
)  # fmt: skip


@pytest.fixture(scope="module")
def filled(stack) -> str:
    s3 = stack.client()
    s3.create_bucket(Bucket="listing")
    # Written in another order than they are listed in.
    for name in random.Random(7).sample(NAMES, len(NAMES)):
        s3.put_object(Bucket="listing", Key=name, Body=name.encode())
    return "listing"


def model(prefix: str, delimiter: str, after: str = "") -> tuple[list[str], list[str]]:
    """What S3 says that a listing holds: keys, and common prefixes, both in the order of their UTF-8 bytes."""
    found, groups = [], []
    for name in NAMES:
        if not name.startswith(prefix) or name.encode() <= after.encode():
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut < 0:
            found.append(name)
        elif (group := name[: cut + len(delimiter)]) not in groups and not (after and group.encode() <= after.encode()):
            groups.append(group)
    return found, groups


def listed_v2(s3, bucket: str, page: int | None = None, **more) -> tuple[list[str], list[str]]:
    found, groups, token = [], [], {}
    while True:
        answer = s3.list_objects_v2(Bucket=bucket, **({"MaxKeys": page} if page else {}), **more, **token)
        contents, prefixes = answer.get("Contents", []), answer.get("CommonPrefixes", [])
        assert answer["KeyCount"] == len(contents) + len(prefixes)
        assert not page or answer["KeyCount"] <= page
        found += [o["Key"] for o in contents]
        groups += [p["Prefix"] for p in prefixes]
        if not answer["IsTruncated"]:
            assert "NextContinuationToken" not in answer
            return found, groups
        assert answer["KeyCount"] > 0, "a page that is empty and truncated makes clients loop"
        token = {"ContinuationToken": answer["NextContinuationToken"]}


PREFIXES = ["", "a", "a/", "a/b", "photos/", "photos/2024", "photos/2024/", "é", "é/", "none", "/", "//", "z/", "."]
DELIMITERS = ["", "/", "b", "2024", "%"]


@pytest.mark.parametrize("delimiter", DELIMITERS, ids=lambda d: f"delimiter={d}")
@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda p: f"prefix={ascii(p)}")
def test_v2_agrees_with_the_model_at_every_page_size(s3, filled, prefix, delimiter):
    wanted = model(prefix, delimiter)
    more = {"Prefix": prefix, **({"Delimiter": delimiter} if delimiter else {})}
    for page in (None, 1, 2, 7):
        assert listed_v2(s3, filled, page, **more) == wanted, page


@pytest.mark.parametrize("after", ["a", "a/b", "a/zzz", "photos/2024/01.jpg", "zzz", "~~~~", "é", "0"])
def test_start_after_begins_behind_the_key(s3, filled, after):
    assert listed_v2(s3, filled, 3, StartAfter=after) == model("", "", after)


def test_start_after_inside_a_group_leaves_the_group_out_only_if_it_is_behind(s3, filled):
    found, groups = listed_v2(s3, filled, Delimiter="/", StartAfter="photos/2024/02.jpg")
    # The group is not before the key: S3 still shows it, since keys of it follow.
    wanted_keys = [n for n in NAMES if "/" not in n and n.encode() > b"photos/2024/02.jpg"]
    assert found == wanted_keys
    assert [g for g in groups if g != "photos/"] == [g for g in model("", "/")[1] if g.encode() > b"photos/2024/02.jpg"]


def test_v1_pages_with_markers(s3, filled):
    for delimiter in ("", "/"):
        found, groups, marker = [], [], ""
        while True:
            more = {"Delimiter": delimiter} if delimiter else {}
            answer = s3.list_objects(Bucket=filled, MaxKeys=5, Marker=marker, **more)
            found += [o["Key"] for o in answer.get("Contents", [])]
            groups += [p["Prefix"] for p in answer.get("CommonPrefixes", [])]
            if not answer["IsTruncated"]:
                break
            # Without a delimiter S3 leaves NextMarker out, and the last key is the marker.
            marker = answer.get("NextMarker") or answer["Contents"][-1]["Key"]
        assert (found, groups) == model("", delimiter)


def test_listed_attributes_are_those_of_the_objects(s3, filled):
    answer = s3.list_objects_v2(Bucket=filled, Prefix="photos/", FetchOwner=True)
    for item in answer["Contents"]:
        head = s3.head_object(Bucket=filled, Key=item["Key"])
        assert (item["ETag"], item["Size"]) == (head["ETag"], head["ContentLength"])
        assert item["LastModified"].replace(microsecond=0) == head["LastModified"]
        assert item["StorageClass"] == "STANDARD"
        assert item["Owner"]["ID"]
    assert "Owner" not in s3.list_objects_v2(Bucket=filled, Prefix="photos/")["Contents"][0]


def test_limits_of_a_page(s3, filled):
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=0)["KeyCount"] == 0
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=0)["IsTruncated"] is False
    assert s3.list_objects_v2(Bucket=filled, MaxKeys=5000)["KeyCount"] == len(NAMES)
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=filled, MaxKeys=-1)
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=filled, ContinuationToken="not one of ours")


def test_2500_keys_come_in_order_over_several_pages(stack, bucket):
    s3 = stack.client(max_pool_connections=8)
    names = [f"{n:05}" for n in range(2500)]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: s3.put_object(Bucket=bucket, Key=n, Body=b""), names))
    first = s3.list_objects_v2(Bucket=bucket)
    assert (first["KeyCount"], first["IsTruncated"]) == (1000, True)
    assert keys(s3, bucket) == names


def test_a_listing_sees_every_change_at_once(s3, bucket):
    for n in range(20):
        s3.put_object(Bucket=bucket, Key=f"k{n:02}", Body=body(n, 10))
        assert len(keys(s3, bucket)) == n + 1
    for n in range(20):
        s3.delete_object(Bucket=bucket, Key=f"k{n:02}")
        assert len(keys(s3, bucket)) == 19 - n


def test_versions_are_listed_for_clean_up_tools(s3, filled):
    versions = s3.list_object_versions(Bucket=filled, Prefix="photos/")["Versions"]
    assert [v["Key"] for v in versions] == [n for n in NAMES if n.startswith("photos/")]
    assert all(v["IsLatest"] and v["VersionId"] == "null" for v in versions)
