"""An S3 store that keeps nothing but what it was asked: every request as it came over the wire, for tests of what a proxy sends.

The head is read by hand, since Python's own server tidies up paths and headers, which is what the tests want to see.
"""

from __future__ import annotations

import contextlib
import hashlib
import socketserver
import threading
from dataclasses import dataclass, field

# What a proxy asks to see whether the store is well; not a request of a client.
HEALTH = "/minio/health/"
READ_SECONDS_MAX = 30.0


@dataclass
class Request:
    """One request. `whole` is set once the end of its body has come."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    whole: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header that must not come twice."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def values(self, name: str) -> list[str]:
        return [value for found, value in self.headers if found.lower() == name.lower()]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[str]:
        """The parameters as they came, in their order."""
        return [part for part in self.target.partition("?")[2].split("&") if part]

    @property
    def content(self) -> bytes:
        """The body without the frames of aws-chunked."""
        if "aws-chunked" not in (self.header("content-encoding") or "") and not (self.header("x-amz-content-sha256") or "").startswith("STREAMING-"):
            return self.body
        found, rest = b"", self.body
        while rest:
            head, _, rest = rest.partition(b"\r\n")
            size = int(head.split(b";")[0], 16)
            if size == 0:
                break
            found, rest = found + rest[:size], rest[size + 2 :]
        return found


class Recorder:
    """Listens on loopback and answers everything with 200, and GET with what `answers` holds for its path."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        # Further headers of every answer, and bodies of GET by path.
        self.answer_headers: dict[str, str] = {}
        self.answers: dict[str, bytes] = {}
        recorder = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = READ_SECONDS_MAX

            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError, TimeoutError):
                    while recorder._serve(self.rfile, self.wfile):
                        pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, rfile, wfile) -> bool:
        """One request and its answer; whether another may follow."""
        first = rfile.readline()
        if not first:
            return False
        method, target, _version = first.decode("latin-1").split(" ")
        request = Request(method, target, list(_headers(rfile)))
        healthy = target.startswith(HEALTH)
        if not healthy:
            self.requests.append(request)
        if (request.header("expect") or "").lower() == "100-continue":
            wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._read_body(rfile, request)
        body = b"" if healthy else self.answers.get(request.path, b"")
        headers = {"content-length": str(len(body)), "etag": f'"{hashlib.md5(request.content).hexdigest()}"', "x-amz-request-id": "recorded", **self.answer_headers}
        head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        wfile.write(head.encode("latin-1") + (b"" if method == "HEAD" else body))
        wfile.flush()
        return True

    @staticmethod
    def _read_body(rfile, request: Request) -> None:
        if "chunked" in (request.header("transfer-encoding") or ""):
            while size := int(rfile.readline().split(b";")[0], 16):
                request.body += _exactly(rfile, size)
                rfile.readline()
            request.trailers = list(_headers(rfile))
        else:
            request.body = _exactly(rfile, int(request.header("content-length") or "0"), request)
        request.whole = True


def _headers(rfile):
    while (line := rfile.readline().decode("latin-1").rstrip("\r\n")):
        name, _, value = line.partition(":")
        yield name, value.strip()


def _exactly(rfile, size: int, request: Request | None = None) -> bytes:
    """So many bytes; what came before the end is kept in the request."""
    data = b""
    while len(data) < size:
        piece = rfile.read1(size - len(data))
        if not piece:
            raise ConnectionError("the body ends early")
        data += piece
        if request is not None:
            request.body = data
    return data

