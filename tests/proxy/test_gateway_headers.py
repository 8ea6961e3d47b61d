"""What the SDKs say arrives: each header and parameter of a request, signed anew, as the client wrote it.

Re-signing gateways are known for losing some ("400, header stripped"). Here a recorder stands in the place of the store, and
what it got is compared with what the client had sent, for requests of boto3, of the aws command line and by hand.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import urllib.parse
import zlib

import pytest
import sigv4
from harness.gateway import ACCESS_KEY, SECRET_KEY, Gateway, Store
from harness.recorder import Recorder, Request
from support import body

# What a gateway replaces: its own credentials, its own date, the store's name, and how the body is framed.
REPLACED = {
    "authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "host", "content-length", "transfer-encoding", "connection",
    "x-amz-decoded-content-length", "x-amz-trailer", "content-encoding", "expect", "te", "trailer", "accept-encoding",
}  # fmt: skip
# Different each time that a client says the same.
FRESH = {"amz-sdk-invocation-id", "date", "x-amzn-trace-id"}
COPIED = b"<CopyObjectResult><ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag></CopyObjectResult>"


@pytest.fixture(scope="module")
def recorder():
    running = Recorder()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def gateway(recorder, certificates, tmp_path_factory):
    with Gateway(tmp_path_factory.mktemp("gateway"), certificates, {"store": Store(recorder.url, "store-access", "store-secret")}) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(params=["http", "https"])
def listener(request, gateway) -> str:
    return getattr(gateway, request.param)


def headers_of(pairs) -> dict[str, str]:
    return {name.lower(): value for name, value in pairs}


def assert_survived(sent: dict[str, str], arrived: Request) -> None:
    """Each header that was sent came, once and as it was; and each instruction that came is signed."""
    wanted = {name: value for name, value in sent.items() if name not in REPLACED}
    assert {name: same(name, arrived.values(name)) for name in wanted} == {name: same(name, [value]) for name, value in wanted.items()}
    assert "aws-chunked" not in sent.get("content-encoding", "") or set(codings(arrived)) - {"aws-chunked"} == set(codings_of(sent)) - {"aws-chunked"}
    authorization = arrived.header("authorization")
    assert "Credential=store-access/" in authorization
    signed = set(re.search(r"SignedHeaders=([^,]*)", authorization).group(1).split(";"))
    instructions = {name.lower() for name, _ in arrived.headers if name.lower().startswith("x-amz-")}
    assert instructions | {"host"} <= signed, f"not signed: {instructions - signed}"


def same(name: str, values: list[str]) -> list[str]:
    """The source of a copy may begin with a slash or not."""
    return [value.removeprefix("/") for value in values] if name == "x-amz-copy-source" else values


def codings(arrived: Request) -> list[str]:
    return codings_of(headers_of(arrived.headers))


def codings_of(headers: dict[str, str]) -> list[str]:
    return [part.strip() for part in headers.get("content-encoding", "").split(",") if part.strip()]


# ---- by hand ----

ODD_VALUES = {
    "x-amz-meta-spaces": "two  spaces,  and three   more",
    "x-amz-meta-empty": "",
    "x-amz-meta-quoted": '"in quotes"; a=b, c="d,e"',
    "x-amz-meta-mime": "=?UTF-8?Q?=C3=BC?=",
    "x-amz-meta-tab": "a\tb",
    "x-amz-meta-percent": "100%25 %zz",
    "x-amz-meta-long": "x" * 1900,
}
SDK_HEADERS = {
    "amz-sdk-invocation-id": "3c6c5a47-0c4b-4bb4-a0a8-000000000000", "amz-sdk-request": "ttl=20260101T000000Z;attempt=1;max=5", "amz-sdk-retry": "0/0/500",
    "user-agent": "Hadoop 3.3.4, aws-sdk-java/1.12.262 Linux/6 OpenJDK_64-Bit_Server_VM/17 scala/2.12.18", "content-type": "application/octet-stream",
    "referer": "https://audit.example.org/hadoop/1/op_create/00-1/?op=op_create&p1=t/d&pr=root&ps=a&id=b-1&t0=9&fs=c&t1=9&ts=1",
}  # fmt: skip
CONTENT_HEADERS = {
    "cache-control": "max-age=60, must-revalidate", "content-disposition": "attachment; filename=\"a b.txt\"; filename*=UTF-8''%C3%BC.txt",
    "content-language": "de, en", "expires": "Thu, 01 Jan 2032 00:00:00 GMT", "content-type": "text/plain; charset=utf-8",
}  # fmt: skip
INSTRUCTIONS = {
    "x-amz-tagging": "a=1&b=%20c", "x-amz-storage-class": "STANDARD_IA", "x-amz-object-lock-mode": "GOVERNANCE",
    "x-amz-object-lock-retain-until-date": "2032-01-01T00:00:00Z", "x-amz-website-redirect-location": "/other", "x-amz-expected-bucket-owner": "111122223333",
    "x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-1:1:key/a-b",
    "x-amz-server-side-encryption-context": base64.b64encode(b'{"a":"b"}').decode(), "x-amz-server-side-encryption-bucket-key-enabled": "true",
}  # fmt: skip


@pytest.mark.parametrize("headers", [ODD_VALUES, SDK_HEADERS, CONTENT_HEADERS, INSTRUCTIONS], ids=["metadata", "sdk", "content", "instructions"])
def test_headers_of_an_upload(gateway, listener, recorder, headers):
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("PUT", "/bucket/key", b"content", headers).status == 200
    assert recorder.last.content == b"content"
    assert_survived({name: value.strip() for name, value in headers.items()}, recorder.last)


def test_headers_that_the_client_did_not_sign_and_that_instruct_nobody(gateway, listener, recorder):
    headers = {**SDK_HEADERS, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "accept": "*/*"}
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("GET", "/bucket/key", unsigned=headers).status == 200
    assert_survived(headers, recorder.last)


@pytest.mark.parametrize("header", ["if-match", "if-none-match", "x-amz-copy-source-if-match"])
@pytest.mark.parametrize("etag", ['"0123456789abcdef0123456789abcdef"', "0123456789abcdef0123456789abcdef-2", "*"])
def test_conditions_with_quotes_and_without(gateway, listener, recorder, header, etag):
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("PUT", "/bucket/key", b"", {header: etag}).status == 200
    assert_survived({header: etag}, recorder.last)


def test_ranges_and_dates(gateway, listener, recorder):
    headers = {"range": "bytes=5-", "if-range": '"abc"', "if-modified-since": "Thu, 01 Jan 2026 00:00:00 GMT", "if-unmodified-since": "Thu, 01 Jan 2032 00:00:00 GMT"}
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("GET", "/bucket/key", b"", headers).status == 200
    assert_survived(headers, recorder.last)


@pytest.mark.parametrize(
    "path",
    ["/bucket//a//b", "/bucket/a/", "/bucket/a/./b/../c", "/bucket/%20%25%2B%3F%23", "/bucket/%C3%BC%F0%9F%90%9F", "/bucket/-._~", "/bucket/%21%27%28%29%2A%3B%3A%40%26%3D%24%2C"],
)
def test_paths_arrive_byte_for_byte(gateway, listener, recorder, path):
    with sigv4.Connection(gateway, listener) as connection:
        for method in ("PUT", "GET", "HEAD", "DELETE"):
            assert connection.request(method, path).status == 200
            assert (recorder.last.method, recorder.last.target) == (method, path)


def test_an_encoded_slash_is_a_slash_of_the_key(gateway, listener, recorder):
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("PUT", "/bucket/a%2Fb%2F%2Fc").status == 200
    assert urllib.parse.unquote(recorder.last.target) == "/bucket/a/b//c"


@pytest.mark.parametrize(
    "method, path, query",
    [
        ("GET", "/bucket", "acl"), ("GET", "/bucket", "acl="), ("GET", "/bucket", "prefix="), ("GET", "/bucket/k", "versionId=null&x-id=GetObject"),
        ("GET", "/bucket", "list-type=2&prefix=a%2Fb%20c%2B&delimiter=%2F&start-after=%C3%BC&max-keys=5000&fetch-owner=false"),
        ("PUT", "/bucket/k", "partNumber=1&uploadId=a%3D%3D%2B"), ("GET", "/bucket/k", "response-content-disposition=attachment%3B%20filename%3D%22a%20b%22"),
    ],
)  # fmt: skip
def test_queries_arrive_as_they_were(gateway, listener, recorder, method, path, query):
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request(method, path, query=query).status == 200
    pairs = lambda parts: [part if "=" in part else f"{part}=" for part in parts]  # noqa: E731
    assert pairs(recorder.last.query) == pairs(query.split("&"))


def test_a_copy_names_its_source_as_the_client_did(gateway, listener, recorder):
    headers = {
        "x-amz-copy-source": "/bucket/a%20b//%C3%BC?versionId=x", "x-amz-metadata-directive": "REPLACE", "x-amz-copy-source-if-match": "abc",
        "content-md5": base64.b64encode(hashlib.md5(b"the source, as S3A sends it").digest()).decode(), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
    }  # fmt: skip
    recorder.answers["/bucket/copy"] = COPIED
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("PUT", "/bucket/copy", b"", headers).body == COPIED
    assert_survived(headers, recorder.last)


def test_checksums_in_headers(gateway, listener, recorder):
    content = b"content"
    for headers in (
        {"content-md5": base64.b64encode(hashlib.md5(content).digest()).decode()},
        {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(content).digest()).decode(), "x-amz-sdk-checksum-algorithm": "SHA256"},
        {"x-amz-checksum-crc32": base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()},
    ):
        with sigv4.Connection(gateway, listener) as connection:
            assert connection.request("PUT", "/bucket/key", content, headers, payload_hash=hashlib.sha256(content).hexdigest()).status == 200
        assert recorder.last.content == content
        assert_survived(headers, recorder.last)


def trailer_of(arrived: Request, name: str) -> str | None:
    """A checksum that came behind the body in either framing, or before it."""
    in_frames = re.search(rb"\r\n" + name.encode() + rb":\s*([^\r]*)\r\n", arrived.body)
    return in_frames.group(1).decode() if in_frames else headers_of(arrived.trailers).get(name) or arrived.header(name)


def test_checksums_in_trailers(gateway, listener, recorder):
    content = body("trailer", 200_000)
    checksum = base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()
    frames = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (content[:65536], content[65536:]))
    framed = frames + f"0\r\nx-amz-checksum-crc32:{checksum}\r\n\r\n".encode()
    headers = {
        "x-amz-decoded-content-length": str(len(content)), "x-amz-trailer": "x-amz-checksum-crc32", "content-encoding": "aws-chunked, gzip",
        "x-amz-sdk-checksum-algorithm": "CRC32", "expect": "100-continue",
    }  # fmt: skip
    with sigv4.Connection(gateway, listener) as connection:
        assert connection.request("PUT", "/bucket/key", framed, headers, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER").status == 200
    assert recorder.last.content == content and trailer_of(recorder.last, "x-amz-checksum-crc32") == checksum
    assert_survived(headers, recorder.last)
    assert "gzip" in codings(recorder.last), "a coding of the client's own belongs to the object"


def test_a_session_token_that_belongs_to_nobody_stays_here(gateway, listener, recorder):
    before = len(recorder.requests)
    with sigv4.Connection(gateway, listener) as connection:
        answer = connection.request("GET", "/bucket/key", b"", {"x-amz-security-token": "a token"})
    assert (answer.status, answer.code) == (400, "InvalidToken") and len(recorder.requests) == before


# ---- what the store answers ----


def test_answers_come_back_as_they_were(gateway, listener, recorder):
    given = {
        "x-amz-meta-odd": '"a";  b, c', "x-amz-version-id": "v1", "x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "a-key",
        "x-amz-checksum-crc32": "AAAAAA==", "x-amz-mp-parts-count": "3", "x-amz-expiration": 'expiry-date="Fri, 23 Dec 2032 00:00:00 GMT", rule-id="r"',
        "cache-control": "no-store", "content-encoding": "gzip", "server": "AStore/1", "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "x-amz-id-2": "opaque+/=",
    }  # fmt: skip
    recorder.answer_headers, recorder.answers["/bucket/odd"] = given, b"the body"
    try:
        with sigv4.Connection(gateway, listener) as connection:
            got, head = connection.request("GET", "/bucket/odd"), connection.request("HEAD", "/bucket/odd")
    finally:
        recorder.answer_headers = {}
    assert got.body == b"the body" and {name: got.headers.get(name) for name in given} == given
    if listener.startswith("http:"):
        del given["x-amz-server-side-encryption-aws-kms-key-id"]
        assert "x-amz-server-side-encryption-aws-kms-key-id" not in head.headers
    assert {name: head.headers.get(name) for name in given} == given and head.headers["content-length"] == "8"


# ---- boto3 ----

ODD_KEY = "a//b ü+%&=;:@'()*!~/日本"


@pytest.fixture
def boto(gateway, listener):
    """A client, and the headers of each request as it leaves the client."""
    client, sent = gateway.client(listener), []

    def remember(request, **_more) -> None:
        text = lambda value: value.decode() if isinstance(value, bytes) else value  # noqa: E731
        sent.append(headers_of((text(name), text(value)) for name, value in request.headers.items()))

    client.meta.events.register("before-send.s3", remember)
    return client, sent


def test_boto3_uploads(boto, recorder):
    client, sent = boto
    content = body("boto3", 100_000)
    for more in (
        {}, {"ChecksumAlgorithm": "SHA256"}, {"ChecksumAlgorithm": "SHA1"},
        {"Metadata": {"a": "x  y", "b": "'quoted', \"twice\""}, "ContentType": "text/x; a=b", "Tagging": "k=v&l=%20", "StorageClass": "STANDARD_IA"},
        {"IfNoneMatch": "*", "CacheControl": "no-cache", "ContentDisposition": "inline", "ContentLanguage": "de", "ContentEncoding": "gzip"},
    ):  # fmt: skip
        client.put_object(Bucket="bucket", Key=ODD_KEY, Body=content, **more)
        assert recorder.last.content == content
        assert_survived(sent[-1], recorder.last)
    assert len(sent) == 5


def test_boto3_reads_lists_and_deletes(boto, recorder):
    client, sent = boto
    recorder.answers["/bucket"] = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    client.get_object(Bucket="bucket", Key=ODD_KEY, Range="bytes=1-2", IfMatch='"abc"', ResponseContentType="text/x", ChecksumMode="ENABLED")["Body"].read()
    assert_survived(sent[-1], recorder.last)
    client.head_object(Bucket="bucket", Key=ODD_KEY, IfNoneMatch="abc", VersionId="v 1")
    assert_survived(sent[-1], recorder.last)
    client.list_objects_v2(Bucket="bucket", Prefix="a//b ü+", Delimiter="/", StartAfter="ü", MaxKeys=7)
    assert_survived(sent[-1], recorder.last)
    recorder.answers["/bucket"] = b"<DeleteResult/>"
    client.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": ODD_KEY}], "Quiet": True})
    assert_survived(sent[-1], recorder.last)
    assert "日本".encode() in recorder.last.content
    recorder.answers["/bucket/copy"] = COPIED
    client.copy_object(Bucket="bucket", Key="copy", CopySource={"Bucket": "bucket", "Key": ODD_KEY}, MetadataDirective="REPLACE", Metadata={"a": "b"})
    assert_survived(sent[-1], recorder.last)


# ---- the aws command line, directly and through the gateway ----

COMMANDS = {
    "put": ("put-object", "--key", ODD_KEY, "--body", "FILE", "--metadata", "a=x y,b=z", "--content-type", "text/x", "--cache-control", "no-cache"),
    "get": ("get-object", "--key", ODD_KEY, "--range", "bytes=0-1", "--if-match", "abc", "OUT"),
    "head": ("head-object", "--key", ODD_KEY, "--checksum-mode", "ENABLED"),
    "tag": ("put-object-tagging", "--key", ODD_KEY, "--tagging", "TagSet=[{Key=k,Value=ü}]"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_aws_says_the_same_through_the_gateway(gateway, recorder, tools, tmp_path, command):
    tools.ensure("aws")
    (tmp_path / "file").write_bytes(body("aws", 100_000))
    words = [{"FILE": str(tmp_path / "file"), "OUT": str(tmp_path / "out")}.get(word, word) for word in COMMANDS[command]]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
           "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1",
           # Its user agent lists a set, in another order each time.
           "PYTHONHASHSEED": "0"}  # fmt: skip

    def asked(url: str) -> Request:
        argv = [tools.program("aws"), "--endpoint-url", url, "s3api", words[0], "--bucket", "bucket", *words[1:]]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return recorder.last

    directly, through = asked(recorder.url), asked(gateway.http)
    assert (through.method, through.target, through.content) == (directly.method, directly.target, directly.content)
    assert_survived({name: value for name, value in headers_of(directly.headers).items() if name not in FRESH}, through)
    assert all(through.values(name) for name in headers_of(directly.headers).keys() & FRESH)
