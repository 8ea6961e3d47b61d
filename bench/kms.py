#!/usr/bin/env python3
"""Load on the key manager: data keys made and opened per second and per CPU second, on each wire.

    bench/kms.sh [--rounds N] [--seconds S] [--connections 1,16,64] [--batches 1,100] [--wires native,minkms,kes] [--quick] [--calls]

The program is the one that MOAT_BIN names, else the newest build. With KES_BIN, that KES server runs in the same rounds, with its
file key store, keys cached and its audit off, which is how it is fastest. --memory measures instead what many keys in use cost; --calls counts how often a MinIO on our key manager, and Moat's own store, ask it for one object. Every audit line of ours is on the disk before its answer.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

import kms_calls  # noqa: E402
import kms_memory  # noqa: E402
from harness.process import Process, ProcessError, end_on_signals, free_port, wait_until  # noqa: E402
from harness.stack import moat_binary  # noqa: E402

# Some, so that the cache of opened keys is a cache and not a variable.
KEYS = tuple(f"bench-key-{n}" for n in range(8))
START_SECONDS_MAX = 60.0
# What the batch of a wire that has none is.
SINGLE = 1
# The goal: milliseconds of CPU per operation, one by one, with the audit on.
GOAL_MS = 0.013


class Server:
    """A key manager on loopback."""

    name = ""
    # What the program says about itself.
    version = ""
    process: Process
    address: str
    ca: Path
    api_key: Path

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"


class Moat(Server):
    name = "moat"

    def start(self) -> None:
        data = self.folder / "data"
        self.ca, self.api_key = data / "trust/ca.pem", data / "identity/root.key"
        began = time.monotonic()
        argv = [str(moat_binary()), "kms", "server", "--data", str(data), "--kms-listen", self.address]
        self.process = Process("moat kms", argv, self.folder / "moat.log")
        wait_until("the key manager answers", lambda: self.moat("status", check=False).returncode == 0, START_SECONDS_MAX, self.process)
        self.start_seconds = time.monotonic() - began
        self.version = subprocess.run([str(moat_binary()), "--version"], capture_output=True, text=True, check=True).stdout.strip()
        for key in KEYS:
            self.moat("key", "create", key)

    def moat(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        argv = [str(moat_binary()), "kms", *command, "--data", str(self.folder / "data")]
        return subprocess.run(argv, capture_output=True, check=check, timeout=60)


class Kes(Server):
    """A real KES, when its program is given. Its administrator is the API key of the Moat beside it."""

    name = "kes"

    def __init__(self, folder: Path, program: str, moat: Moat) -> None:
        super().__init__(folder)
        self.program, self.moat = program, moat

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        data = self.moat.folder / "data"
        self.ca, self.api_key = self.moat.ca, self.moat.api_key
        leaf = self.folder / "kes"
        subprocess.run(
            [str(moat_binary()), "pki", "leaf", "kes", "--host", "127.0.0.1", "--ca", str(data / "ca/ca.crt"), "--out", str(leaf)],
            check=True, capture_output=True,
        )  # fmt: skip
        identity = json.loads(self.moat.moat("status", "--json").stdout)["identity"]
        config = self.folder / "kes.yaml"
        config.write_text(
            f"version: v1\naddress: {self.address}\nadmin:\n  identity: {kes_identity(identity)}\n"
            f"tls:\n  key: {leaf}.key\n  cert: {leaf}.crt\nlog:\n  error: on\n  audit: off\n"
            "keys:\n" + "".join(f"  - name: {key}\n" for key in KEYS) + f"keystore:\n  fs:\n    path: {self.folder}/keys\n"
        )
        version = subprocess.run([self.program, "--version"], capture_output=True, text=True, timeout=60)
        self.version = (version.stdout.strip() or version.stderr.strip() or "of an unknown version").splitlines()[0]
        self.process = Process("kes", [self.program, "server", "--config", str(config)], self.folder / "kes.log")
        wait_until("KES listens", lambda: listens(self.address), START_SECONDS_MAX, self.process)


def kes_identity(text: str) -> str:
    """KES's form of an identity: the same hash in hexadecimal."""
    import base64

    return base64.urlsafe_b64decode(text.removeprefix("h1:") + "=").hex()


def listens(address: str) -> bool:
    import socket

    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        return True
    except OSError:
        return False


def load(server: Server, wire: str, operation: str, connections: int, batch: int, seconds: float) -> dict:
    """One row in one round, as the loader prints it."""
    argv = [
        os.environ["MOAT_LOADER"], "kms", wire, operation, "--server", server.address, "--ca", str(server.ca), "--api-key-file", str(server.api_key),
        "--connections", str(connections), "--batch", str(batch), "--seconds", str(seconds), "--pid", str(server.process.pid),
    ]  # fmt: skip
    done = subprocess.run([*argv, *(f"--key={key}" for key in KEYS)], capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise SystemExit(f"kms.sh: {wire} {operation} failed on {server.name}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=numbers, default=[1, 16, 64])
    parser.add_argument("--batches", type=numbers, default=[SINGLE, 100])
    parser.add_argument("--wires", type=lambda text: text.split(","), default=["native", "minkms", "kes"])
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--calls", action="store_true", help="no load: the calls per object of a MinIO and of Moat's store")
    parser.add_argument("--memory", type=int, metavar="KEYS", help="no load: the memory of a key manager with so many keys, each used once after a restart")
    parser.add_argument("--json", type=Path, help="a file for every single round")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, 1.0
    return chosen


def main() -> int:
    end_on_signals()
    try:
        return measure(arguments())
    except ProcessError as error:
        raise SystemExit(f"kms.sh: {error}") from error


def measure(chosen: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="moat-bench-kms-") as work:
        if chosen.memory:
            kms_memory.show(Path(work), chosen.memory)
            return 0
        if chosen.calls:
            kms_calls.show(kms_calls.measure(Path(work)))
            return 0
        moat = Moat(Path(work) / "moat")
        moat.folder.mkdir()
        moat.start()
        servers: list[Server] = [moat]
        if program := os.environ.get("KES_BIN"):
            kes = Kes(Path(work) / "kes", program, moat)
            kes.start()
            servers.append(kes)
        rows = [
            (server, wire, operation, connections, batch)
            for wire in chosen.wires
            for operation in ("generate", "decrypt")
            for connections in chosen.connections
            for batch in (chosen.batches if wire != "kes" else [SINGLE])
            for server in servers
            if server.name == "moat" or wire == "kes"
        ]
        rounds: dict[tuple, list[dict]] = {}
        for number in range(chosen.rounds):
            for server, *row in rows if number % 2 == 0 else reversed(rows):
                rounds.setdefault((server.name, *row), []).append(load(server, *row, chosen.seconds))
        print("; ".join(server.version for server in servers))
        print_table(rounds, moat.start_seconds)
        if chosen.json:
            chosen.json.write_text(json.dumps([{"server": key[0], **one} for key, many in rounds.items() for one in many], indent=1))
        for server in reversed(servers):
            # How a KES ends is its own affair.
            if (code := server.process.stop()) != 0 and server is moat:
                raise SystemExit(f"kms.sh: {server.name} ended with {code} after SIGTERM; its log:\n{server.process.log_tail()}")
    return 0


def print_table(rounds: dict[tuple, list[dict]], start_seconds: float) -> None:
    load_average = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, load average {load_average:.1f}; start to first answer {start_seconds:.2f} s")
    print(f"{'server':<7}{'wire':<8}{'operation':<10}{'conns':>6}{'batch':>6}{'op/s':>10}{'CPU ms/op':>11}{'p50 ms':>9}{'p99 ms':>9}{'MiB':>7}")
    for (name, wire, operation, connections, batch), many in rounds.items():

        def median(field: str) -> float:
            return statistics.median(one[field] for one in many)

        mark = " *" if name == "moat" and median("cpu_ms") <= GOAL_MS else ""
        print(
            f"{name:<7}{wire:<8}{operation:<10}{connections:>6}{batch:>6}{median('rate'):>10.0f}{median('cpu_ms'):>11.4f}"
            f"{median('p50_ms'):>9.2f}{median('p99_ms'):>9.2f}{median('resident_mib'):>7.1f}{mark}"
        )
    print(f"* at or under {GOAL_MS} ms of CPU per operation")


if __name__ == "__main__":
    sys.exit(main())
