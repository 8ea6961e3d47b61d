"""A small Spark job that does the same at each place and notes what came of it: for tests with many endpoints.

    spark-submit rows.py REPORT s3a://bucket/prefix...

It writes partitioned Parquet with the default committer (each file is renamed twice: HEAD, CopyObject, DELETE), overwrites it,
appends to it, and writes one file that S3A uploads and renames in parts. All is read back and compared with where it came from.
A place that fails does not keep the others from being tried.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

ROWS = 2000
# Random letters of this size in each of so many rows: more than S3A's multipart threshold in the settings of the tests.
LARGE_ROWS, LARGE_BYTES = 3, 4 << 20


def main() -> int:
    report, *places = sys.argv[1:]
    spark = SparkSession.builder.appName("rows").getOrCreate()
    table, large = sources(spark)
    wanted = {"table": fingerprint(table), "large": fingerprint(large)}
    results = {}
    for place in places:
        started = time.monotonic()
        results[place] = row(spark, place, table, large, wanted)
        print(f"{time.monotonic() - started:6.1f} s  {place}: {results[place]}", flush=True)
    Path(report).write_text(json.dumps(results))
    spark.stop()
    return 0


def sources(spark: SparkSession) -> tuple[DataFrame, DataFrame]:
    table = spark.range(ROWS).select(
        "id", (F.col("id") * 7919 % 1000 / 8).alias("price"), F.concat(F.lit("ünï "), F.col("id").cast("string")).alias("name"), (F.col("id") % 3).alias("part")
    )
    # Hashes of the place in the text, which no codec makes smaller by much.
    pieces = F.transform(F.sequence(F.lit(1), F.lit(LARGE_BYTES // 64)), lambda n: F.sha2(F.concat(F.col("id").cast("string"), F.lit("/"), n.cast("string")), 256))
    large = spark.range(LARGE_ROWS).coalesce(1).select("id", F.array_join(pieces, "").alias("text")).cache()
    return table, large


def row(spark: SparkSession, place: str, table: DataFrame, large: DataFrame, wanted: dict[str, str]) -> str:
    """`ok`, or why not."""
    try:
        table.where("id < 10").write.mode("overwrite").partitionBy("part").parquet(f"{place}/table")
        table.where("id < 1000").repartition("part").write.mode("overwrite").partitionBy("part").parquet(f"{place}/table")
        table.where("id >= 1000").repartition("part").write.mode("append").partitionBy("part").parquet(f"{place}/table")
        large.write.mode("overwrite").option("compression", "none").parquet(f"{place}/large")
        found = {name: fingerprint(spark.read.parquet(f"{place}/{name}")) for name in wanted}
        return "ok" if found == wanted else f"{found} was read, {wanted} was written"
    except Exception as error:  # Spark raises Java exceptions of any class: their causes say what happened.
        causes = [line.strip() for line in str(error).splitlines() if line.startswith("Caused by: ")]
        return " | ".join([str(error).strip().splitlines()[0][:500], *causes])


def fingerprint(table: DataFrame) -> str:
    """Row count and the sum of a hash over all columns in name order: equal for equal rows in any order."""
    columns = [F.col(name).cast("string") for name in sorted(table.columns)]
    first = table.select(F.xxhash64(*columns).cast("decimal(38,0)").alias("h")).agg(F.count("*"), F.sum("h")).first()
    return f"{first[0]} rows, sum {first[1]}"


if __name__ == "__main__":
    sys.exit(main())
