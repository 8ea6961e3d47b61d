"""The AWS SDKs for Java, each in a small program that runs the same course at any number of endpoints in one JVM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
SOURCES = SCRIPTS.parent / "tests" / "clients" / "java"
sys.path.insert(0, str(SCRIPTS))

import tools  # noqa: E402

from .course import COURSE_SECONDS_MAX, Target, run_course  # noqa: E402

VERSIONS = ("v1", "v2")
# Uploads in parts run on the common pool, which has as many threads as the machine has cores: too few to meet each other.
OPTIONS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.util.concurrent.ForkJoinPool.common.parallelism=4")


class JavaClient:
    """One SDK's program, compiled into a folder."""

    def __init__(self, version: str, work: Path) -> None:
        tools.require("java", "javac")
        self.version, self.work = version, work
        self.classes = work / f"java-{version}"
        sources = [*sorted((SOURCES / "common").glob("*.java")), *sorted((SOURCES / version).glob("*.java"))]
        argv = ["javac", "-proc:none", "-d", str(self.classes), "-cp", self.class_path(), *map(str, sources)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COURSE_SECONDS_MAX)
        assert done.returncode == 0, done.stderr

    def class_path(self) -> str:
        if self.version == "v2":
            tools.ensure("java-v2")
            return f"{tools.where('java-v2') / 'jars'}/*"
        # S3A up to Hadoop 3.3 brings version 1 whole, in one jar.
        tools.ensure("spark35")
        (jar,) = (tools.spark_home(tools.where("spark35")) / "jars").glob("aws-java-sdk-bundle-*.jar")
        return str(jar)

    def run(self, targets: list[Target], access_key: str, secret_key: str, trust: Path | None = None) -> dict[str, str]:
        """What came of each target: "ok", or what failed. `trust` is a truststore for the https ones."""
        options = [*OPTIONS, *(trust_options(trust) if trust else ())]
        argv = ["java", *options, "-cp", f"{self.classes}:{self.class_path()}", f"Client{self.version.upper()}"]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.work), "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key}
        return run_course(argv, targets, env)


def trust_options(truststore: Path) -> tuple[str, ...]:
    """What makes a JVM trust the certificates in a truststore, and no others."""
    return (f"-Djavax.net.ssl.trustStore={truststore}", "-Djavax.net.ssl.trustStorePassword=changeit")
