"""The command-line clients that people have: aws, mc, rclone, s3cmd, each against a bucket whose rule is SSE-KMS.

rclone and s3cmd take an ETag that looks like an MD5 for one, and fail on a MinIO with such a rule ("corrupted on transfer").
"""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support import body, keys

BUCKET = "lake"
COMMAND_SECONDS_MAX = 180


def run(argv: list[str], env: dict[str, str], check: bool = True, given: str | None = None) -> subprocess.CompletedProcess:
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, input=given or "")
    if check:
        assert done.returncode == 0, f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Files of several sizes under several names; the largest goes up in parts."""
    root = tmp_path_factory.mktemp("tree")
    files = {"empty": 0, "small.txt": 100, "folder/medium.bin": 300_000, "folder/sub folder/ünïcode +%.bin": 70_000, "large.bin": 20 << 20}
    for name, size in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body(name, size))
    (root / "note.txt").write_text("a line of text\n")
    return root


def names(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def assert_same_tree(one: Path, other: Path) -> None:
    assert names(one) == names(other)
    matching, different, wrong = filecmp.cmpfiles(one, other, names(one), shallow=False)
    assert (different, wrong) == ([], [])


@pytest.fixture(params=["store", "proxy_https", "proxy_http"])
def endpoint(request, stack) -> str:
    return getattr(stack, request.param)


# ---- aws ----


@pytest.fixture
def aws(tools, clean_env, endpoint):
    tools.ensure("aws")
    return lambda *words, **more: run([tools.program("aws"), "--cli-read-timeout", "15", "--endpoint-url", endpoint, *words], clean_env, **more)


def test_aws_copies_syncs_lists_and_removes(aws, tree, prefix, tmp_path, s3):
    place = f"s3://{BUCKET}/{prefix}"
    aws("s3", "cp", "--recursive", str(tree), place)
    assert sorted(k.removeprefix(prefix) for k in keys(s3, BUCKET, Prefix=prefix)) == names(tree)
    aws("s3", "sync", place, str(tmp_path / "down"))
    assert_same_tree(tree, tmp_path / "down")
    assert aws("s3", "sync", str(tree), place).stdout == "", "nothing to do the second time"
    assert "folder/medium.bin" in aws("s3", "ls", "--recursive", place).stdout
    aws("s3", "mv", f"{place}small.txt", f"{place}moved.txt")
    aws("s3", "cp", f"{place}large.bin", f"{place}copied.bin")
    aws("s3", "cp", f"{place}moved.txt", str(tmp_path / "moved.txt"))
    assert (tmp_path / "moved.txt").read_bytes() == (tree / "small.txt").read_bytes()
    aws("s3", "rm", "--recursive", place)
    assert keys(s3, BUCKET, Prefix=prefix) == []


def test_aws_speaks_the_api(aws, prefix):
    answer = json.loads(aws("s3api", "put-object", "--bucket", BUCKET, "--key", prefix + "k", "--metadata", "a=b", "--checksum-algorithm", "SHA256").stdout)
    assert answer["ServerSideEncryption"] == "aws:kms"
    head = json.loads(aws("s3api", "head-object", "--bucket", BUCKET, "--key", prefix + "k", "--checksum-mode", "ENABLED").stdout)
    assert head["Metadata"] == {"a": "b"} and head["ChecksumSHA256"] == answer["ChecksumSHA256"]
    rule = json.loads(aws("s3api", "get-bucket-encryption", "--bucket", BUCKET).stdout)
    assert rule["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == "lake-key"
    assert aws("s3api", "head-object", "--bucket", BUCKET, "--key", prefix + "none", check=False).returncode != 0


# ---- mc ----


@pytest.fixture
def mc(tools, clean_env, endpoint, stack, tmp_path):
    tools.ensure("mc")
    config = tmp_path / "mc"
    (config / "certs" / "CAs").mkdir(parents=True)
    shutil.copy(stack.ca, config / "certs" / "CAs" / "ca.pem")
    call = lambda *words, **more: run([tools.program("mc"), "--config-dir", str(config), "--quiet", *words], clean_env, **more)  # noqa: E731
    call("alias", "set", "moat", endpoint, *stack.root_credentials())
    return call


def test_mc_makes_copies_mirrors_and_removes(mc, tree, tmp_path, prefix):
    bucket = f"moat/mc-{prefix.strip('/')}"
    mc("mb", bucket)
    mc("encrypt", "set", "sse-kms", "key-a", bucket)
    assert "key-a" in mc("encrypt", "info", bucket).stdout
    mc("mirror", str(tree), f"{bucket}/tree")
    mc("mirror", f"{bucket}/tree", str(tmp_path / "down"))
    assert_same_tree(tree, tmp_path / "down")
    assert mc("cat", f"{bucket}/tree/note.txt").stdout == "a line of text\n"
    mc("cp", f"{bucket}/tree/large.bin", f"{bucket}/copied.bin")
    stat = json.loads(mc("--json", "stat", f"{bucket}/copied.bin").stdout)
    assert stat["size"] == 20 << 20
    listed = [json.loads(line)["key"] for line in mc("--json", "ls", "--recursive", bucket).stdout.splitlines()]
    assert sorted(listed) == sorted([f"tree/{n}" for n in names(tree)] + ["copied.bin"])
    # A stream of unknown length is an upload in parts, completed with the checksum of the object.
    mc("pipe", f"{bucket}/piped", given="from a pipe")
    assert mc("cat", f"{bucket}/piped").stdout == "from a pipe"
    mc("stat", bucket)
    mc("rm", "--recursive", "--force", bucket)
    mc("rb", bucket)


def test_mc_sees_that_the_server_is_ready(mc):
    mc("ready", "moat")


# ---- rclone ----


@pytest.fixture
def rclone(tools, clean_env, endpoint, stack):
    try:
        tools.ensure("rclone")
    except tools.ToolError as error:
        pytest.skip(f"rclone cannot be installed here: {error}")
    access_key, secret_key = stack.root_credentials()
    # rclone's own --ca-cert says whom to trust; the SDK inside it stumbles over AWS_CA_BUNDLE.
    env = {
        **{k: v for k, v in clean_env.items() if not k.startswith("AWS_")}, "RCLONE_CONFIG_MOAT_TYPE": "s3", "RCLONE_CONFIG_MOAT_PROVIDER": "Other", "RCLONE_CONFIG_MOAT_ENDPOINT": endpoint,
        "RCLONE_CONFIG_MOAT_ACCESS_KEY_ID": access_key, "RCLONE_CONFIG_MOAT_SECRET_ACCESS_KEY": secret_key, "RCLONE_CONFIG_MOAT_REGION": "us-east-1",
    }  # fmt: skip
    return lambda *words, **more: run([tools.program("rclone"), "--ca-cert", str(stack.ca), "--retries", "1", *words], env, **more)


def test_rclone_syncs_both_ways_and_checks(rclone, tree, prefix, tmp_path):
    place = f"moat:{BUCKET}/{prefix}rclone"
    rclone("sync", str(tree), place)
    rclone("check", "--download", str(tree), place)
    rclone("sync", place, str(tmp_path / "down"))
    assert_same_tree(tree, tmp_path / "down")
    again = rclone("sync", "--stats-log-level", "NOTICE", "--stats-one-line", "-v", str(tree), place)
    assert "Copied (" not in again.stderr, "nothing to do the second time"
    rclone("moveto", f"{place}/small.txt", f"{place}/moved.txt")
    rclone("purge", place)


# ---- s3cmd ----


@pytest.fixture
def s3cmd(tools, clean_env, endpoint, stack, tmp_path):
    tools.ensure("s3cmd")
    access_key, secret_key = stack.root_credentials()
    host = endpoint.split("://")[1]
    config = tmp_path / "s3cfg"
    config.write_text(
        f"[default]\naccess_key = {access_key}\nsecret_key = {secret_key}\nhost_base = {host}\nhost_bucket = {host}\n"
        f"use_https = {endpoint.startswith('https')}\nca_certs_file = {stack.ca}\nbucket_location = us-east-1\nmultipart_chunk_size_mb = 5\n"
    )
    return lambda *words, **more: run([tools.program("s3cmd"), "-c", str(config), "--no-progress", *words], clean_env, **more)


def test_s3cmd_syncs_both_ways_and_sees_that_nothing_changed(s3cmd, tree, prefix, tmp_path):
    place = f"s3://{BUCKET}/{prefix}s3cmd/"
    s3cmd("sync", f"{tree}/", place)
    again = s3cmd("sync", f"{tree}/", place).stdout
    assert "upload:" not in again, f"files are sent again and again:\n{again}"
    down = tmp_path / "down"
    down.mkdir()
    s3cmd("sync", place, f"{down}/")
    assert_same_tree(tree, down)
    assert "small.txt" in s3cmd("ls", "--recursive", place).stdout
    s3cmd("del", "--recursive", "--force", place)
