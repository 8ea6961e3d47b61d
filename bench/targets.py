"""What `make bench` compares with: the rows, what the best peer took on a quiet machine, and what Moat is to reach.

The figures of peers were taken on a quiet machine with two cores, TLS 1.3 and SSE-KMS: the better of MinIO with a key
manager of its own and SeaweedFS with synced data. They stand in the table for orientation; ratios are always to the
peers of the same run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One row: its name in the loader, a title, the best peer seen (server CPU) and the ratio to reach."""

    row: str
    title: str
    peer_cpu: float
    ratio: float


TARGETS = (
    Target("put-4k-c8", "PUT 4 KiB, 8 connections", 0.83, 5),
    Target("get-4k-c8", "GET 4 KiB, 8 connections", 0.29, 4),
    Target("head-200-c8", "HEAD 200, 8 connections", 0.14, 3),
    Target("head-404-c8", "HEAD 404, 8 connections", 0.094, 2),
    Target("put-64m-c1", "PUT 64 MiB, 1 connection", 4.2, 3),
    Target("put-64m-c8", "PUT 64 MiB, 8 connections", 3.5, 3),
    Target("get-64m-c1", "GET 64 MiB, 1 connection", 1.3, 1.8),
    Target("get-64m-c8", "GET 64 MiB, 8 connections", 1.1, 1.8),
    Target("put-256k-c8", "PUT 256 KiB, 8 connections", 11, 4),
    Target("get-256k-c8", "GET 256 KiB, 8 connections", 2.6, 2.5),
    Target("range-128k-c8", "128 KiB ranges of 64 MiB, 8 connections", 1.1, 4),
    Target("list-10000", "LIST 10,000 keys in pages of 1,000", 0.0145, 8),
    Target("list-folder", "LIST a folder of 100 keys", 1.7, 8),
    Target("copy-1g", "CopyObject 1 GiB, encrypted", 5500, 1000),
    Target("copy-4k-c8", "CopyObject 4 KiB, 8 connections", 1.0, 4),
    Target("spark-job-c8", "a small Spark job (126 requests), 8 at once", 84, 4),
)

# Memory and start are held against these figures, not against this run: there the peer had its key manager beside it,
# which this run, with MinIO's static key, has not.
IDLE_MIB_MAX = 264 / 6
LOADED_MIB_MAX = 470 / 3
START_SECONDS_MAX = 0.2
