"""Every store that nodes can share, started with a login if it has one, and its URL as an operator writes it.

Knows the stores' URLs; must not know what is stored in them.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.servers.bao import Bao
from tests.servers.base import Server, started
from tests.servers.consul import Consul
from tests.servers.postgresql import PASSWORD, Postgresql
from tests.servers.redis import Redis

SERVERS = ("postgresql", "redis", "consul", "vault")
KINDS = ("file", "sqlite", *SERVERS)

_POLICY = 'path "secret/data/acme/*" {capabilities=["create","read","update"]}\n' + (
    'path "secret/metadata/acme/*" {capabilities=["read","list","delete"]}'
)


@dataclass(frozen=True)
class Place:
    """A running store. ``url_at`` gives its URL with another port, for example of a proxy before it.

    ``environment`` has the variables that the URL refers to, ``secrets`` the values that must never be shown.
    """

    kind: str
    url_at: Callable[[int], str]
    server: Server | None = None
    port: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    @property
    def open_url(self) -> str:
        """The URL with its secrets in it, for the tests' own access."""
        url = self.url
        for name, value in self.environment.items():
            url = url.replace(f"env:{name}", quote(value, safe=""))
        return url

    @property
    def secrets(self) -> list[str]:
        return list(self.environment.values())


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Place]:
    """Start the store of this kind: an empty one, which keeps its data when it is killed."""
    if kind in ("file", "sqlite"):
        yield Place(kind, lambda _: f"{kind}:{folder}/store" + (".db" if kind == "sqlite" else ""))
        return
    yield from {"postgresql": _postgresql, "redis": _redis, "consul": _consul, "vault": _vault}[kind]()


def _postgresql() -> Iterator[Place]:
    with started(Postgresql()) as server:
        url = "postgresql://postgres:env:ACME_TEST_PG@127.0.0.1:{}/postgres"
        yield Place("postgresql", url.format, server, server.port, {"ACME_TEST_PG": PASSWORD})


def _redis() -> Iterator[Place]:
    password = secrets.token_hex()
    with started(Redis(password=password)) as server:
        url = "redis://:env:ACME_TEST_REDIS@127.0.0.1:{}"
        yield Place("redis", url.format, server, server.port, {"ACME_TEST_REDIS": password})


def _consul() -> Iterator[Place]:
    with started(Consul(acl=True, persist=True)) as server:
        token = server.make_token('key_prefix "acme" { policy = "write" }')
        url = "consul://127.0.0.1:{}/acme?token=env:ACME_TEST_CONSUL"
        yield Place("consul", url.format, server, server.port, {"ACME_TEST_CONSUL": token})


def _vault() -> Iterator[Place]:
    with started(Bao(persist=True)) as server:
        server.request("POST", "sys/auth/approle", {"type": "approle"})
        server.request("PUT", "sys/policies/acl/acme", {"policy": _POLICY})
        server.request("POST", "auth/approle/role/acme", {"token_policies": "acme"})
        role = server.request("GET", "auth/approle/role/acme/role-id")["data"]["role_id"]
        secret = server.request("POST", "auth/approle/role/acme/secret-id")["data"]["secret_id"]
        url = "vault://127.0.0.1:{}/secret/acme?auth=approle&role_id=" + quote(role) + "&secret_id=env:ACME_TEST_VAULT"
        yield Place("vault", url.format, server, server.port, {"ACME_TEST_VAULT": secret})
