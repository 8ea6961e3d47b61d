#!/usr/bin/env python3
"""Installs the clients and peers that the demo, the tests and the benchmark run, each at one pinned version.

    scripts/tools.py [--dir DIR] [--check] NAME...      (see --help for the names)

Everything comes through the package managers that the machine is set up for (pip, mvn, go, apt-get) and is
checked: Python packages and jars by SHA-256, Go modules by the checksum database, Debian packages by apt's
signatures. A tool lands in a folder of its own under DIR (default: $MOAT_TOOLS, else `.tools` beside this
folder), and a stamp is written last, so an interrupted installation is begun anew and a finished one costs
one file read. Several checkouts may share DIR: a lock per tool keeps them apart.

Only the standard library is used here, because this file is what brings everything else.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

SCRIPTS = Path(__file__).resolve().parent
REPOSITORY = SCRIPTS.parent
REQUIREMENTS = SCRIPTS / "requirements"

# The plugin that copies a jar by its coordinates; pinned because Maven's own default differs by release.
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
# The same for all dependencies of a project, which is then made of nothing else: each is named, and brings none of its own.
MAVEN_COPY_ALL = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
MAVEN_PROJECT = (
    '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
    "<groupId>tools</groupId><artifactId>jars</artifactId><version>1</version><dependencies>{}</dependencies></project>"
)
MAVEN_DEPENDENCY = (
    "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
    "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>"
)
# A download that makes no progress for this long is a broken network, not a slow one.
INSTALL_SECONDS_MAX = 3600
# Newest first: the interpreters that each tool is known to work on.
PYTHONS_ANY = ("3.12", "3.11", "3.10", "3.13")
PYTHONS_SPARK35 = ("3.11", "3.10", "3.12")


class ToolError(Exception):
    """One sentence for the person at the terminal: what is missing and what to do."""


def tools_dir() -> Path:
    """Where tools are installed: $MOAT_TOOLS, else an ignored folder of this checkout."""
    return Path(os.environ.get("MOAT_TOOLS") or REPOSITORY / ".tools").absolute()


@dataclass(frozen=True)
class Tool:
    """One installable thing. `pin` is everything that decides its content: a new pin installs anew."""

    name: str
    about: str
    pin: str
    install: Callable[[Path], None]
    probe: str = ""
    needs: tuple[str, ...] = ()
    optional: bool = field(default=False)


def say(message: str) -> None:
    """A progress line on standard error, so that standard output stays usable by scripts."""
    print(f"tools: {message}", file=sys.stderr, flush=True)


def run(argv: list[str], what: str, **more) -> str:
    """Runs a package manager; on failure the end of its output goes into the error."""
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=INSTALL_SECONDS_MAX, **more
        )
    except FileNotFoundError as error:
        raise ToolError(f"{what} needs `{argv[0]}` on the PATH: {PREREQUISITES.get(argv[0], 'please install it')}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"{what}: no end after {INSTALL_SECONDS_MAX} s") from error
    if done.returncode != 0:
        tail = "\n    ".join(done.stdout.strip().splitlines()[-12:])
        raise ToolError(f"{what} failed ({argv[0]} ended with {done.returncode}):\n    {tail}")
    return done.stdout


PREREQUISITES = {
    "java": "install a Java 17 runtime (Debian: openjdk-17-jdk-headless), or put one on the PATH",
    "mvn": "install Maven (Debian: maven); it brings the S3A jars by their coordinates",
    "go": "install Go 1.24 or newer; mc and MinIO are built from their modules with `go install`",
    "cargo": "install Rust with rustup; rust-toolchain.toml names the version",
    "apt-get": "this one comes as a Debian package, so it is only installed on Debian-like systems",
    "apt-cache": "this one comes as a Debian package, so it is only installed on Debian-like systems",
    "keytool": "comes with a Java 17 JDK",
    "javac": "comes with a Java 17 JDK (Debian: openjdk-17-jdk-headless)",
}


def require(*commands: str) -> None:
    """Fails with one sentence for every missing command at once."""
    missing = [c for c in commands if shutil.which(c) is None]
    if missing:
        raise ToolError("; ".join(f"`{c}` is missing: {PREREQUISITES.get(c, 'please install it')}" for c in missing))


# ---- Python ----


def find_python(versions: tuple[str, ...]) -> str:
    """The first interpreter of the wanted versions that starts. Shims that only pretend are skipped."""
    names = [f"python{v}" for v in versions] + ["python3", sys.executable]
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        seen = subprocess.run(
            [path, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if seen.returncode == 0 and seen.stdout.strip() in versions:
            return path
    raise ToolError(
        f"no Python of version {', '.join(versions)} with venv and ensurepip was found: install one (Debian: python3 and python3-venv)"
    )


def python_install(requirements: str, versions: tuple[str, ...] = PYTHONS_ANY) -> Callable[[Path], None]:
    """A virtual environment with exactly the files that scripts/requirements/NAME.txt pins by hash."""

    def install(target: Path) -> None:
        python = find_python(versions)
        run([python, "-m", "venv", str(target)], f"making a virtual environment for {requirements}")
        run(
            [
                str(target / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check",
                "--require-hashes", "--no-deps", "-r", str(REQUIREMENTS / f"{requirements}.txt"),
            ],
            f"pip install of {requirements}",
        )  # fmt: skip

    return install


def python_tool(name: str, about: str, probe: str = "bin/python") -> Tool:
    return Tool(name, about, pin=requirements_pin(name), install=python_install(name), probe=probe)


def requirements_pin(name: str) -> str:
    return (REQUIREMENTS / f"{name}.txt").read_text()


# ---- Spark: a wheel from PyPI and the jars that it does not carry, from Maven ----


@dataclass(frozen=True)
class Jar:
    """A jar by its coordinates, and the SHA-256 that it must have."""

    coordinates: str
    sha256: str

    @property
    def file_name(self) -> str:
        _group, artifact, version = self.coordinates.split(":")
        return f"{artifact}-{version}.jar"


# hadoop-aws must be the Hadoop version of Spark's own client jars, and the SDK the one it was built with:
# any other pairing ends in NoSuchMethodError.
SPARK35_JARS = (
    Jar("org.apache.hadoop:hadoop-aws:3.3.4", "53f9ae03c681a30a50aa17524bd9790ab596b28481858e54efd989a826ed3a4a"),
    Jar("com.amazonaws:aws-java-sdk-bundle:1.12.262", "873fe7cf495126619997bec21c44de5d992544aea7e632fdc77adb1a0915bae5"),
)
SPARK4_JARS = (
    Jar("org.apache.hadoop:hadoop-aws:3.4.1", "01334a07e179cae2b7e251f24857f11e3759108c9d6a79dcbe362a4295227da2"),
    Jar("software.amazon.awssdk:bundle:2.24.6", "890bf9f2a80488f7a8aa8277d64d13a9ea3a3cdff8607ef3b63a878d8b467b41"),
)


def spark_tool(name: str, about: str, jars: tuple[Jar, ...], versions: tuple[str, ...]) -> Tool:
    def install(target: Path) -> None:
        python_install(name, versions)(target)
        home = spark_home(target)
        for jar in jars:
            fetch_jar(jar, home / "jars")

    pin = requirements_pin(name) + "".join(f"{j.coordinates} {j.sha256}\n" for j in jars)
    return Tool(name, about, pin=pin, install=install, probe="bin/spark-submit", needs=("java", "mvn"))


def java_tool(name: str, about: str) -> Tool:
    """Jars alone, exactly those that scripts/requirements/NAME.txt lists; Maven is not asked what else they would like."""

    def install(target: Path) -> None:
        fetch_jars(listed_jars(name), target / "jars")

    return Tool(name, about, pin=requirements_pin(name), install=install, probe="jars", needs=("mvn",))


def listed_jars(name: str) -> list[Jar]:
    lines = [line for line in requirements_pin(name).splitlines() if line and not line.startswith("#")]
    return [Jar(*line.split()) for line in lines]


def fetch_jars(jars: list[Jar], folder: Path) -> None:
    """Copies many jars in one run of Maven, which takes longer to start than to copy one."""
    folder.mkdir(parents=True)
    wanted = "".join(MAVEN_DEPENDENCY.format(*jar.coordinates.split(":")) for jar in jars)
    (folder / "pom.xml").write_text(MAVEN_PROJECT.format(wanted))
    run(
        ["mvn", "--quiet", "--batch-mode", MAVEN_COPY_ALL, f"-DoutputDirectory={folder}"],
        f"fetching {len(jars)} jars from Maven", cwd=folder,
    )  # fmt: skip
    for jar in jars:
        check_jar(jar, folder)


def fetch_jar(jar: Jar, folder: Path) -> None:
    """Copies one jar into Spark's own jar folder, where drivers, executors and the history server all look."""
    run(
        ["mvn", "--quiet", "--batch-mode", MAVEN_COPY, f"-Dartifact={jar.coordinates}", f"-DoutputDirectory={folder}"],
        f"fetching {jar.coordinates} from Maven",
    )
    check_jar(jar, folder)


def check_jar(jar: Jar, folder: Path) -> None:
    found = sha256_of(folder / jar.file_name)
    if found != jar.sha256:
        raise ToolError(f"{jar.coordinates} has sha256 {found}, expected {jar.sha256}: not using it")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256_stream(file)


def _sha256_stream(file) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def spark_home(target: Path) -> Path:
    """SPARK_HOME inside a tool folder: the pyspark package of its virtual environment."""
    found = list(target.glob("lib/python3*/site-packages/pyspark"))
    if len(found) != 1:
        raise ToolError(f"no pyspark below {target}: remove that folder and install it again")
    return found[0]


# ---- Go and Debian ----


def go_tool(name: str, about: str, module: str, version: str) -> Tool:
    """A command built by `go install` at one pseudo-version; Go's checksum database vouches for the source."""

    def install(target: Path) -> None:
        (target / "bin").mkdir(parents=True)
        run(["go", "install", f"{module}@{version}"], f"go install {module}", env={**os.environ, "GOBIN": str(target / "bin")})
        built = run(["go", "version", "-m", str(target / "bin" / name)], f"reading the version of {name}")
        if version not in built:
            raise ToolError(f"the built {name} does not say that it is {version}")

    return Tool(name, about, pin=f"{module}@{version}\n", install=install, probe=f"bin/{name}", needs=("go",))


# Present on every Debian that runs Python, and unwise to mix; the compiler back end of PostgreSQL is not used.
DEB_LEFT_OUT = ("libc6", "libgcc-s1", "libstdc++6", "libcrypt1", "libc-bin", "libllvm", "libpam-modules", "libpam-runtime")


@dataclass(frozen=True)
class Apt:
    """apt-get and apt-cache, on the system's package lists or, where it has none, on lists in a folder of our own."""

    options: tuple[str, ...] = ()

    def download(self, packages: list[str], folder: Path) -> None:
        run(["apt-get", *self.options, "download", *packages], f"apt-get download {' '.join(packages)}", cwd=folder)

    def newest(self, pattern: str) -> str:
        """The package whose name is `pattern` with the highest number in place of its `N`."""
        before, after = pattern.split("N")
        listed = run(["apt-cache", *self.options, "search", "--names-only", f"^{before}[0-9]+{after}$"], f"looking for {pattern}")
        numbers = [int(name[len(before) : len(name) - len(after)]) for name in (line.split()[0] for line in listed.splitlines() if line)]
        if not numbers:
            raise ToolError(f"no package {pattern} is known to apt")
        return f"{before}{max(numbers)}{after}"

    def libraries(self, packages: list[str]) -> list[str]:
        """The libraries that packages need, and those that they need in turn."""
        found, wanted = set(packages), list(packages)
        while wanted:
            shown = run(["apt-cache", *self.options, "depends", "--important", wanted.pop()], "reading what a package needs")
            for line in shown.splitlines():
                kind, _, name = line.strip().lstrip("|").partition(": ")
                if kind in ("Depends", "PreDepends") and name.startswith("lib") and not name.startswith(DEB_LEFT_OUT) and name not in found:
                    found.add(name)
                    wanted.append(name)
        return sorted(found)


def with_apt(target: Path, fetch: Callable[[Apt], None]) -> None:
    """Calls `fetch` with the system's package lists; if that fails, once more with fresh lists of our own."""
    try:
        fetch(Apt())
    except ToolError:
        private = apt_private_state(target / "apt")
        run(["apt-get", *private, "update"], "apt-get update in a folder of our own")
        fetch(Apt(tuple(private)))
    finally:
        shutil.rmtree(target / "apt", ignore_errors=True)


def deb_unpack(target: Path, choose: Callable[[Apt], list[str]]) -> Path:
    """Downloads and unpacks Debian packages without root; the root folder that they are then in."""
    downloads, root = target / "deb", target / "root"
    downloads.mkdir(parents=True)
    with_apt(target, lambda apt: apt.download(choose(apt), downloads))
    for deb in downloads.glob("*.deb"):
        run(["dpkg", "-x", str(deb), str(root)], f"unpacking {deb.name}")
    (target / "bin").mkdir()
    return root


def deb_wrappers(target: Path, programs: list[Path]) -> None:
    """A script for each program that starts it with the libraries that were unpacked beside it. A copy of the folder works as well."""
    root = target / "root"
    folders = sorted({library.parent for pattern in ("lib/*/*.so*", "usr/lib/*/*.so*") for library in root.glob(pattern)})
    path = ":".join(f"$here/{folder.relative_to(target)}" for folder in folders)
    for program in programs:
        script = target / "bin" / program.name
        script.write_text(
            f'#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")/..\n'
            f'LD_LIBRARY_PATH="{path}" exec "$here/{program.relative_to(target)}" "$@"\n'
        )
        script.chmod(0o755)


def deb_install(package: str) -> Callable[[Path], None]:
    """One program of a Debian package, for which the system has the libraries."""

    def install(target: Path) -> None:
        root = deb_unpack(target, lambda _apt: [package])
        (target / "bin" / package).symlink_to(root / "usr/bin" / package)

    return install


def postgres_install(target: Path) -> None:
    """The newest PostgreSQL server that this Debian has, with its libraries."""

    def choose(apt: Apt) -> list[str]:
        server = apt.newest("postgresql-N")
        return [*apt.libraries([server]), server.replace("postgresql-", "postgresql-client-")]

    root = deb_unpack(target, choose)
    (home,) = root.glob("usr/lib/postgresql/*")
    # Tests that run as root copy the folder for another user; these are half of it and not used.
    for unused in (target / "deb", home / "lib/bitcode", root / "usr/share/doc", root / "usr/share/man", root / "usr/share/locale"):
        shutil.rmtree(unused, ignore_errors=True)
    deb_wrappers(target, [home / "bin" / name for name in ("initdb", "postgres", "psql", "pg_ctl")])


def softhsm_install(target: Path) -> None:
    """SoftHSM, a PKCS#11 token in software, with its libraries."""
    root = deb_unpack(target, lambda apt: apt.libraries(["softhsm2", "libsofthsm2"]))
    deb_wrappers(target, [root / "usr/bin/softhsm2-util"])
    # A name without the version of the system's folder in it, for `module-path`.
    (target / "libsofthsm2.so").symlink_to(root / "usr/lib/softhsm/libsofthsm2.so")


def balancer_install(package: str) -> Callable[[Path], None]:
    """A load balancer that the benchmark compares with, and its libraries."""

    def install(target: Path) -> None:
        root = deb_unpack(target, lambda apt: apt.libraries([package]))
        deb_wrappers(target, [root / "usr/sbin" / package])

    return install


def apt_private_state(folder: Path) -> list[str]:
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return ["-o", f"Dir::State::lists={folder}/lists", "-o", f"Dir::Cache={folder}/cache", "-o", "Debug::NoLocking=true"]


# ---- The table ----

TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        python_tool("client", "boto3 (newest) and pytest"),
        python_tool("boto3-1.24", "boto3 1.24, before default trailing checksums"),
        python_tool("aws", "the aws command line, version 1", probe="bin/aws"),
        python_tool("s3cmd", "s3cmd", probe="bin/s3cmd"),
        python_tool("seaweedfs", "the SeaweedFS server, a peer of the benchmark"),
        spark_tool("spark35", "Spark 3.5.9 with S3A 3.3.4 and SDK v1 (about 600 MB)", SPARK35_JARS, PYTHONS_SPARK35),
        spark_tool("spark4", "Spark 4.0.5 with S3A 3.4.1 and SDK v2 (about 1 GB)", SPARK4_JARS, PYTHONS_ANY),
        java_tool("java-v2", "the AWS SDK for Java v2, its S3 client alone (version 1 comes with spark35)"),
        go_tool("mc", "the MinIO client", "github.com/minio/mc", "v0.0.0-20250313080218-cf909e1063a9"),
        go_tool(
            "minio", "the MinIO server, a peer of the benchmark (builds some minutes)",
            "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c",
        ),
        Tool(
            "rclone", "rclone, as Debian ships it", pin="debian rclone\n", install=deb_install("rclone"),
            probe="bin/rclone", needs=("apt-get", "dpkg"), optional=True,
        ),
        Tool(
            "postgres", "a PostgreSQL server, as Debian ships it", pin="debian postgresql, relocatable\n", install=postgres_install,
            probe="bin/initdb", needs=("apt-get", "apt-cache", "dpkg"),
        ),
        Tool(
            "softhsm", "SoftHSM, a PKCS#11 token in software, as Debian ships it", pin="debian softhsm2, relocatable\n", install=softhsm_install,
            probe="libsofthsm2.so", needs=("apt-get", "apt-cache", "dpkg"),
        ),
        *(
            Tool(
                name, f"{name}, as Debian ships it, a peer of the proxy's benchmark", pin=f"debian {name}, relocatable\n", install=balancer_install(name),
                probe=f"bin/{name}", needs=("apt-get", "apt-cache", "dpkg"),
            )
            for name in ("nginx", "haproxy")
        ),
    )
}  # fmt: skip


def where(name: str) -> Path:
    """The folder of a tool, whether or not it is installed."""
    return tools_dir() / name


def program(name: str, command: str | None = None) -> str:
    """The path of a tool's command, e.g. `program("mc")` or `program("client", "python")`."""
    return str(where(name) / "bin" / (command or name))


def installed(name: str) -> bool:
    """Whether the tool is there at the wanted pin."""
    tool, target = TOOLS[name], where(name)
    stamp = target / ".ready"
    return stamp.is_file() and stamp.read_text() == fingerprint(tool) and (target / tool.probe).exists()


def fingerprint(tool: Tool) -> str:
    """What the stamp holds: the pin, and the place, since virtual environments do not survive a move."""
    return hashlib.sha256(f"{tool.pin}\n{where(tool.name)}".encode()).hexdigest() + "\n"


def ensure(*names: str) -> None:
    """Installs what is missing of `names`; quick when nothing is."""
    for name in names:
        if not installed(name):
            install_locked(TOOLS[name])


def install_locked(tool: Tool) -> None:
    tools_dir().mkdir(parents=True, exist_ok=True)
    with (tools_dir() / f".{tool.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{tool.name}: waiting for another installation of it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if installed(tool.name):
            return
        require(*tool.needs)
        target, started = where(tool.name), time.monotonic()
        say(f"{tool.name}: installing {tool.about}")
        shutil.rmtree(target, ignore_errors=True)
        tool.install(target)
        (target / ".ready").write_text(fingerprint(tool))
        say(f"{tool.name}: ready after {time.monotonic() - started:.0f} s")


def main() -> int:
    names = "\n".join(f"  {t.name:<12}{t.about}" for t in TOOLS.values())
    parser = argparse.ArgumentParser(
        description="Installs pinned tools for the demo, the tests and the benchmark.",
        epilog=f"names:\n{names}\n  all         every one of them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="NAME", choices=[*TOOLS, "all"])
    parser.add_argument("--dir", type=Path, help="where to install (default: $MOAT_TOOLS, else .tools of this checkout)")
    parser.add_argument("--check", action="store_true", help="install nothing; end with 1 if something is missing")
    arguments = parser.parse_args()
    if arguments.dir:
        os.environ["MOAT_TOOLS"] = str(arguments.dir.absolute())
    wanted = list(TOOLS) if "all" in arguments.names else arguments.names
    if arguments.check:
        missing = [n for n in wanted if not installed(n)]
        if missing:
            say(f"missing: {', '.join(missing)}")
        return 1 if missing else 0
    failed = False
    for name in wanted:
        try:
            ensure(name)
        except ToolError as error:
            say(f"{name}: {error}")
            failed = failed or not TOOLS[name].optional
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
