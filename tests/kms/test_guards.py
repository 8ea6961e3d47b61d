"""Before a key is taken away: what it guards, as the stores told, and what is not known."""

from __future__ import annotations

import json
import re

from harness.process import wait_until
from harness.stack import Stack


def key(stack: Stack, name: str) -> dict:
    return json.loads(stack.moat("kms", "key", "info", name, "--json").stdout)


def counted(stack: Stack, name: str) -> dict[str, int]:
    """The sums of what lakes told."""
    told = key(stack, name).get("guards", [])
    return {what: sum(lake[what] for lake in told) for what in ("buckets", "objects", "bytes")}


def test_what_a_key_guards_is_said_before_it_is_disabled_or_deleted(new_stack):
    stack = new_stack(buckets=("sales=shared", "logs=shared", "plain=none"))
    with stack:
        client = stack.client()
        for number in range(5):
            client.put_object(Bucket="sales", Key=f"{number}", Body=b"x" * 1000)
        client.put_object(Bucket="logs", Key="one", Body=b"y" * 24)
        client.put_object(Bucket="plain", Key="other", Body=b"z" * 7)
        expected = {"buckets": 2, "objects": 6, "bytes": 5024}
        wait_until("the store told", lambda: counted(stack, "shared") == expected, 60, stack.process)
        assert counted(stack, "moat-default") == {"buckets": 1, "objects": 1, "bytes": 7}

        # Nobody is there to answer, so it is refused, and says what is at stake.
        for command in (("disable", "shared"), ("delete", "shared")):
            said = stack.moat("kms", "key", *command, check=False)
            assert said.returncode == 1, said
            assert re.search(r"shared guards 6 objects with 4\.9 KiB in 2 buckets, as its store counted \d+ s ago\.", said.stderr), said.stderr
        assert "guards 6 objects" in stack.moat("kms", "key", "info", "shared").stdout

        # Deleted objects are guarded no more.
        for number in range(5):
            client.delete_object(Bucket="sales", Key=f"{number}")
        expected = {"buckets": 1, "objects": 1, "bytes": 24}
        wait_until("the store told again", lambda: counted(stack, "shared") == expected, 60, stack.process)

        # It survives a restart, and is honest where nothing is known.
        assert stack.stop() == 0
        stack.start()
        assert counted(stack, "shared") == expected
        stack.moat("kms", "key", "create", "by-hand")
        stack.moat("kms", "datakey", "by-hand")
        said = stack.moat("kms", "key", "delete", "by-hand", check=False).stderr
        assert "No store has told what by-hand guards." in said, said
        assert "1 data keys were handed out under it since" in said and "not known here" in said, said
