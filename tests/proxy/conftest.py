"""What the tests of the proxy and the gateway share: a MinIO with a key, certificates, and a gateway before two stores."""

from __future__ import annotations

import pytest
from gateway_rows import ROWS
from harness.gateway import Gateway, Store
from harness.minio import KEY_ENVIRONMENT, PASSWORD, USER, Minio
from harness.proxy import Certificates


@pytest.fixture(scope="session")
def minio(tmp_path_factory, tools) -> Minio:
    """A MinIO that encrypts with the key of its environment."""
    tools.ensure("minio", "mc")
    server = Minio(tmp_path_factory.mktemp("minio"), KEY_ENVIRONMENT).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def stores(stack, minio) -> dict:
    """Clients straight at the two stores, which have a bucket for each row of the gateway's matrix."""
    clients = {"moat": stack.client(), "minio": minio.client()}
    for row in ROWS:
        clients[row.store].create_bucket(Bucket=row.bucket)
    return clients


@pytest.fixture(scope="session")
def gateway(stack, minio, stores, certificates, tmp_path_factory):
    """A gateway before both stores, with the rules of the matrix."""
    behind = {"moat": Store(stack.store, *stack.root_credentials(), stack.ca), "minio": Store(minio.url, USER, PASSWORD)}
    rules = [rule for row in ROWS if (rule := row.rule())]
    with Gateway(tmp_path_factory.mktemp("gateway"), certificates, behind, {row.bucket: row.store for row in ROWS}, rules) as running:
        yield running
        assert running.stop() == 0
