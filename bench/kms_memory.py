"""What keys in use cost a key manager in memory: made, then each used once by a server that was started again."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from harness.kms import ENCLAVE, Kms

# Enough to share the syncs of the disk.
CONNECTIONS = 16
MIB = 1 << 20


def show(folder: Path, count: int) -> None:
    kms = Kms(folder)
    try:
        tls = operator(kms, folder)
        print(f"{'':<34}{'MiB':>8}{'of the process':>16}{'of the program file':>21}")
        line("started", kms)
        each(kms, tls, "", [{"name": f"key-{number}"} for number in range(count)])
        line(f"{count} keys made", kms)
        kms.stop()
        kms.start()
        line("started again", kms)
        each(kms, tls, "/key-{}/generate", [{}] * count)
        line("each used once", kms)
    finally:
        kms.end()


def operator(kms: Kms, folder: Path) -> ssl.SSLContext:
    """An administrator of the enclave with a client certificate."""
    certificate = kms.client_certificate(folder)
    kms.moat("identity", "create", "--certificate", str(certificate), "--admin")
    tls = ssl.create_default_context(cafile=str(kms.stack.ca))
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    return tls


def each(kms: Kms, tls: ssl.SSLContext, path: str, bodies: list[dict]) -> None:
    """Sends each body to the path of its number, over kept connections."""
    work = iter(enumerate(bodies))
    taking, failures = threading.Lock(), []

    def run() -> None:
        connection = http.client.HTTPSConnection(urlsplit(kms.stack.kms).netloc, context=tls, timeout=60)
        while not failures:
            with taking:
                number, body = next(work, (None, None))
            if number is None:
                break
            connection.request("POST", f"/v1/enclaves/{ENCLAVE}/keys{path.format(number)}", json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
            if answer.status >= 300:
                failures.append(f"{answer.status}: {text.decode()}")
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(f"kms.sh: {failures[0]}")


def line(what: str, kms: Kms) -> None:
    status = Path(f"/proc/{kms.process.pid}/status").read_text()
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in (text.partition(":") for text in status.splitlines()) if value.endswith("kB")}
    print(f"{what:<34}{sizes['VmRSS'] / MIB:>8.1f}{sizes['RssAnon'] / MIB:>16.1f}{sizes['RssFile'] / MIB:>21.1f}", flush=True)
