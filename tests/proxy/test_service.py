"""The proxy as operators run it: Sidekick's command line, reload, drain, systemd's protocol, files that it can't read.

Stores are small servers of this test, so that it can say what they do and see what reaches them; a real MinIO stands at the end.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from harness.minio import Minio
from harness.process import Process, free_port, free_ports, wait_until
from harness.stack import moat_binary

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30.0
# The unit's score by `systemd-analyze security`: 0 is a sandbox, 10 is root. Below 2 is what it calls OK.
EXPOSURE_MAX = 2.0


class Store:
    """Answers every GET with its name, health checks with 200, and /half with two halves, the second when it is told."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.name, self.go_on, self.paths, self.connections = name, threading.Event(), [], []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                store.connections.append(self.connection)

            def do_GET(self) -> None:
                if not self.path.startswith("/minio/health/"):
                    store.paths.append(self.path)
                text = store.name.encode()
                self.send_response(404 if self.path.startswith("/missing") else 200)
                self.send_header("content-length", str(2 * len(text) if self.path == "/half" else len(text)))
                self.end_headers()
                self.wfile.write(text)
                if self.path == "/half":
                    self.wfile.flush()
                    store.go_on.wait(START_SECONDS_MAX)
                    self.wfile.write(text)

            def log_message(self, *_arguments) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        # Kept connections would be served on by their threads.
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def store():
    made: list[Store] = []

    def make(name: str) -> Store:
        made.append(Store(name))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def start(tmp_path):
    """Starts a proxy with these arguments, under this name, and waits until it says that it is ready."""
    made: list[Process] = []

    def run(*arguments: str, name: str = "moat", env: dict[str, str] | None = None, ready: bool = True) -> Process:
        program = tmp_path / "bin" / name
        if not program.exists():
            program.parent.mkdir(exist_ok=True)
            program.symlink_to(moat_binary().resolve())
        process = Process("proxy", [str(program), *arguments], tmp_path / f"proxy{len(made)}.log", cwd=tmp_path, env={**plain_env(), **(env or {})})
        made.append(process)
        if ready:
            wait_until("the proxy is ready", lambda: "ready    proxy" in process.log.read_text(), START_SECONDS_MAX, process)
        return process

    yield run
    for process in made:
        if process.running():
            process.kill()


def plain_env() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_binary_called_sidekick_takes_its_place(store, start):
    one, two, port = store("one"), store("two"), free_port()
    process = start(
        "-health-path", "minio/health/ready", "--address", f"127.0.0.1:{port}", "--health-duration=1s", "--json", "--log",
        "--trace", "application", "--errors", one.url, two.url, name="sidekick",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    assert get(f"{url}/b/k") == (200, "one")
    assert get(f"{url}/v1/health") == (200, "")
    assert get(f"{url}/v1/certificates")[0] == 404
    assert get(f"{url}/missing?X-Amz-Signature=abc&x-id=GetObject") == (404, "one")
    metrics = get(f"{url}/.prometheus/metrics")[1]
    assert f'sidekick_errors_total{{endpoint="{one.url}"}} 1' in metrics
    assert f'sidekick_requests_total{{endpoint="{two.url}"}}' in metrics

    def traces() -> list[dict]:
        return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith('{"type"')]

    [trace] = wait_until("the trace is printed", traces, 10, process)
    assert (trace["type"], trace["host"], trace["path"], trace["statusCode"], trace["method"]) == ("TRACE", one.url, "/missing", 404, "GET")
    assert trace["query"] == "X-Amz-Signature=REDACTED&x-id=GetObject"
    assert trace["client"] == "127.0.0.1" and trace["callStats"]["tx"] == 3 and trace["callStats"]["latency"] > 0
    assert one.paths[0] == "/b/k" and two.paths == []

    one.stop()
    assert get(f"{url}/b/k") == (200, "two")
    wait_until("the loss is logged", lambda: '"Status":"down"' in process.log.read_text(), 10, process)
    assert process.stop() == 0


def test_sidekick_without_a_health_path_says_what_to_do(start):
    process = start("http://127.0.0.1:1", name="sidekick", ready=False)
    assert process.wait(START_SECONDS_MAX) == 1
    assert "--health-path=/minio/health/cluster" in process.log.read_text()


def test_no_http_proxy_of_the_environment_is_used(store, start):
    one, trap, port = store("one"), store("trap"), free_port()
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    process = start("proxy", "--listen", f"http://127.0.0.1:{port}", "--health-interval", "1s", one.url, env=dict.fromkeys(names, trap.url))
    assert get(f"http://127.0.0.1:{port}/b/k") == (200, "one")
    # Neither the request nor a health check, of which there was one at the start at least.
    assert one.paths == ["/b/k"] and trap.connections == [] and len(one.connections) > 0
    assert process.stop() == 0


def test_a_tunnel_that_falls_silent_ends(start):
    listening = socket.create_server(("127.0.0.1", 0))
    port = free_port()

    def echo(connection: socket.socket) -> None:
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n") and (data := connection.recv(1)):
                head += data
            if b"upgrade: echo" not in head.lower():
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                return
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n")
            while data := connection.recv(1024):
                connection.sendall(data)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    upstream = f"http://127.0.0.1:{listening.getsockname()[1]}"
    process = start("proxy", "--listen", f"http://127.0.0.1:{port}", upstream, env={"MOAT_PROXY_TUNNEL_IDLE": "1s"})
    with socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS_MAX) as client:
        client.sendall(b"GET /ws HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: echo\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n") and (byte := client.recv(1)):
            head += byte
        assert head.startswith(b"HTTP/1.1 101 "), head
        client.sendall(b"ping")
        assert client.recv(1024) == b"ping"
        # Nothing more is said, so the end is the proxy's.
        assert client.recv(1024) == b""
    wait_until("the end is logged", lambda: "a silent tunnel is closed" in process.log.read_text(), 10, process)
    listening.close()
    assert process.stop() == 0


def test_a_reload_changes_the_stores_and_a_mistake_changes_nothing(store, start, tmp_path):
    one, two, port = store("one"), store("two"), free_port()
    config = tmp_path / "proxy.toml"

    def write(upstreams: str) -> None:
        config.write_text(f'[proxy]\nlisten = ["http://127.0.0.1:{port}"]\n{upstreams}\n')

    write(f'upstreams = ["{one.url}"]')
    process = start("proxy", "--config", str(config))
    url = f"http://127.0.0.1:{port}/b/k"
    assert get(url) == (200, "one")
    write(f'upstreams = ["{two.url}"]')
    os.kill(process.pid, signal.SIGHUP)
    wait_until("the other store answers", lambda: get(url) == (200, "two"), 10, process)
    write('upstreams = ["nonsense{1..2}"]')
    os.kill(process.pid, signal.SIGHUP)
    wait_until("the mistake is logged", lambda: "nonsense" in process.log.read_text(), 10, process)
    assert get(url) == (200, "two")
    assert process.stop() == 0


def test_sigterm_lets_a_download_end_and_readiness_goes_first(store, start):
    slow, (port, admin) = store("half"), free_ports(2)
    process = start("proxy", "--listen", f"http://127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", slow.url)
    ready = f"http://127.0.0.1:{admin}/ready"
    assert get(ready) == (200, "")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/half")
    answer = connection.getresponse()
    assert answer.read(4) == b"half"
    os.kill(process.pid, signal.SIGTERM)
    wait_until("readiness is taken back", lambda: get(ready)[0] == 503, 10, process)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    slow.go_on.set()
    assert answer.read() == b"half"
    assert process.wait(START_SECONDS_MAX) == 0


def test_top_prints_the_endpoints(store, start):
    one, (port, admin) = store("one"), free_ports(2)
    start("proxy", "--listen", f"http://127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}", one.url)
    get(f"http://127.0.0.1:{port}/b/k")
    top = [str(moat_binary()), "proxy", "top", "--once", "--url"]
    shown = subprocess.run([*top, f"http://127.0.0.1:{admin}"], capture_output=True, text=True, timeout=30, check=True, env=plain_env())
    [line] = [line for line in shown.stdout.splitlines() if one.url in line]
    assert line.split()[:3] == ["1*", one.url, "up"]
    failed = subprocess.run([*top, f"http://127.0.0.1:{free_port()}"], capture_output=True, text=True, timeout=30, env=plain_env())
    assert failed.returncode == 1 and "--admin" in failed.stderr


def test_systemd_is_told_what_happens(store, start, tmp_path):
    one, port = store("one"), free_port()
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(START_SECONDS_MAX)

        def until(*words: str) -> None:
            """Reads messages until each word was in one, in this order."""
            for word in words:
                while word not in manager.recv(4096).decode():
                    pass

        env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "200000"}
        process = start("proxy", "--listen", f"http://127.0.0.1:{port}", one.url, env=env)
        until("READY=1", "WATCHDOG=1", "WATCHDOG=1")
        os.kill(process.pid, signal.SIGHUP)
        until("RELOADING=1", "READY=1", "WATCHDOG=1")
        os.kill(process.pid, signal.SIGTERM)
        until("STOPPING=1")
        assert process.wait(START_SECONDS_MAX) == 0


def test_a_socket_of_systemd_is_taken_over(store, tmp_path):
    one = store("one")
    log = tmp_path / "log"
    with socket.socket() as listening, log.open("wb") as out:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        port = listening.getsockname()[1]
        # A connection from before the proxy runs waits for it.
        early = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        early.request("GET", "/b/k")
        # As systemd does it: the first socket is number 3, and LISTEN_PID is the service itself.
        program = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        argv = [sys.executable, "-c", program, str(listening.fileno()), str(moat_binary()), "proxy", "--listen", f"http://127.0.0.1:{port}", one.url]
        process = subprocess.Popen(argv, pass_fds=[listening.fileno()], stdout=out, stderr=out, cwd=tmp_path, env=plain_env())
        try:
            assert early.getresponse().read() == b"one"
        finally:
            process.terminate()
            assert process.wait(START_SECONDS_MAX) == 0, log.read_text()


def test_a_key_that_the_service_cannot_read_gets_the_command(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # Below /tmp itself: folders of pytest are closed to others.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        folder.chmod(0o755)
        binary = folder / "moat"
        shutil.copy(moat_binary(), binary)
        binary.chmod(0o755)
        closed = folder / "live"
        closed.mkdir(mode=0o700)
        for name in ("a.crt", "a.key"):
            (closed / name).write_text("not read")
            (folder / name).write_text("not read")
        (folder / "a.key").chmod(0o600)

        def error(certificate: Path, key: Path) -> str:
            arguments = ["proxy", "--data", str(folder / "none"), "--listen", f"https://127.0.0.1:{free_port()}", "http://127.0.0.1:1",
                         "--proxy-certificate", str(certificate), "--proxy-private-key", str(key)]  # fmt: skip
            done = subprocess.run([str(binary), *arguments], user=65534, group=65534, capture_output=True, text=True, timeout=30, env=plain_env())
            assert done.returncode == 1
            return done.stderr

        text = error(closed / "a.crt", closed / "a.key")
        assert re.search(rf"run `chgrp \S+ {closed} && chmod g\+x {closed}`", text), text
        assert "nobody" in text
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("unit", ["moat-proxy.service", "sidekick.service", "moat-proxy.socket"])
def test_units_are_what_systemd_reads(unit, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine")
    for file in (REPOSITORY / "deploy/systemd").iterdir():
        text = file.read_text().replace("/usr/local/bin/moat", str(moat_binary().resolve()))
        (tmp_path / file.name).write_text(text)
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(tmp_path / unit)], capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stderr.strip()) == (0, "")
    if unit.endswith(".service"):
        scored = subprocess.run(["systemd-analyze", "security", "--offline=true", str(tmp_path / unit)], capture_output=True, text=True, timeout=60)
        score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", scored.stdout)
        assert score and float(score.group(1)) < EXPOSURE_MAX, scored.stdout


def test_the_example_configuration_is_understood(start, tmp_path):
    # Its certificates are not on this machine, and that is all that is wrong with it.
    text = (REPOSITORY / "deploy/systemd/proxy.toml").read_text()
    config = tmp_path / "proxy.toml"
    config.write_text(text)
    process = start("proxy", "--config", str(config), ready=False)
    assert process.wait(START_SECONDS_MAX) == 1
    said = process.log.read_text()
    assert "/etc/moat/" in said and "problems" not in said, said


def test_minio_behind_the_proxy_serves_boto3(start, tools, tmp_path):
    import boto3
    from botocore.config import Config
    from harness.minio import PASSWORD, USER

    tools.ensure("minio")
    port = free_port()
    minio = Minio(tmp_path / "minio", {}).start()
    try:
        start("--health-path", "/minio/health/cluster", "--address", f"127.0.0.1:{port}", minio.url, name="sidekick")
        client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=USER, aws_secret_access_key=PASSWORD, region_name="us-east-1",
            config=Config(signature_version="s3v4", retries={"max_attempts": 1}),
        )  # fmt: skip
        client.create_bucket(Bucket="bucket")
        content = os.urandom(12 << 20)
        client.put_object(Bucket="bucket", Key="a folder/ü+%.bin", Body=content)
        assert client.get_object(Bucket="bucket", Key="a folder/ü+%.bin")["Body"].read() == content
        upload = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
        part = client.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=1, Body=content)
        client.complete_multipart_upload(
            Bucket="bucket", Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        )
        assert [one["Key"] for one in client.list_objects_v2(Bucket="bucket")["Contents"]] == ["a folder/ü+%.bin", "parts"]
        url = client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "parts"})
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert answer.read() == content
    finally:
        minio.stop()
