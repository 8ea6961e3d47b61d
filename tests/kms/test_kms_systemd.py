"""The key manager's unit as it is installed, run by a real systemd with all its restrictions: first start, keys, locked memory, restart, end.

Where the machine allows no systemd of its own, the test is skipped with the reason.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.process import free_port, wait_until
from harness.stack import moat_binary
from harness.systemd import Systemd, reason_against

UNIT = "moat-kms.service"
UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SECONDS_MAX = 60.0
CAP_SYS_RESOURCE = 24
LOG = "/run/moat-kms.log"
# Output to a file instead of a journal, which has no service here.
DROP_IN = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\nLoadCredential=hsm.key:/etc/moat/hsm.key\n"


def may_lift_limits() -> bool:
    """Whether a systemd that we start can give more locked memory than we may use ourselves."""
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    status = Path("/proc/self/status").read_text()
    capabilities = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return unlimited or bool(int(capabilities, 16) >> CAP_SYS_RESOURCE & 1)


@pytest.fixture(autouse=True)
def possible() -> None:
    if reason := reason_against():
        pytest.skip(f"no systemd can be run here: {reason}")


def test_the_service_works_within_its_restrictions(tmp_path):
    root, port = tmp_path / "root", free_port()
    for folder in ("usr/local/bin", "etc/moat", f"etc/systemd/system/{UNIT}.d"):
        (root / folder).mkdir(parents=True)
    shutil.copy(moat_binary().resolve(), root / "usr/local/bin/moat")
    shutil.copy(UNITS / UNIT, root / "etc/systemd/system")
    (root / f"etc/systemd/system/{UNIT}.d/test.conf").write_text(DROP_IN)
    subprocess.run([moat_binary(), "kms", "hsm", "init", root / "etc/moat/hsm.key"], check=True, capture_output=True)
    # As the unit's own text says to do it.
    (root / "etc/moat/kms.toml").write_text(f'[kms]\nlisten = "127.0.0.1:{port}"\nhsm_key = "/run/credentials/{UNIT}/hsm.key"\n')

    with Systemd(root, tmp_path / "systemd.log") as manager:

        def log() -> str:
            path = manager.path(LOG)
            return path.read_text() if path.exists() else manager.systemctl("status", UNIT).stdout

        def moat(*command: str) -> subprocess.CompletedProcess[str]:
            # Its folder is its own user's; root reads the operator's key there, and where it listens.
            return manager.run("/usr/local/bin/moat", "kms", *command, "--data", "/var/lib/moat-kms")

        def answers() -> bool:
            return moat("status").returncode == 0

        started = manager.systemctl("start", UNIT)
        assert started.returncode == 0, f"{started.stderr}\n{log()}"
        try:
            wait_until("the key manager answers", answers, SECONDS_MAX)
        except Exception as error:
            pytest.fail(f"{error}\n{log()}\n{moat('status').stderr}")
        made = moat("key", "create", "kept")
        assert made.returncode == 0, made.stderr

        status = dict(line.split(":", 1) for line in Path(f"/proc/{manager.main_pid(UNIT)}/status").read_text().splitlines())
        assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
        assert "0" not in status["Uid"].split() and int(status["CapEff"], 16) == 0
        # All memory is locked without a capability, because the unit lifts the limit, where systemd may do that.
        if may_lift_limits():
            assert int(status["VmLck"].split()[0]) > 0 and "WARN" not in log(), log()
        else:
            assert "LimitMEMLOCK=infinity" in log(), log()
        # Keys are nobody else's to read.
        hidden = manager.path("/var/lib/private/moat-kms").stat()
        assert hidden.st_mode & 0o077 == 0

        assert manager.systemctl("restart", UNIT).returncode == 0, log()
        wait_until("it answers again", answers, SECONDS_MAX)
        assert moat("datakey", "kept").returncode == 0
        verified = moat("audit", "verify")
        assert verified.returncode == 0 and "one chain" in verified.stdout, verified

        stopped = manager.systemctl("stop", UNIT)
        assert stopped.returncode == 0, stopped.stderr
        assert manager.show(UNIT, "Result") == "success" and manager.show(UNIT, "ExecMainStatus") == "0", log()
        assert "ERROR" not in log(), log()
