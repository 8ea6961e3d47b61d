"""Fixtures of the end-to-end tests: a `moat up` of their own on free ports and temporary folders, and clients for it.

The tests run the program that MOAT_BIN names (else the newest build) as its users do: over its sockets, with real clients.
Most share one server; those that break, stop or starve it start their own with `new_stack`.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(Path(__file__).resolve().parent)]

from harness.process import end_on_signals  # noqa: E402
from harness.stack import Stack  # noqa: E402

# `lake` and `other` have SSE-KMS rules with keys of their own; `plain` has no rule, so its objects get SSE-S3.
BUCKETS = ("lake", "other", "plain=none")
# Keys that exist beside those of the buckets.
KEYS = ("key-a", "key-b")


def pytest_configure(config) -> None:
    end_on_signals()


@pytest.fixture(scope="session")
def stack(tmp_path_factory) -> Stack:
    """The server that most tests share."""
    with Stack(tmp_path_factory.mktemp("moat") / "data", buckets=BUCKETS) as running:
        for key in KEYS:
            running.moat("kms", "key", "create", key)
        yield running
        code = running.stop()
        assert code == 0, f"moat up ended with {code} after SIGTERM:\n{running.log.read_text()[-3000:]}"


@pytest.fixture
def new_stack(tmp_path):
    """Makes servers for one test alone, and ends what is left of them."""
    made: list[Stack] = []

    def make(**settings) -> Stack:
        stack = Stack(tmp_path / f"data{len(made)}", buckets=settings.pop("buckets", BUCKETS), **settings)
        made.append(stack)
        return stack

    yield make
    for stack in made:
        if stack.process is not None:
            stack.process.kill()


@pytest.fixture
def s3(stack):
    """A boto3 client at the store's own endpoint."""
    return stack.client()


@pytest.fixture
def bucket(s3) -> str:
    """A fresh bucket without a rule."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def prefix() -> str:
    """A place in a shared bucket that no other test writes to."""
    return f"{uuid.uuid4().hex[:12]}/"


@pytest.fixture(scope="session")
def tools():
    """The pinned tools; what is missing is installed when a test asks for it."""
    import tools as module

    return module


@pytest.fixture
def clean_env(stack, tmp_path) -> dict[str, str]:
    """An environment for command-line clients: credentials and trust, a home of their own, nothing else."""
    access_key, secret_key = stack.root_credentials()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": str(stack.ca),
        "AWS_EC2_METADATA_DISABLED": "true",
        "SSL_CERT_FILE": str(stack.ca),
    }
