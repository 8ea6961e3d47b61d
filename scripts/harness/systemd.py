"""A real systemd that runs units as they are installed, in namespaces of its own: nothing of it touches the machine.

It is process 1 of a process namespace, with file systems of its own over /etc, /usr/local, /var, /run and /tmp, and a control group of
its own. The network is the machine's, so that tests can connect. Needs root and what containers may lack; `reason_against` says which.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from .process import Process, ProcessError, wait_until

SYSTEMD = Path("/lib/systemd/systemd")
START_SECONDS_MAX = 30.0
# Units find these by default; the machine's own have services behind them that do not belong into a test.
TARGETS = ("basic", "sysinit", "shutdown", "sockets", "timers", "paths", "network-online", "umount", "final", "multi-user", "default")

# Runs in the namespaces. $1 is a folder that is laid over the root.
BOOT = r"""
set -eu
mount --make-rprivate /
# Shared among themselves again: credentials are mounted by a helper and must show at the manager.
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
for folder in /etc /usr/local; do
    mkdir -p /run/over$folder/upper /run/over$folder/work
    mount -t overlay overlay -o "lowerdir=$folder,upperdir=/run/over$folder/upper,workdir=/run/over$folder/work" "$folder"
done
mkdir -p /run/units /run/lock
for target in TARGETS; do printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $target > /run/units/$target.target; done
cp -a "$1/." /
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /var
mkdir -p /var/lib /var/cache /var/log
mkdir -m 1777 /var/tmp
mount -t tmpfs -o mode=1777 tmpfs /tmp
export container=moat SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units
exec PROGRAM --system --unit=default.target --show-status=no
"""


class Systemd:
    """One manager. `root` is a folder whose files are laid over those of the machine, for it alone."""

    def __init__(self, root: Path, log: Path) -> None:
        script = BOOT.replace("TARGETS", " ".join(TARGETS)).replace("PROGRAM", str(SYSTEMD))
        self._group = _control_group()
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--ipc", "--uts", "bash", "-c", script, "boot", str(root)]
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        self.process = Process("systemd", ["bash", "-c", enter, str(self._group), *inside], log)
        try:
            wait_until("systemd is up", self._is_up, START_SECONDS_MAX, self.process)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Systemd":
        return self

    def __exit__(self, *_error) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process 1 of the namespace, as the machine counts."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        if not children:
            raise ProcessError(f"systemd is not running; log: {self.process.log}")
        return int(children[0])

    def path(self, path: str) -> Path:
        """A file as the units see it."""
        return Path(f"/proc/{self.pid}/root{path}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command beside the manager."""
        return subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-p", *command], capture_output=True, text=True, timeout=90)

    def systemctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", *arguments)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit).stdout.strip()

    def main_pid(self, unit: str) -> int:
        """The unit's main process, as the machine counts; 0 if there is none."""
        inner = self.show(unit, "MainPID")
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                numbers = [line.split()[1:] for line in status.read_text().splitlines() if line.startswith("NSpid:")]
                same_place = os.stat(f"/proc/{self.pid}/ns/pid").st_ino == os.stat(status.parent / "ns/pid").st_ino
                if numbers and numbers[0][-1] == inner and same_place:
                    return int(numbers[0][0])
        return 0

    def stop(self) -> None:
        # The end of unshare is that of process 1, and with it of everything in the namespace.
        self.process.kill()

        def gone() -> bool:
            for group in sorted(self._group.rglob("*/"), reverse=True):
                if group.is_dir():
                    with contextlib.suppress(OSError):
                        group.rmdir()
            with contextlib.suppress(OSError):
                self._group.rmdir()
            return not self._group.exists()

        wait_until("the control group is empty", gone, START_SECONDS_MAX)

    def _is_up(self) -> bool:
        try:
            return self.systemctl("is-active", "default.target").stdout.strip() == "active"
        except ProcessError:
            return False


def reason_against() -> str | None:
    """Why no systemd can be run here, if so."""
    if os.geteuid() != 0:
        return "only root may make the namespaces"
    for program in ("unshare", "nsenter", "systemctl"):
        if shutil.which(program) is None:
            return f"{program} is not on this machine"
    if not SYSTEMD.exists():
        return f"{SYSTEMD} is not on this machine"
    try:
        _control_group().rmdir()
    except (OSError, ProcessError) as error:
        return f"no control group can be made: {error}"
    trial = """set -e; mount --make-rprivate /; mount -t tmpfs tmpfs /run; mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc; mount -t cgroup2 cgroup2 /sys/fs/cgroup"""
    unshare = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--ipc", "--uts"]
    tried = subprocess.run([*unshare, "bash", "-c", trial], capture_output=True, text=True, timeout=60)
    return None if tried.returncode == 0 else f"the namespaces are refused: {tried.stderr.strip()}"


def _control_group() -> Path:
    """A new group below that of this process, in the unified hierarchy."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    at = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    own = next((line.split("::", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")), None)
    if at is None or own is None:
        raise ProcessError("there is no unified hierarchy")
    number = 0
    while (group := at / own.lstrip("/") / f"moat-test-{os.getpid()}-{number}").exists():
        number += 1
    group.mkdir()
    return group
