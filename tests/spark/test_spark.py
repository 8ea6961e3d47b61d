"""Real Spark, both generations of S3A: the rows of the demo's table at a small scale.

Spark 3.5 is S3A on SDK v1, whose rename fails on a http endpoint if HEAD tells the KMS key id; Spark 4 is S3A on SDK v2.
Rows that differ only in endpoint and encryption share one JVM: each has a bucket of its own, and S3A takes settings for
each bucket (`fs.s3a.bucket.NAME.endpoint`). The http row and the row that only reads run as users run them, by run.sh.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness.stack import Stack

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "examples" / "spark-sql"
# The smallest tables that still have something to join.
SCALE = "0.001"
JOB_SECONDS_MAX = 900
ROWS = ("direct", "https", "http", "direct-kms", "https-kms")

pytestmark = pytest.mark.timeout(JOB_SECONDS_MAX + 60)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A server with a bucket for each row, and one for run.sh."""
    with Stack(tmp_path_factory.mktemp("spark") / "data", buckets=("lake", *(f"row-{r}" for r in ROWS))) as stack:
        stack.moat("kms", "key", "create", "demo-key")
        yield stack


@pytest.fixture(scope="module")
def local_tables(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tables")


def settings_of(stack: Stack, rows: tuple[str, ...]) -> str:
    """The example's settings for all rows at once."""
    access_key, secret_key = stack.root_credentials()
    trust = f"-Djavax.net.ssl.trustStore={stack.data}/trust/truststore.jks -Djavax.net.ssl.trustStorePassword=changeit"
    values = {
        "ENDPOINT": stack.store, "ACCESS_KEY": access_key, "SECRET_KEY": secret_key, "TRUST_OPTIONS": trust, "BASE": "s3a://row-direct", "CORES": "2",
        "ENCRYPTION": "", "CLUSTER": "",
    }  # fmt: skip
    text = (EXAMPLE / "spark-defaults.conf.template").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    endpoints = {"direct": stack.store, "https": stack.proxy_https, "http": stack.proxy_http}
    for row in rows:
        text += f"spark.hadoop.fs.s3a.bucket.row-{row}.endpoint {endpoints[row.split('-')[0]]}\n"
        if row.endswith("-kms"):
            text += f"spark.hadoop.fs.s3a.bucket.row-{row}.encryption.algorithm SSE-KMS\n"
            text += f"spark.hadoop.fs.s3a.bucket.row-{row}.encryption.key demo-key\n"
    return text


def submit(tools, spark: str, stack: Stack, rows: tuple[str, ...], local: Path, work: Path) -> None:
    """One spark-submit of the example's job over all rows."""
    tools.ensure(spark)
    settings, report = work / "spark.conf", work / "report.json"
    settings.touch(mode=0o600)
    settings.write_text(settings_of(stack, rows))
    python = tools.program(spark, "python")
    trust = f"-Djavax.net.ssl.trustStore={stack.data}/trust/truststore.jks -Djavax.net.ssl.trustStorePassword=changeit"
    argv = [
        str(tools.spark_home(tools.where(spark)) / "bin" / "spark-submit"), "--master", "local[2]", "--properties-file", str(settings),
        "--driver-java-options", f"{trust} -Dlog4j2.configurationFile=file:{EXAMPLE}/log4j2.properties",
        str(EXAMPLE / "job.py"), "--base", *(f"s3a://row-{r}/tables-{spark}" for r in rows), "--local", str(local), "--scale", SCALE, "--report", str(report),
    ]  # fmt: skip
    env = {**os.environ, "PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=JOB_SECONDS_MAX)
    failure = json.loads(report.read_text())["failure"] if report.exists() else "no report was left"
    assert (done.returncode, failure) == (0, None), f"{failure}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def run_example(tools, stack: Stack, local: Path, *options: str) -> str:
    """examples/spark-sql/run.sh, as a user runs it."""
    tools.ensure("spark35")
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MOAT_")}, "MOAT_DATA": str(stack.data), "MOAT_TOOLS": str(tools.tools_dir()),
        "MOAT_SCALE": SCALE, "MOAT_LOCAL_TABLES": str(local), "MOAT_ROW": "example", "SPARK_LOCAL_IP": "127.0.0.1",
    }  # fmt: skip
    done = subprocess.run([str(EXAMPLE / "run.sh"), *options], env=env, capture_output=True, text=True, timeout=JOB_SECONDS_MAX)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def encryptions(stack: Stack, bucket: str, prefix: str) -> set[tuple[str, str]]:
    """Algorithm and key of every object below a prefix, as HEAD tells them at the store."""
    s3 = stack.client()
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    heads = [s3.head_object(Bucket=bucket, Key=item["Key"]) for page in pages for item in page.get("Contents", [])]
    assert len(heads) > 20, "tables, a warehouse and their markers"
    return {(h["ServerSideEncryption"], h["SSEKMSKeyId"]) for h in heads}


def test_spark35_over_https_with_bucket_keys_and_named_keys(tools, lake, local_tables, tmp_path):
    rows = ("direct", "https", "direct-kms", "https-kms")
    submit(tools, "spark35", lake, rows, local_tables, tmp_path)
    for row in rows:
        wanted = "demo-key" if row.endswith("-kms") else f"row-{row}-key"
        assert encryptions(lake, f"row-{row}", "tables-spark35/") == {("aws:kms", wanted)}


def test_spark35_over_plain_http_renames_in_a_bucket_with_a_kms_rule(tools, lake, local_tables):
    """The row that failed in the labs: "HTTPS must be used when sending customer encryption keys"."""
    assert "PASSED" in run_example(tools, lake, local_tables, "--http")
    assert encryptions(lake, "lake", "rows/example/") == {("aws:kms", "lake-key")}


def test_spark35_reads_what_was_written_over_another_endpoint(tools, lake, local_tables):
    if not lake.client().list_objects_v2(Bucket="lake", Prefix="rows/example/")["KeyCount"]:
        run_example(tools, lake, local_tables, "--direct")
    before = lake.client().list_objects_v2(Bucket="lake")["KeyCount"]
    out = run_example(tools, lake, local_tables, "--https", "--select-only", "--quiet")
    assert len(out.splitlines()) == 1 and out.startswith("PASSED")
    assert lake.client().list_objects_v2(Bucket="lake")["KeyCount"] == before, "it only reads"


def test_spark4_direct_and_through_both_proxies(tools, lake, local_tables, tmp_path):
    rows = ("direct", "https", "http")
    submit(tools, "spark4", lake, rows, local_tables, tmp_path)
    for row in rows:
        assert encryptions(lake, f"row-{row}", "tables-spark4/") == {("aws:kms", f"row-{row}-key")}


@pytest.mark.parametrize(
    "options, words",
    [(("--http", "--sse-kms"), "cannot work"), (("--nonsense",), "unknown option")],
)
def test_run_sh_says_what_is_wrong(lake, options, words):
    done = subprocess.run([str(EXAMPLE / "run.sh"), *options], env={**os.environ, "MOAT_DATA": str(lake.data)}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr


def test_run_sh_says_that_no_stack_runs(lake, tmp_path):
    env = {**os.environ, "MOAT_DATA": str(tmp_path)}
    done = subprocess.run([str(EXAMPLE / "run.sh")], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        pytest.skip("a demo's stack is running in this checkout, and run.sh found it")
    assert done.returncode == 2 and "run.sh:" in done.stderr
