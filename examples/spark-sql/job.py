"""The Spark SQL job of the example: writes tables to an S3 store every way that Spark has, and proves what it reads back.

    spark-submit job.py --base s3a://lake/rows/direct --local /tmp/tables [--scale 0.01] [--select-only] [--report FILE]

It writes Parquet with Spark's default committer (FileOutputCommitter v1, whose two renames are HEAD, CopyObject and DELETE
for each file), partitioned and plain, overwrites, appends, makes a table with `saveAsTable` in a warehouse on the store and
inserts into it. Then it reads all of it with filters and joins. The same tables stand in local files, the same queries run
there, and every result has to be equal; so has a fingerprint over every value of every table.

Nothing here knows about encryption, certificates or proxies: those are settings (spark-defaults.conf.template).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import json
import sys
import time
import zlib
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

import tpch

TABLES = ("region", "nation", "supplier", "customer", "part", "orders", "lineitem")
WAREHOUSE_TABLE = "revenue"


class Mismatch(Exception):
    """What was read from the store is not what was written. The message says where."""


def main() -> int:
    arguments = parse_arguments()
    steps = Steps(quiet=arguments.quiet)
    spark = SparkSession.builder.appName(f"moat spark-sql {' '.join(arguments.base)}").getOrCreate()
    failure = None
    try:
        with steps.step("local tables and expected results"):
            local = tables_folder(Path(arguments.local), arguments.scale)
            expected = local_truth(spark, local, arguments.scale)
        for base in arguments.base:
            if not arguments.select_only:
                write_everything(spark, base, local, steps)
            read_and_compare(spark, base, expected, steps)
    except Mismatch as error:
        failure = str(error)
    except Exception as error:  # Spark raises Java exceptions of any class: the first lines say what happened.
        failure = root_cause(error)
    if arguments.report:
        report = {"ok": failure is None, "failure": failure, "steps": steps.seconds, "base": arguments.base}
        Path(arguments.report).write_text(json.dumps(report, indent=1))
    spark.stop()
    if failure:
        print(f"FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    print(f"PASSED in {sum(steps.seconds.values()):.1f} s: {' '.join(arguments.base)}", flush=True)
    return 0


def root_cause(error: Exception) -> str:
    """The innermost cause of a Java exception in one line; Spark wraps the sentence that matters a dozen times."""
    causes = [line.strip() for line in str(error).splitlines() if line.startswith("Caused by: ")]
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"{causes[-1].removeprefix('Caused by: ')} (in: {first[:300]})" if causes else first[:1000]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="writes and reads TPC-H-like tables on an S3 store and compares the results")
    parser.add_argument("--base", required=True, nargs="+", help="where to write, e.g. s3a://lake/rows/direct; several are done in turn")
    parser.add_argument("--local", required=True, help="a local folder for the same tables")
    parser.add_argument("--scale", type=float, default=0.01, help="TPC-H scale factor (1 = 6 million line items)")
    parser.add_argument("--select-only", action="store_true", help="write nothing; read what an earlier run wrote at --base")
    parser.add_argument("--report", help="a file for the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="print only the last line")
    return parser.parse_args()


class Steps:
    """Names what runs, and how long it took."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def step(self, name: str):
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.seconds[name] = round(self.seconds.get(name, 0.0) + seconds, 2)
        if not self.quiet:
            print(f"  {seconds:6.1f} s  {name}", flush=True)


# ---- the truth: local files ----


def tables_folder(folder: Path, scale: float) -> Path:
    """Where the tables of this scale, as this code makes them, stand: other scales and versions keep theirs."""
    version = hashlib.sha256(f"{inspect.getsource(tpch)}{inspect.getsource(fingerprint)}{scale}".encode()).hexdigest()[:16]
    return folder / f"scale-{scale}-{version}"


def local_truth(spark: SparkSession, folder: Path, scale: float) -> dict:
    """Expected results by query, and fingerprints by table, from local Parquet files; made once for each folder."""
    stamp = folder / "expected.json"
    if not stamp.exists():
        for name, table in tpch.tables(spark, scale).items():
            table.write.mode("overwrite").parquet(local_path(folder, name))
        tables = read_local(spark, folder)
        stamp.write_text(json.dumps({"results": results(spark, tables), "tables": {n: fingerprint(t) for n, t in tables.items()}}))
    return json.loads(stamp.read_text())


def read_local(spark: SparkSession, folder: Path) -> dict[str, DataFrame]:
    return {name: spark.read.parquet(local_path(folder, name)) for name in TABLES}


def local_path(folder: Path, table: str) -> str:
    # With the scheme, because the default file system may be the store.
    return f"file://{(folder / table).absolute()}"


# ---- writing ----


def write_everything(spark: SparkSession, base: str, local: Path, steps: Steps) -> None:
    tables = read_local(spark, local)
    with steps.step("remove what an earlier run left"):
        delete_recursively(spark, base)
    with steps.step("write: small tables"):
        for name in ("region", "nation", "supplier", "part"):
            tables[name].write.mode("errorifexists").parquet(f"{base}/{name}")
    with steps.step("write: orders, then overwrite them"):
        tables["orders"].limit(100).write.mode("overwrite").parquet(f"{base}/orders")
        tables["orders"].write.mode("overwrite").parquet(f"{base}/orders")
    with steps.step("write: customers, half of them appended"):
        even = F.col("c_custkey") % 2 == 0
        tables["customer"].where(even).write.mode("overwrite").parquet(f"{base}/customer")
        tables["customer"].where(~even).write.mode("append").parquet(f"{base}/customer")
    with steps.step("write: line items partitioned by year"):
        tables["lineitem"].repartition("l_shipyear").write.mode("overwrite").partitionBy("l_shipyear").parquet(f"{base}/lineitem")
    with steps.step("saveAsTable and INSERT in a warehouse on the store"):
        save_as_table(spark, base)


def save_as_table(spark: SparkSession, base: str) -> None:
    # One database for each place, since a session may write to several.
    database = f"demo_{zlib.crc32(base.encode()):08x}"
    spark.sql(f"create database if not exists {database} location '{base}/warehouse'")
    name = f"{database}.{WAREHOUSE_TABLE}"
    register(read_store(spark, base))
    rows = "select o_custkey, o_orderpriority, sum(o_totalprice) as revenue from orders where {} group by 1, 2"
    spark.sql(rows.format("o_orderpriority < '3'")).write.mode("overwrite").format("parquet").saveAsTable(name)
    later = rows.format("o_orderpriority >= '3'")
    spark.sql(f"insert into {name} {later}")


def delete_recursively(spark: SparkSession, path: str) -> None:
    """Deletes a folder through Hadoop's FileSystem, as `hdfs dfs -rm -r` does."""
    jvm = spark.sparkContext._jvm
    target = jvm.org.apache.hadoop.fs.Path(path)
    target.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).delete(target, True)


# ---- reading and comparing ----


def read_and_compare(spark: SparkSession, base: str, expected: dict, steps: Steps) -> None:
    tables = read_store(spark, base)
    with steps.step("read: every value of every table"):
        for name, table in tables.items():
            found, wanted = fingerprint(table), expected["tables"][name]
            if found != wanted:
                raise Mismatch(f"table {name} under {base} holds {found}, local files hold {wanted}")
    with steps.step("read: queries with filters and joins"):
        found = results(spark, tables)
        for name, wanted in expected["results"].items():
            if found[name] != wanted:
                raise Mismatch(f"{name} on {base} gave {found[name][:3]}..., on local files {wanted[:3]}...")
    with steps.step("read: the table of the warehouse"):
        check_warehouse(spark, base)


def check_warehouse(spark: SparkSession, base: str) -> None:
    """The warehouse table holds what the orders add up to. By path, since a later session has a catalogue of its own."""
    saved = spark.read.parquet(f"{base}/warehouse/{WAREHOUSE_TABLE}")
    register(read_store(spark, base))
    wanted = fingerprint(spark.sql("select o_custkey, o_orderpriority, sum(o_totalprice) as revenue from orders group by 1, 2"))
    found = fingerprint(saved)
    if found != wanted:
        raise Mismatch(f"the table under {base}/warehouse holds {found}, its orders add up to {wanted}")


def read_store(spark: SparkSession, base: str) -> dict[str, DataFrame]:
    return {name: spark.read.parquet(f"{base}/{name}") for name in TABLES}


def register(tables: dict[str, DataFrame]) -> None:
    for name, table in tables.items():
        table.createOrReplaceTempView(name)


def results(spark: SparkSession, tables: dict[str, DataFrame]) -> dict[str, list]:
    """Each query's rows as lists of texts: exact for decimals and dates, and the same after a trip through JSON."""
    register(tables)
    return {name: [[str(value) for value in row] for row in spark.sql(query).collect()] for name, query in tpch.QUERIES.items()}


def fingerprint(table: DataFrame) -> str:
    """Row count and the sum of a hash over all columns in name order: equal for equal rows in any order."""
    columns = [F.col(name).cast("string") for name in sorted(table.columns)]
    row = table.select(F.xxhash64(*columns).cast("decimal(38,0)").alias("h")).agg(F.count("*"), F.sum("h")).first()
    return f"{row[0]} rows, sum {row[1]}"


if __name__ == "__main__":
    sys.exit(main())
