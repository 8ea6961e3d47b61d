"""What the gateway refuses, and that the store behind it then hears nothing.

Requests are signed by hand and spoiled on purpose: the clock, the secret, a header, the query, one byte of one chunk. The
store is a recorder that would answer anything with 200.
"""

from __future__ import annotations

import datetime
import hashlib

import pytest
import sigv4
from harness.gateway import Gateway, Store
from harness.process import wait_until
from harness.recorder import Recorder
from support import body

# Further than any reader looks ahead: what stands behind it can only be judged after what stands before was sent on.
LARGE = 8 << 20


@pytest.fixture(scope="module")
def recorder():
    running = Recorder()
    yield running
    running.stop()


@pytest.fixture(scope="module", params=["http", "https"])
def gateway(request, recorder, certificates, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"gateway-{request.param}")
    with Gateway(folder, certificates, {"store": Store(recorder.url, "store-access", "store-secret")}) as running:
        running.listener = getattr(running, request.param)
        yield running
        assert running.stop() == 0


@pytest.fixture
def connect(gateway):
    """Connections to the gateway, as its user unless a test says otherwise."""
    made: list[sigv4.Connection] = []

    def make(**more) -> sigv4.Connection:
        made.append(sigv4.Connection(gateway, gateway.listener, **more))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def untouched(recorder):
    """Nothing must reach the store while the test runs."""
    before = len(recorder.requests)
    yield
    assert [f"{r.method} {r.target}" for r in recorder.requests[before:]] == []


def refused(answer: sigv4.Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer.body
    assert "x-amz-request-id" in answer.headers and b"<RequestId>" in answer.body
    assert b"127.0.0.1" not in answer.body, "where the store is concerns no client"


def ago(**what) -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(**what)


def test_a_good_request_passes_so_that_the_others_prove_something(connect, recorder):
    before = len(recorder.requests)
    assert connect().request("PUT", "/bucket/key", b"content").status == 200
    assert recorder.last.content == b"content" and len(recorder.requests) == before + 1
    assert "Credential=store-access/" in recorder.last.header("authorization")


# ---- who asks, and when ----


def test_a_wrong_secret(connect, untouched):
    refused(connect(secret="another secret").request("PUT", "/bucket/key", b"content"), 403, "SignatureDoesNotMatch")


def test_an_unknown_access_key(connect, untouched):
    refused(connect(access_key="NOBODY").request("GET", "/bucket/key"), 403, "InvalidAccessKeyId")


def test_the_credentials_of_the_store_open_nothing(connect, untouched):
    refused(connect(access_key="store-access", secret="store-secret").request("GET", "/bucket/key"), 403, "InvalidAccessKeyId")


def test_nobody(connect, untouched):
    connection = connect()
    connection.send(f"GET /bucket/key HTTP/1.1\r\nhost: {connection.host}\r\n\r\n".encode())
    refused(connection.answer(), 403, "AccessDenied")


@pytest.mark.parametrize("when", [{"minutes": 16}, {"minutes": -16}, {"days": 1}], ids=["late", "early", "yesterday"])
def test_a_clock_that_is_wrong(connect, untouched, when):
    refused(connect().request("GET", "/bucket/key", when=ago(**when)), 403, "RequestTimeTooSkewed")


# ---- what was signed ----


def replay(connect, old: str, new: str, *, method: str = "PUT", path: str = "/bucket/key", query: str = "", headers: dict | None = None) -> sigv4.Answer:
    """A good request with something else in its head."""
    connection = connect()
    head = connection.head(method, path, {"content-length": "7", **(headers or {})}, query=query).decode()
    assert head.count(old) == 1, head
    connection.send(head.replace(old, new).encode() + b"content")
    return connection.answer(method)


def test_a_changed_header(connect, untouched):
    answer = replay(connect, "x-amz-meta-to: alice", "x-amz-meta-to: mallory", headers={"x-amz-meta-to": "alice"})
    refused(answer, 403, "SignatureDoesNotMatch")


def test_a_signed_header_that_is_gone(connect, untouched):
    answer = replay(connect, "if-none-match: *\r\n", "", headers={"if-none-match": "*"})
    refused(answer, 403, "SignatureDoesNotMatch")


def test_another_key_bucket_or_method(connect, untouched):
    for old, new in (("/bucket/key HTTP", "/bucket/other HTTP"), ("/bucket/key HTTP", "/other/key HTTP"), ("PUT /", "DELETE /")):
        refused(replay(connect, old, new), 403, "SignatureDoesNotMatch")


def test_another_host(connect, untouched):
    connection = connect()
    head = connection.head("GET", "/bucket/key").decode().replace(f"host: {connection.host}", "host: elsewhere.example")
    connection.send(head.encode())
    refused(connection.answer(), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    "old, new", [("?versionId=1 ", "?versionId=2 "), ("?versionId=1 ", "?versionId=1&acl= "), ("?versionId=1 ", " ")], ids=["changed", "added", "gone"]
)
def test_a_changed_query(connect, untouched, old, new):
    refused(replay(connect, old, new, query="versionId=1"), 403, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    "header", ["x-amz-acl: public-read", "x-amz-server-side-encryption: AES256", "x-amz-copy-source: /bucket/secret", "x-amz-meta-added: 1"]
)
def test_an_instruction_that_nobody_signed(connect, untouched, header):
    """Else whoever sees a request could add to it; what is signed anew for the store must have been signed by the client."""
    refused(replay(connect, "host: ", f"{header}\r\nhost: "), 403, "AccessDenied")


# ---- presigned URLs ----


def get(connect, query: str, method: str = "GET", path: str = "/bucket/key", headers: str = "") -> sigv4.Answer:
    connection = connect()
    connection.send(f"{method} {path}?{query} HTTP/1.1\r\nhost: {connection.host}\r\n{headers}\r\n".encode())
    return connection.answer(method)


def test_a_presigned_url_passes_without_its_signature(connect, recorder):
    assert get(connect, connect().presigned("GET", "/bucket/key", query="response-content-type=text%2Fx")).status == 200
    assert recorder.last.query == ["response-content-type=text%2Fx"]
    assert "Credential=store-access/" in recorder.last.header("authorization")


def test_an_expired_url(connect, untouched):
    refused(get(connect, connect().presigned("GET", "/bucket/key", expires=60, when=ago(minutes=2))), 403, "AccessDenied")


def test_a_url_of_the_future(connect, untouched):
    answer = get(connect, connect().presigned("GET", "/bucket/key", when=ago(minutes=-30)))
    assert answer.status == 403 and answer.code in ("AccessDenied", "RequestTimeTooSkewed"), answer.body


def test_a_url_that_would_live_for_months(connect, untouched):
    answer = get(connect, connect().presigned("GET", "/bucket/key", expires=90 * 86400))
    assert answer.status in (400, 403) and answer.code in ("AuthorizationQueryParametersError", "AccessDenied"), answer.body


def test_a_url_whose_life_was_prolonged(connect, untouched):
    query = connect().presigned("GET", "/bucket/key", expires=60, when=ago(minutes=2))
    refused(get(connect, query.replace("X-Amz-Expires=60", "X-Amz-Expires=600")), 403, "SignatureDoesNotMatch")


def test_a_url_for_another_key_or_method(connect, untouched):
    query = connect().presigned("GET", "/bucket/key")
    refused(get(connect, query, path="/bucket/other"), 403, "SignatureDoesNotMatch")
    refused(get(connect, query, method="DELETE"), 403, "SignatureDoesNotMatch")
    refused(get(connect, f"{query}&versionId=1"), 403, "SignatureDoesNotMatch")


def test_a_url_with_an_instruction_that_nobody_signed(connect, untouched):
    query = connect().presigned("PUT", "/bucket/key")
    refused(get(connect, query, method="PUT", headers="content-length: 0\r\nx-amz-copy-source: /bucket/secret\r\n"), 403, "AccessDenied")


# ---- bodies ----


def test_another_body_than_the_signed_one(connect, untouched):
    digest = hashlib.sha256(b"content").hexdigest()
    refused(connect().request("PUT", "/bucket/key", b"CONTENT", payload_hash=digest), 400, "XAmzContentSHA256Mismatch")


def test_signed_chunks_arrive_as_they_were(connect, recorder):
    chunks = [body("a", 70_000), body("b", 70_000), b"end"]
    connection = connect()
    connection.send(b"".join(connection.signed_chunks("PUT", "/bucket/chunks", chunks)))
    assert connection.answer().status == 200
    assert recorder.last.whole and recorder.last.content == b"".join(chunks)


def test_a_spoiled_first_chunk(connect, untouched):
    connection = connect()
    connection.send(b"".join(connection.signed_chunks("PUT", "/bucket/spoiled", [b"first" * 1000, b"second"], spoil=0)))
    refused(connection.answer(), 403, "SignatureDoesNotMatch")


def test_a_spoiled_later_chunk_is_never_a_whole_request(connect, recorder):
    """The chunks before it have long left when it comes, so the store has begun; it must not get to an end."""
    chunks = [body(n, 1 << 20) for n in range(LARGE >> 20)]
    connection = connect()
    parts = connection.signed_chunks("PUT", "/bucket/later", chunks, spoil=len(chunks) - 1)
    try:
        connection.send(b"".join(parts))
        answer = connection.answer()
        assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch"), answer.body
    except OSError:
        pass  # The store has answered nothing yet, so an early end of the connection says as much.
    found = [r for r in recorder.requests if r.path == "/bucket/later"]
    assert not any(r.whole for r in found), "a spoiled upload was handed to the store as a good one"
    assert all(chunks[-1][1:] not in r.body for r in found), "the spoiled chunk was sent on"


def test_chunks_in_another_order(connect, recorder):
    connection = connect()
    head, one, two, end = connection.signed_chunks("PUT", "/bucket/order", [b"1" * 65536, b"2" * 65536])
    connection.send(head + two + one + end)
    refused(connection.answer(), 403, "SignatureDoesNotMatch")
    assert not any(r.whole for r in recorder.requests if r.path == "/bucket/order")


def test_an_upload_that_ends_early(connect, recorder):
    connection = connect()
    head, one, _two, _end = connection.signed_chunks("PUT", "/bucket/early", [body(1, 70_000), body(2, 70_000)])
    connection.send(head + one)
    connection.abandon()
    # Another request, on a connection of its own, is served meanwhile; by then the first has been judged, or soon is.
    assert connect().request("GET", "/bucket/other").status == 200
    assert not any(r.whole for r in recorder.requests if r.path == "/bucket/early")


def test_a_wrong_trailing_checksum(connect, recorder):
    framed = b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    headers = {"x-amz-decoded-content-length": "7", "x-amz-trailer": "x-amz-checksum-crc32", "content-encoding": "aws-chunked"}
    answer = connect().request("PUT", "/bucket/trailer", framed, headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    # A trailer that nobody signed may be left to the store to judge, to which it then comes as the client sent it.
    if answer.status == 200:
        assert b"x-amz-checksum-crc32:AAAAAA==" in recorder.last.body or recorder.last.header("x-amz-checksum-crc32") == "AAAAAA=="
    else:
        assert (answer.status, answer.code) in ((400, "BadDigest"), (400, "XAmzContentChecksumMismatch")), answer.body


def test_customer_keys_on_a_plain_listener(gateway, connect, recorder):
    before = len(recorder.requests)
    headers = {"x-amz-server-side-encryption-customer-algorithm": "AES256", "x-amz-server-side-encryption-customer-key": "A" * 43 + "=",
               "x-amz-server-side-encryption-customer-key-md5": "x" * 22 + "=="}  # fmt: skip
    answer = connect().request("PUT", "/bucket/customer", b"content", headers)
    if gateway.listener.startswith("https"):
        assert answer.status == 200 and recorder.last.header("x-amz-server-side-encryption-customer-algorithm") == "AES256"
    else:
        refused(answer, 400, "InvalidRequest")
        assert len(recorder.requests) == before


def test_the_gateway_goes_on_after_all_that(connect, gateway):
    wait_until("the store is up", gateway.ready, 10)
    assert connect().request("GET", "/bucket/key").status == 200
