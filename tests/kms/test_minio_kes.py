"""What only a MinIO on KES has: a certificate of its own, and its example. What all have stands in test_minio.py."""

from __future__ import annotations

import base64
import os
import re
import subprocess

from harness.minio import Minio
from harness.stack import REPOSITORY, moat_binary
from support import read


def test_an_expired_client_certificate_is_still_its_key(kms, tmp_path):
    """An identity is a key, not a date: what ends it is the operator, at once, and not a calendar at night."""
    certificate = kms.client_certificate(tmp_path)
    certificate.write_text(expired(certificate.read_text()))
    server = Minio(tmp_path / "minio", kms.kes_certificate(certificate)).start()
    try:
        s3 = server.client()
        s3.create_bucket(Bucket="lake")
        s3.put_object(Bucket="lake", Key="k", Body=b"x", ServerSideEncryption="AES256")
        assert read(s3, "lake", "k") == b"x"
    finally:
        server.kill()


def expired(pem: str) -> str:
    """The first certificate of a chain with dates of long ago. Nobody on the way checks its signature."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    der = base64.b64decode(pem[pem.index(begin) + len(begin) : pem.index(end)])
    # Two UTCTimes, one behind the other (RFC 5280, section 4.1.2.5): the years become 2001 and 2002.
    dates = re.search(rb"\x17\x0d\d{12}Z\x17\x0d\d{12}Z", der)
    old = dates.group()
    new = old[:2] + b"01" + old[4:17] + b"02" + old[19:]
    assert len(new) == len(old) and new != old
    changed = base64.encodebytes(der.replace(old, new)).decode()
    return f"{begin}\n{changed}{end}\n"


def test_the_example_runs(tmp_path, tools):
    """`examples/minio-kes/run.sh` from an empty folder, in both variants."""
    tools.ensure("minio", "mc")
    for variant in ("api-key", "certificate"):
        done = subprocess.run(
            [REPOSITORY / "examples/minio-kes/run.sh", variant, str(tmp_path / variant)], capture_output=True, text=True, timeout=200,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MOAT": str(moat_binary()), "MINIO": tools.program("minio"), "MC": tools.program("mc")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "a MinIO server encrypts with Moat's key manager" in done.stdout
