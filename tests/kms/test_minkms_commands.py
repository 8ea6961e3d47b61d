"""The program by the name `minkms`: the command lines of the labs' set-up scripts, as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.process import Process, free_port, wait_until
from harness.stack import moat_binary

API_KEY = re.compile(r"k[0-9]+:[A-Za-z0-9_-]+")
IDENTITY = re.compile(r"h1:[A-Za-z0-9_-]{43}")


class Minkms:
    """The program by its other name, and a server that it runs from MinKMS's configuration file and environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "minkms"
        self.program.symlink_to(moat_binary())
        self.port = free_port()
        self.hsm_key = self("--soft-hsm").stdout.strip()
        self.root_key = API_KEY.search(self("identity").stdout).group()
        moat = str(moat_binary())
        subprocess.run([moat, "pki", "ca", "lab", "--out", folder / "ca"], check=True, capture_output=True)
        subprocess.run([moat, "pki", "leaf", "minkms", "--host", "127.0.0.1", "--ca", folder / "ca.crt", "--out", folder / "kms"], check=True, capture_output=True)
        (folder / "config.yaml").write_text(
            f"version: v1\naddress: 127.0.0.1:{self.port}\n"
            f"tls:\n  certs:\n  - key: {folder}/kms.key # the private key\n    cert: {folder}/kms.crt\n"
        )
        self.process = self.start()

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> Process:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "MINIO_KMS_HSM_KEY": self.hsm_key, "MOAT_KMS_ROOT_API_KEY": self.root_key}
        argv = [str(self.program), "server", str(self.folder / "kms"), "--config", str(self.folder / "config.yaml")]
        process = Process("minkms server", argv, self.folder / "server.log", env=env)
        wait_until("the key manager answers", lambda: self("stat", "-k", check=False).returncode == 0, 60, process)
        return process

    def __call__(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess:
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "MINIO_KMS_SERVER": self.server, **env}
        done = subprocess.run([self.program, *command], capture_output=True, text=True, timeout=60, env=clean)
        assert not check or done.returncode == 0, f"minkms {' '.join(command)}: {done.stderr}"
        return done


@pytest.fixture(scope="module")
def minkms(tmp_path_factory):
    running = Minkms(tmp_path_factory.mktemp("minkms"))
    yield running
    running.process.kill()


def test_the_labs_set_up_script_runs_and_runs_again(minkms):
    enclave, name, key = "aistor-deployment", "aistor-identity", "spark-encryption-key"
    first = minkms("add-enclave", "-k", "-a", minkms.root_key, enclave)
    assert "already exists" not in first.stdout
    again = minkms("add-enclave", "-k", "-a", minkms.root_key, enclave)
    assert f"{enclave} already exists" in again.stdout

    command = ("add-identity", "-k", "-a", minkms.root_key, "--enclave", enclave, "--admin", name)
    made = minkms(*command)
    api_keys = API_KEY.findall(made.stdout)
    assert len(api_keys) == 1, "a script takes the last one that it finds"
    identity = IDENTITY.search(made.stdout).group()
    again = minkms(*command)
    assert f"{name} already exists" in again.stdout and identity in again.stdout
    assert not API_KEY.search(again.stdout), "the key was shown once"

    for said in ("is made", "already exists"):
        assert f"{key} {said}" in minkms("create-key", "-k", "-a", api_keys[0], "--enclave", enclave, key).stdout
    assert key in minkms("list-keys", "-k", "-a", api_keys[0], "--enclave", enclave).stdout
    # The environment does as well as flags.
    listed = minkms("ls-key", "-k", "--json", MINIO_KMS_API_KEY=api_keys[0], MINIO_KMS_ENCLAVE=enclave)
    assert [one["name"] for one in json.loads(listed.stdout)] == [key]
    identities = json.loads(minkms("ls-identity", "-k", "-a", minkms.root_key, "-e", enclave, "--json").stdout)
    assert [(one["identity"], one["privilege"], one["tags"]) for one in identities] == [(identity, "Admin", {"name": name})]


def test_keys_are_rotated_and_described(minkms):
    minkms("add-enclave", "rotating", "-k", "-a", minkms.root_key)
    place = ("-k", "-a", minkms.root_key, "-e", "rotating")
    minkms("add-key", *place, "one", "two")
    assert "version 2" in minkms("add-key", *place, "--version", "one").stdout
    described = json.loads(minkms("stat-key", *place, "--json", "one", "two").stdout)
    assert [(one["name"], one["version"], one["algorithm"]) for one in described] == [("one", 2, "AES256"), ("two", 1, "AES256")]
    missing = minkms("stat-key", *place, "three", check=False)
    assert missing.returncode == 1 and "three" in missing.stderr
    assert minkms("add-key", *place, "--version", "three", check=False).returncode == 1


def test_a_user_does_what_its_policy_allows(minkms, tmp_path):
    minkms("add-enclave", "ruled", "-k", "-a", minkms.root_key)
    place = ("-k", "-a", minkms.root_key, "-e", "ruled")
    minkms("add-key", *place, "lake", "secret")
    policy = tmp_path / "policy.json"
    policy.write_text('{"allow": {"KEY:STATUS": ["lake*"], "KEY:LIST": ["*"]}, "deny": {}}')
    minkms("add-policy", "reader", str(policy), *place)
    key = API_KEY.search(minkms("add-identity", *place, "reader-of-the-lake").stdout).group()
    minkms("assign-policy", "reader", "reader-of-the-lake", *place)
    user = ("-k", "-a", key, "-e", "ruled")
    minkms("stat-key", *user, "lake")
    assert minkms("stat-key", *user, "secret", check=False).returncode == 1
    assert minkms("add-key", *user, "new", check=False).returncode == 1
    minkms("rm-identity", "reader-of-the-lake", *place)
    assert minkms("stat-key", *user, "lake", check=False).returncode == 1


def test_the_server_is_verified_unless_told_not_to(minkms):
    plain = ("ls-enclave", "-a", minkms.root_key)
    refused = minkms(*plain, check=False)
    assert refused.returncode == 1 and "certificate" in refused.stderr and "MOAT_KMS_CA" in refused.stderr, refused.stderr
    unverified = minkms(*plain, "-k")
    assert "warning" in unverified.stderr and "not verified" in unverified.stderr
    verified = minkms(*plain, MOAT_KMS_CA=str(minkms.folder / "ca.crt"))
    assert not verified.stderr
    # MinKMS's own place for CAs.
    trusted = minkms.folder / ".minkms" / "certs" / "CAs"
    trusted.mkdir(parents=True)
    try:
        shutil.copy(minkms.folder / "ca.crt", trusted / "lab.crt")
        assert not minkms(*plain).stderr
    finally:
        shutil.rmtree(minkms.folder / ".minkms")


def test_mistakes_are_sentences(minkms):
    minkms("add-enclave", "mistakes", "-k", "-a", minkms.root_key)
    for command, said in (
        (("add-enclave", "-k", "x"), "-a or MINIO_KMS_API_KEY"),
        (("add-key", "-k", "-a", minkms.root_key, "x"), "--enclave or MINIO_KMS_ENCLAVE"),
        (("add-enclave", "-k", "-a", "nonsense", "x"), "API key"),
        (("add-enclave", "-k", "-a", minkms.root_key, "a/b"), "enclave name"),
        (("rm-identity", "-k", "-a", minkms.root_key, "-e", "mistakes", "nobody"), "nobody"),
    ):
        done = minkms(*command, check=False)
        assert done.returncode != 0 and said in done.stderr, done.stderr
        assert minkms.root_key not in done.stderr
    # A key in the place of a name is neither shown nor stored, and what is of another enclave does not pass for being here.
    mistaken = ("-k", "-a", minkms.root_key, "-e", "mistakes")
    for command in ("add-identity", "rm-identity"):
        done = minkms(command, *mistaken, minkms.root_key, check=False)
        assert done.returncode == 1 and "where a name should be" in done.stderr and minkms.root_key not in done.stderr, done
    identity = IDENTITY.search(minkms("identity").stdout).group()
    minkms("add-identity", *mistaken, identity)
    assert "already exists" in minkms("add-identity", *mistaken, identity).stdout
    minkms("add-enclave", "elsewhere", "-k", "-a", minkms.root_key)
    done = minkms("add-identity", "-k", "-a", minkms.root_key, "-e", "elsewhere", identity, check=False)
    assert done.returncode == 1 and "of another enclave" in done.stderr, done
    down = minkms("stat", "-k", "--server", f"https://127.0.0.1:{free_port()}", check=False)
    assert down.returncode == 1 and "does not answer" in down.stderr


def test_a_server_started_again_has_everything_and_another_hsm_key_is_refused(minkms):
    minkms("add-enclave", "kept", "-k", "-a", minkms.root_key)
    assert minkms.process.stop() == 0
    argv = [minkms.program, "server", minkms.folder / "kms", "--config", minkms.folder / "config.yaml"]
    without = subprocess.run(argv, capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"]})
    assert without.returncode == 1 and "MINIO_KMS_HSM_KEY is set" in without.stderr, without
    right, minkms.hsm_key = minkms.hsm_key, minkms("--soft-hsm").stdout.strip()
    env = {"PATH": os.environ["PATH"], "MINIO_KMS_HSM_KEY": minkms.hsm_key}
    refused = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)
    assert refused.returncode == 1 and "HSM key" in refused.stderr
    minkms.hsm_key = right
    minkms.process = minkms.start()
    assert "kept" in minkms("ls-enclave", "-k", "-a", minkms.root_key).stdout
