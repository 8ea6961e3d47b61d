"""Mixed use of a key manager at speed: three protocols, the command line, a MinIO and a Moat store, refusals among it, an orderly
restart and a kill in the middle. Afterwards the audit verifies, and has exactly what was done.

It takes some seconds; `make soak` runs it for an hour (MOAT_MIXED_SECONDS).
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import os
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from harness import minkms
from harness.kms import ENCLAVE, Kms
from harness.minio import Minio
from harness.process import wait_until
from harness.stack import Ports, Stack, moat_binary

SECONDS = float(os.environ.get("MOAT_MIXED_SECONDS", "15"))
# Reading the audit of an hour, and removing what was written, take as long again at most.
pytestmark = pytest.mark.timeout(2 * SECONDS + 240)
KEY = "minio-shared"
# Items of a batch: the lines of a batch are written together.
BATCH = 100
# Fewer operations in that time are no use at speed.
OPERATIONS_MIN = 10_000
POLICY = {
    "allow": {command: "minio-*" for command in ("KEY:GENERATE", "KEY:DECRYPT", "KEY:ENCRYPT", "KEY:STATUS")},
    "deny": {"KEY:DELETE": "*"},
}
STORE_POLICY = {"allow": {command: "*" for command in ("EPOCH:GENERATE", "EPOCH:OPEN", "EPOCH:REWRAP", "KEY:STATUS")}}
Operation = tuple[str, str]


class Tally:
    """What one identity did for certain, and what it may have done: its answer was lost."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.done: collections.Counter[Operation] = collections.Counter()
        self.maybe: collections.Counter[Operation] = collections.Counter()


class Lost(Exception):
    """The connection went away, or the server is on its way down: nobody knows what was done."""


class Client:
    """One kept connection of an identity that has a certificate."""

    def __init__(self, kms: Kms, folder: Path, name: str, policy: str) -> None:
        subprocess.run(
            [moat_binary(), "pki", "leaf", name, "--usage", "client", "--ca", kms.stack.data / "ca/ca.crt", "--out", folder / name],
            check=True, capture_output=True,
        )  # fmt: skip
        said = kms.moat("identity", "create", "--certificate", str(folder / f"{name}.crt"), "--policy", policy, "--json").stdout
        self.tally = Tally(json.loads(said)["identity"])
        self.tls = ssl.create_default_context(cafile=str(kms.stack.ca))
        self.tls.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
        self.port = kms.stack.ports.kms
        self.connection: http.client.HTTPSConnection | None = None

    def call(self, method: str, path: str, body: bytes, expected: Operation, count: int = 1, status: int = 200) -> bytes:
        """One request, whose end is known beforehand."""
        try:
            if self.connection is None:
                self.connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=self.tls)
                self.connection.connect()
        except OSError as error:
            self.connection = None
            raise Lost from error
        try:
            self.connection.request(method, path, body)
            answer = self.connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection = None
            self.tally.maybe[expected] += count
            raise Lost from error
        if answer.status == 503:
            self.tally.maybe[expected] += count
            raise Lost
        assert answer.status == status, f"{method} {path}: {answer.status} {content!r}"
        self.tally.done[expected] += count
        return content


def native(client: Client) -> None:
    here = f"/v1/enclaves/{ENCLAVE}"

    def post(path: str, body: dict, *expected, **more) -> dict:
        return json.loads(client.call("POST", here + path, json.dumps(body).encode(), *expected, **more))

    context = base64.b64encode(b"native").decode()
    made = post("/bulk/generate", {"items": [{"key": KEY, "context": context}] * BATCH}, ("KEY:GENERATE", "allowed"), count=BATCH)
    for item in made["items"][:3]:
        opened = post(f"/keys/{KEY}/decrypt", {"ciphertext": item["ok"]["ciphertext"], "context": context}, ("KEY:DECRYPT", "allowed"))
        assert opened["plaintext"] == item["ok"]["plaintext"]
    # Another context, a key that is not there, a key that is not allowed, an operation that is not.
    post(f"/keys/{KEY}/decrypt", {"ciphertext": made["items"][0]["ok"]["ciphertext"]}, ("KEY:DECRYPT", "error"), status=400)
    post("/keys/minio-missing/generate", {}, ("KEY:GENERATE", "error"), status=404)
    post("/keys/other/generate", {}, ("KEY:GENERATE", "denied"), status=403)
    client.call("DELETE", f"{here}/keys/{KEY}", b"", ("KEY:DELETE", "denied"), status=403)


def over_minkms(client: Client) -> None:
    path = f"/v1/kms/{ENCLAVE}"
    one = minkms.frame(minkms.GENERATE, {1: KEY, 3: b"minkms", 4: 32})
    made = minkms.frames(client.call("POST", path, one * BATCH, ("KEY:GENERATE", "allowed"), count=BATCH))
    assert len(made) == BATCH
    again = b"".join(minkms.frame(minkms.DECRYPT, {1: KEY, 3: fields[3], 4: b"minkms"}) for _, fields in made)
    opened = minkms.frames(client.call("POST", path, again, ("KEY:DECRYPT", "allowed"), count=BATCH))
    assert [fields[1] for _, fields in opened] == [fields[2] for _, fields in made]
    client.call("POST", path, minkms.frame(minkms.STATUS, {1: KEY}), ("KEY:STATUS", "allowed"))
    client.call("POST", path, minkms.frame(minkms.CREATE, {1: "minio-new"}), ("KEY:CREATE", "denied"), status=403)
    client.call("POST", path, minkms.frame(minkms.GENERATE, {1: "minio-missing"}), ("KEY:GENERATE", "error"), status=404)


def over_kes(client: Client) -> None:
    body = json.dumps({"context": base64.b64encode(b"kes").decode()}).encode()
    for _ in range(10):
        made = json.loads(client.call("POST", f"/v1/key/generate/{KEY}", body, ("KEY:GENERATE", "allowed")))
        ask = json.dumps({"ciphertext": made["ciphertext"], "context": base64.b64encode(b"kes").decode()}).encode()
        opened = json.loads(client.call("POST", f"/v1/key/decrypt/{KEY}", ask, ("KEY:DECRYPT", "allowed")))
        assert opened["plaintext"] == made["plaintext"]
    client.call("GET", f"/v1/key/describe/{KEY}", b"", ("KEY:STATUS", "allowed"))
    client.call("DELETE", f"/v1/key/delete/{KEY}", b"", ("KEY:DELETE", "denied"), status=403)
    client.call("POST", "/v1/key/generate/other", body, ("KEY:GENERATE", "denied"), status=403)


class CommandLine:
    """The operator's commands, on keys of its own."""

    def __init__(self, kms: Kms) -> None:
        self.kms, self.tally, self.number = kms, Tally(""), 0

    def turn(self) -> None:
        self.number += 1
        key = f"cli-{self.number}"
        for command, operation in (
            (("key", "create", key), "KEY:CREATE"),
            (("datakey", key), "KEY:GENERATE"),
            (("key", "rotate", key), "KEY:CREATE"),
            (("key", "disable", key, "--yes"), "KEY:DISABLE"),
            (("key", "delete", key, "--now", "--yes"), "KEY:DELETE"),
        ):
            said = self.kms.moat(*command, check=False)
            (self.tally.done if said.returncode == 0 else self.tally.maybe)[(operation, "allowed")] += 1
            if said.returncode != 0:
                raise Lost


class Objects:
    """An S3 client of a server that uses the key manager."""

    def __init__(self, client) -> None:
        self.client, self.written, self.number = client, 0, 0

    def turn(self) -> None:
        self.number += 1
        key = f"object-{self.number}"
        try:
            self.client.put_object(Bucket="lake", Key=key, Body=key.encode(), ServerSideEncryption="aws:kms", SSEKMSKeyId=KEY)
            assert self.client.get_object(Bucket="lake", Key=key)["Body"].read() == key.encode()
        except (ClientError, BotoCoreError) as error:
            raise Lost from error
        self.written += 1


class Worker(threading.Thread):
    """Takes turns until the end. What a restart cuts off is begun anew; anything else ends the test."""

    def __init__(self, turn, until: float) -> None:
        super().__init__(daemon=True)
        self.turn, self.until, self.error = turn, until, None

    def run(self) -> None:
        try:
            while time.monotonic() < self.until:
                try:
                    self.turn()
                except Lost:
                    # The server is away: its next readiness is a moment off, and this is the wait of a client.
                    threading.Event().wait(0.1)
        except BaseException as error:  # noqa: BLE001: it is raised again by the test
            self.error = error


def lines(kms: Kms):
    """Every operation of the audit, as its files have it."""
    for path in sorted((kms.stack.data / "kms/audit").glob("audit-*.jsonl")):
        with path.open() as file:
            for text in file:
                line = json.loads(text)
                if line["kind"] == "operation" and line["outcome"] != "begun":
                    yield line


@pytest.fixture
def busy(tmp_path, tools):
    """A key manager with small audit files, a MinIO and a store on it."""
    tools.ensure("minio", "mc")
    kms = Kms(tmp_path / "kms", {"MOAT_KMS_AUDIT_FILE_SIZE": "1MiB"})
    minio = store = None
    try:
        for name, policy in (("mixed", POLICY), ("store", STORE_POLICY)):
            file = tmp_path / f"{name}.json"
            file.write_text(json.dumps(policy))
            kms.moat("policy", "create", name, "--file", str(file))
        for key in (KEY, "other"):
            kms.moat("key", "create", key)
        identity = kms.new_identity()
        minio = Minio(tmp_path / "minio", kms.minkms(tmp_path / "minio", identity["api_key"])).start()
        minio.client().create_bucket(Bucket="lake")
        own = json.loads(kms.moat("identity", "create", "--policy", "store", "--json").stdout)
        store = Stack(tmp_path / "store", Ports.free(), (), {
            "MINIO_KMS_SERVER": f"127.0.0.1:{kms.stack.ports.kms}", "MINIO_KMS_ENCLAVE": ENCLAVE, "MINIO_KMS_API_KEY": own["api_key"],
            "MINIO_KMS_SSE_KEY": KEY, "MOAT_KMS_CA": str(kms.stack.ca), "MOAT_STORE_STRICT_BUCKETS": "lake",
        })  # fmt: skip
        store.write_settings()
        store.process = store.spawn("store")
        wait_until("the store answers", lambda: store.healthy(store.store), 60, store.process)
        store.client().create_bucket(Bucket="lake")
        yield kms, (minio, identity["identity"]), (store, own["identity"])
    finally:
        for server in (minio, store):
            if server is not None and server.process is not None:
                server.process.kill()
        kms.end()


def test_mixed_use_is_in_the_audit_to_the_last_operation(busy, tmp_path):
    kms, (minio, of_minio), (store, of_store) = busy
    clients = [(Client(kms, tmp_path, f"{wire.__name__.replace('_', '-')}-{n}", "mixed"), wire) for wire in (native, over_minkms, over_kes) for n in range(2)]
    command_line = CommandLine(kms)
    objects = {of_minio: Objects(minio.client()), of_store: Objects(store.client())}
    began = time.monotonic()
    turns = [lambda client=client, wire=wire: wire(client) for client, wire in clients]
    turns += [command_line.turn, *(one.turn for one in objects.values())]
    workers = [Worker(turn, began + SECONDS) for turn in turns]
    for worker in workers:
        worker.start()

    # In the middle of it, an orderly restart, and a kill.
    wait_until("a third of the time is over", lambda: time.monotonic() > began + SECONDS / 3, SECONDS + 60)
    kms.stop()
    kms.start()
    wait_until("two thirds are over", lambda: time.monotonic() > began + 2 * SECONDS / 3, SECONDS + 60)
    kms.stack.process, kms.process = kms.process, None
    kms.stack.kill()
    kms.start()
    for worker in workers:
        worker.join(SECONDS + 120)
        assert not worker.is_alive()
        if worker.error is not None:
            raise worker.error
    kms.stop()

    assert "one chain" in kms.stack.verify_audit()
    files = list((kms.stack.data / "kms/audit").glob("audit-*.jsonl"))
    assert len(files) > 3, "it rotated several times"
    counted: collections.Counter[tuple[str, str, str]] = collections.Counter()
    for line in lines(kms):
        who = "" if line.get("key", "").startswith("cli-") else line.get("identity", "")
        counted[(who, line["operation"], line["outcome"])] += 1
    tallies = [client.tally for client, _ in clients] + [command_line.tally]
    for tally in tallies:
        for operation in tally.done | tally.maybe:
            found = counted[(tally.identity, *operation)]
            at_least, at_most = tally.done[operation], tally.done[operation] + tally.maybe[operation]
            assert at_least <= found <= at_most, f"{operation} of {tally.identity}: {at_least} to {at_most} were done, {found} are there"
    done = sum(sum(tally.done.values()) for tally in tallies)
    maybe = sum(sum(tally.maybe.values()) for tally in tallies)
    assert done >= OPERATIONS_MIN and maybe * 10 < done, (done, maybe)
    assert counted[(of_minio, "KEY:GENERATE", "allowed")] >= objects[of_minio].written > 0
    # Its bucket is one that asks for each object: to write it, and to read it.
    assert counted[(of_store, "EPOCH:OPEN", "allowed")] >= objects[of_store].written > 0
