"""The proxy among many: thousands of idle and hundreds of slow clients, and storms of reloads and new certificates under load."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from harness.process import Process, free_ports, wait_until
from harness.stack import moat_binary

IDLE = 5000
SLOW = 500
# Both ends of every connection, and what the machine needs besides.
FILES_NEEDED = 2 * (IDLE + SLOW) + 1000
# What one client may cost the proxy: an idle one two buffers and the state of its connection (35 KiB were seen in a debug build), a slow
# one what is on its way in either direction.
IDLE_BYTES_MAX = 48 << 10
SLOW_BYTES_MAX = 768 << 10
LARGE = 8 << 20
SECONDS_MAX = 60.0


class Store:
    """Answers small things, a large one as slowly as it is read, and takes uploads to their end."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.port = 0

        async def serve() -> None:
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            started.set()

        def run() -> None:
            self.loop.create_task(serve())
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        assert started.wait(SECONDS_MAX)
        self.url = f"http://127.0.0.1:{self.port}"

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
                while length:
                    length -= len(await reader.read(min(length, 65536)) or await reader.readexactly(1))
                size = LARGE if "/large" in lines[0] else 2
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
                while size:
                    piece = min(size, 65536)
                    writer.write(b"o" * piece)
                    await writer.drain()
                    size -= piece
        writer.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


@pytest.fixture
def store():
    one = Store()
    yield one
    one.stop()


@pytest.fixture
def start(tmp_path):
    made: list[Process] = []

    def run(*arguments: str) -> Process:
        process = Process("proxy", [str(moat_binary().resolve()), "proxy", *arguments], tmp_path / "proxy.log", cwd=tmp_path)
        made.append(process)
        wait_until("the proxy is ready", lambda: "ready    proxy" in process.log.read_text(), SECONDS_MAX, process)
        return process

    yield run
    for process in made:
        process.kill()


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        pytest.skip(f"this machine allows {hard} open files, and {FILES_NEEDED} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_NEEDED if soft < FILES_NEEDED else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def get(port: int, path: str = "/b/k") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS_MAX)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


def connect(port: int) -> socket.socket:
    connection = socket.socket()
    # Small, so that a slow reader is felt by the proxy and not by the kernel alone.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(SECONDS_MAX)
    connection.connect(("127.0.0.1", port))
    return connection


def test_thousands_of_idle_and_hundreds_of_slow_clients_are_borne(store, start, many_files):
    [port] = free_ports(1)
    process = start("--listen", f"http://127.0.0.1:{port}", store.url)
    for _ in range(50):
        assert get(port) == b"oo"
    before = process.rss_bytes()
    clients = []
    try:
        # Each has had an answer, and keeps its connection.
        for _ in range(IDLE):
            client = connect(port)
            client.sendall(b"GET /b/k HTTP/1.1\r\nhost: h\r\n\r\n")
            clients.append(client)
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        idle = process.rss_bytes()
        slow = [connect(port) for _ in range(SLOW)]
        clients += slow
        for number, client in enumerate(slow):
            if number % 3 == 0:
                # A head that does not end.
                client.sendall(b"GET /b/k HTTP/1.1\r\nhost")
            elif number % 3 == 1:
                # An upload of which there comes no more.
                client.sendall(b"PUT /b/k HTTP/1.1\r\nhost: h\r\ncontent-length: 8000000\r\n\r\n" + b"x" * 2000)
            else:
                # A download that nobody reads.
                client.sendall(b"GET /b/large HTTP/1.1\r\nhost: h\r\n\r\n")
        for client in slow[2::3]:
            assert client.recv(12) == b"HTTP/1.1 200"
        for _ in range(200):
            assert get(port) == b"oo"
        assert len(get(port, "/b/large")) == LARGE
        all_of_them = process.rss_bytes()
        print(f"memory: {before >> 20} MiB, {idle >> 20} MiB with {IDLE} idle, {all_of_them >> 20} MiB with {SLOW} slow clients more")
        assert idle - before < IDLE * IDLE_BYTES_MAX
        assert all_of_them - idle < SLOW * SLOW_BYTES_MAX
    finally:
        for client in clients:
            client.close()
    assert get(port) == b"oo"
    assert process.stop() == 0


class Load:
    """Clients that ask over https all the time, some over kept connections and some over new ones."""

    def __init__(self, port: int, ca: Path) -> None:
        self.port, self.ca, self.answers, self.errors, self.ended = port, ca, 0, [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(4)]
        for thread in self.threads:
            thread.start()

    def _run(self, keeps: bool) -> None:
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = None
        while not self.ended.is_set():
            try:
                connection = connection or http.client.HTTPSConnection("127.0.0.1", self.port, timeout=SECONDS_MAX, context=context)
                connection.request("GET", "/b/k")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"oo")
                self.answers += 1
            except Exception as error:  # noqa: BLE001 - whatever a client sees is a failure
                self.errors.append(repr(error))
                return
            if not keeps:
                connection.close()
                connection = None

    def end(self) -> None:
        self.ended.set()
        for thread in self.threads:
            thread.join(SECONDS_MAX)
        assert self.errors == []


def test_storms_of_reloads_and_certificates_cost_no_request(store, start, tmp_path):
    [port] = free_ports(1)
    moat = [str(moat_binary().resolve()), "pki"]
    subprocess.run([*moat, "ca", "ca"], cwd=tmp_path, check=True, capture_output=True)

    def issue(number: int) -> Path:
        """A folder with a certificate, as Kubernetes makes one for each version of a secret."""
        folder = tmp_path / f"..{number}"
        folder.mkdir()
        subprocess.run([*moat, "leaf", "tls", "--ca", "../ca.crt", "--host", "localhost", "--host", "127.0.0.1"], cwd=folder, check=True, capture_output=True)
        return folder

    def swap(folder: Path) -> None:
        link = tmp_path / "..tmp"
        link.symlink_to(folder.name)
        link.rename(tmp_path / "..data")

    folders = [issue(number) for number in range(4)]
    swap(folders[0])
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    config = tmp_path / "proxy.toml"

    def write(stores: list[Store]) -> None:
        new = tmp_path / "proxy.new"
        urls = ", ".join(f'"{one.url}"' for one in stores)
        new.write_text(f'[proxy]\nlisten = ["https://127.0.0.1:{port}"]\nupstreams = [{urls}]\ncertificate = ["tls.crt"]\nprivate_key = ["tls.key"]\n')
        new.rename(config)

    other = Store()
    write([store])
    process = start("--config", str(config))
    load = Load(port, tmp_path / "ca.crt")
    try:
        for round_number in range(40):
            swap(folders[round_number % 4])
            write([[store], [store, other], [other]][round_number % 3])
            done = process.log.read_text().count("read again")
            # Several at once are as good as one, and a request must be answered between.
            for _ in range(3):
                os.kill(process.pid, signal.SIGHUP)
            wait_until("the reload is done", lambda: process.log.read_text().count("read again") > done, SECONDS_MAX, process)
            answered = load.answers
            wait_until("the load goes on", lambda: load.answers > answered or load.errors, SECONDS_MAX, process)
        # A file that is half written is not taken, and harms nothing.
        broken = tmp_path / "..broken"
        shutil.copytree(folders[0], broken)
        (broken / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\n")
        swap(broken)
        os.kill(process.pid, signal.SIGHUP)
        wait_until("the mistake is logged", lambda: "tls.key" in process.log.read_text(), SECONDS_MAX, process)
        answered = load.answers
        wait_until("the load goes on", lambda: load.answers > answered + 20 or load.errors, SECONDS_MAX, process)
    finally:
        load.end()
        other.stop()
    assert process.stop() == 0
