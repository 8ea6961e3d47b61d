"""The Spark rows: `examples/spark-sql/run.sh` on the standalone cluster, once for each row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from rows import Row, RowFailure, measure, say, show_output

RUN = Path(__file__).resolve().parents[1] / "examples/spark-sql/run.sh"
# The slowest row takes half a minute; a hung one must not hang the demo.
ROW_SECONDS_MAX = 300

# The job's name for the step that makes the local tables, in job.py.
LOCAL_STEP = "local tables and expected results"


@dataclass(frozen=True)
class SparkRow:
    """What distinguishes one Spark row from another."""

    name: str
    endpoint: str
    asked: str
    options: tuple[str, ...]
    wanted: str | None
    # Whose data it reads, for the row that writes none.
    reads: tuple[str, ...] = ()


BUCKET_KEY = "aws:kms lake-key"
NAMED_KEY = "aws:kms demo-key"

SPARK_ROWS = (
    SparkRow("direct", "https store", "none", ("--direct",), BUCKET_KEY),
    SparkRow("proxy-https", "https proxy", "none", ("--https",), BUCKET_KEY),
    SparkRow("proxy-http", "http proxy", "none", ("--http",), BUCKET_KEY),
    SparkRow("direct-sse-kms", "https store", "SSE-KMS demo-key", ("--direct", "--sse-kms"), NAMED_KEY),
    SparkRow("proxy-sse-kms", "https proxy", "SSE-KMS demo-key", ("--https", "--sse-kms"), NAMED_KEY),
    SparkRow("select-only", "https proxy", "none", ("--https", "--select-only"), None, ("direct", "proxy-http", "direct-sse-kms")),
)


def run_spark_rows(stack, cluster, work: Path, tools: Path, scale: str) -> list[Row]:
    rows = []
    for spec in SPARK_ROWS:
        row = Row(spec.name, spec.endpoint, spec.asked, work / "logs" / f"spark-{spec.name}.log",
                  prefix=None if spec.reads else f"rows/{spec.name}/", wanted=spec.wanted)  # fmt: skip
        say(f"row {row.name}: Spark over the {row.endpoint}, encryption asked: {row.asked}")
        measure(row, stack, lambda: run_one(spec, row, stack, cluster, work, tools, scale))
        rows.append(row)
    return rows


def run_one(spec: SparkRow, row: Row, stack, cluster, work: Path, tools: Path, scale: str) -> None:
    """Runs the script; its output is shown as it comes, what Java says goes to the log."""
    report = work / f"report-{spec.name}.json"
    report.unlink(missing_ok=True)
    env = {
        **os.environ,
        "MOAT_DATA": str(stack.data),
        "MOAT_TOOLS": str(tools),
        "MOAT_ROW": " ".join(spec.reads) or spec.name,
        "MOAT_REPORT": str(report),
        "MOAT_SCALE": scale,
        "MOAT_LOCAL_TABLES": str(work.parent / "tables"),
        "MOAT_SPARK_EVENT_LOG": cluster.event_log,
        "SPARK_MASTER": cluster.master,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    code = run_shown([str(RUN), *spec.options], env, row.log)
    said = json.loads(report.read_text()) if report.exists() else {"failure": f"run.sh ended with {code} and left no report", "steps": {}}
    row.excluded_seconds = said["steps"].get(LOCAL_STEP, 0.0)
    failure = said["failure"]
    if failure or code != 0:
        raise RowFailure(failure or f"run.sh ended with {code}")


def run_shown(argv: list[str], env: dict[str, str], log_path: Path) -> int:
    """Runs a script in a session of its own, shows its lines as they come, and ends all of it if it takes too long."""
    with log_path.open("w") as log:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log, env=env, text=True, start_new_session=True)
        watchdog = threading.Timer(ROW_SECONDS_MAX, end_session, [process])
        watchdog.start()
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                show_output(line.rstrip())
            code = process.wait()
        finally:
            timely = watchdog.is_alive()
            watchdog.cancel()
            end_session(process)
    if not timely:
        raise RowFailure(f"no end after {ROW_SECONDS_MAX} s")
    return code


def end_session(process: subprocess.Popen) -> None:
    """Kills the script and the JVM that it started, if they still run."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
