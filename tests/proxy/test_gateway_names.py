"""What clients of a gateway call things: each answer names the bucket, its place and the host as the client knows them.

Two gateways stand before the same two stores, each with the other one first. In either a bucket of the first store and one of
the second have another name than behind the gateway.
"""

from __future__ import annotations

import json
import re

import botocore.exceptions
import pytest
import sigv4
from harness.gateway import Gateway, Store
from harness.minio import PASSWORD, USER

# The clients' names, and whose they are: of the first store or of the second. The last one is not there.
BUCKETS = {"names-lake": 0, "names-cold": 1, "names-gone": 1}
DOMAIN = "s3.names.test"


def behind_of(first: str, bucket: str) -> str:
    """What a bucket is called behind the gateway whose first store is `first`."""
    return f"behind-{first}-{bucket.removeprefix('names-')}"


@pytest.fixture(scope="module", params=["moat", "minio"])
def gateway(request, stack, minio, certificates, tmp_path_factory):
    """A gateway whose first store is that of the parameter."""
    behind = {"moat": Store(stack.store, *stack.root_credentials(), stack.ca), "minio": Store(minio.url, USER, PASSWORD)}
    direct = {"moat": stack.client(), "minio": minio.client()}
    order = sorted(behind, key=lambda name: name != request.param)
    routes = []
    for name, place in BUCKETS.items():
        upstream = behind_of(request.param, name)
        if name != "names-gone":
            ensure(direct[order[place]], upstream)
        store = "default" if place == 0 else order[1]
        routes.append(f'[[gateway.buckets]]\nname = "{name}"\nupstream = "{store}"\nupstream_name = "{upstream}"\n')
    for one in direct.values():
        # One of this name leads elsewhere at the gateway; nobody's is behind both.
        ensure(one, "names-cold")
        ensure(one, "names-plain")
    folder = tmp_path_factory.mktemp(f"gateway-{request.param}")
    stores = {name: behind[name] for name in order}
    with Gateway(folder, certificates, stores, gateway=f'domains = ["{DOMAIN}"]\nclient_region = "us-east-1"\n', more="\n".join(routes)) as running:
        running.first, running.second = request.param, direct[order[1]]
        yield running
        assert running.stop() == 0


def ensure(client, bucket: str) -> None:
    try:
        client.create_bucket(Bucket=bucket)
    except client.exceptions.BucketAlreadyOwnedByYou:
        pass


def ask(gateway, method: str, path: str, *, query: str = "", host: str | None = None, body: bytes = b"") -> sigv4.Answer:
    """A request by hand, which may be sent to another host than that of the connection."""
    with sigv4.Connection(gateway, gateway.http) as connection:
        connection.host = host or connection.host
        head = connection.head(method, path, {"content-length": str(len(body))}, query=query)
        connection.socket.sendall(head + body)
        return connection.answer(method)


def hidden(gateway) -> set[str]:
    """What no name leads to, or to nothing."""
    return {"names-gone", *(behind_of(gateway.first, name) for name in BUCKETS)}


def test_buckets_of_both_stores_are_listed_by_their_names_here(gateway):
    client = gateway.client()
    answer = client.list_buckets()
    buckets = {bucket["Name"]: bucket["CreationDate"] for bucket in answer["Buckets"]}
    assert {"names-lake", "names-cold", "names-plain"} <= set(buckets), buckets
    # What no name leads to: behind a rename, not there, not the first store's, hidden by a name that leads elsewhere.
    assert not hidden(gateway) & set(buckets), buckets
    assert list(buckets) == sorted(buckets)
    # The one of the second store that the route means, not the one of the first with its name.
    behind = {bucket["Name"]: bucket["CreationDate"] for bucket in gateway.second.list_buckets()["Buckets"]}
    assert buckets["names-cold"] == behind[behind_of(gateway.first, "names-cold")]
    assert answer["Owner"]["ID"]
    for name in ("names-lake", "names-cold", "names-plain"):
        client.head_bucket(Bucket=name)


def test_lists_of_buckets_come_in_pages(gateway):
    pages = gateway.client().get_paginator("list_buckets").paginate(Prefix="names-", PaginationConfig={"PageSize": 2})
    sizes, names = [], []
    for page in pages:
        sizes.append(len(page["Buckets"]))
        names += [bucket["Name"] for bucket in page["Buckets"]]
    assert sizes == [2, 1] and names == ["names-cold", "names-lake", "names-plain"]


def test_mc_lists_them_too(gateway, minio):
    access, secret = gateway.root_credentials()
    minio.mc("alias", "set", "names", gateway.http, access, secret)
    shown = {json.loads(line)["key"].rstrip("/") for line in minio.mc("ls", "names/").stdout.splitlines()}
    assert {"names-lake", "names-cold", "names-plain"} <= shown, shown
    assert not hidden(gateway) & shown, shown


@pytest.mark.parametrize("bucket", ["names-lake", "names-cold"])
@pytest.mark.parametrize("style", ["path", "host"])
def test_every_answer_names_the_bucket_as_the_client_does(gateway, bucket, style):
    behind = behind_of(gateway.first, bucket)
    host = f"{bucket}.{DOMAIN}" if style == "host" else None
    place = "" if style == "host" else f"/{bucket}"
    origin = f"http://{host or gateway.http.removeprefix('http://')}"
    key = "a%20b%26c"

    def at(method: str, path: str = "/", query: str = "", body: bytes = b"") -> sigv4.Answer:
        answer = ask(gateway, method, place + path if path != "/" else place or "/", query=query, host=host, body=body)
        assert behind.encode() not in answer.body, answer.body
        assert not [f"{name}: {value}" for name, value in answer.headers.items() if behind in value]
        return answer

    def element(name: str, answer: sigv4.Answer, status: int = 200) -> str:
        assert answer.status == status, answer
        found = re.findall(rf"<{name}>([^<]*)</{name}>".encode(), answer.body)
        assert found, answer.body
        return found[0].decode()

    assert at("PUT", f"/{key}", body=b"x").status == 200
    for query in ("prefix=a", "list-type=2&prefix=a", "versions="):
        assert element("Name", at("GET", query=query)) == bucket
    begun = at("POST", f"/{key}", query="uploads=")
    assert element("Bucket", begun) == bucket
    upload = element("UploadId", begun)
    part = at("PUT", f"/{key}", query=f"partNumber=1&uploadId={upload}", body=b"part")
    assert part.status == 200
    # MinIO lists the uploads of one key only.
    assert element("Bucket", at("GET", query="prefix=a%20b%26c&uploads=")) == bucket
    assert element("Bucket", at("GET", f"/{key}", query=f"uploadId={upload}")) == bucket
    parts = f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
    done = at("POST", f"/{key}", query=f"uploadId={upload}", body=parts.encode())
    assert element("Bucket", done) == bucket
    assert element("Location", done) == f"{origin}{place}/{key}"
    missing = at("GET", "/nobody")
    assert element("Resource", missing, 404).startswith(f"/{bucket}/"), missing
    assert re.findall(rb"<BucketName>([^<]*)", missing.body) in ([], [bucket.encode()])
    assert at("HEAD").headers.get("x-amz-bucket-region", "us-east-1") == "us-east-1"
    # That of us-east-1 is an empty document.
    location = at("GET", query="location=")
    assert b"LocationConstraint" in location.body and b"-1<" not in location.body, location
    assert at("DELETE", f"/{key}").status == 204


def test_a_bucket_that_is_made_is_at_its_name(gateway):
    client = gateway.client()
    made = client.create_bucket(Bucket="names-gone")
    try:
        assert made["Location"] == "/names-gone"
        assert "names-gone" in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
        made = ask(gateway, "PUT", "/names-lake")
        assert made.status in (200, 409) and b"behind-" not in made.body, made
    finally:
        client.delete_bucket(Bucket="names-gone")


def test_copies_and_their_errors_name_the_source_as_the_client_does(gateway):
    client = gateway.client()
    client.put_object(Bucket="names-lake", Key="from", Body=b"source")
    client.copy_object(Bucket="names-plain", Key="to", CopySource="names-lake/from")
    assert client.get_object(Bucket="names-plain", Key="to")["Body"].read() == b"source"
    with pytest.raises(botocore.exceptions.ClientError) as error:
        client.copy_object(Bucket="names-plain", Key="to", CopySource="names-lake/nobody")
    assert "behind-" not in str(error.value.response), error.value.response
