"""TPC-H-like tables that any Spark computes to the same last digit.

Every value is a hash of its row number and its column's name, so a table depends on the scale factor alone: not on the
number of cores, the order of rows or a random seed. Money is `decimal`, whose sums do not depend on the order of addition,
and that is what lets a job compare results exactly. Shapes and value ranges follow TPC-H; texts are made of plain words.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

# Rows at scale factor 1, as TPC-H has them (line items: about four for each order).
ROWS_AT_SCALE_1 = {"supplier": 10_000, "customer": 150_000, "part": 200_000, "orders": 1_500_000}
# Below these numbers of rows joins would find nothing and the comparison would prove little.
ROWS_MIN = {"supplier": 20, "customer": 100, "part": 100, "orders": 500}
LINES_PER_ORDER_MAX = 7
FIRST_DAY = "1992-01-01"
DAYS = 2400

REGIONS = ("AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST")
NATIONS = (
    ("ALGERIA", 0), ("ARGENTINA", 1), ("BRAZIL", 1), ("CANADA", 1), ("EGYPT", 4), ("ETHIOPIA", 0), ("FRANCE", 3),
    ("GERMANY", 3), ("INDIA", 2), ("INDONESIA", 2), ("IRAN", 4), ("IRAQ", 4), ("JAPAN", 2), ("JORDAN", 4), ("KENYA", 0),
    ("MOROCCO", 0), ("MOZAMBIQUE", 0), ("PERU", 1), ("CHINA", 2), ("ROMANIA", 3), ("SAUDI ARABIA", 4), ("VIETNAM", 2),
    ("RUSSIA", 3), ("UNITED KINGDOM", 3), ("UNITED STATES", 1),
)  # fmt: skip
SEGMENTS = ("AUTOMOBILE", "BUILDING", "FURNITURE", "HOUSEHOLD", "MACHINERY")
PRIORITIES = ("1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW")
MODES = ("AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK")
COLOURS = ("almond", "azure", "beige", "chiffon", "coral", "forest", "indigo", "khaki", "lavender", "maroon", "olive", "plum")
WORDS = ("accounts", "above", "bold", "carefully", "deposits", "express", "final", "ideas", "ironic", "packages", "pending",
         "platelets", "quickly", "regular", "requests", "silent", "slyly", "special", "theodolites", "unusual")  # fmt: skip


def tables(spark: SparkSession, scale: float) -> dict[str, DataFrame]:
    """All eight tables at a scale factor, lazily: nothing is computed until they are written or queried."""
    count = {name: max(ROWS_MIN[name], int(rows * scale)) for name, rows in ROWS_AT_SCALE_1.items()}
    return {
        "region": region(spark),
        "nation": nation(spark),
        "supplier": supplier(spark, count),
        "customer": customer(spark, count),
        "part": part(spark, count),
        "orders": orders(spark, count),
        "lineitem": lineitem(spark, count),
    }


def region(spark: SparkSession) -> DataFrame:
    rows = [(key, name, f"region number {key} of the demo") for key, name in enumerate(REGIONS)]
    return spark.createDataFrame(rows, "r_regionkey int, r_name string, r_comment string").coalesce(1)


def nation(spark: SparkSession) -> DataFrame:
    rows = [(key, name, region_key) for key, (name, region_key) in enumerate(NATIONS)]
    return spark.createDataFrame(rows, "n_nationkey int, n_name string, n_regionkey int").coalesce(1)


def supplier(spark: SparkSession, count: dict[str, int]) -> DataFrame:
    row = F.col("id")
    return spark.range(1, count["supplier"] + 1, numPartitions=1).select(
        row.alias("s_suppkey"),
        F.format_string("Supplier#%09d", row).alias("s_name"),
        below(row, "s_nationkey", len(NATIONS)).cast("int").alias("s_nationkey"),
        money(row, "s_acctbal", -99_999, 999_999).alias("s_acctbal"),
        text(row, "s_comment", 6).alias("s_comment"),
    )


def customer(spark: SparkSession, count: dict[str, int]) -> DataFrame:
    row = F.col("id")
    return spark.range(1, count["customer"] + 1, numPartitions=2).select(
        row.alias("c_custkey"),
        F.format_string("Customer#%09d", row).alias("c_name"),
        below(row, "c_nationkey", len(NATIONS)).cast("int").alias("c_nationkey"),
        money(row, "c_acctbal", -99_999, 999_999).alias("c_acctbal"),
        choice(row, "c_mktsegment", SEGMENTS).alias("c_mktsegment"),
        text(row, "c_comment", 8).alias("c_comment"),
    )


def part(spark: SparkSession, count: dict[str, int]) -> DataFrame:
    row = F.col("id")
    return spark.range(1, count["part"] + 1, numPartitions=2).select(
        row.alias("p_partkey"),
        F.concat_ws(" ", choice(row, "p_name1", COLOURS), choice(row, "p_name2", COLOURS)).alias("p_name"),
        F.format_string("Brand#%d%d", below(row, "p_brand1", 5) + 1, below(row, "p_brand2", 5) + 1).alias("p_brand"),
        (below(row, "p_size", 50) + 1).cast("int").alias("p_size"),
        money(row, "p_retailprice", 90_000, 200_000).alias("p_retailprice"),
    )


def orders(spark: SparkSession, count: dict[str, int]) -> DataFrame:
    row = F.col("id")
    return spark.range(1, count["orders"] + 1, numPartitions=2).select(
        row.alias("o_orderkey"),
        (below(row, "o_custkey", count["customer"]) + 1).alias("o_custkey"),
        choice(row, "o_orderstatus", ("F", "O", "P")).alias("o_orderstatus"),
        money(row, "o_totalprice", 90_000, 45_000_000).alias("o_totalprice"),
        order_day(row).alias("o_orderdate"),
        choice(row, "o_orderpriority", PRIORITIES).alias("o_orderpriority"),
        text(row, "o_comment", 7).alias("o_comment"),
    )


def lineitem(spark: SparkSession, count: dict[str, int]) -> DataFrame:
    lines = (
        spark.range(1, count["orders"] + 1, numPartitions=2)
        .withColumn("line", F.explode(F.sequence(F.lit(1), below(F.col("id"), "lines", LINES_PER_ORDER_MAX).cast("int") + 1)))
        .withColumn("row", F.col("id") * 10 + F.col("line"))
    )
    row = F.col("row")
    ship_day = F.date_add(order_day(F.col("id")), (below(row, "ship", 121) + 1).cast("int"))
    return lines.select(
        F.col("id").alias("l_orderkey"),
        F.col("line").alias("l_linenumber"),
        (below(row, "l_partkey", count["part"]) + 1).alias("l_partkey"),
        (below(row, "l_suppkey", count["supplier"]) + 1).alias("l_suppkey"),
        (below(row, "l_quantity", 50) + 1).cast("decimal(12,2)").alias("l_quantity"),
        money(row, "l_extendedprice", 90_000, 9_500_000).alias("l_extendedprice"),
        (below(row, "l_discount", 11) / 100).cast("decimal(12,2)").alias("l_discount"),
        (below(row, "l_tax", 9) / 100).cast("decimal(12,2)").alias("l_tax"),
        choice(row, "l_returnflag", ("A", "N", "R")).alias("l_returnflag"),
        choice(row, "l_linestatus", ("F", "O")).alias("l_linestatus"),
        ship_day.alias("l_shipdate"),
        choice(row, "l_shipmode", MODES).alias("l_shipmode"),
        text(row, "l_comment", 4).alias("l_comment"),
        F.year(ship_day).alias("l_shipyear"),
    )


def below(row: Column, column: str, limit: int) -> Column:
    """A whole number from 0 up to `limit` - 1, decided by the row and the column's name."""
    return F.pmod(F.xxhash64(row, F.lit(column)), F.lit(limit))


def choice(row: Column, column: str, values: tuple[str, ...]) -> Column:
    return F.element_at(F.array(*[F.lit(v) for v in values]), (below(row, column, len(values)) + 1).cast("int"))


def money(row: Column, column: str, cents_min: int, cents_max: int) -> Column:
    return ((below(row, column, cents_max - cents_min) + cents_min) / 100).cast("decimal(12,2)")


def text(row: Column, column: str, words: int) -> Column:
    return F.concat_ws(" ", *[choice(row, f"{column}.{n}", WORDS) for n in range(words)], row.cast("string"))


def order_day(order: Column) -> Column:
    return F.date_add(F.to_date(F.lit(FIRST_DAY)), below(order, "o_orderdate", DAYS).cast("int"))


# The queries: what TPC-H asks, in its own shapes. Each has a total order, so its rows compare one by one.
QUERIES = {
    "Q1 pricing summary": """
        select l_returnflag, l_linestatus, sum(l_quantity) as sum_qty, sum(l_extendedprice) as sum_base_price,
               sum(l_extendedprice * (1 - l_discount)) as sum_disc_price, count(*) as count_order
        from lineitem where l_shipdate <= date '1998-09-02'
        group by l_returnflag, l_linestatus order by l_returnflag, l_linestatus""",
    "Q3 shipping priority": """
        select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_orderpriority
        from customer join orders on c_custkey = o_custkey join lineitem on l_orderkey = o_orderkey
        where c_mktsegment = 'BUILDING' and o_orderdate < date '1995-03-15' and l_shipdate > date '1995-03-15'
        group by l_orderkey, o_orderdate, o_orderpriority order by revenue desc, l_orderkey limit 10""",
    "Q5 local supplier volume": """
        select n_name, sum(l_extendedprice * (1 - l_discount)) as revenue
        from customer join orders on c_custkey = o_custkey join lineitem on l_orderkey = o_orderkey
             join supplier on l_suppkey = s_suppkey and c_nationkey = s_nationkey
             join nation on s_nationkey = n_nationkey join region on n_regionkey = r_regionkey
        where r_name = 'ASIA' group by n_name order by revenue desc, n_name""",
    "Q6 forecasting revenue": """
        select sum(l_extendedprice * l_discount) as revenue, count(*) as lines from lineitem
        where l_shipyear = 1994 and l_discount between 0.05 and 0.07 and l_quantity < 24""",
    "Q10 returned items": """
        select c_custkey, c_name, sum(l_extendedprice * (1 - l_discount)) as revenue, c_acctbal, n_name
        from customer join orders on c_custkey = o_custkey join lineitem on l_orderkey = o_orderkey
             join nation on c_nationkey = n_nationkey
        where l_returnflag = 'R' and o_orderdate >= date '1993-10-01' and o_orderdate < date '1994-01-01'
        group by c_custkey, c_name, c_acctbal, n_name order by revenue desc, c_custkey limit 20""",
    "Q14 brands and colours": """
        select p_brand, count(*) as lines, sum(l_quantity) as quantity, max(p_retailprice) as dearest
        from lineitem join part on l_partkey = p_partkey where p_name like '%indigo%' and l_shipmode in ('AIR', 'RAIL')
        group by p_brand order by p_brand""",
}
