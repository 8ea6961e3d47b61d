"""The units as they are installed, run by a real systemd with all their restrictions: sockets, credentials, reload, watchdog, end.

Where the machine allows no systemd of its own, the tests are skipped with the reason.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import ssl
import subprocess
from pathlib import Path

import pytest
import sigv4
from harness.gateway import ACCESS_KEY, SECRET_KEY
from harness.process import free_ports, wait_until
from harness.stack import moat_binary
from harness.systemd import Systemd, reason_against
from test_service import Store

UNITS = Path(__file__).resolve().parents[2] / "deploy" / "systemd"
SECONDS_MAX = 30.0
LOG = "/run/moat.log"
# Output to a file instead of a journal, which has no service here.
DROP_IN = f"[Service]\nStandardOutput=append:{LOG}\nStandardError=append:{LOG}\n"


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    if reason := reason_against():
        pytest.skip(f"no systemd can be run here: {reason}")


@pytest.fixture
def root(tmp_path) -> Path:
    """What is laid over the machine: the program, the units, certificates of a CA."""
    root = tmp_path / "root"
    (root / "usr/local/bin").mkdir(parents=True)
    shutil.copy(moat_binary().resolve(), root / "usr/local/bin/moat")
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS.glob("*.s*"):
        shutil.copy(unit, units)
    pki = root / "etc/moat"
    pki.mkdir()
    moat = [str(moat_binary().resolve()), "pki"]
    subprocess.run([*moat, "ca", "ca"], cwd=pki, check=True, capture_output=True)
    subprocess.run([*moat, "leaf", "proxy", "--ca", "ca.crt", "--host", "localhost", "--host", "127.0.0.1"], cwd=pki, check=True, capture_output=True)
    (pki / "ca.key").unlink()
    (pki / "proxy.key").chmod(0o400)
    return root


@pytest.fixture
def store():
    one = Store("one")
    yield one
    one.stop()


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(0o644)


def set_up(root: Path, store: Store, key: str, watchdog: str = "") -> tuple[int, int]:
    """Sockets and configuration on free ports. Returns the https port and the admin port."""
    https, admin = free_ports(2)
    write(root, "etc/moat/proxy.toml", f'''
[proxy]
listen = ["https://127.0.0.1:{https}"]
admin_listen = "127.0.0.1:{admin}"
upstreams = ["{store.url}"]
certificate = ["/etc/moat/proxy.crt"]
private_key = ["{key}"]
''')  # fmt: skip
    write(root, "etc/systemd/system/moat-proxy.service.d/test.conf", DROP_IN + watchdog)
    write(root, "etc/systemd/system/moat-proxy.socket.d/test.conf", f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{https}\n")
    return https, admin


def ask(root: Path, port: int) -> str:
    context = ssl.create_default_context(cafile=str(root / "etc/moat/ca.crt"))
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS_MAX, context=context)
    connection.request("GET", "/b/k")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def log(manager: Systemd) -> str:
    path = manager.path(LOG)
    return path.read_text() if path.exists() else ""


def facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def test_the_service_works_within_its_restrictions(root, store, tmp_path):
    credential = "LoadCredential=proxy.key:/etc/moat/proxy.key\nWatchdogSec=2s\n"
    https, admin = set_up(root, store, "/run/credentials/moat-proxy.service/proxy.key", credential)
    unit = "moat-proxy.service"
    with Systemd(root, tmp_path / "systemd.log") as manager:
        # The first connection starts it, and waits for it.
        started = manager.systemctl("start", "moat-proxy.socket")
        assert started.returncode == 0, started.stderr
        assert manager.show(unit, "ActiveState") == "inactive"
        try:
            assert ask(root, https) == "one"
        except OSError as error:
            pytest.fail(f"{error}\n{manager.systemctl('status', unit).stdout}\n{log(manager)}")
        assert manager.show(unit, "ActiveState") == "active"

        pid = manager.main_pid(unit)
        status = facts(pid)
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split()
        # CAP_NET_BIND_SERVICE, bit 10, and nothing else.
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 10

        # The admin listener is not one of systemd's sockets.
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=SECONDS_MAX)
        connection.request("GET", "/ready")
        assert connection.getresponse().status == 200

        assert manager.systemctl("reload", unit).returncode == 0
        wait_until("the reload is logged", lambda: "read again" in log(manager), SECONDS_MAX)
        assert ask(root, https) == "one" and manager.main_pid(unit) == pid

        # Frozen, it is noticed by the watchdog and replaced; the socket refuses nobody meanwhile.
        os.kill(pid, signal.SIGSTOP)
        wait_until("the watchdog has bitten", lambda: manager.main_pid(unit) not in (0, pid), SECONDS_MAX)
        assert ask(root, https) == "one"
        assert manager.show(unit, "NRestarts") == "1"

        assert manager.systemctl("stop", "moat-proxy.socket", unit).returncode == 0
        assert (manager.show(unit, "Result"), manager.show(unit, "ExecMainStatus")) == ("success", "0"), log(manager)


def test_a_gateway_of_the_unit_reads_its_keys_from_credentials(root, store, tmp_path):
    # One file for the gateway's key at the store, one for the user, both root's alone.
    names = {"upstream.env": ("store-access", "store-secret"), "spark.env": (ACCESS_KEY, SECRET_KEY)}
    for name, (access, secret) in names.items():
        write(root, f"etc/moat/{name}", f"AWS_ACCESS_KEY_ID={access}\nAWS_SECRET_ACCESS_KEY={secret}\n")
        (root / "etc/moat" / name).chmod(0o400)
    given = "".join(f"LoadCredential={name}:/etc/moat/{name}\n" for name in [*names, "proxy.key"])
    https, _admin = set_up(root, store, "/run/credentials/moat-proxy.service/proxy.key", given)
    folder = "/run/credentials/moat-proxy.service"
    settings = root / "etc/moat/proxy.toml"
    settings.write_text(
        settings.read_text() + f'mode = "gateway"\n[gateway]\ncredentials = "{folder}/upstream.env"\n'
        f'[[gateway.users]]\nname = "spark"\ncredentials = "{folder}/spark.env"\npolicies = ["readwrite"]\n'
    )
    with Systemd(root, tmp_path / "systemd.log") as manager:
        started = manager.systemctl("start", "moat-proxy.service")
        assert started.returncode == 0, started.stderr + log(manager)
        peer = Peer(f"https://localhost:{https}", str(root / "etc/moat/ca.crt"))
        with sigv4.Connection(peer) as connection:
            answer = connection.request("GET", "/b/k")
        assert (answer.status, answer.body) == (200, b"one"), answer
        assert manager.systemctl("reload", "moat-proxy.service").returncode == 0
        wait_until("the reload is logged", lambda: "read again" in log(manager), SECONDS_MAX)
        with sigv4.Connection(peer, secret="a-guess") as connection:
            assert connection.request("GET", "/b/k").code == "SignatureDoesNotMatch"


class Peer:
    """What a connection by hand asks of its server."""

    def __init__(self, store: str, ca: str) -> None:
        self.store, self.ca = store, ca

    @staticmethod
    def root_credentials() -> tuple[str, str]:
        return ACCESS_KEY, SECRET_KEY

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


def test_a_key_of_root_gets_the_fix_in_the_log(root, store, tmp_path):
    set_up(root, store, "/etc/moat/proxy.key", "Restart=no\n")
    with Systemd(root, tmp_path / "systemd.log") as manager:
        assert manager.systemctl("start", "moat-proxy.service").returncode != 0
        said = log(manager)
        assert "cannot read private key file /etc/moat/proxy.key" in said, said
        # Its user exists only while it runs, so there is nobody to give the file to.
        assert "`LoadCredential=proxy.key:/etc/moat/proxy.key`" in said and "/run/credentials/UNIT/proxy.key" in said, said


def test_sidekicks_unit_reads_sidekicks_file(root, store, tmp_path):
    [port] = free_ports(1)
    write(root, "etc/default/sidekick", f'SIDEKICK_OPTIONS="--health-path=/minio/health/ready --address 127.0.0.1:{port}"\nSIDEKICK_SITES="{store.url}"\n')
    write(root, "etc/systemd/system/sidekick.service.d/test.conf", DROP_IN)
    with Systemd(root, tmp_path / "systemd.log") as manager:
        started = manager.systemctl("start", "sidekick.service")
        assert started.returncode == 0, started.stderr + log(manager)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
        connection.request("GET", "/v1/health")
        assert connection.getresponse().status == 200
        assert manager.systemctl("stop", "sidekick.service").returncode == 0
        assert manager.show("sidekick.service", "Result") == "success"
