"""The gateway's matrix with Spark: 3.5, whose S3A stands on SDK v1, and 4, whose S3A stands on SDK v2.

Re-signing gateways are known to break each request of S3A. One JVM does all rows of a version, since S3A takes endpoint,
credentials and encryption for each bucket.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateway_rows import ROWS, Row, assert_sealed, by_name
from harness import s3a
from harness.gateway import ACCESS_KEY, SECRET_KEY

JOB = Path(__file__).resolve().parents[1] / "spark" / "rows.py"
# Files of four partitioned writes, the large one, and _SUCCESS of each.
OBJECTS_MIN = 8

pytestmark = pytest.mark.timeout(s3a.JOB_SECONDS_MAX + 60)


@pytest.fixture(scope="module", params=["spark35", "spark4"])
def spark(request, gateway, tmp_path_factory) -> tuple[str, dict[str, str]]:
    """A version, and what came of the job at every row's bucket."""
    version, work = request.param, tmp_path_factory.mktemp(request.param)

    def bucket(row: Row) -> s3a.Bucket:
        asked = ("SSE-KMS", row.key) if row.asks else ()
        return s3a.Bucket(row.bucket, getattr(gateway, row.listener), ACCESS_KEY, SECRET_KEY, *asked)

    trust = gateway.certificates.truststore
    text = s3a.settings([bucket(row) for row in ROWS], trust, **s3a.SMALL)
    done = s3a.submit(version, text, trust, work, JOB, str(work / "report"), *(f"s3a://{row.bucket}/{version}" for row in ROWS))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return version, {place.split("/")[2]: what for place, what in json.loads((work / "report").read_text()).items()}


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_spark_writes_renames_and_reads(spark, stores, row: Row):
    version, results = spark
    if version == "spark35" and row.listener == "http" and row.asks:
        # SDK v1 refuses SSE-KMS on plain HTTP before a packet leaves, so nothing before or behind it can help.
        assert "HTTPS must be used when sending customer encryption keys (SSE-C)" in results[row.bucket]
        return
    assert results[row.bucket] == "ok"
    assert_sealed(stores[row.store], row, f"{version}/", OBJECTS_MIN)
