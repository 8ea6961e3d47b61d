"""The load balancers of `bench/proxy.py`: each in front of one TLS responder, with a plain and a TLS listener, and equal settings.

Equal means: a thread or worker for each processor, TLS 1.3 on both sides with the default suites, the upstream's certificate checked, kept connections to it, no
access log, bodies streamed.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import tools
from harness.process import Process, free_ports, wait_until
from harness.stack import moat_binary

# Each is up within a second; a busy machine takes longer.
START_SECONDS_MAX = 30.0
# As many as Moat starts by itself.
THREADS = len(os.sched_getaffinity(0))
# More than any row opens; each is two files, and many systems allow 20,000 of them.
CONNECTIONS_MAX = 8000


class Certificates:
    """A CA and one leaf of it for 127.0.0.1, which everybody shows."""

    def __init__(self, folder: Path) -> None:
        make = [str(moat_binary()), "pki"]
        for command in (
            [*make, "ca", "bench", "--out", str(folder / "ca")],
            [*make, "leaf", "localhost", "--host", "localhost", "--host", "127.0.0.1", "--ca", str(folder / "ca.crt"), "--out", str(folder / "server")],
        ):
            subprocess.run(command, check=True, capture_output=True)
        self.ca, self.certificate, self.key = folder / "ca.crt", folder / "server.crt", folder / "server.key"
        self.both = folder / "both.pem"
        self.both.write_text(self.certificate.read_text() + self.key.read_text())
        self.both.chmod(0o600)


class Balancer:
    """One program in front of `upstream`, an address."""

    name = ""
    process: Process

    def __init__(self, folder: Path, certificates: Certificates, upstream: str) -> None:
        self.folder, self.certificates, self.upstream = folder / self.name, certificates, upstream
        self.folder.mkdir()
        # Free ports of one call differ from each other.
        self.tls, self.plain = (f"127.0.0.1:{port}" for port in free_ports(2))

    def argv(self) -> list[str]:
        """Its command line; writes what it reads."""
        raise NotImplementedError

    def start(self) -> None:
        """Starts it and waits until both listeners answer."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MOAT_", "MINIO_", "SIDEKICK_"))}
        self.process = Process(self.name, self.argv(), self.folder / "log", env=clean, cwd=self.folder)
        wait_until(f"{self.name} serves", self.serves, START_SECONDS_MAX, self.process)

    def serves(self) -> bool:
        both = ([f"https://{self.tls}/0", "--cacert", str(self.certificates.ca)], [f"http://{self.plain}/0"])
        return all(subprocess.run(["curl", "-sf", "-o", "/dev/null", "--max-time", "2", *one]).returncode == 0 for one in both)

    def pids(self) -> list[int]:
        """The process and its workers."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def stop(self) -> None:
        self.process.stop()


class Moat(Balancer):
    name = "moat"

    def argv(self) -> list[str]:
        files = self.certificates
        return [
            str(moat_binary()), "proxy", "--data", str(self.folder / "data"), "--listen", f"https://{self.tls}", "--listen", f"http://{self.plain}",
            "--proxy-certificate", str(files.certificate), "--proxy-private-key", str(files.key), "--upstream-ca", str(files.ca),
            "--upstream-ca-only", "on", f"https://{self.upstream}",
        ]  # fmt: skip


class Nginx(Balancer):
    name = "nginx"

    def argv(self) -> list[str]:
        files, folder = self.certificates, self.folder
        config = folder / "nginx.conf"
        # Started by root, its workers would be nobody, who may not look into our folder.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(f"""
{user} daemon off; worker_processes {THREADS}; worker_rlimit_nofile {2 * CONNECTIONS_MAX}; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections {CONNECTIONS_MAX}; }}
http {{
  access_log off; client_max_body_size 0; keepalive_requests 1000000000; keepalive_timeout 300s;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  upstream store {{ server {self.upstream}; keepalive {CONNECTIONS_MAX // THREADS}; keepalive_requests 1000000000; }}
  server {{
    listen {self.tls} ssl reuseport; listen {self.plain} reuseport; ssl_protocols TLSv1.3;
    ssl_certificate {files.certificate}; ssl_certificate_key {files.key};
    location / {{
      proxy_pass https://store; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $http_host;
      proxy_ssl_protocols TLSv1.3; proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_trusted_certificate {files.ca};
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
""")
        return [tools.program("nginx"), "-p", f"{folder}/", "-c", str(config), "-e", str(folder / "error.log")]


class Haproxy(Balancer):
    name = "haproxy"

    def argv(self) -> list[str]:
        files = self.certificates
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""
global
  nbthread {THREADS}
  maxconn {CONNECTIONS_MAX}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
frontend clients
  bind {self.tls} ssl crt {files.both} alpn http/1.1
  bind {self.plain}
  default_backend store
backend store
  server one {self.upstream} ssl verify required ca-file {files.ca} sni str(localhost) pool-max-conn {CONNECTIONS_MAX}
""")
        return [tools.program("haproxy"), "-db", "-f", str(config)]


class Sidekick(Balancer):
    """The real one, when its program is given. It has one listener, so it is two processes here; each row meets one of them."""

    name = "sidekick"
    other: Process

    def command(self, address: str, *more: str) -> list[str]:
        return [
            os.environ["SIDEKICK_BIN"], "--health-path", "/v1/health", "--address", address, "--cacert", str(self.certificates.ca), *more,
            f"https://{self.upstream}",
        ]  # fmt: skip

    def argv(self) -> list[str]:
        files = self.certificates
        self.other = Process("sidekick, plain", self.command(self.plain), self.folder / "plain.log")
        return self.command(self.tls, "--cert", str(files.certificate), "--key", str(files.key))

    def pids(self) -> list[int]:
        return [self.process.pid, self.other.pid]

    def stop(self) -> None:
        self.other.stop()
        self.process.stop()


def all_balancers() -> list[type[Balancer]]:
    """Those that can be had: Sidekick is in no registry."""
    return [Moat, Nginx, Haproxy, *([Sidekick] if os.environ.get("SIDEKICK_BIN") else [])]
