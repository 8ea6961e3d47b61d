"""`make demo`: the whole thread on this machine, from an empty folder to a table with its evidence.

Starts `moat up` and a Spark standalone cluster, runs Spark and boto3 over every endpoint with every kind of encryption,
kills the server in the middle of writes, and looks for plaintext in every file. Everything lies in .work/demo, which is
emptied first; everything that is started is ended, unless KEEP=1 asks for it to stay.

Environment: MOAT_BIN (the program), MOAT_TOOLS (where tools are), MOAT_SCALE (TPC-H scale factor), KEEP=1.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

import tools  # noqa: E402
from harness.process import ProcessError, end_on_signals, stop_all, wait_until  # noqa: E402
from harness.spark import SparkCluster  # noqa: E402
from harness.stack import Ports, Stack, moat_binary  # noqa: E402

import crash  # noqa: E402
import evidence  # noqa: E402
from rows import Row, RowFailure, say, table  # noqa: E402
from rows_boto3 import Marks, run_boto3_rows  # noqa: E402
from rows_spark import SPARK_ROWS, run_spark_rows  # noqa: E402

WORK = REPOSITORY / ".work" / "demo"
PIDS = WORK / "pids"
BUCKET = "lake"
NAMED_KEY = "demo-key"
# 120,000 line items: the tables are then a few MB each, and a row is mostly what Spark and the store make of it.
SCALE = "0.02"


class DemoFailure(Exception):
    """The demo cannot go on, or something was not as it must be."""


def main() -> int:
    end_on_signals()
    keep = os.environ.get("KEEP") == "1"
    try:
        tools.require("java", "python3", "curl")
        refuse_kept_stack()
        return run(keep)
    except KeyboardInterrupt:
        print("\ninterrupted: ending everything that was started", file=sys.stderr)
        return 130
    except (DemoFailure, ProcessError, RowFailure, tools.ToolError, OSError) as error:
        print(f"\nmake demo FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        stop_all()


def run(keep: bool) -> int:
    started = time.monotonic()
    tools.ensure("client", "spark35")
    fresh_folder()
    say(f"starting moat up ({moat_binary()})")
    stack = Stack(WORK / "data", Ports.preferred(), (BUCKET,), log=WORK / "logs" / "moat.log", keep=keep).start()
    stack.moat("kms", "key", "create", NAMED_KEY)
    cluster = start_spark(stack, keep)
    rows = run_spark_rows(stack, cluster, WORK, tools.tools_dir(), os.environ.get("MOAT_SCALE", SCALE))
    marks = Marks()
    rows += run_boto3_rows(stack, WORK, marks)
    facts = [spark_history(cluster, rows)]
    facts += crash_facts(stack)
    facts += plaintext_facts(stack, marks, rows)
    facts += audit_facts(stack)
    print(f"\n{table(rows)}\n")
    print("A store asks its key manager once for each bucket, key and lease, and not for each object: a row that finds its lease adds no line to the audit.")
    print("\n".join(facts))
    failed = [row for row in rows if not row.passed]
    for row in failed:
        print(f"\nFAILED row {row.name}: {row.result.removeprefix('FAIL: ')}\n  log: {row.log}, {stack.log}", file=sys.stderr)
    if keep:
        leave_running(stack, cluster)
    else:
        cluster.stop()
        if code := stack.stop():
            raise DemoFailure(f"moat up ended with {code} after SIGTERM; log: {stack.log}")
    if failed:
        print(f"\nmake demo FAILED: {len(failed)} of {len(rows)} rows", file=sys.stderr)
        return 1
    print(f"\nAll {len(rows)} rows pass, after {time.monotonic() - started:.0f} s.\n")
    print(what_next(stack, keep))
    return 0


# ---- start ----


def refuse_kept_stack() -> None:
    """A stack that KEEP=1 left running owns the folder."""
    alive = [pid for pid in kept_pids() if is_ours(pid)]
    if alive:
        raise DemoFailure(f"the stack of an earlier `KEEP=1 make demo` still runs (pids {' '.join(map(str, alive))}); end it with `make demo-stop`")


def kept_pids() -> list[int]:
    return [int(pid) for pid in PIDS.read_text().split()] if PIDS.exists() else []


def is_ours(pid: int) -> bool:
    """Whether the process still is what we started, and not a later one with the same number."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return str(WORK) in command or "org.apache.spark.deploy" in command


def fresh_folder() -> None:
    """An empty folder; the local tables beside it stay, they depend on the scale alone."""
    if WORK.exists():
        shutil.rmtree(WORK)
    (WORK / "logs").mkdir(parents=True)


def start_spark(stack: Stack, keep: bool) -> SparkCluster:
    say("starting a Spark standalone cluster: master, worker, history server with its event log on s3a://")
    # The event log's folder has to exist before the first application.
    stack.client().put_object(Bucket=BUCKET, Key="spark-events/", ContentType="application/x-directory")
    trust = f"-Djavax.net.ssl.trustStore={stack.data}/trust/truststore.p12 -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12"
    access_key, secret_key = stack.root_credentials()
    settings = WORK / "history.conf"
    settings.touch(mode=0o600)
    settings.write_text(
        f"spark.hadoop.fs.s3a.endpoint {stack.store}\nspark.hadoop.fs.s3a.path.style.access true\n"
        f"spark.hadoop.fs.s3a.access.key {access_key}\nspark.hadoop.fs.s3a.secret.key {secret_key}\n"
        "spark.hadoop.fs.s3a.aws.credentials.provider org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider\n"
    )
    home = tools.spark_home(tools.where("spark35"))
    return SparkCluster(home, WORK / "spark", settings, trust, f"s3a://{BUCKET}/spark-events", keep).start()


# ---- evidence ----


def spark_history(cluster: SparkCluster, rows: list[Row]) -> str:
    wanted = sum(row.passed for row in rows[: len(SPARK_ROWS)])
    wait_until("the history server lists the applications", lambda: len(cluster.applications()) >= wanted, 60)
    return f"History server: {len(cluster.applications())} applications, read from the encrypted event log on s3a://{BUCKET}/spark-events."


def crash_facts(stack: Stack) -> list[str]:
    say("kill -9 of the server in the middle of writes")
    seen = crash.crash_and_check(stack, kills=2)
    say(f"    restarted in {seen.downtime_seconds:.1f} s, everything acknowledged is intact")
    return [
        f"kill -9 in the middle of writes, {seen.kills} times: {seen.acknowledged} acknowledged objects intact after the restart, overwritten keys whole, "
        f"{seen.parts} parts of an open multipart upload kept and completed; of the last writes on the wire {seen.unacknowledged_present} were there, whole, "
        f"{seen.unacknowledged_absent} not. Restart: {seen.downtime_seconds:.1f} s."
    ]


def plaintext_facts(stack: Stack, marks: Marks, rows: list[Row]) -> list[str]:
    say("scanning every file for plaintext")
    prefixes = [row.prefix for row in rows[: len(SPARK_ROWS)] if row.passed and row.prefix]
    known = evidence.known_contents(stack, marks, prefixes, WORK.parent / "tables")
    found_plant = evidence.scanner_sees(known, WORK)
    result = evidence.scan_for_plaintext(stack, known, (stack.log,))
    return [
        f"Plaintext on disk: 0 hits. {result.files} files, {result.bytes / 1e6:.0f} MB (all of the data folder but root.env, and the server's log) were searched at "
        f"every offset for any 16 bytes of {len(known)} known contents, {known.bytes / 1e6:.1f} MB: object bodies, Spark's Parquet files, user metadata, content "
        f"headers, {'tags, ' if marks.tags else ''}the root secret and the customer's key, the short ones also as hex and base64. (16 bytes of {found_plant}, planted in a file elsewhere, were found.)"
        + ("" if marks.tags else " Object tags are refused (501) by this version, so none are stored.")
    ]


def audit_facts(stack: Stack) -> list[str]:
    audit = stack.audit()
    lines = [f"Key manager's audit: {len(audit)} lines; {stack.verify_audit()}", "  operations per key:"]
    for key, operation, allowed, refused in evidence.operations_per_key(audit):
        lines.append(f"    {key:<16} {operation:<24} {allowed:>5} allowed {refused:>4} refused")
    served = {key for key, _operation, allowed, _refused in evidence.operations_per_key(audit) if allowed}
    for key in (f"{BUCKET}-key", NAMED_KEY):
        if key not in served:
            raise RowFailure(f"the audit shows no operation for the key {key}: it cannot have encrypted anything")
    return lines


# ---- end ----


def leave_running(stack: Stack, cluster: SparkCluster) -> None:
    PIDS.write_text("\n".join(str(p.pid) for p in [stack.process, *cluster.processes]) + "\n")
    stack.process.release()
    cluster.release()


def stop_kept() -> int:
    """`make demo-stop`: ends, by process id, what KEEP=1 left running."""
    for pid in reversed(kept_pids()):
        if is_ours(pid):
            os.kill(pid, signal.SIGTERM)
            print(f"ended {pid}")
    PIDS.unlink(missing_ok=True)
    return 0


def welcome(stack: Stack) -> list[str]:
    """What `moat up` printed for its users at its first start: the lines from the addresses to `ready`."""
    lines = stack.log.read_text().splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("store ")), 0)
    last = next((i for i, line in enumerate(lines) if line.startswith("ready")), len(lines))
    return lines[first:last]


def what_next(stack: Stack, keep: bool) -> str:
    settings = "\n".join(f"  {line}" for line in welcome(stack))
    running = (
        "The stack and the cluster still run (KEEP=1); `make demo-stop` ends them."
        if keep
        else "KEEP=1 make demo leaves the stack and the Spark cluster running."
    )
    return (
        f"What to try next\n"
        f"  {running}\n"
        f"  moat up --data moat-data --bucket lake         a stack of your own, on the usual ports\n"
        f"  examples/spark-sql/run.sh --http               the row that failed in the labs, on a running stack\n"
        f"  moat doctor URL --s3a                          says what is wrong between a client and an endpoint\n"
        f"  moat kms audit show --data moat-data           who used which key, and when\n"
        f"What moat up printed when it started: endpoints, secrets and the settings to paste\n{settings}"
    )


if __name__ == "__main__":
    sys.exit(stop_kept() if sys.argv[1:] == ["--stop"] else main())
