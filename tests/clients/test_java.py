"""The AWS SDKs for Java, v1 and v2, with what they do by default: chunked signing, trailing checksums, parts in parallel.

Each runs its course straight at the store, through the proxy's listeners, and at a MinIO, alone and behind a proxy.
"""

from __future__ import annotations

import pytest
from harness.course import Target
from harness.java import VERSIONS, JavaClient
from harness.minio import KEY as MINIO_KEY
from harness.minio import KEY_ENVIRONMENT, PASSWORD, USER, Minio
from harness.proxy import Certificates, Proxy

# Where, and what the client asks for there: nothing, so that the bucket's rule decides, or an algorithm, with a key or without.
AT_MOAT = ("store rule", "store sse-s3", "https sse-kms", "http rule")
AT_MINIO = ("minio sse-kms", "https nothing", "http rule", "http sse-s3")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("java")


@pytest.fixture(scope="module", params=VERSIONS)
def java(request, work) -> JavaClient:
    return JavaClient(request.param, work)


def target(name: str, endpoint: str, version: str, ruled: str, plain: str, key: str, rule_key: str) -> Target:
    """The target of one of the names above; what asks for something itself does so in a bucket without a rule."""
    place, asked = name.split()
    bucket = ruled if asked == "rule" else plain
    algorithm, asked_key = {"sse-s3": ("AES256", None), "sse-kms": ("aws:kms", key)}.get(asked, (None, None))
    seen = ("aws:kms", rule_key) if asked == "rule" else (algorithm, asked_key)
    prefix = f"java-{version}/{name.replace(' ', '-')}/"
    return Target(name, endpoint, bucket, prefix, algorithm, asked_key, *seen, head_tells_key=place != "http")


def assert_all_ok(said: dict[str, str]) -> None:
    assert {name: what for name, what in said.items() if what != "ok"} == {}


def test_at_the_store_and_through_its_proxy(java, stack):
    endpoints = {"store": stack.store, "https": stack.proxy_https, "http": stack.proxy_http}
    targets = [target(name, endpoints[name.split()[0]], java.version, "lake", "plain", "key-a", "lake-key") for name in AT_MOAT]
    assert_all_ok(java.run(targets, *stack.root_credentials(), stack.data / "trust" / "truststore.jks"))


@pytest.fixture(scope="module")
def minio(work, tools) -> Minio:
    """A MinIO with one key, and a bucket whose rule names it."""
    tools.ensure("minio", "mc")
    server = Minio(work / "minio", KEY_ENVIRONMENT).start()
    client = server.client()
    for bucket in ("ruled", "plain"):
        client.create_bucket(Bucket=bucket)
    server.mc("encrypt", "set", "sse-kms", MINIO_KEY, "m/ruled")
    yield server
    server.kill()


def test_at_minio_and_through_a_proxy_before_it(java, minio, work):
    with Proxy(work / f"proxy-{java.version}", Certificates(work / f"pki-{java.version}"), f'upstreams = ["{minio.url}"]') as proxy:
        endpoints = {"minio": minio.url, "https": proxy.https, "http": proxy.http}
        targets = [target(name, endpoints[name.split()[0]], java.version, "ruled", "plain", MINIO_KEY, MINIO_KEY) for name in AT_MINIO]
        assert_all_ok(java.run(targets, USER, PASSWORD, proxy.certificates.truststore))
        assert proxy.stop() == 0
