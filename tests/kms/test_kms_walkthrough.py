"""docs/kms.md, from nothing to stores that use the key manager: its blocks are run as they stand, in one shell."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import tools
from harness.process import free_port
from harness.stack import moat_binary

DOCUMENT = Path(__file__).parents[2] / "docs" / "kms.md"
# The ports that the document names, which may be taken on the machine of a test.
PORTS = ("7373", "9500", "9600")
# Enough for two starts of MinIO on a busy machine.
SECONDS_MAX = 300


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def script() -> str:
    steps = ["set -euo pipefail"]
    for number, block in enumerate(blocks(), 1):
        steps.append(f"echo '== block {number} =='\n{block}")
    text = "\n".join(steps)
    for port in PORTS:
        text = text.replace(f":{port}", f":{free_port()}")
    return text


def test_every_command_of_the_document_works(tmp_path):
    tools.ensure("minio", "mc", "softhsm")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, path in {
        "moat": moat_binary(),
        "minio": tools.program("minio"),
        "mc": tools.program("mc"),
        "softhsm2-util": tools.program("softhsm", "softhsm2-util"),
    }.items():
        (programs / name).symlink_to(path)
    folder = tmp_path / "walk"
    folder.mkdir()
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "MC_CONFIG_DIR": str(tmp_path / "mc"),
        "SOFTHSM2_MODULE": str(tools.where("softhsm") / "libsofthsm2.so"),
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(
            ["bash", "-c", script()], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = shell.wait(SECONDS_MAX)
        finally:
            # The document leaves its servers running.
            end_group(shell.pid)
    said = log.read_text(errors="replace")
    assert code == 0, f"exit {code}:\n{said[-6000:]}"
    for expected in ("order 4711", "return 815", "sold"):
        assert expected in said, f"{expected!r} was not read back:\n{said[-6000:]}"
    assert no_secret(folder, said)


def end_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGTERM)
    except ProcessLookupError:
        return


def no_secret(folder: Path, said: str) -> bool:
    """What the commands printed holds neither the HSM key nor an API key."""
    hsm = (folder / "kms" / "kms" / "hsm.key").read_text().strip().rsplit(":", 1)[1]
    root = (folder / "kms" / "identity" / "root.key").read_text().strip().split(":", 1)[1]
    return hsm not in said and root not in said


