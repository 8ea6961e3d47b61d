"""`kill -9` in a loop: every acknowledged write is there after each restart, and nothing stands there in part.

The check is the demo's own; here it runs for more rounds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from support import body, read

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))

import crash  # noqa: E402

KILLS = 4


def test_every_acknowledged_write_survives_a_kill(new_stack):
    with new_stack() as stack:
        seen = crash.crash_and_check(stack, kills=KILLS, acknowledged_min=60)
    assert seen.kills == KILLS
    # Every round waits for 60 acknowledged writes; keys that several rounds overwrite count once in the end.
    assert seen.acknowledged >= KILLS * 60 // 2
    assert seen.parts >= 1, "a multipart upload was open when the server was killed"


def test_a_stop_with_sigterm_drains_and_ends_with_0(new_stack):
    with new_stack() as stack:
        s3 = stack.client()
        s3.put_object(Bucket="lake", Key="large", Body=body("large", 20_000_000))
        got: list[bytes] = []
        stream = s3.get_object(Bucket="lake", Key="large")["Body"]
        first = stream.read(1000)
        reader = threading.Thread(target=lambda: got.append(first + stream.read()))
        process = stack.process
        os.kill(process.pid, signal.SIGTERM)
        reader.start()
        reader.join(60)
        assert got and got[0] == body("large", 20_000_000), "what had begun before the signal is finished"
        assert process.wait(30) == 0
        stack.process = None
        stack.restart()
        assert read(stack.client(), "lake", "large") == body("large", 20_000_000)
