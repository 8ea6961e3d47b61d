"""Child processes that never outlive their starter, and waiting that never sleeps for luck.

Each process is the leader of a session of its own and is ended by its process id: first SIGTERM, then, after a
deadline, SIGKILL for it and whatever it started. On Linux the kernel also ends it if this program dies.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable

# A server that has not drained by then is stuck, which is worth seeing.
STOP_SECONDS_MAX = 30.0
# How often a condition is looked at; small against anything that is waited for.
POLL_SECONDS = 0.05
PR_SET_PDEATHSIG = 1

_alive: list["Process"] = []


class ProcessError(Exception):
    """A process ended that should run, or runs that should have ended; the message names its log."""


class Process:
    """A started program with a log file."""

    def __init__(self, name: str, argv: list[str], log: Path, env: dict[str, str] | None = None, cwd: Path | None = None, keep: bool = False,
                 preexec: Callable[[], None] | None = None) -> None:  # fmt: skip
        self.name, self.log = name, log
        log.parent.mkdir(parents=True, exist_ok=True)

        def prepare() -> None:
            if not keep:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if preexec:
                preexec()

        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd, start_new_session=True, preexec_fn=prepare
            )
        _alive.append(self)

    @property
    def pid(self) -> int:
        return self._popen.pid

    def running(self) -> bool:
        return self._popen.poll() is None

    def exit_code(self) -> int | None:
        return self._popen.poll()

    def wait(self, seconds: float) -> int:
        """The exit code, once the process has ended."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{self.name} (pid {self.pid}) has not ended within {seconds:.0f} s; log: {self.log}") from error

    def stop(self, seconds: float = STOP_SECONDS_MAX) -> int:
        """SIGTERM and the exit code; SIGKILL to the whole session if it will not end."""
        if self.running():
            os.kill(self.pid, signal.SIGTERM)
        try:
            return self.wait(seconds)
        except ProcessError:
            self.kill()
            raise
        finally:
            self._forget()

    def kill(self) -> None:
        """SIGKILL, to the process and to everything that it started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait()
        self._forget()

    def release(self) -> None:
        """Lets the process live on after this program."""
        self._forget()

    def log_tail(self, lines: int = 15) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return _status_bytes(self.pid, "VmRSS")

    def rss_bytes_max(self) -> int:
        """The most resident memory that the process ever had."""
        return _status_bytes(self.pid, "VmHWM")

    def _forget(self) -> None:
        if self in _alive:
            _alive.remove(self)


def _status_bytes(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ProcessError(f"no {field} in /proc/{pid}/status")


def stop_all() -> None:
    """Ends everything that is still running, the newest first."""
    for process in reversed(list(_alive)):
        try:
            process.stop(10.0)
        except ProcessError:
            pass


atexit.register(stop_all)


def end_on_signals() -> None:
    """Makes every ending signal go through every `finally`. SIGINT too: a shell's background job starts with it ignored."""

    def interrupt(_number, _frame) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def wait_until(what: str, condition: Callable[[], object], seconds: float, process: Process | None = None):
    """The first true value of `condition`. Fails at the deadline, or at once if `process` ends."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if process is not None and not process.running():
            raise ProcessError(f"{process.name} ended with {process.exit_code()} before {what}; log {process.log}:\n{process.log_tail()}")
        if time.monotonic() > deadline:
            tail = f"; log {process.log}:\n{process.log_tail()}" if process else ""
            raise ProcessError(f"waited {seconds:.0f} s for {what}{tail}")
        time.sleep(POLL_SECONDS)


def free_port(preferred: int | None = None) -> int:
    """A TCP port on loopback that nobody listens on: the preferred one if it is free."""
    for port in ([preferred] if preferred else []) + [0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ProcessError("no free port on 127.0.0.1")


def free_ports(count: int) -> list[int]:
    """Different free ports: all are held while the next is looked for."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
