"""The measurement of the key manager beside a KES, with one of ours in its place: configured, started, ready, measured and stopped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from harness.stack import moat_binary

REPOSITORY = Path(__file__).parents[2]
STANDIN = Path(__file__).with_name("kes_standin.py")


def loader() -> Path:
    built = Path(os.environ.get("MOAT_LOADER", moat_binary().parent / "moat-loader"))
    assert built.is_file(), f"{built} is missing: `make release` builds it"
    return built


def bench(tmp_path: Path, program: Path) -> subprocess.CompletedProcess:
    argv = [
        sys.executable, REPOSITORY / "bench/kms.py", "--rounds", "1", "--seconds", "0.2", "--connections", "2", "--wires", "kes", "--json", tmp_path / "rows.json",
    ]  # fmt: skip
    env = {**os.environ, "MOAT_LOADER": str(loader()), "MOAT_BIN": str(moat_binary()), "KES_BIN": str(program), "TMPDIR": str(tmp_path)}
    return subprocess.run(argv, capture_output=True, text=True, timeout=300, env=env)


def test_a_kes_is_measured_in_the_same_rounds(tmp_path):
    done = bench(tmp_path, STANDIN)
    assert done.returncode == 0, done.stderr
    assert "kes stand-in 0" in done.stdout, "the table says which KES it was"
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["server"], row["operation"]) for row in rows] == [(s, o) for o in ("generate", "decrypt") for s in ("moat", "kes")]
    for row in rows:
        assert row["errors"] == 0 and row["operations"] > 0 and row["cpu_ms"] > 0 and row["resident_mib"] > 1, row
        assert re.search(rf"^{row['server']} +kes +{row['operation']} +2 +1 +\d+", done.stdout, re.MULTILINE), done.stdout
    # Neither is left running: their addresses are in the folder, which is gone as well.
    assert not [one for one in tmp_path.iterdir() if one.name != "rows.json"]


def test_a_kes_that_does_not_start_is_named_with_its_log(tmp_path):
    broken = tmp_path / "kes"
    broken.write_text("#!/bin/sh\necho 'Error: no license'\nexit 1\n")
    broken.chmod(0o755)
    done = bench(tmp_path, broken)
    assert done.returncode != 0 and "kes ended with 1" in done.stderr and "no license" in done.stderr, done.stderr
