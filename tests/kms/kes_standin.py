#!/usr/bin/env python3
"""Takes KES's command line and configuration file, and is our own key manager behind them.

It stands in for a KES binary where there is none, so that what starts, measures and stops one (`bench/kms.py`, KES_BIN) is run by a test:

    kes --version
    kes server --config FILE

The parts of the file that the bench writes are honoured: address, admin.identity, tls, log, keys and the file key store, whose folder holds the
state. What else stands there is an error, as it is for KES. The process that is started is the one that serves.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from harness.process import Process, free_port, wait_until  # noqa: E402
from harness.stack import moat_binary  # noqa: E402

VERSION = "kes stand-in 0 (moat)"
KNOWN = {"version", "address", "admin.identity", "tls.key", "tls.cert", "log.error", "log.audit", "keystore.fs.path"}
START_SECONDS_MAX = 60.0


def read(path: Path) -> tuple[dict[str, str], list[str]]:
    """The settings by their dotted names, and the names of the keys."""
    settings: dict[str, str] = {}
    keys: list[str] = []
    above: list[tuple[int, str]] = []
    for line in path.read_text().splitlines():
        indent = len(line) - len(line.lstrip())
        if named := re.fullmatch(r"\s*- name: (\S+)", line):
            keys.append(named.group(1))
            continue
        name, _, value = line.strip().partition(":")
        above = [(depth, one) for depth, one in above if depth < indent]
        full = ".".join([*(one for _, one in above), name])
        if value.strip():
            settings[full] = value.strip()
        above.append((indent, name))
    if settings.get("version") != "v1" or not settings.keys() <= KNOWN:
        sys.exit(f"Error: {path}: version or settings are not known: {sorted(settings)}")
    return settings, keys


def serve(settings: dict[str, str], keys: list[str]) -> None:
    folder = Path(settings["keystore.fs.path"])
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "minkms"
    program.symlink_to(moat_binary())

    def argv(address: str) -> list[str]:
        config = folder / "config.yaml"
        config.write_text(f"version: v1\naddress: {address}\ntls:\n  certs:\n  - key: {settings['tls.key']}\n    cert: {settings['tls.cert']}\n")
        return [str(program), "server", str(folder / "data"), "--config", str(config)]

    def moat(*command: str, check: bool = True) -> subprocess.CompletedProcess:
        place = ["--data", str(folder / "data"), "--ca", settings["tls.cert"]]
        return subprocess.run([str(moat_binary()), "kms", *command, *place], capture_output=True, check=check, timeout=START_SECONDS_MAX)

    # What is made at the start is made on a port that nobody waits for.
    first = Process("first start", argv(f"127.0.0.1:{free_port()}"), folder / "first.log")
    wait_until("it answers", lambda: moat("status", check=False).returncode == 0, START_SECONDS_MAX, first)
    moat("identity", "create", settings["admin.identity"], "--admin")
    for key in keys:
        moat("key", "create", key)
    first.stop()
    command = argv(settings["address"])
    print(f"serving at {settings['address']}", flush=True)
    os.execv(command[0], command)


def main() -> None:
    match sys.argv[1:]:
        case ["--version"]:
            print(VERSION)
        case ["server", "--config", path]:
            serve(*read(Path(path)))
        case other:
            sys.exit(f"Error: unknown command {other}")


if __name__ == "__main__":
    main()
