"""Several `moat kms` processes over one PostgreSQL: any node serves, a killed one loses nothing, a lost database is waited for."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import free_port, wait_until
from harness.stack import Ports, Stack, moat_binary


@pytest.fixture
def database(tools):
    tools.ensure("postgres")
    postgres = Postgres(tools.where("postgres"))
    yield postgres.start()
    postgres.remove()


class Node(Stack):
    """A key manager alone."""

    def start(self, seconds: float = 60) -> "Node":
        self.write_settings()
        self.process = self.spawn("kms", "server")
        wait_until("the key manager answers", self.ready, seconds, self.process)
        return self

    def ready(self, query: str = "") -> bool:
        return self.readiness(query) == 200

    def readiness(self, query: str = "") -> int:
        try:
            with urllib.request.urlopen(f"{self.kms}/v1/health/ready{query}", timeout=15, context=self.tls()) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ssl.SSLError):
            return 0


@pytest.fixture
def nodes(database, tmp_path):
    """Two nodes. The second one joins with the CA, the identities and the HSM key of the first, and nothing else."""
    env = {"MOAT_KMS_DATABASE": database.url}
    first = Node(tmp_path / "a", Ports.free(), (), env).start()
    second = Node(tmp_path / "b", Ports.free(), (), env)
    for name in ("ca", "identity"):
        shutil.copytree(first.data / name, second.data / name)
    (second.data / "kms").mkdir(mode=0o700)
    shutil.copy2(first.data / "kms/hsm.key", second.data / "kms/hsm.key")
    second.start()
    yield first, second
    for node in (first, second):
        if node.process is not None:
            node.process.kill()


def test_any_node_serves_and_sees_what_another_did_at_once(nodes):
    first, second = nodes
    first.moat("kms", "key", "create", "orders")
    assert "orders" in second.moat("kms", "key", "list").stdout
    second.moat("kms", "key", "disable", "orders", "--yes")
    said = first.moat("kms", "key", "info", "orders").stdout
    assert "disabled" in said, said
    assert first.ready("?write") and second.ready("?write")
    assert (first.data / "kms/node").read_text() != (second.data / "kms/node").read_text()
    assert not (first.data / "kms/state").exists(), "no state beside the database"
    for node in nodes:
        assert node.stop() == 0
        node.start()
        assert "one chain" in node.verify_audit()
    # Each node has a chain of its own.
    assert "KEY:CREATE" not in {line.get("operation") for line in second.audit() if line.get("key") == "orders"}


def test_a_killed_node_loses_nothing_acknowledged_and_the_other_goes_on(nodes):
    first, second = nodes
    acknowledged: list[str] = []

    def create(n: int) -> None:
        done = first.moat("kms", "key", "create", f"k{n:03}", check=False)
        if done.returncode == 0:
            acknowledged.append(f"k{n:03}")

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(create, n) for n in range(40)]
        wait_until("some keys are made", lambda: len(acknowledged) >= 8, 60)
        first.kill()
        for done in running:
            done.result()
    listed = second.moat("kms", "key", "list").stdout
    missing = [name for name in acknowledged if name not in listed]
    assert len(acknowledged) >= 8 and not missing, missing
    second.moat("kms", "key", "create", "afterwards")
    first.start()
    assert "afterwards" in first.moat("kms", "key", "list").stdout
    assert "one chain" in first.verify_audit()


def test_readiness_is_honest_about_the_database(nodes, database):
    first, _ = nodes
    first.moat("kms", "key", "create", "orders")
    database.sql("ALTER DATABASE postgres SET default_transaction_read_only = on")
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moat'")
    wait_until("reads go on", lambda: first.ready(), 30, first.process)
    began = time.monotonic()
    assert first.readiness("?write") == 503
    assert time.monotonic() - began < 5, "who asks for readiness is told at once, not after all patience"
    database.sql("SET default_transaction_read_only = off", "ALTER DATABASE postgres RESET default_transaction_read_only")
    database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moat'")
    wait_until("writes go on", lambda: first.ready("?write"), 30, first.process)

    # A restart within some seconds is waited out.
    database.stop()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(first.moat, "kms", "key", "info", "orders")
        database.start()
        assert "orders" in asked.result().stdout
    database.stop()
    assert first.readiness() == 503
    database.start()
    wait_until("the node is ready again", first.ready, 30, first.process)


def test_the_server_is_verified_over_tls_and_the_password_comes_from_a_file(database, tmp_path):
    def pki(*arguments: str) -> None:
        subprocess.run([str(moat_binary()), "pki", *arguments], check=True, cwd=tmp_path, capture_output=True)

    pki("ca", "db-ca")
    pki("ca", "other-ca")
    pki("leaf", "db", "--host", "127.0.0.1", "--ca", "db-ca.crt")
    password = tmp_path / "password"
    password.write_text("quite-a-secret\n")
    password.chmod(0o600)
    database.listen(free_port(), tmp_path / "db.crt", tmp_path / "db.key", "quite-a-secret")
    database.stop()
    database.start()
    url = f"postgres://moat@127.0.0.1:{database.port}/postgres?sslrootcert={tmp_path}/db-ca.crt"
    env = {"MOAT_KMS_DATABASE": url, "MOAT_KMS_DATABASE_PASSWORD_FILE": str(password)}
    node = Node(tmp_path / "n", Ports.free(), (), env).start()
    node.moat("kms", "key", "create", "orders")
    used = database.sql("SELECT DISTINCT version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'moat'")
    assert used.strip() == "TLSv1.3"
    assert node.stop() == 0

    def refused(**changes) -> str:
        node.env = {**env, **changes}
        process = node.spawn("kms", "server")
        assert process.wait(60) == 1
        process.kill()
        return [line for line in node.log.read_text().splitlines() if line.startswith("moat: ")][-1]

    assert "certificate" in refused(MOAT_KMS_DATABASE=url.replace("db-ca", "other-ca")).lower()
    assert "password" in refused(MOAT_KMS_DATABASE_PASSWORD="wrong-one")
    assert "no encryption" in refused(MOAT_KMS_DATABASE=url + "&sslmode=disable")
    assert "quite-a-secret" not in node.log.read_text() and "wrong-one" not in node.log.read_text()


def test_mistakes_are_told_in_a_sentence_and_no_password_is_repeated(nodes, tmp_path):
    first, _ = nodes
    log = Path(first.log)

    def says(**env) -> str:
        node = Node(tmp_path / "c", Ports.free(), (), {**first.env, **env}, log=tmp_path / "c.log")
        node.write_settings()
        process = node.spawn("kms", "server")
        assert process.wait(60) == 1
        process.kill()
        return [line for line in node.log.read_text().splitlines() if line.startswith("moat: ")][-1]

    wrong = says(MOAT_KMS_DATABASE="postgres://moat:s3cr3t@127.0.0.1:1/lake?sslmode=disable")
    assert "127.0.0.1:1/lake" in wrong and "s3cr3t" not in wrong
    assert "verify-full" in says(MOAT_KMS_DATABASE="postgres://moat:s3cr3t@127.0.0.1/lake?sslmode=prefer")
    # A node with another HSM key does not join.
    assert "is not the one that sealed" in says()
    assert "s3cr3t" not in log.read_text() + (tmp_path / "c.log").read_text()
