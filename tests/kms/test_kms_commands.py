"""What `moat kms` says: to people and scripts, and to those who mistype or would take too much away."""

from __future__ import annotations

import base64
import json
import re
import subprocess

import pytest
from harness.kms import Kms
from harness.stack import moat_binary

IDENTITY = re.compile(r"h1:[A-Za-z0-9_-]{43}")


@pytest.fixture(scope="module")
def kms(tmp_path_factory):
    running = Kms(tmp_path_factory.mktemp("kms"))
    yield running
    running.end()


def told(kms: Kms, *command: str):
    """What a command prints as JSON."""
    return json.loads(kms.moat(*command, "--json").stdout)


def refused(kms: Kms, *command: str) -> str:
    """Why a command is refused, in one line that names no secret and does not repeat itself."""
    done = kms.moat(*command, check=False)
    assert done.returncode == 1, (command, done)
    assert not done.stdout and done.stderr.startswith("moat: ") and done.stderr.count("\n") == 1, (command, done)
    return done.stderr


def new_identity(kms: Kms, *options: str) -> str:
    return told(kms, "identity", "create", *options)["identity"]


def test_a_policy_that_identities_have_goes_only_by_force(kms):
    kms.moat("policy", "create", "readers", "--allow", "KEY:LIST=*")
    holder = new_identity(kms, "--policy", "readers")
    said = refused(kms, "policy", "delete", "readers", "--yes")
    assert "1 identity has the policy readers" in said and holder in said and "--force" in said
    # By force it is asked as well, and said who loses it.
    said = refused(kms, "policy", "delete", "readers", "--force")
    assert holder in said and "--yes" in said
    assert kms.moat("policy", "check", holder, "KEY:LIST", "any").returncode == 0

    kms.moat("policy", "delete", "readers", "--force", "--yes")
    checked = kms.moat("policy", "check", holder, "KEY:LIST", "any", check=False)
    assert checked.returncode == 1 and "the policy of the identity was deleted" in checked.stdout
    assert "readers, which was deleted" in kms.moat("identity", "info", holder).stdout
    # One of its name is in force for those who had it: that is why the name stays with them.
    kms.moat("policy", "create", "readers", "--allow", "KEY:STATUS=*")
    assert "allow KEY:STATUS *" in kms.moat("policy", "check", holder, "KEY:STATUS", "any").stdout

    kms.moat("policy", "create", "unused", "--allow", "KEY:LIST=*")
    assert told(kms, "policy", "delete", "unused", "--yes") == {"done": "policy unused is deleted"}
    assert "unused does not exist" in refused(kms, "policy", "delete", "unused", "--yes")


def test_a_policy_without_rules_is_a_slip_and_replaces_nothing(kms):
    kms.moat("policy", "create", "kept", "--allow", "KEY:LIST=*")
    assert "--allow" in refused(kms, "policy", "create", "kept")
    # Patterns that are about nothing here stand in real policies of KES; alone they are none.
    nothing = kms.moat("policy", "create", "kept", "--allow", "/v1/key/genrate/*", check=False)
    assert nothing.returncode == 1 and "warning: /v1/key/genrate/* is about no operation" in nothing.stderr
    assert told(kms, "policy", "get", "kept")["allow"] == {"KEY:LIST": ["*"]}
    some = kms.moat("policy", "create", "kept", "--allow", "/v1/secret/*", "--allow", "/v1/key/list/*")
    assert "warning: /v1/secret/*" in some.stderr and "KEY:LIST" in some.stdout


def test_the_only_version_of_a_key_is_not_destroyed(kms):
    kms.moat("key", "create", "only")
    said = refused(kms, "key", "delete", "only", "--version", "1", "--yes")
    assert "version 1 is the only one" in said and "rotate it first" in said
    kms.moat("key", "rotate", "only")
    assert told(kms, "key", "delete", "only", "--version", "1", "--yes")["versions"] == 1
    assert [one["version"] for one in told(kms, "key", "versions", "only")] == [2]


def test_a_key_shows_its_state_and_what_will_happen_to_it(kms):
    kms.moat("key", "create", "shown", "--rotate-every", "30d")
    shown = kms.moat("key", "info", "shown").stdout
    assert re.search(r"^rotation +every 30 days, next 20", shown, re.MULTILINE), shown
    assert re.search(r"^exportable +no$", shown, re.MULTILINE), shown
    assert "rotation: only by hand" in kms.moat("key", "rotate", "shown", "--never").stdout
    assert "rotation: every 12 hours" in kms.moat("key", "rotate", "shown", "--every", "12h").stdout
    assert "for good after 30 days" in refused(kms, "key", "delete", "shown", "--grace", "30d")
    kms.moat("key", "delete", "shown", "--yes")
    assert re.search(r"shown +deleted, restorable until 20", kms.moat("key", "list", "shown").stdout)
    # Enabling is not what takes a deletion back, and does not look as if it had.
    assert "is being deleted; restore it" in refused(kms, "key", "enable", "shown")
    kms.moat("key", "restore", "shown")
    assert told(kms, "key", "info", "shown")["enabled"]


def test_one_thing_is_an_object_and_several_are_a_list(kms):
    for command, kind in (
        (("enclave", "create", "one"), dict), (("enclave", "info", "one"), dict), (("enclave", "list"), list),
        (("key", "create", "json"), dict), (("key", "info", "json"), dict), (("key", "rotate", "json"), dict), (("key", "list"), list),
        (("key", "versions", "json"), list), (("policy", "get", "minio"), dict), (("policy", "list"), list), (("identity", "info"), dict),
        (("identity", "list"), list), (("status",), dict), (("hsm", "status"), dict), (("key", "list", "none-of-this-name"), list),
    ):  # fmt: skip
        assert isinstance(told(kms, *command), kind), command


def test_the_operator_and_others_are_told_who_they_are(kms, tmp_path):
    shown = kms.moat("identity", "info").stdout
    assert "SysAdmin of the system" in shown and IDENTITY.search(shown)
    user = told(kms, "identity", "create", "--policy", "minio")
    key = tmp_path / "user.key"
    key.write_text(user["api_key"])
    key.chmod(0o600)
    said = kms.moat("status", "--api-key-file", str(key))
    assert said.returncode == 0 and "this identity is a User with the policy minio" in said.stdout
    assert user["identity"] in kms.moat("identity", "info", "--api-key-file", str(key)).stdout
    drawn = subprocess.run([moat_binary(), "kms", "identity", "new", "--json"], capture_output=True, check=True)
    key.write_text(json.loads(drawn.stdout)["api_key"])
    assert "may not use" in kms.moat("status", "--api-key-file", str(key), check=False).stdout


def test_identities_and_policies_of_the_system_are_made_beside_those_of_an_enclave(kms, tmp_path):
    kms.moat("policy", "create", "watcher", "--system", "--allow", "METRICS:READ=*")
    assert "watcher" not in kms.moat("policy", "list").stdout
    watcher = told(kms, "identity", "create", "--system", "--policy", "watcher")
    assert kms.moat("policy", "check", "--system", watcher["identity"], "METRICS:READ", "metrics").returncode == 0
    assert [one["identity"] for one in told(kms, "identity", "list", "--system")] == [watcher["identity"]]
    # A second operator, whose key is not the root identity's.
    operator = told(kms, "identity", "create", "--system", "--admin")
    key = tmp_path / "operator.key"
    key.write_text(operator["api_key"])
    key.chmod(0o600)
    kms.moat("enclave", "create", "by-operator", "--api-key-file", str(key))
    assert "SysAdmin" in kms.moat("identity", "info", "--api-key-file", str(key)).stdout
    for one in (watcher, operator):
        kms.moat("identity", "delete", "--system", one["identity"], "--yes")


def test_mistakes_are_sentences(kms, tmp_path):
    kms.moat("key", "create", "mine")
    material, short, wrong = tmp_path / "material", tmp_path / "short", tmp_path / "wrong"
    material.write_bytes(base64.b64encode(bytes(32)))
    short.write_bytes(base64.b64encode(bytes(5)))
    wrong.write_text('{"a": "file of another kind"}')
    for secret in (short, wrong):
        secret.chmod(0o600)
    material.chmod(0o644)
    for command, said in (
        (("key", "create", "mine"), "already exists"),
        (("key", "create", "a b"), "may only hold"),
        (("key", "create", "x", "--algorithm", "DES"), "one of AES256"),
        (("key", "create", "x", "--rotate-every", "5m"), "once an hour at most"),
        (("key", "rotate", "mine", "--every", "soon"), "such as 30d"),
        (("key", "info", "none"), "does not exist"),
        (("key", "delete", "none"), "does not exist"),
        (("key", "export", "mine", "--out", str(tmp_path / "out")), "not made exportable"),
        (("key", "import", "x"), "name one source"),
        (("key", "import", "x", "--material-file", str(material)), "chmod 600"),
        (("key", "import", "x", "--material-file", str(short)), "32 bytes"),
        (("key", "import", "x", "--material-file", str(wrong)), "32 bytes in base64"),
        (("key", "import", "x", "--kes-file", str(wrong)), "no key as KES stores one"),
        (("decrypt", "mine", "garbage"), "not base64"),
        (("decrypt", "mine", "AAAA"), "does not open"),
        (("datakey", "mine", "--length", "5000"), "1 to 1024 bytes"),
        (("identity", "create", "somebody"), "is no identity"),
        (("identity", "create", "--policy", "none"), "policy none does not exist"),
        (("identity", "info", "--system", "h1:" + "A" * 43), "does not exist"),
        (("policy", "create", "x", "--allow", "KEY:EAT=*"), "unknown command"),
        (("policy", "create", "x", "--allow", "/v1/nothing/here"), "no operation"),
        (("policy", "create", "x", "--file", str(wrong)), "is not a policy"),
        (("status", "--endpoint", "https://127.0.0.1:1"), "does not answer"),
        (("status", "--endpoint", "http://127.0.0.1:1"), "must be https"),
        (("key", "list", "--api-key-file", str(wrong)), "an API key is k1:"),
        (("key", "list", "--api-key-file", str(tmp_path / "none")), "can't read"),
        (("key", "list", "--enclave", "none"), "enclave none does not exist"),
        (("hsm", "rotate", "--to", "/nowhere/hsm.key"), "can't read /nowhere/hsm.key"),
        (("backup", "/nowhere/backup"), "can't write /nowhere/backup"),
        (("restore", str(wrong), "--hsm-key", str(kms.stack.data / "kms/hsm.key")), "in use"),
    ):
        text = refused(kms, *command)
        assert said in text, (command, text)
        parts = text.strip().split(": ")
        assert len(parts) == len(set(parts)), f"it repeats itself: {text}"


def test_the_audit_is_asked_for_what_there_can_be(kms):
    kms.moat("key", "create", "asked")
    identity = new_identity(kms)
    kms.moat("identity", "delete", identity, "--yes")
    show = ("audit", "show")

    def audit(*options: str, check: bool = True):
        return kms.stack.moat("kms", *show, *options, check=check)

    # Both forms of an identity and any case of an operation are understood; what can't be is a mistake, not an empty audit.
    root = told(kms, "status")["identity"]
    kes = base64.urlsafe_b64decode(root.removeprefix("h1:") + "=").hex()
    for who in (root, kes):
        assert "KEY:CREATE" in audit("--identity", who, "--operation", "key:create", "--key", "asked").stdout
    for option, said in (("--identity", "is no identity"), ("--operation", "give one like KEY:DECRYPT"), ("--since", "is no time")):
        wrong = audit(option, "nonsense", check=False)
        assert wrong.returncode == 1 and said in wrong.stderr, wrong
    assert "audit show --since" in refused(kms, "audit", "follow", "--since", "2026-01-01T00:00:00Z")
    # Whom it was about is to be seen.
    assert identity[:15] in audit("--operation", "IDENTITY:DELETE", "--last", "1").stdout
