"""The gateway's matrix, with the SDKs and command lines that people have; Spark has a file of its own.

Each client works at each row as it does anywhere, with credentials that only the gateway knows. Contents have to be right, and
everything that lies at the store has to be under the row's key, as the store itself says when it is asked directly.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import sigv4
from gateway_rows import ROWS, Row, assert_sealed, by_name
from harness.course import run_boto3
from harness.gateway import ACCESS_KEY, SECRET_KEY
from harness.java import JavaClient
from support import body, read

SDKS = ("boto3", "boto3-1.24", "java-v1", "java-v2")
# What a course leaves: objects, copies, what went up in parts, what was presigned, and an SDK's own.
OBJECTS_MIN = 6
COMMAND_SECONDS_MAX = 120
# A body of so many MiB may take a quarter of its size in memory, which is what a busy process takes anyway.
STREAMED_MIB = 96

rows = pytest.mark.parametrize("row", ROWS, ids=by_name)


@pytest.fixture(scope="module", params=SDKS)
def course(request, gateway, tmp_path_factory) -> tuple[str, dict[str, str]]:
    """An SDK, and what came of its course at every row."""
    name = request.param
    targets = [row.target(gateway, name) for row in ROWS]
    credentials = (ACCESS_KEY, SECRET_KEY)
    if name.startswith("boto3"):
        tool = "client" if name == "boto3" else name
        return name, run_boto3(tool, targets, *credentials, gateway.certificates.ca)
    java = JavaClient(name.removeprefix("java-"), tmp_path_factory.mktemp("java"))
    return name, java.run(targets, *credentials, gateway.certificates.truststore)


@rows
def test_sdk(course, stores, row: Row):
    client, results = course
    assert results[row.bucket] == "ok"
    prefix = f"{client}/"
    if row.asks:
        # A presigned URL names no encryption, so that its object got what its store gives to everything.
        stores[row.store].delete_object(Bucket=row.bucket, Key=f"{prefix}presigned/a key")
    assert_sealed(stores[row.store], row, prefix, OBJECTS_MIN)


# ---- command lines ----


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Files under several names; the largest goes up in parts."""
    root = tmp_path_factory.mktemp("tree")
    for name, size in {"empty": 0, "small.txt": 100, "folder/ünïcode +%.bin": 70_000, "large.bin": 20 << 20}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body(name, size))
    return root


def assert_same_tree(one: Path, other: Path) -> None:
    names = [sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) for root in (one, other)]
    assert names[0] == names[1]
    assert filecmp.cmpfiles(one, other, names[0], shallow=False)[1:] == ([], [])


def run(argv: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, input="")
    assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@rows
def test_aws(gateway, stores, tools, tree, tmp_path, row: Row):
    tools.ensure("aws")
    env = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CA_BUNDLE": str(gateway.certificates.ca), "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    place = f"s3://{row.bucket}/aws/"
    sse = ("--sse", "aws:kms", "--sse-kms-key-id", row.key) if row.asks else ()
    aws = lambda *words: run([tools.program("aws"), "--endpoint-url", getattr(gateway, row.listener), *words], env)  # noqa: E731
    # The empty file by itself: botocore takes the answer to it, which needs no 100 Continue, for the beginning of the next one
    # on that connection, and waits for its end (seen without any proxy, too).
    aws("s3", "cp", "--quiet", str(tree / "empty"), place, *sse)
    aws("s3", "cp", "--quiet", "--recursive", "--exclude", "empty", str(tree), place, *sse)
    aws("s3", "cp", "--quiet", f"{place}large.bin", f"{place}copy/large.bin", *sse)
    aws("s3", "sync", "--quiet", place, str(tmp_path / "down"), "--exclude", "copy/*")
    assert_same_tree(tree, tmp_path / "down")
    head = json.loads(aws("s3api", "head-object", "--bucket", row.bucket, "--key", "aws/copy/large.bin"))
    assert (head["ContentLength"], head["ServerSideEncryption"]) == (20 << 20, "aws:kms")
    assert_sealed(stores[row.store], row, "aws/", 5)


@rows
def test_mc(gateway, stores, tools, tree, tmp_path, row: Row):
    tools.ensure("mc")
    config = tmp_path / "mc"
    (config / "certs" / "CAs").mkdir(parents=True)
    shutil.copy(gateway.certificates.ca, config / "certs" / "CAs" / "ca.pem")
    host = getattr(gateway, row.listener).replace("://", f"://{ACCESS_KEY}:{SECRET_KEY}@")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MC_HOST_gw": host}
    place = f"gw/{row.bucket}/mc"
    sse = ("--enc-kms", f"gw/{row.bucket}={row.key}") if row.asks else ()
    mc = lambda *words: run([tools.program("mc"), "--config-dir", str(config), "--quiet", *words], env)  # noqa: E731
    mc("cp", "--recursive", *sse, f"{tree}/", f"{place}/")
    mc("cp", *sse, f"{place}/large.bin", f"{place}/copy/large.bin")
    mc("mirror", "--exclude", "copy/*", place, str(tmp_path / "down"))
    assert_same_tree(tree, tmp_path / "down")
    assert json.loads(mc("--json", "stat", f"{place}/copy/large.bin"))["size"] == 20 << 20
    assert_sealed(stores[row.store], row, "mc/", 5)


def test_a_body_is_streamed_and_not_kept(gateway, stores):
    """In signed chunks, which the gateway checks one by one and frames anew."""
    row = next(row for row in ROWS if (row.store, row.listener, row.way) == ("minio", "http", "rule"))
    chunks = [body(n, 1 << 20) for n in range(STREAMED_MIB)]
    before = gateway.process.rss_bytes_max()
    with sigv4.Connection(gateway) as connection:
        for piece in connection.signed_chunks("PUT", f"/{row.bucket}/streamed", chunks):
            connection.send(piece)
        assert connection.answer("PUT").status == 200
    assert gateway.process.rss_bytes_max() - before < STREAMED_MIB << 18
    assert read(stores[row.store], row.bucket, "streamed") == b"".join(chunks)
