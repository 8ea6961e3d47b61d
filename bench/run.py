"""`make bench`: load on Moat and its peers in interleaved rounds, and a table of medians and ratios.

Everything lies in .work/bench, whose data folders are emptied first and removed at the end. Results stay there, as
text and as JSON. What the figures mean and how a row is judged stands in bench/README.md.

Environment: MOAT_BIN, MOAT_LOADER (the programs), MOAT_TOOLS (where peers are installed).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "scripts"))

import tools  # noqa: E402
from harness.process import ProcessError, end_on_signals, stop_all, wait_until  # noqa: E402

from servers import BUCKET, KEY, SERVERS, Server  # noqa: E402
from table import summary, verdicts  # noqa: E402
from targets import TARGETS  # noqa: E402

WORK = REPOSITORY / ".work" / "bench"
ROUNDS = 3
SECONDS = 3.0
# `--quick` is for a look at one row, not for a figure that is quoted.
QUICK_SECONDS = 1.0
START_SECONDS_MAX = 60
# A row runs some seconds; a server that takes longer than this for what is in flight hangs.
ROW_SECONDS_MAX = 600
# Idle memory is read when start-up work has settled.
SETTLE_SECONDS = 2.0
# The prepared objects, what a round writes before it is removed, and room.
FREE_BYTES_MIN = 20 << 30


class BenchError(Exception):
    """One sentence for the person at the terminal."""


def main() -> int:
    options = parse()
    end_on_signals()
    try:
        return bench(options)
    except (BenchError, ProcessError, tools.ToolError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    finally:
        stop_all()
        if not options.keep:
            shutil.rmtree(WORK / "data", ignore_errors=True)


def parse() -> argparse.Namespace:
    names = [target.row for target in TARGETS]
    parser = argparse.ArgumentParser(prog="bench/run.sh", description="Load on Moat, MinIO and SeaweedFS in interleaved rounds.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds over all rows and servers [{ROUNDS}]")
    parser.add_argument("--seconds", type=float, metavar="S", help=f"how long a row sends requests [{SECONDS}]")
    parser.add_argument("--only", action="append", choices=names, metavar="ROW", help=f"one row; may be repeated: {', '.join(names)}")
    parser.add_argument("--peers", default=",".join(SERVERS), metavar="A,B", help=f"the servers [{','.join(SERVERS)}]")
    parser.add_argument("--quick", action="store_true", help=f"one round of {QUICK_SECONDS:.0f} s for each row")
    parser.add_argument("--keep", action="store_true", help="keep the data folders in .work/bench/data")
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else SECONDS)
    options.servers = list(dict.fromkeys(options.peers.split(",")))
    options.rows = [name for name in names if not options.only or name in options.only]
    for name in options.servers:
        if name not in SERVERS:
            parser.error(f"no server {name!r}; there are {', '.join(SERVERS)}")
    return options


def bench(options: argparse.Namespace) -> int:
    prepare_folder()
    tools.ensure(*(name for name in options.servers if name in tools.TOOLS))
    started = conditions(options)
    servers = [SERVERS[name](WORK / "data") for name in options.servers]
    say(f"{', '.join(server.version() for server in servers)}; {options.rounds} rounds of {options.seconds:.0f} s a row")
    result = {"conditions": started, "servers": {s.name: {"version": s.version()} for s in servers}, "rows": []}
    for server in servers:
        set_up(server, result["servers"][server.name])
    measure_starts(servers, options.rounds, result["servers"])
    for server in servers:
        say(f"{server.name}: writing what the rows read")
        result["servers"][server.name]["encryption"] = loader(server, "prepare", *(f"--row={row}" for row in options.rows))
    run_rows(servers, options, result["rows"])
    for server in servers:
        about = result["servers"][server.name]
        about["loaded_mib"], about["peak_mib"] = mib(server.process.rss_bytes()), mib(server.process.rss_bytes_max())
        server.stop()
    started["load_average_after"] = os.getloadavg()
    return report(result)


def prepare_folder() -> None:
    shutil.rmtree(WORK / "data", ignore_errors=True)
    (WORK / "data").mkdir(parents=True)
    free = shutil.disk_usage(WORK).free
    if free < FREE_BYTES_MIN:
        raise BenchError(f"{free >> 30} GiB are free in {WORK}, {FREE_BYTES_MIN >> 30} are needed")


def set_up(server: Server, about: dict) -> None:
    """First start: settings, bucket, rule, and the memory of a server that has nothing to do."""
    say(f"{server.name}: first start")
    server.start()
    server.configure()
    make_bucket(server)
    loader(server, "first-put")
    time.sleep(SETTLE_SECONDS)
    about["idle_mib"] = mib(server.process.rss_bytes())
    about["starts"] = []


def make_bucket(server: Server) -> None:
    """Repeated until the server takes it: after its port opens, a server may still have to find itself."""

    def made() -> bool:
        return call(server, "bucket", f"--kms-key={KEY}").returncode == 0

    wait_until(f"{server.name} has made a bucket", made, START_SECONDS_MAX, server.process)


def measure_starts(servers: list[Server], rounds: int, about: dict) -> None:
    """From the start of the process to the first PUT that is answered with 200, on a folder that is there already."""
    for _ in range(rounds):
        for server in servers:
            server.stop()
            about[server.name]["starts"].append(start_to_first_put(server))
    for server in servers:
        times = ", ".join(f"{seconds:.2f}" for seconds in about[server.name]["starts"])
        say(f"{server.name}: first PUT after {times} s")


def start_to_first_put(server: Server) -> float:
    client = subprocess.Popen(command(server, "first-put"), env=environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The loader is trying before the server is started, so its own start is not measured.
    client.stdout.readline()
    begin = time.monotonic()
    server.start()
    written = client.stdout.readline()
    seconds = time.monotonic() - begin
    complaint = client.communicate()[1]
    if not written:
        raise BenchError(f"{server.name} takes no PUT after its start: {complaint.strip()}; log {server.log}")
    return seconds


def run_rows(servers: list[Server], options: argparse.Namespace, rows: list[dict]) -> None:
    for number in range(1, options.rounds + 1):
        for row in options.rows:
            # Each round another server is the first, so that none always follows the same one.
            turn = number % len(servers)
            for server in servers[turn:] + servers[:turn]:
                said = call(server, "run", row, f"--seconds={options.seconds}", f"--pid={server.pid}")
                figures = json.loads(said.stdout) if said.stdout.strip() else {"row": row, "errors": 1, "first_error": said.stderr.strip()}
                rows.append({"server": server.name, "round": number, **figures})
                say(progress(server.name, number, figures))


def progress(server: str, number: int, figures: dict) -> str:
    head = f"round {number} {figures['row']:<14} {server:<10}"
    if figures["errors"]:
        return f"{head} FAILED: {figures['first_error']}"
    return (
        f"{head} cpu {figures['cpu']:>9.4g} {figures['cpu_unit']:<7} {figures['rate']:>10.1f} {figures['rate_unit']:<6}"
        f" p50 {figures['p50_ms']:.2f} p99 {figures['p99_ms']:.2f} ms"
    )


# ---- the loader ----


def call(server: Server, *arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(command(server, *arguments), env=environment(server), capture_output=True, text=True, timeout=ROW_SECONDS_MAX)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{server.name} has not ended `{' '.join(arguments)}` after {ROW_SECONDS_MAX} s; log {server.log}") from error


def loader(server: Server, *arguments: str) -> dict:
    """A command of the loader that must succeed; what it says on its last line."""
    said = call(server, *arguments)
    if said.returncode != 0:
        raise BenchError(f"{server.name}: {said.stderr.strip()}; log {server.log}")
    return json.loads(said.stdout.strip().splitlines()[-1])


def command(server: Server, *arguments: str) -> list[str]:
    program = os.environ.get("MOAT_LOADER") or "moat-loader"
    return [program, "--server", server.address, "--ca", str(server.ca), "--bucket", BUCKET, *arguments]


def environment(server: Server) -> dict[str, str]:
    return {**os.environ, "AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}


# ---- what is said ----


def conditions(options: argparse.Namespace) -> dict:
    """The machine, and how busy others keep it: figures from a busy one are read with care."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores of {model}, {memory >> 30} GiB, {platform.system()} {platform.release()}",
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(),
        "load_average_before": os.getloadavg(),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }


def report(result: dict) -> int:
    stamp = result["conditions"]["when"].replace(":", "").replace("-", "")[:15]
    judged = verdicts(result)
    result["verdicts"] = judged
    text = summary(result, judged)
    (WORK / f"{stamp}.json").write_text(json.dumps(result, indent=1) + "\n")
    (WORK / f"{stamp}.txt").write_text(text)
    print(text, end="")
    say(f"kept as {WORK / stamp}.txt and .json")
    failed = [row for row in result["rows"] if row["errors"]]
    return 1 if any(row["server"] == "moat" for row in failed) else 0


def mib(count: int) -> float:
    return round(count / (1 << 20), 1)


def say(message: str) -> None:
    print(f"bench: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
