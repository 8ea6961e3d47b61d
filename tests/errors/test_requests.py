"""Requests that are wrong, each with S3's own code, and each leaving everything as it was."""

from __future__ import annotations

import base64
import datetime
import hashlib
import socket
import urllib.parse

import pytest
from harness.process import wait_until
from sigv4 import Connection
from support import body, keys, read

BUCKET = "lake"


@pytest.fixture
def connect(stack):
    """Opens raw connections to the shared server, and closes them."""
    opened: list[Connection] = []

    def make(url: str | None = None, **more) -> Connection:
        opened.append(Connection(stack, url, **more))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


@pytest.fixture
def path(prefix) -> str:
    return f"/{BUCKET}/{prefix}key"


@pytest.fixture
def untouched(s3, prefix):
    """After the test the key holds what it held before, and nothing stands beside it."""
    s3.put_object(Bucket=BUCKET, Key=prefix + "key", Body=b"before")
    yield
    assert keys(s3, BUCKET, Prefix=prefix) == [prefix + "key"]
    assert read(s3, BUCKET, prefix + "key") == b"before"


def check(answer, status: int, *codes: str) -> None:
    assert (answer.status, answer.code in codes) == (status, True), (answer.status, answer.code, answer.body[:500])
    assert answer.headers["content-type"] == "application/xml"
    assert b"<RequestId>" in answer.body and b"<Resource>" in answer.body
    assert answer.headers["x-amz-request-id"].encode() in answer.body


# ---- who asks, and when ----


@pytest.mark.parametrize("endpoint", ["store", "proxy_https", "proxy_http"])
def test_a_wrong_secret_is_a_wrong_signature(stack, connect, path, untouched, endpoint):
    check(connect(getattr(stack, endpoint), secret="not the secret").request("PUT", path, b"x"), 403, "SignatureDoesNotMatch")


def test_an_unknown_access_key(connect, path, untouched):
    check(connect(access_key="NOBODY").request("PUT", path, b"x"), 403, "InvalidAccessKeyId")


def test_no_signature_at_all(connect, path, untouched):
    connection = connect()
    connection.send(f"PUT {path} HTTP/1.1\r\nhost: {connection.host}\r\ncontent-length: 1\r\n\r\nx".encode())
    check(connection.answer(), 403, "AccessDenied")


@pytest.mark.parametrize("minutes", [-16, 16, -60 * 24 * 8])
def test_a_clock_that_is_off(connect, path, untouched, minutes):
    when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=minutes)
    check(connect().request("PUT", path, b"x", when=when), 403, "RequestTimeTooSkewed")


def test_a_clock_that_is_a_little_off_is_fine(connect, path):
    when = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=10)
    assert connect().request("PUT", path, b"x", when=when).status == 200


def test_a_header_changed_on_the_way(connect, path, untouched):
    connection = connect()
    head = connection.head("PUT", path, {"content-length": "1", "x-amz-meta-who": "alice"})
    connection.send(head.replace(b"alice", b"mallo") + b"x")
    check(connection.answer(), 403, "SignatureDoesNotMatch")


def test_unsigned_amz_headers_are_refused(connect, path, untouched):
    """Whoever stands between must not be able to add a copy source or an ACL."""
    check(connect().request("PUT", path, b"x", unsigned={"x-amz-meta-smuggled": "1"}), 403, "AccessDenied", "SignatureDoesNotMatch")


def test_a_foreign_region_or_service_is_named(connect, path, untouched):
    connection = connect()
    head = connection.head("PUT", path, {"content-length": "1"})
    connection.send(head.replace(b"/us-east-1/s3/", b"/us-east-1/ec2/") + b"x")
    check(connection.answer(), 400, "AuthorizationHeaderMalformed")


# ---- bodies ----


def test_a_wrong_content_md5(connect, path, untouched):
    digest = base64.b64encode(hashlib.md5(b"another").digest()).decode()
    check(connect().request("PUT", path, b"content", {"content-md5": digest}), 400, "BadDigest")


@pytest.mark.parametrize("value", ["not base64!", "AAAA", ""])
def test_an_invalid_content_md5(connect, path, untouched, value):
    check(connect().request("PUT", path, b"content", {"content-md5": value}), 400, "InvalidDigest")


def test_a_wrong_payload_hash(connect, path, untouched):
    check(connect().request("PUT", path, b"content", payload_hash=hashlib.sha256(b"x").hexdigest()), 400, "XAmzContentSHA256Mismatch", "BadDigest")


def test_a_wrong_checksum_in_a_trailer(connect, path, untouched):
    framed = b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    headers = {"x-amz-decoded-content-length": "7", "x-amz-trailer": "x-amz-checksum-crc32", "content-encoding": "aws-chunked"}
    check(connect().request("PUT", path, framed, headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER"), 400, "BadDigest", "XAmzContentChecksumMismatch")


def test_a_missing_trailer(connect, path, untouched):
    headers = {"x-amz-decoded-content-length": "7", "x-amz-trailer": "x-amz-checksum-crc32", "content-encoding": "aws-chunked"}
    answer = connect().request("PUT", path, b"7\r\ncontent\r\n0\r\n\r\n", headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    check(answer, 400, "MalformedTrailerError", "InvalidRequest", "IncompleteBody")


def test_a_decoded_length_that_is_not_true(connect, path, untouched):
    headers = {"x-amz-decoded-content-length": "9", "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32"}
    framed = b"7\r\ncontent\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"
    answer = connect().request("PUT", path, framed, headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    check(answer, 400, "IncompleteBody", "BadDigest", "InvalidRequest", "UnexpectedContent")


@pytest.mark.parametrize("framing", [b"zz\r\ncontent\r\n0\r\n\r\n", b"7 content\r\n0\r\n\r\n", b"fffffffffffffffff\r\n"])
def test_broken_framing(connect, path, untouched, framing):
    headers = {"x-amz-decoded-content-length": "7", "content-encoding": "aws-chunked", "x-amz-trailer": "x-amz-checksum-crc32"}
    answer = connect().request("PUT", path, framing, headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    assert 400 <= answer.status < 500 and answer.code, answer


def test_a_chunk_with_a_wrong_signature(connect, path, untouched):
    framed = b"7;chunk-signature=" + b"0" * 64 + b"\r\ncontent\r\n0;chunk-signature=" + b"0" * 64 + b"\r\n\r\n"
    headers = {"x-amz-decoded-content-length": "7", "content-encoding": "aws-chunked"}
    check(connect().request("PUT", path, framed, headers, payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), 403, "SignatureDoesNotMatch")


def test_no_length(connect, path, untouched):
    connection = connect()
    connection.send(connection.head("PUT", path))
    check(connection.answer(), 411, "MissingContentLength")


def test_more_than_5_gib_in_one_put(connect, path, untouched):
    connection = connect()
    connection.send(connection.head("PUT", path, {"content-length": str((5 << 30) + 1)}))
    check(connection.answer(), 400, "EntityTooLarge")


@pytest.mark.parametrize("endpoint", ["store", "proxy_https"])
@pytest.mark.parametrize("sent", [0, 1000, 200_000])
def test_a_client_that_goes_away_leaves_nothing(stack, connect, s3, prefix, path, untouched, endpoint, sent):
    before = blobs(stack)
    connection = connect(getattr(stack, endpoint))
    connection.send(connection.head("PUT", path, {"content-length": "400000"}) + body(prefix, sent))
    connection.abandon()
    # The server sees the reset when it reads; what it had begun to write is removed.
    wait_until("the half-written blob is gone", lambda: blobs(stack) <= before, 20)


def test_a_body_shorter_than_declared(connect, path, untouched):
    connection = connect()
    connection.send(connection.head("PUT", path, {"content-length": "100"}) + b"only this")
    # Closing the sending side says that no more will come, and still lets the answer through. TLS has no half-close that
    # OpenSSL offers, so the raw socket underneath is shut down.
    socket.socket.shutdown(connection.socket, socket.SHUT_WR)
    try:
        check(connection.answer(), 400, "IncompleteBody")
    except ConnectionError:
        pass  # A server may also just close: the client is gone as far as it can tell. `untouched` is what counts.


def test_a_part_whose_client_goes_away_is_no_part(stack, connect, s3, prefix):
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=prefix + "key")["UploadId"]
    before = blobs(stack)
    connection = connect()
    query = f"partNumber=1&uploadId={urllib.parse.quote(upload, safe='')}"
    connection.send(connection.head("PUT", f"/{BUCKET}/{prefix}key", {"content-length": "400000"}, query=query) + body(1, 100_000))
    connection.abandon()
    wait_until("the half-written blob is gone", lambda: blobs(stack) <= before, 20)
    assert "Parts" not in s3.list_parts(Bucket=BUCKET, Key=prefix + "key", UploadId=upload)
    s3.abort_multipart_upload(Bucket=BUCKET, Key=prefix + "key", UploadId=upload)


def blobs(stack) -> int:
    return sum(1 for p in (stack.data / "store" / "blobs").rglob("*") if p.is_file())


# ---- documents, names, methods ----


@pytest.mark.parametrize(
    "document",
    [b"", b"<Delete>", b"not xml", b"<Delete><Object><Key>a</Key></Object>", b"<Other/>", b"<!DOCTYPE x [<!ENTITY e 'x'>]><Delete><Object><Key>&e;</Key></Object></Delete>",
     b"<Delete><Object></Object></Delete>", b"<a>" * 5000],
    ids=["empty", "open", "text", "cut", "another", "entity", "no-key", "deep"],
)  # fmt: skip
def test_malformed_documents(connect, untouched, document):
    digest = base64.b64encode(hashlib.md5(document).digest()).decode()
    answer = connect().request("POST", f"/{BUCKET}", document, {"content-md5": digest}, query="delete=")
    check(answer, 400, "MalformedXML", "MissingRequestBodyError")


def test_too_many_headers_are_answered(connect, path, untouched):
    answer = connect().request("PUT", path, b"x", unsigned={f"x-other-{n}": "v" for n in range(400)})
    assert answer.status in (400, 431), answer


def test_headers_without_end_are_cut_off(connect, path, untouched):
    """The server answers and closes without reading the rest, so the answer may be lost to a reset; what counts is that it ends."""
    connection = connect()
    try:
        connection.send(connection.head("PUT", path, {"content-length": "1"}, unsigned={"x-other": "v" * 2_000_000}))
        answer = connection.answer()
    except OSError:
        return
    assert answer.status in (400, 431), answer


def test_a_path_that_is_no_path(connect, untouched):
    for bad in (f"/{BUCKET}/%zz", f"/{BUCKET}/%ff%fe"):
        answer = connect().request("PUT", bad, b"x")
        assert 400 <= answer.status < 500 and answer.code, (bad, answer)


def test_a_method_that_s3_does_not_have(connect, path, untouched):
    check(connect().request("PATCH", path, b"x"), 405, "MethodNotAllowed")


def test_subresources_that_are_not_there_yet_say_so(connect, path, untouched):
    for query in ("acl=", "torrent=", "accelerate=", "website=", "no-such-thing="):
        answer = connect().request("GET", f"/{BUCKET}", query=query)
        assert answer.status != 500, (query, answer)


def test_garbage_before_and_after_tls_does_not_hurt_others(stack, s3):
    target = urllib.parse.urlsplit(stack.store)
    for garbage in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 100, b"\0" * 1000):
        with socket.create_connection((target.hostname, target.port), timeout=10) as raw:
            raw.sendall(garbage)
            try:
                raw.recv(100)
            except OSError:
                pass
    assert s3.list_buckets()["Buckets"]


def test_no_answer_tells_a_secret(stack, connect, path, untouched):
    answer = connect(secret="wrong").request("PUT", path, b"x")
    for secret in stack.root_credentials()[1:]:
        assert secret.encode() not in answer.body
    assert stack.root_credentials()[1] not in stack.log.read_text()
