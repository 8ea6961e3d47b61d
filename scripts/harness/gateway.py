"""A `moat gateway` with one user, in front of one store or several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .proxy import Certificates, Proxy

# The client's credentials, which no store knows.
ACCESS_KEY, SECRET_KEY = "GATEWAYUSER", "a-secret-of-the-gateways-user"


@dataclass(frozen=True)
class Store:
    """A store behind the gateway, and what the gateway signs with."""

    url: str
    access_key: str
    secret_key: str
    ca: Path | None = None


@dataclass(frozen=True)
class Rule:
    """One line of the gateway's rules for encryption; `words` are lines as moat.toml has them."""

    bucket: str
    words: str

    def text(self) -> str:
        return f'[[gateway.encryption]]\nbucket = "{self.bucket}"\n{self.words}\n'


class Gateway(Proxy):
    """The first store is that of all buckets that `buckets` does not give to another; it maps names to stores."""

    def __init__(self, folder: Path, certificates: Certificates, stores: dict[str, Store], buckets: dict[str, str] | None = None,
                 rules: list[Rule] | None = None, gateway: str = "", more: str = "", policy: str = "readwrite", settings: str = "") -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (main, store), *others = stores.items()
        proxy = f'upstreams = ["{store.url}"]\n' + (f'upstream_ca = ["{store.ca}"]\n' if store.ca else "") + settings
        sections = [
            f'[gateway]\ncredentials = "{_credentials(folder, main, store.access_key, store.secret_key)}"\n{gateway}',
            f'[[gateway.users]]\nname = "user"\ncredentials = "{_credentials(folder, "user", ACCESS_KEY, SECRET_KEY)}"\npolicies = ["{policy}"]\n',
        ]
        sections += [rule.text() for rule in rules or []]
        for name, other in others:
            ca = f'ca = ["{other.ca}"]\n' if other.ca else ""
            file = _credentials(folder, name, other.access_key, other.secret_key)
            sections.append(f'[[gateway.upstreams]]\nname = "{name}"\nendpoints = ["{other.url}"]\n{ca}credentials = "{file}"\n')
        for bucket, name in (buckets or {}).items():
            if name != main:
                sections.append(f'[[gateway.buckets]]\nname = "{bucket}"\nupstream = "{name}"\n')
        super().__init__(folder, certificates, proxy, "\n".join([*sections, more]), command="gateway")

    # What a `Connection` of tests/sigv4.py asks its server for.

    @property
    def store(self) -> str:
        return self.http

    @staticmethod
    def root_credentials() -> tuple[str, str]:
        return ACCESS_KEY, SECRET_KEY

    def client(self, url: str | None = None, **config):
        """A boto3 client of the gateway's user. It tries nothing twice, so that a test sees each answer."""
        import boto3
        import botocore.config

        settings = {"signature_version": "s3v4", "s3": {"addressing_style": "path"}, "retries": {"max_attempts": 1, "mode": "standard"}, "read_timeout": 60, **config}
        return boto3.client(
            "s3", endpoint_url=url or self.http, aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name="us-east-1",
            verify=str(self.certificates.ca), config=botocore.config.Config(**settings),
        )  # fmt: skip


def _credentials(folder: Path, name: str, access_key: str, secret_key: str) -> Path:
    file = folder / f"{name}.env"
    file.touch(mode=0o600)
    file.write_text(f"AWS_ACCESS_KEY_ID={access_key}\nAWS_SECRET_ACCESS_KEY={secret_key}\n")
    return file
