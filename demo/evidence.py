"""What the demo shows beside its table: the audit's account of the keys, and the scan for plaintext."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from harness.scan import RUN_BYTES, Known, Result

from rows import RowFailure
from rows_boto3 import MODES, Marks

BUCKET = "lake"
# Spark's files: so much of the beginning and the end of so many of each row. A leak would show in any of them.
FILES_PER_ROW = 6
HEAD_BYTES, TAIL_BYTES = 16 << 10, 4 << 10
# boto3's bodies are megabytes; their beginnings, and a window in the middle, are enough to recognise them.
BODY_BYTES = 16 << 10


def operations_per_key(audit: list[dict]) -> list[tuple[str, str, int, int]]:
    """Rows of (key, operation, allowed, refused) from the audit's lines about keys, in order.

    A change is written down twice, when it begins and when it is done; only the second says how it ended.
    """
    counted: Counter = Counter()
    for line in audit:
        if line.get("key") and line.get("outcome") != "begun":
            counted[(line["key"], line["operation"], line["outcome"] == "allowed")] += 1
    pairs = sorted({(key, operation) for key, operation, _ in counted})
    return [(key, operation, counted[(key, operation, True)], counted[(key, operation, False)]) for key, operation in pairs]


def known_contents(stack, marks: Marks, prefixes: list[str], local_tables: Path) -> Known:
    """Everything that was written and that no file may hold: bodies, Spark's files, metadata, headers, credentials."""
    known = Known()
    for name, body in marks.bodies:
        known.add(name, body[:BODY_BYTES])
        known.add(f"{name} (middle)", body[len(body) // 2 :][:BODY_BYTES])
    for name, text in marks.texts:
        known.add(name, text, encoded=True)
    client = stack.client()
    for prefix in prefixes:
        for key, part in spark_files(client, prefix):
            known.add(key, part)
    for path in sorted(local_tables.rglob("part-*.parquet"))[:FILES_PER_ROW]:
        known.add(f"local {path.parent.name}", path.read_bytes()[:HEAD_BYTES])
    secret = stack.root_credentials()[1].encode()
    known.add("the root credentials' secret", secret, encoded=True)
    for mode in MODES:
        if mode.customer_key:
            known.add("the customer's key", mode.customer_key, encoded=True)
    return known


def spark_files(client, prefix: str):
    """The beginnings and ends of some Parquet files below a prefix, as a reader gets them."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    files = [item for page in pages for item in page.get("Contents", []) if item["Key"].endswith(".parquet")]
    for item in random.Random(prefix).sample(files, min(FILES_PER_ROW, len(files))):
        body = client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        yield item["Key"], body[:HEAD_BYTES]
        if len(body) > HEAD_BYTES + TAIL_BYTES:
            yield f"{item['Key']} (end)", body[-TAIL_BYTES:]


def scan_for_plaintext(stack, known: Known, more: tuple[Path, ...]) -> Result:
    """Scans every file of the data folder, and the servers' logs. The one file that hands out the credentials is left out."""
    result = known.scan(stack.data, *more, skip=(stack.data / "root.env",))
    if result.hits:
        raise RowFailure("plaintext on disk: " + "; ".join(map(str, result.hits[:3])))
    return result


def scanner_sees(known: Known, folder: Path) -> str:
    """Proves that 0 hits means something: 16 bytes of a known content, hidden in noise, have to be found."""
    draw = random.Random(16)
    name, content = draw.choice([c for c in known.contents() if len(c[1]) > 2 * RUN_BYTES])
    at = draw.randrange(len(content) - RUN_BYTES)
    planted = folder / "planted"
    planted.write_bytes(draw.randbytes(100_003) + content[at : at + RUN_BYTES] + draw.randbytes(50_001))
    hits = known.scan(planted).hits
    planted.unlink()
    if not hits:
        raise RowFailure(f"the scan did not find the {RUN_BYTES} bytes of {name} that were planted for it")
    return name
