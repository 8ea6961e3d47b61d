"""The HSM key in a PKCS#11 token (SoftHSM): from nothing to a rotation, and every way in which a token fails."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness.stack import Stack, moat_binary
from harness.process import wait_until

PIN = "correct-horse"


class Token:
    """A SoftHSM token in a folder of its own."""

    def __init__(self, tool: Path, folder: Path) -> None:
        self.tool, self.store = tool, folder / "tokens"
        self.store.mkdir(parents=True)
        self.pin = folder / "pin"
        self.write_pin(PIN)
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(f"directories.tokendir = {self.store}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = true\n")
        self.env = {"SOFTHSM2_CONF": str(self.conf)}
        made = subprocess.run(
            [str(tool / "bin/softhsm2-util"), "--module", str(tool / "libsofthsm2.so"), "--init-token", "--free", "--label", "lake", "--pin", PIN, "--so-pin", "so-pin"],
            env={**os.environ, **self.env}, capture_output=True, text=True,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr

    def write_pin(self, pin: str) -> None:
        self.pin.write_text(pin + "\n")
        self.pin.chmod(0o600)

    def uri(self, key: str, token: str = "lake") -> str:
        return f"pkcs11:token={token};object={key}?module-path={self.tool / 'libsofthsm2.so'}&pin-source={self.pin}"


@pytest.fixture
def token(tools, tmp_path) -> Token:
    tools.ensure("softhsm")
    return Token(tools.where("softhsm"), tmp_path / "token")


def run(stack: Stack, *command: str) -> subprocess.CompletedProcess:
    """A `moat` command without the folder."""
    return subprocess.run([str(moat_binary()), *command], capture_output=True, text=True, timeout=60, env=stack.environment())


def first_error(stack: Stack) -> str:
    """What a server says that does not start."""
    process = stack.spawn("kms", "server")
    assert process.wait(30) == 1
    process.kill()
    return [line for line in stack.log.read_text().splitlines() if line.startswith("moat: ")][-1]


def serve(stack: Stack, **env) -> None:
    """Starts the key manager alone and waits until it answers."""
    stack.write_settings()
    stack.process = stack.spawn("kms", "server", env=env)
    wait_until("the key manager answers", lambda: run_status(stack), 30, stack.process)


def run_status(stack: Stack) -> bool:
    return stack.moat("kms", "status", check=False).returncode == 0


def keys_of(stack: Stack) -> list[dict]:
    return json.loads(stack.moat("kms", "hsm", "status", "--json", check=False).stdout)["keys"]


def test_a_token_from_nothing_to_a_restart(new_stack, token):
    stack = new_stack(env={**token.env, "MOAT_HSM_KEY_FILE": token.uri("moat")})
    stack.write_settings()
    # Without the key nothing starts, and the sentence says what to do.
    assert "holds no AES key labelled \"moat\"; `moat kms hsm init` makes one" in first_error(stack)
    made = run(stack, "kms", "hsm", "init", token.uri("moat"))
    assert made.returncode == 0, made.stderr
    twice = run(stack, "kms", "hsm", "init", token.uri("moat"))
    assert twice.returncode == 1 and "holds" in twice.stderr

    serve(stack)
    assert not (stack.data / "kms/hsm.key").exists(), "no software key beside the token's"
    stack.moat("kms", "key", "create", "orders")
    (key,) = keys_of(stack)
    assert key["current"] and key["enclaves"] == 2 and "lake" in key["about"] and "problem" not in key
    assert stack.stop() == 0

    serve(stack)
    assert "orders" in stack.moat("kms", "key", "list").stdout
    assert stack.stop() == 0
    assert PIN not in stack.log.read_text()


def test_every_way_in_which_a_token_fails_is_a_sentence(new_stack, token, tmp_path):
    stack = new_stack(env={**token.env, "MOAT_HSM_KEY_FILE": token.uri("moat")})
    assert run(stack, "kms", "hsm", "init", token.uri("moat")).returncode == 0
    serve(stack)
    assert stack.stop() == 0

    token.write_pin("wrong-pin")
    assert 'the token "lake" refuses the PIN (PinIncorrect)' in first_error(stack)
    token.write_pin(PIN)
    token.pin.chmod(0o644)
    assert "chmod 600" in first_error(stack)
    token.pin.chmod(0o600)

    stack.env["MOAT_HSM_KEY_FILE"] = token.uri("moat", token="sea")
    assert 'no token is labelled "sea" (there is "lake")' in first_error(stack)
    stack.env["MOAT_HSM_KEY_FILE"] = token.uri("moat").replace("libsofthsm2.so", "missing.so")
    assert "missing.so can't be loaded" in first_error(stack)
    stack.env["MOAT_HSM_KEY_FILE"] = token.uri("moat") + "&pin-value=1"
    assert "kms.hsm_key" in first_error(stack)

    # Another key of the same label does not pass for the one that sealed the state.
    away = tmp_path / "away"
    token.store.rename(away)
    other = Token(token.tool, tmp_path / "other")
    stack.env.update(other.env, MOAT_HSM_KEY_FILE=other.uri("moat"))
    assert run(stack, "kms", "hsm", "init", other.uri("moat")).returncode == 0
    assert "is not the one that sealed" in first_error(stack)
    stack.env.update(token.env, MOAT_HSM_KEY_FILE=token.uri("moat"))
    assert "can't be loaded: Initialize says" in first_error(stack)
    away.rename(token.store)
    serve(stack)
    assert stack.stop() == 0


def test_a_token_that_goes_away_stops_only_what_needs_it(new_stack, token, tmp_path):
    stack = new_stack(env={**token.env, "MOAT_HSM_KEY_FILE": token.uri("moat")})
    assert run(stack, "kms", "hsm", "init", token.uri("moat")).returncode == 0
    serve(stack)
    away = tmp_path / "away"
    token.store.rename(away)
    stack.moat("kms", "key", "create", "orders")
    stack.moat("kms", "key", "info", "orders")
    status = stack.moat("kms", "hsm", "status", check=False)
    assert status.returncode == 1 and "lake" in status.stdout
    refused = stack.moat("kms", "backup", str(tmp_path / "b"), check=False)
    assert refused.returncode == 1 and "lake" in refused.stderr
    away.rename(token.store)
    wait_until("the token works again", lambda: stack.moat("kms", "hsm", "status", check=False).returncode == 0, 20, stack.process)
    stack.moat("kms", "backup", str(tmp_path / "b"))
    assert stack.stop() == 0


def test_rotations_from_software_to_token_to_another_key_under_load(new_stack, token):
    stack = new_stack(env=token.env)
    with stack:
        client = stack.client()
        client.put_object(Bucket="lake", Key="before", Body=b"before")
        assert run(stack, "kms", "hsm", "init", token.uri("first")).returncode == 0
        assert run(stack, "kms", "hsm", "init", token.uri("second")).returncode == 0
        software = keys_of(stack)[0]["id"]
        for name in ("first", "second"):
            said = stack.moat("kms", "hsm", "rotate", "--to", token.uri(name)).stdout
            assert "2 enclaves were sealed anew" in said and "kms.hsm_key" in said
            client.put_object(Bucket="lake", Key=name, Body=name.encode())
        assert {key["id"]: key["enclaves"] for key in keys_of(stack)}[software] == 0
        refused = stack.moat("kms", "hsm", "rotate", "--to", token.uri("third"), check=False)
        assert refused.returncode == 1 and "holds no AES key" in refused.stderr
        assert stack.stop() == 0
        # The old key does not open it any more; the new one does.
        assert "is not the one that sealed" in first_error(stack)
        stack.env["MOAT_HSM_KEY_FILE"] = token.uri("second")
        stack.start()
        client = stack.client()
        for name in ("before", "first", "second"):
            assert client.get_object(Bucket="lake", Key=name)["Body"].read() == name.encode()
        operations = [line["operation"] for line in stack.audit() if line.get("outcome") == "allowed"]
        assert operations.count("HSM:ROTATE") == 2
