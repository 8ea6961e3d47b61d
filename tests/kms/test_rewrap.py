"""Rotation, `moat kms rewrap`, and the destruction of the old version: what was rewrapped stays, the rest is gone."""

from __future__ import annotations

import json
import urllib.error

import pytest
from harness.stack import Stack
from support import refused

# Short, so that a store asks again soon after a version was destroyed.
LEASE_SECONDS = 1


def rewrap(stack: Stack, *arguments: str) -> dict:
    return json.loads(stack.moat("kms", "rewrap", *arguments, "--json").stdout)


def rotate(stack: Stack, key: str) -> None:
    stack.moat("kms", "key", "rotate", key)


def destroy(stack: Stack, key: str, version: int) -> None:
    stack.moat("kms", "key", "delete", key, "--version", str(version), "--yes")


def test_data_outlives_an_old_version_where_it_was_rewrapped_and_only_there(new_stack):
    stack = new_stack(buckets=("lake=shared", "other=shared", "plain=none"), env={"MOAT_KMS_LEASE_TTL": f"{LEASE_SECONDS}s"})
    with stack:
        client = stack.client()
        for bucket in ("lake", "other"):
            client.put_object(Bucket=bucket, Key="old", Body=b"written before")
        client.put_object(Bucket="plain", Key="old", Body=b"of the store's own key")
        rotate(stack, "shared")
        done = rewrap(stack, "lake")
        assert (done["examined"], done["rewrapped"], done["refused"]) == (1, 1, [])
        assert done["versions"] == {"shared": 2}
        assert rewrap(stack, "lake")["rewrapped"] == 0, "a repetition has nothing to do"

        destroy(stack, "shared", 1)
        # Restarted, so that no lease is left: now everything has to be opened again.
        assert stack.stop() == 0
        stack.start()
        client = stack.client()
        assert client.get_object(Bucket="lake", Key="old")["Body"].read() == b"written before"
        with refused("ObjectDamaged", 400):
            client.get_object(Bucket="other", Key="old")["Body"].read()
        assert client.get_object(Bucket="plain", Key="old")["Body"].read() == b"of the store's own key"
        client.put_object(Bucket="lake", Key="new", Body=b"after")
        assert client.get_object(Bucket="lake", Key="new")["Body"].read() == b"after"

        # What can't be rewrapped any more is told, and the rest is done.
        rotate(stack, "moat-default")
        said = stack.moat("kms", "rewrap", "--all", check=False)
        assert said.returncode == 1 and "other stays under shared@1" in said.stdout, said
        assert "moat-default: all that was asked for is under version 2" in said.stdout
        assert "EPOCH:REWRAP" in {line["operation"] for line in stack.audit() if "operation" in line}


def test_rewrap_is_for_root_alone(stack):
    url = f"{stack.store}/minio/moat/v1/rewrap"
    with pytest.raises(urllib.error.HTTPError) as caught:
        stack.fetch(url, method="POST", data=b"")
    assert caught.value.code == 403
    wrong = {"MOAT_ROOT_USER": "somebody", "MOAT_ROOT_PASSWORD": "not-the-password"}
    said = stack.moat("kms", "rewrap", "--all", check=False, env=wrong)
    assert said.returncode == 1 and "access key" in said.stderr.lower()
    said = stack.moat("kms", "rewrap", "no-such-bucket", check=False)
    assert said.returncode == 1 and "bucket" in said.stderr.lower()
