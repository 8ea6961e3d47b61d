"""The rows of the gateway's matrix: two stores, two listeners, encryption asked by the client or added by the gateway's rule.

Each row has a bucket of its own, which has no rule at its store: what is encrypted with the row's key was asked for by the
client, or by the gateway. The clients write below prefixes of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness import minio
from harness.course import Target
from harness.gateway import Rule

# The keys at each store; a MinIO with its key in the environment has but one.
KEYS = {"moat": {"rule": "key-a", "asked": "key-b"}, "minio": {"rule": minio.KEY, "asked": minio.KEY}}


@dataclass(frozen=True)
class Row:
    """One row. The bucket's name says it all."""

    store: str
    listener: str
    way: str

    @property
    def bucket(self) -> str:
        return f"gw-{self.store}-{self.listener}-{self.way}"

    @property
    def key(self) -> str:
        return KEYS[self.store][self.way]

    @property
    def asks(self) -> bool:
        """Whether the client asks for encryption."""
        return self.way == "asked"

    def rule(self) -> Rule | None:
        return None if self.asks else Rule(self.bucket, f'add = "aws:kms"\nkey = "{self.key}"')

    def target(self, gateway, client: str) -> Target:
        """The row for an SDK's course."""
        asked = ("aws:kms", self.key) if self.asks else (None, None)
        endpoint = getattr(gateway, self.listener)
        return Target(self.bucket, endpoint, self.bucket, f"{client}/", *asked, "aws:kms", self.key, self.listener == "https")


ROWS = [Row(store, listener, way) for store in KEYS for listener in ("http", "https") for way in ("rule", "asked")]


def by_name(row: Row) -> str:
    return row.bucket


def assert_sealed(client, row: Row, prefix: str, least: int) -> None:
    """Every object below a prefix is under the row's key, as the store itself says; `least` so many are there."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=row.bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    assert len(keys) >= least, keys
    for key in keys:
        head = client.head_object(Bucket=row.bucket, Key=key)
        assert head.get("ServerSideEncryption") == "aws:kms", f"{key}: {head}"
        assert head.get("SSEKMSKeyId", "").endswith(row.key), f"{key}: {head.get('SSEKMSKeyId')}"
