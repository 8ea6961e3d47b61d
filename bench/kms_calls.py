"""How often a store asks its key manager for one object: a MinIO on ours, and Moat's own store, by the lines of the audit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

from harness.kms import ENCLAVE, Kms
from harness.minio import Minio
from harness.process import wait_until
from harness.stack import Ports, Stack

BUCKET = "calls"
KEYS = {"MinIO": "minio-calls", "Moat": "moat-calls"}
# The smallest that S3 takes.
PART = 5 << 20
# Objects of each kind: the number that is printed is an average, and has to be a whole one.
OBJECTS = 5
STORE_POLICY = {"allow": {command: "*" for command in ("EPOCH:GENERATE", "EPOCH:OPEN", "KEY:STATUS")}}


def operations(s3, key: str) -> list[tuple[str, Callable[[str], object]]]:
    """What is done with an object, each on the objects that the one before left."""
    sse = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key}
    at = {"Bucket": BUCKET}

    def parts(name: str) -> None:
        upload = s3.create_multipart_upload(**at, Key=name, **sse)["UploadId"]
        place = {**at, "Key": name, "UploadId": upload}
        done = [{"PartNumber": n, "ETag": s3.upload_part(**place, PartNumber=n, Body=b"p" * PART)["ETag"]} for n in (1, 2)]
        s3.complete_multipart_upload(**place, MultipartUpload={"Parts": done})

    return [
        ("PUT", lambda name: s3.put_object(**at, Key=name, Body=b"x" * 1000, **sse)),
        ("GET", lambda name: s3.get_object(**at, Key=name)["Body"].read()),
        ("HEAD", lambda name: s3.head_object(**at, Key=name)),
        ("LIST, each object", lambda name: s3.list_objects_v2(**at, Prefix=name)),
        ("COPY in place", lambda name: s3.copy_object(**at, Key=name, CopySource=f"{BUCKET}/{name}", MetadataDirective="REPLACE", **sse)),
        ("PUT with checksum", lambda name: s3.put_object(**at, Key=name, Body=b"x", ChecksumAlgorithm="SHA256", **sse)),
        ("DELETE", lambda name: s3.delete_object(**at, Key=name)),
        ("multipart of two parts", parts),
    ]


def moat_store(kms: Kms, folder: Path) -> Stack:
    """A Moat store on the key manager, with an identity of its own."""
    policy = folder / "store.json"
    policy.write_text(json.dumps(STORE_POLICY))
    kms.moat("policy", "create", "store", "--file", str(policy))
    own = json.loads(kms.moat("identity", "create", "--policy", "store", "--json").stdout)
    store = Stack(folder / "store", Ports.free(), (), {
        "MINIO_KMS_SERVER": f"127.0.0.1:{kms.stack.ports.kms}", "MINIO_KMS_ENCLAVE": ENCLAVE, "MINIO_KMS_API_KEY": own["api_key"],
        "MINIO_KMS_SSE_KEY": KEYS["Moat"], "MOAT_KMS_CA": str(kms.stack.ca),
    })  # fmt: skip
    store.write_settings()
    store.process = store.spawn("store")
    wait_until("the store answers", lambda: store.healthy(store.store), 60, store.process)
    return store


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Calls per object: operation, then server."""
    kms = Kms(folder / "kms")
    minio = store = None
    try:
        for key in KEYS.values():
            kms.moat("key", "create", key)
        minio = Minio(folder / "minio", kms.minio("minkms", folder / "minio")).start()
        store = moat_store(kms, folder)
        found: dict[str, dict[str, float]] = {}
        # No checksum unless asked for: newer clients add one to everything, which costs a MinIO two calls more.
        settings = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
        for server, s3 in (("MinIO", minio.client(**settings)), ("Moat", store.client(**settings))):
            key = KEYS[server]
            s3.create_bucket(Bucket=BUCKET)
            # The first object of a bucket and a day has the store make an epoch key, which is not one for each object.
            s3.put_object(Bucket=BUCKET, Key="first", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
            for name, act in operations(s3, key):
                before = sum(kms.counts(key).values())
                for number in range(OBJECTS):
                    act(f"object-{number}")
                found.setdefault(name, {})[server] = (sum(kms.counts(key).values()) - before) / OBJECTS
        return found
    finally:
        for server in (minio, store):
            if server is not None and server.process is not None:
                server.process.kill()
        kms.end()


def show(found: dict[str, dict[str, float]]) -> None:
    print(f"{'key-manager calls per object':<30}{'MinIO':>8}{'Moat':>8}")
    for operation, calls in found.items():
        print(f"{operation:<30}{calls['MinIO']:>8g}{calls['Moat']:>8g}")
