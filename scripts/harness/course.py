"""The course: what every SDK does at any number of places, in a program of its own (tests/clients/java, boto3_course.py).

The program reads a line for each place on standard input and writes a line of what came of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCRIPTS))

import tools  # noqa: E402

# A course is some 60 requests; a hung one must not hang the suite.
COURSE_SECONDS_MAX = 60
BOTO3 = SCRIPTS.parent / "tests" / "clients" / "boto3_course.py"


@dataclass(frozen=True)
class Target:
    """One place to run the course at; tests/clients/java/common/Target.java says what the words mean."""

    name: str
    endpoint: str
    bucket: str
    prefix: str
    algorithm: str | None
    key: str | None
    seen_algorithm: str | None
    seen_key: str | None
    head_tells_key: bool

    def line(self) -> str:
        words = ("-" if word is None else {True: "yes", False: "no"}.get(word, word) for word in astuple(self))
        return "\t".join(words)


def run_course(argv: list[str], targets: list[Target], env: dict[str, str]) -> dict[str, str]:
    """What came of each target: "ok", or what failed."""
    lines = "".join(f"{target.line()}\n" for target in targets)
    done = subprocess.run(argv, input=lines, env=env, capture_output=True, text=True, timeout=COURSE_SECONDS_MAX * len(targets))
    said = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    assert said.keys() == {target.name for target in targets}, f"exit {done.returncode}:\n{done.stdout}\n{done.stderr[-4000:]}"
    return said


def run_boto3(tool: str, targets: list[Target], access_key: str, secret_key: str, trust: Path | None = None) -> dict[str, str]:
    """The course by one of the versions of boto3 that are installed as tools; `trust` is a PEM file for the https targets."""
    tools.ensure(tool)
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key,
           **({"AWS_CA_BUNDLE": str(trust)} if trust else {})}  # fmt: skip
    return run_course([tools.program(tool, "python"), str(BOTO3)], targets, env)
