"""Spark jobs whose buckets each have an endpoint, credentials and encryption of their own, so that many rows share one JVM."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .java import trust_options

SCRIPTS = Path(__file__).resolve().parents[1]
EXAMPLE = SCRIPTS.parent / "examples" / "spark-sql"
sys.path.insert(0, str(SCRIPTS))

import tools  # noqa: E402

# The longest jobs do a dozen rows; a hung one must not hang the suite.
JOB_SECONDS_MAX = 900
# Code that runs for half a minute is not worth compiling well: this halves the CPU time of a small job.
SHORT_JOB = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
# For small jobs: files of a few megabytes go up in parts, and what fails does so at once. S3A would repeat it for minutes.
SMALL = {"multipart_size": "5M", "multipart_threshold": "6M", "retry_limit": "1"}


@dataclass(frozen=True)
class Bucket:
    """What S3A is told about one bucket; without an algorithm it asks for no encryption."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    algorithm: str = ""
    key: str = ""

    def settings(self) -> str:
        values = {"endpoint": self.endpoint, "access.key": self.access_key, "secret.key": self.secret_key}
        if self.algorithm:
            values |= {"encryption.algorithm": self.algorithm, "encryption.key": self.key}
        return "".join(f"spark.hadoop.fs.s3a.bucket.{self.name}.{name} {value}\n" for name, value in values.items())


def settings(buckets: list[Bucket], truststore: Path, **more: str) -> str:
    """The example's settings, and then what differs by bucket. `more` are further ones of S3A, with `_` for a dot."""
    first = buckets[0]
    values = {
        "ENDPOINT": first.endpoint, "ACCESS_KEY": first.access_key, "SECRET_KEY": first.secret_key, "TRUST_OPTIONS": " ".join(trust_options(truststore)),
        "BASE": f"s3a://{first.name}", "CORES": "2", "ENCRYPTION": "", "CLUSTER": "",
    }  # fmt: skip
    text = (EXAMPLE / "spark-defaults.conf.template").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    text += "".join(f"spark.hadoop.fs.s3a.{name.replace('_', '.')} {value}\n" for name, value in more.items())
    return text + "".join(bucket.settings() for bucket in buckets)


def submit(spark: str, text: str, truststore: Path, work: Path, job: Path, *arguments: str) -> subprocess.CompletedProcess:
    """One spark-submit with these settings, in a JVM of its own, to its end."""
    tools.ensure(spark)
    work.mkdir(parents=True, exist_ok=True)
    file = work / f"{spark}.conf"
    file.touch(mode=0o600)
    file.write_text(text)
    python = tools.program(spark, "python")
    # The options of the driver's JVM, which is up before it reads the file.
    options = f"{SHORT_JOB} {' '.join(trust_options(truststore))} -Dlog4j2.configurationFile=file:{EXAMPLE}/log4j2.properties"
    argv = [
        str(tools.spark_home(tools.where(spark)) / "bin" / "spark-submit"), "--master", "local[2]", "--properties-file", str(file),
        "--driver-java-options", options, str(job), *arguments,
    ]  # fmt: skip
    env = {**os.environ, "PYSPARK_PYTHON": python, "PYSPARK_DRIVER_PYTHON": python, "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(argv, env=env, cwd=work, capture_output=True, text=True, timeout=JOB_SECONDS_MAX)
    (work / f"{spark}.log").write_text(done.stdout + done.stderr)
    return done
