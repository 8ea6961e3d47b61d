"""Backup while a store is at work, and restore on a new machine: with the HSM key, and not without."""

from __future__ import annotations

import base64
import shutil
import subprocess

from harness.scan import Known
from harness.stack import Ports, Stack, moat_binary


def moat(stack: Stack, *command: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(moat_binary()), *command], capture_output=True, text=True, timeout=60, env=stack.environment())


def test_a_backup_taken_under_load_brings_every_object_back(new_stack, tmp_path):
    stack = new_stack()
    file, material = tmp_path / "kms.backup", tmp_path / "material"
    secret = bytes((n * 73 + 41) % 256 for n in range(32))
    material.write_text(base64.b64encode(secret).decode())
    material.chmod(0o600)
    with stack:
        client = stack.client()
        stack.moat("kms", "key", "import", "imported", "--material-file", str(material))
        client.put_object(Bucket="lake", Key="before", Body=b"before")
        stack.moat("kms", "backup", str(file))
        assert file.stat().st_mode & 0o777 == 0o600
        client.put_object(Bucket="lake", Key="after", Body=b"after")
        refused = stack.moat("kms", "backup", str(file), check=False)
        assert refused.returncode == 1 and "exists already" in refused.stderr
        assert stack.stop() == 0

    # The machine is lost but for the objects, the backup and the HSM key.
    new = Stack(tmp_path / "new", Ports.free(), stack.buckets)
    without = moat(stack, "kms", "restore", str(file), "--data", str(new.data))
    assert without.returncode == 1 and "only with the HSM key" in without.stderr
    other = moat(stack, "kms", "hsm", "init", str(tmp_path / "other.key"))
    assert other.returncode == 0, other.stderr
    wrong = moat(stack, "kms", "restore", str(file), "--data", str(new.data), "--hsm-key", str(tmp_path / "other.key"))
    assert wrong.returncode == 1 and wrong.stderr.count("which this key manager does not have") == 1
    assert not new.data.exists(), "as if it had not been run"
    (new.data / "kms").mkdir(parents=True, exist_ok=True)
    shutil.copy2(stack.data / "kms/hsm.key", new.data / "kms/hsm.key")
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[:-1])
    damaged = moat(stack, "kms", "restore", str(cut), "--data", str(new.data))
    assert damaged.returncode == 1 and "nothing was restored" in damaged.stderr
    done = moat(stack, "kms", "restore", str(file), "--data", str(new.data))
    assert done.returncode == 0, done.stderr
    again = moat(stack, "kms", "restore", str(file), "--data", str(new.data))
    assert again.returncode == 1 and "new folder" in again.stderr
    shutil.copytree(stack.data / "store", new.data / "store", ignore=shutil.ignore_patterns("lock"))
    with new:
        client = new.client()
        # An epoch that began before the backup opens what was written after it as well.
        for key in ("before", "after"):
            assert client.get_object(Bucket="lake", Key=key)["Body"].read() == key.encode()
        assert "imported" in new.moat("kms", "key", "list").stdout
        assert "one chain" in new.verify_audit()
        assert new.stop() == 0

    # Neither the backup nor any file or log of the two machines holds a key.
    material.unlink()
    known = Known()
    known.add("imported key", secret, encoded=True)
    known.add("HSM key", base64.b64decode((stack.data / "kms/hsm.key").read_text().strip().rsplit(":", 1)[1]), encoded=True)
    found = known.scan(tmp_path, skip=(stack.data / "kms/hsm.key", new.data / "kms/hsm.key"))
    assert found.files > 20 and not found.hits, [str(hit) for hit in found.hits]
