"""docs/proxy.md, from nothing to a service: its blocks are run as they stand, in one shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from harness.process import free_ports
from harness.stack import moat_binary

DOCUMENT = Path(__file__).parents[2] / "docs" / "proxy.md"
# The ports that the document names, which may be taken on the machine of a test.
PORTS = ("8090", "8091", "8092", "9600", "9700")
# Enough for two starts of MinIO and three of Spark on a busy machine.
SECONDS_MAX = 900


def script() -> str:
    steps = ["set -euo pipefail"]
    for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL), 1):
        steps.append(f"echo '== block {number} =='\n{block}")
    text = "\n".join(steps)
    for port, free in zip(PORTS, free_ports(len(PORTS))):
        text = text.replace(f":{port}", f":{free}")
    return text


@pytest.mark.timeout(SECONDS_MAX + 60)
def test_every_command_of_the_document_works(tools, tmp_path):
    tools.ensure("minio", "mc", "spark35")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, path in {"moat": moat_binary().resolve(), "minio": tools.program("minio"), "mc": tools.program("mc")}.items():
        (programs / name).symlink_to(path)
    submit = programs / "spark-submit"
    submit.write_text(f'#!/bin/sh\nexec "{tools.spark_home(tools.where("spark35"))}/bin/spark-submit" "$@"\n')
    submit.chmod(0o755)
    folder = tmp_path / "walk"
    folder.mkdir()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "MC_CONFIG_DIR": str(tmp_path / "mc"), "MINIO_CI_CD": "1",
                   "PYSPARK_PYTHON": tools.program("spark35", "python"), "SPARK_LOCAL_IP": "127.0.0.1"}  # fmt: skip
    for name in ("JAVA_HOME", "LANG"):
        if name in os.environ:
            environment[name] = os.environ[name]
    log = tmp_path / "log"
    with log.open("wb") as out:
        shell = subprocess.Popen(["bash", "-c", script()], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = shell.wait(SECONDS_MAX)
        finally:
            # The document leaves its store running.
            try:
                os.killpg(shell.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
    said = log.read_text(errors="replace")
    assert code == 0, f"exit {code}:\n{said[-6000:]}\n{(folder / 'proxy.log').read_text()[-2000:]}"
    assert said.count("order 4711") == 3, said[-6000:]
    # One job asked for SSE-KMS, the next left it to the rule of the bucket, the last to that of the gateway.
    assert said.count("rows: 1000") == 3, said[-6000:]
    assert re.search(r"asked/part-", said) and re.search(r"by-rule/part-", said) and "lake-key" in said, said[-6000:]
    after = said.split("== block ")
    gateway = next(block for block in after if "reports may not write" in block)
    # A user's keys, policies and the bucket of the other store; `cold-2026` is no name here.
    assert re.search(r"\bcold/$", gateway, re.MULTILINE) and re.search(r"\bpeople/$", gateway, re.MULTILINE), gateway
    assert "reports may not read it" in gateway and "head count 42" in gateway and "SSE-KMS" in gateway and "lake-key" in gateway, gateway
    assert re.search(r"by-gateway/part-", said) and said.count("salaries\n") == 1, said[-6000:]
    assert re.search(r'^moat_gateway_resigned_total\{store="archive"\} \d+$', said, re.MULTILINE), said[-6000:]
    assert re.search(r'^moat_proxy_up\{endpoint="https://127.0.0.1:\d+",site="1"\} 1$', said, re.MULTILINE), said[-6000:]
