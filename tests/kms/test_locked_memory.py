"""Keys stay in memory that is locked, and out of core dumps, logs and files."""

from __future__ import annotations

import base64
import json
import os
import resource
from pathlib import Path

import pytest
from harness.process import Process, wait_until
from harness.scan import Known
from harness.stack import moat_binary

CAP_IPC_LOCK = 14


def status_field(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:"))


def may_lock() -> bool:
    """Whether this process, and so its children, may lock memory without a limit."""
    unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
    return unlimited or bool(int(status_field(os.getpid(), "CapEff"), 16) >> CAP_IPC_LOCK & 1)


def test_memory_is_locked_or_the_log_says_how(new_stack):
    stack = new_stack()
    with stack:
        stack.client().put_object(Bucket="lake", Key="k", Body=b"x")
        locked = int(status_field(stack.process.pid, "VmLck").split()[0])
        if may_lock():
            assert locked > 0
        else:
            assert locked == 0 and "LimitMEMLOCK=infinity" in stack.log.read_text()
        limits = Path(f"/proc/{stack.process.pid}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert core.split()[4:6] == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up a capability that it has")
def test_a_low_limit_is_told_with_its_remedy(new_stack):
    stack = new_stack()
    stack.write_settings()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))

    argv = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "--", str(moat_binary()), "kms", "server", "--data", str(stack.data)]
    stack.process = Process("moat kms", argv, stack.log, env=stack.environment(), preexec=limit)
    wait_until("the key manager answers", lambda: stack.moat("kms", "status", check=False).returncode == 0, 30, stack.process)
    log = stack.log.read_text()
    assert "RLIMIT_MEMLOCK" in log and "LimitMEMLOCK=infinity" in log
    assert stack.stop() == 0


def test_no_key_is_in_a_file_or_a_log_however_much_is_logged(new_stack, tmp_path):
    stack = new_stack(env={"MOAT_LOG_LEVEL": "trace"})
    secret = bytes((n * 197 + 11) % 256 for n in range(32))
    material = tmp_path / "material"
    material.write_text(base64.b64encode(secret).decode())
    material.chmod(0o600)
    known = Known()
    known.add("imported key", secret, encoded=True)
    with stack:
        stack.moat("kms", "key", "import", "imported", "--material-file", str(material))
        made = stack.moat("kms", "datakey", "imported", "--json").stdout
        plaintext = next(value for name, value in json.loads(made).items() if name.startswith("plaintext"))
        known.add("data key", base64.b64decode(plaintext), encoded=True)
        hsm = (stack.data / "kms/hsm.key").read_text().strip().rsplit(":", 1)[1]
        known.add("HSM key", base64.b64decode(hsm), encoded=True)
        known.add("root API key", (stack.data / "identity/root.key").read_text().strip().encode())
        known.add("root password", stack.root_credentials()[1].encode())
        stack.client().put_object(Bucket="lake", Key="k", Body=b"x" * 100_000)
        stack.moat("kms", "key", "rotate", "imported")
        stack.moat("kms", "key", "info", "imported")
        assert stack.stop() == 0
    material.unlink()
    own = (stack.data / "kms/hsm.key", stack.data / "identity/root.key", stack.data / "root.env")
    found = known.scan(tmp_path, skip=own)
    assert stack.log in [Path(path) for path in tmp_path.rglob("*.log")] and found.files > 20
    assert not found.hits, [str(hit) for hit in found.hits]
