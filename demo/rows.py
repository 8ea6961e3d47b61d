"""What a row of the demo's table is, and how one is measured."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

# Objects of a row that are asked what encrypts them; a row writes fewer.
HEADS_MAX = 400


class RowFailure(Exception):
    """A row that is not as it must be. The message is one sentence; the log says more."""


@dataclass
class Row:
    """One line of the table."""

    name: str
    endpoint: str
    asked: str
    log: Path
    # The prefix that the row writes below, if it writes.
    prefix: str | None = None
    # What HEAD has to report for every object of the row: algorithm and key.
    wanted: str | None = None
    result: str = ""
    seconds: float = 0.0
    requests: int = 0
    objects: int = 0
    reported: set[str] = field(default_factory=set)
    audit_lines: int = 0
    # Seconds of the work that are not the row's: the first one also makes the local tables.
    excluded_seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.result == "pass"


def measure(row: Row, stack, work: Callable[[], None]) -> None:
    """Runs a row's work and notes what it cost; a failure is noted too, and does not stop the demo."""
    started = time.monotonic()
    try:
        requests, audit = stack.requests_served(), len(stack.audit())
        started = time.monotonic()
        work()
        row.seconds = time.monotonic() - started - row.excluded_seconds
        row.requests = stack.requests_served() - requests
        if row.prefix is not None:
            inspect_objects(row, stack)
        row.audit_lines = len(stack.audit()) - audit
        row.result = "pass"
    except RowFailure as error:
        row.seconds = row.seconds or time.monotonic() - started
        row.result = f"FAIL: {error}"
    except Exception as error:  # Any error of a client is this row's failure; the others still run.
        row.seconds = row.seconds or time.monotonic() - started
        row.result = f"FAIL: {type(error).__name__}: {error}"
    if not row.passed:
        with row.log.open("a") as log:
            log.write(f"\n{row.result}\n")
    say(f"row {row.name}: {row.result} after {row.seconds:.1f} s")


def inspect_objects(row: Row, stack) -> None:
    """Counts what the row wrote and asks every object, straight at the store, what it is encrypted with."""
    client = stack.client()
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lake", Prefix=row.prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    row.objects = len(keys)
    if not keys:
        raise RowFailure(f"no object stands below {row.prefix}")
    if row.wanted is None:
        return
    for key in keys[:HEADS_MAX]:
        row.reported.add(encryption_of(client.head_object(Bucket="lake", Key=key)))
    if row.reported != {row.wanted}:
        raise RowFailure(f"HEAD reports {', '.join(sorted(row.reported))}, and it must be {row.wanted}")


def encryption_of(answer: dict) -> str:
    """Algorithm and key of an answer, as the table shows them."""
    if algorithm := answer.get("SSECustomerAlgorithm"):
        return f"SSE-C {algorithm}"
    algorithm, key = answer.get("ServerSideEncryption", "none"), answer.get("SSEKMSKeyId")
    return f"{algorithm} {key.removeprefix('arn:aws:kms:')}" if key else algorithm


def table(rows: list[Row]) -> str:
    """The table, as wide as its contents."""
    heading = ["row", "endpoint", "encryption asked", "result", "wall s", "requests", "objects", "HEAD reports", "audit lines"]
    lines = [
        [
            row.name, row.endpoint, row.asked, "pass" if row.passed else "FAIL", f"{row.seconds:.1f}", str(row.requests),
            str(row.objects) if row.prefix else "-", ", ".join(sorted(row.reported)) or "-", str(row.audit_lines),
        ]
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in [heading, *lines]) for i in range(len(heading))]
    numbers = {4, 5, 6, 8}

    def show(cells: list[str]) -> str:
        return "| " + " | ".join(c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(cells, widths))) + " |"

    rule = "| " + " | ".join("-" * w for w in widths) + " |"
    return "\n".join([show(heading), rule, *map(show, lines)])


_started = time.monotonic()


def say(message: str) -> None:
    """A line of progress with the time since the demo began."""
    print(f"[{time.monotonic() - _started:6.1f} s] {message}", flush=True)


def show_output(line: str) -> None:
    """A line that a program of ours printed, under the row that it belongs to."""
    print(f"            {line}", flush=True)
    sys.stdout.flush()
