"""A key manager, and MinIO servers that use it in each of the ways that there are."""

from __future__ import annotations

import pytest
from harness.kms import WAYS, Kms
from harness.minio import Minio


@pytest.fixture(scope="session")
def kms(tmp_path_factory, tools):
    tools.ensure("minio", "mc")
    running = Kms(tmp_path_factory.mktemp("kms"))
    yield running
    running.end()


@pytest.fixture(scope="module", params=WAYS)
def way(request) -> str:
    """How MinIO reaches its key manager."""
    return request.param


@pytest.fixture(scope="module")
def minio(way, kms, tmp_path_factory):
    """A MinIO that most tests share, once for each way."""
    folder = tmp_path_factory.mktemp(way)
    server = Minio(folder, kms.minio(way, folder)).start()
    server.client().create_bucket(Bucket="lake")
    yield server
    server.kill()


@pytest.fixture
def key(kms, minio, way, request) -> str:
    """A KMS key that no other test uses, made as MinIO's administrators do it."""
    name = f"minio-{way}-{request.node.originalname}"[:60].replace("_", "-").strip("-")
    with kms.audited(name, KEY_CREATE=1):
        minio.mc("admin", "kms", "key", "create", "m", name)
    return name
