#!/usr/bin/env python3
"""Load on a proxy, beside nginx and HAProxy (and Sidekick, if SIDEKICK_BIN names it), all in front of the same responder.

    bench/proxy.sh [--rounds N] [--seconds S] [--only NAME] [--peers moat,nginx] [--json FILE]

The program is the one that MOAT_BIN names, else the newest build. In each round another balancer begins; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

import tools  # noqa: E402
from balancers import Balancer, Certificates, all_balancers  # noqa: E402
from harness.process import Process, end_on_signals, free_ports, wait_until  # noqa: E402

MIB = 1 << 20
START_SECONDS_MAX = 30.0
# Beyond its seconds a row takes as long as its connections need to be made.
LOADER_SECONDS_MAX = 120.0
DIRECT = "direct"


@dataclass(frozen=True)
class Row:
    """One load. `plain` is the client's side; the upstream's is always TLS."""

    name: str
    bytes: int
    connections: int
    plain: bool = False
    upload: bool = False
    idle: int = 0

    @property
    def about_memory(self) -> bool:
        return self.connections >= 1000 or self.idle > 0


def rows() -> list[Row]:
    made = []
    for plain, side in ((False, "https"), (True, "http")):
        for connections in (1, 64):
            made += [Row(f"{side}-{size}k-c{connections}", size << 10, connections, plain) for size in (1, 4)]
        for connections in (1, 8):
            made += [
                Row(f"{side}-{verb}-64m-c{connections}", 64 * MIB, connections, plain, upload=verb == "put") for verb in ("get", "put")
            ]
    return [*made, Row("https-4k-c1000", 4096, 1000), Row("https-idle-5000", 4096, 1, idle=5000)]


def load(row: Row, server: str, ca: Path, pids: list[int], seconds: float, plain: bool) -> dict:
    """One row in one round, as the loader prints it."""
    argv = [
        os.environ["MOAT_LOADER"], "proxy", "run", "--server", server, "--ca", str(ca), "--bytes", str(row.bytes), "--connections", str(row.connections),
        "--idle", str(row.idle), "--seconds", str(seconds), *(f"--pid={pid}" for pid in pids), *(["--plain"] if plain else []),
        *(["--upload"] if row.upload else []),
    ]  # fmt: skip
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + LOADER_SECONDS_MAX)
    if done.returncode != 0:
        raise SystemExit(f"proxy.sh: {row.name} failed on {server}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout)


def responder(work: Path, certificates: Certificates) -> tuple[Process, str]:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    argv = [
        os.environ["MOAT_LOADER"], "proxy", "respond", "--listen", address, "--certificate", str(certificates.certificate), "--key", str(certificates.key),
    ]  # fmt: skip
    process = Process("responder", argv, work / "responder.log")
    ask = ["curl", "-sf", "-o", "/dev/null", "--cacert", str(certificates.ca), f"https://{address}/0"]
    wait_until("the responder answers", lambda: subprocess.run(ask).returncode == 0, START_SECONDS_MAX, process)
    return process, address


def measure(row: Row, balancer: Balancer, seconds: float) -> dict:
    """Memory rows get a fresh process, since what a process once needed it may keep."""
    if row.about_memory:
        balancer.stop()
        balancer.start()
    server = balancer.plain if row.plain else balancer.tls
    return load(row, server, balancer.certificates.ca, balancer.pids(), seconds, row.plain)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="", help="rows whose name contains this; several with commas")
    parser.add_argument("--peers", type=lambda text: text.split(","), help="balancers to run")
    parser.add_argument("--json", type=Path, help="a file for every single round")
    return parser.parse_args()


def main() -> int:
    end_on_signals()
    chosen = arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    picked = [row for row in rows() if any(part in row.name for part in chosen.only.split(","))]
    kinds = [kind for kind in all_balancers() if not chosen.peers or kind.name in chosen.peers]
    tools.ensure(*(kind.name for kind in kinds if kind.name in tools.TOOLS))
    rounds: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory(prefix="moat-bench-proxy-") as folder:
        work = Path(folder)
        certificates = Certificates(work)
        behind, upstream = responder(work, certificates)
        balancers = [kind(work, certificates, upstream) for kind in kinds]
        for balancer in balancers:
            balancer.start()
        for number in range(chosen.rounds):
            for row in picked:
                if not row.about_memory:
                    direct = load(row, upstream, certificates.ca, [behind.pid], chosen.seconds, plain=False)
                    rounds.setdefault((row.name, DIRECT), []).append(direct)
                turn = number % len(balancers)
                for balancer in balancers[turn:] + balancers[:turn]:
                    rounds.setdefault((row.name, balancer.name), []).append(measure(row, balancer, chosen.seconds))
        for balancer in balancers:
            balancer.stop()
        behind.stop()
    print_table(picked, [kind.name for kind in kinds], rounds)
    if chosen.json:
        chosen.json.write_text(json.dumps([{"row": key[0], "through": key[1], **one} for key, many in rounds.items() for one in many], indent=1))
    return 0


def print_table(picked: list[Row], names: list[str], rounds: dict[tuple[str, str], list[dict]]) -> None:
    load_average = os.getloadavg()[0]
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, load average {load_average:.1f} at the end")
    print(f"{'row':<19}{'through':<10}{'rate':>12}{'CPU':>14}{'per CPU s':>11}{'p50 ms':>9}{'p99 ms':>9}{'added p50':>11}{'added p99':>11}{'MiB':>7}")
    for row in picked:
        for name in [DIRECT, *names]:
            many = rounds.get((row.name, name))
            if not many:
                continue

            def median(field: str) -> float:
                return statistics.median(one[field] or 0.0 for one in many)

            def added(field: str) -> str:
                """Over the same row of the same round without a balancer."""
                direct = rounds.get((row.name, DIRECT))
                if name == DIRECT or not direct:
                    return ""
                return f"{statistics.median(mine[field] - theirs[field] for mine, theirs in zip(many, direct)):.2f}"

            large = row.bytes >= MIB
            rate = f"{median('mib_per_second'):.0f} MiB/s" if large else f"{median('rate'):.0f}/s"
            cpu = f"{median('cpu_s_per_gib'):.2f} s/GiB" if large else f"{median('cpu_ms'):.4f} ms"
            print(
                f"{row.name:<19}{name:<10}{rate:>12}{cpu:>14}{median('requests_per_cpu_second'):>11.0f}{median('p50_ms'):>9.2f}{median('p99_ms'):>9.2f}"
                f"{added('p50_ms'):>11}{added('p99_ms'):>11}{median('resident_mib'):>7.0f}"
            )


if __name__ == "__main__":
    sys.exit(main())
