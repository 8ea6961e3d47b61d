"""SigV4 by hand over a raw socket: for requests that no SDK would send.

Everything that a test wants wrong can be made wrong: the clock, the secret, the declared length, the digest, the moment at
which the client goes away.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import socket
import ssl
import urllib.parse
from dataclasses import dataclass

REGION, SERVICE = "us-east-1", "s3"
# Reading one answer; a server that says nothing for so long hangs.
ANSWER_SECONDS_MAX = 30.0


@dataclass
class Answer:
    """Status, headers (names in lower case), body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """The <Code> of an error document."""
        found = re.search(rb"<Code>([^<]*)</Code>", self.body)
        return found.group(1).decode() if found else None


class Connection:
    """One connection to an endpoint, and the credentials to sign with."""

    def __init__(self, stack, url: str | None = None, secret: str | None = None, access_key: str | None = None, receive_buffer: int | None = None) -> None:
        target = urllib.parse.urlsplit(url or stack.store)
        self.host = target.netloc
        root_key, root_secret = stack.root_credentials()
        self.access_key, self.secret = access_key or root_key, secret or root_secret
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(ANSWER_SECONDS_MAX)
        raw.connect((target.hostname, target.port))
        self.socket = stack.tls().wrap_socket(raw, server_hostname=target.hostname) if target.scheme == "https" else raw
        self.pending = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_error) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def abandon(self) -> None:
        """Ends the connection with a reset, as a client that dies."""
        raw = self.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.close()

    def head(self, method: str, path: str, headers: dict[str, str] | None = None, *, query: str = "", payload_hash: str = "UNSIGNED-PAYLOAD",
             when: datetime.datetime | None = None, unsigned: dict[str, str] | None = None) -> bytes:  # fmt: skip
        """The signed head of a request. `headers` are signed, `unsigned` are only sent."""
        when = when or datetime.datetime.now(datetime.timezone.utc)
        stamp = when.strftime("%Y%m%dT%H%M%SZ")
        signed = {"host": self.host, "x-amz-date": stamp, "x-amz-content-sha256": payload_hash, **(headers or {})}
        authorization = self.authorization(method, path, query, signed, payload_hash, stamp)
        lines = [f"{method} {path}{'?' + query if query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in {**signed, **(unsigned or {}), "authorization": authorization}.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def authorization(self, method: str, path: str, query: str, headers: dict[str, str], payload_hash: str, stamp: str) -> str:
        names = sorted(name.lower() for name in headers)
        values = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
        pairs = sorted(part if "=" in part else part + "=" for part in query.split("&")) if query else []
        canonical = "\n".join([method, path, "&".join(pairs), *[f"{n}:{values[n]}" for n in names], "", ";".join(names), payload_hash])
        scope = f"{stamp[:8]}/{REGION}/{SERVICE}/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        return f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={';'.join(names)}, Signature={self.signature(to_sign, stamp)}"

    def signature(self, to_sign: str, stamp: str) -> str:
        key = f"AWS4{self.secret}".encode()
        for part in (stamp[:8], REGION, SERVICE, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.digest(key, to_sign.encode(), "sha256").hex()

    def presigned(self, method: str, path: str, *, expires: int = 300, when: datetime.datetime | None = None, query: str = "") -> str:
        """The query of a presigned URL, on which only the host is signed."""
        stamp = (when or datetime.datetime.now(datetime.timezone.utc)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{REGION}/{SERVICE}/aws4_request"
        pairs = [part if "=" in part else part + "=" for part in query.split("&") if part]
        pairs += ["X-Amz-Algorithm=AWS4-HMAC-SHA256", f"X-Amz-Credential={urllib.parse.quote(f'{self.access_key}/{scope}', safe='')}",
                  f"X-Amz-Date={stamp}", f"X-Amz-Expires={expires}", "X-Amz-SignedHeaders=host"]  # fmt: skip
        text = "&".join(sorted(pairs))
        canonical = "\n".join([method, path, text, f"host:{self.host}", "", "host", "UNSIGNED-PAYLOAD"])
        to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        return f"{text}&X-Amz-Signature={self.signature(to_sign, stamp)}"

    def signed_chunks(self, method: str, path: str, chunks: list[bytes], headers: dict[str, str] | None = None,
                      spoil: int | None = None) -> list[bytes]:  # fmt: skip
        """A request whose body is signed chunk by chunk: its head, then each chunk, then the empty one that ends it.

        `spoil` is the chunk in which one byte changes after it was signed.
        """
        now = datetime.datetime.now(datetime.timezone.utc)
        stamp = now.strftime("%Y%m%dT%H%M%SZ")
        scope = f"{stamp[:8]}/{REGION}/{SERVICE}/aws4_request"
        mark = len(";chunk-signature=") + 64 + 2
        framed = sum(len(f"{len(chunk):x}") + mark + len(chunk) + 2 for chunk in [*chunks, b""])
        sizes = {"content-length": str(framed), "x-amz-decoded-content-length": str(sum(map(len, chunks)))}
        head = self.head(method, path, {**sizes, **(headers or {})}, payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD", when=now)
        before = re.search(rb"Signature=([0-9a-f]{64})", head).group(1).decode()
        sent = [head]
        for index, chunk in enumerate([*chunks, b""]):
            nothing = hashlib.sha256(b"").hexdigest()
            to_sign = "\n".join(["AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, before, nothing, hashlib.sha256(chunk).hexdigest()])
            before = self.signature(to_sign, stamp)
            data = bytes([chunk[0] ^ 1]) + chunk[1:] if index == spoil else chunk
            sent.append(f"{len(chunk):x};chunk-signature={before}\r\n".encode() + data + b"\r\n")
        return sent

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **more) -> Answer:
        """A whole request and its answer."""
        self.send(self.head(method, path, {"content-length": str(len(body)), **(headers or {})}, **more) + body)
        return self.answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """The next answer; interim ones are passed over. Raises ConnectionError if the server closes in the middle."""
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1")
            first, *lines = head.split("\r\n")
            headers = {n.strip().lower(): v.strip() for n, _, v in (line.partition(":") for line in lines if line)}
            status = int(first.split()[1])
            if status >= 200:
                return Answer(status, headers, self._body(method, status, headers))

    def _body(self, method: str, status: int, headers: dict[str, str]) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._until(b"\r\n")
            return body
        return self._exactly(int(headers.get("content-length", "0")))

    def _until(self, mark: bytes) -> bytes:
        while mark not in self.pending:
            self._more()
        found, self.pending = self.pending.split(mark, 1)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self.pending) < size:
            self._more()
        found, self.pending = self.pending[:size], self.pending[size:]
        return found

    def _more(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except ssl.SSLEOFError as error:
            raise ConnectionError("the server cut the connection") from error
        if not data:
            raise ConnectionError("the server closed the connection")
        self.pending += data
