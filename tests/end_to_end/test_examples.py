"""The examples for several nodes, unchanged except for addresses, on real servers."""

import functools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import make_conninfo

from acme_storage import open_storage
from tests.end_to_end.client import eventually, get, handshake, is_trusted
from tests.servers.bao import Bao
from tests.servers.base import started
from tests.servers.binaries import need
from tests.servers.ca import ThrowawayCA
from tests.servers.forked import Forked
from tests.servers.mitmdump import SCRIPT, Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.postgresql import PASSWORD, Postgresql
from tests.servers.redis import Redis
from tests.servers.upstream import Upstream

_EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_RULES = "~acme:* +@connection +@scripting +@hash +@sortedset +del +exists +time"

type StartExample = Callable[..., Mitmdump]


class Example(Forked):
    """mitmdump with the example as its config.yaml, and on its command line only what a private CA needs."""

    def __init__(
        self, text: str, upstream: str, ca: Pebble, environment: Mapping[str, str], http_port: int | None
    ) -> None:
        super().__init__(upstream, {}, http_port=http_port)
        self.environment |= environment
        confdir = self.folder / "confdir"
        confdir.mkdir()
        (confdir / "config.yaml").write_text(self._with_own_addresses(text, ca))
        self.options["confdir"] = str(confdir)
        self._words = ["--set", f"confdir={confdir}", "--set", f"acme_ca_bundle={ca.ca_bundle}"]

    def _with_own_addresses(self, text: str, ca: Pebble) -> str:
        """Replace the example's addresses by this test's; all of them must be there."""
        replacements = {
            "http://127.0.0.1:8000@443": f"{self.upstream}@127.0.0.1:{self.https_port}",
            "http://127.0.0.1:8000@80": f"{self.upstream}@127.0.0.1:{self.http_port}",
            "/opt/mitmproxy-acme/addons/acme_addon.py": str(SCRIPT),
        }
        if "acme_role: data" not in text:
            replacements["letsencrypt-staging"] = ca.directory
        return replaced(text, replacements)

    def arguments(self) -> list[str]:
        return self._words


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.fixture
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    need("pebble")
    with Pebble(dns) as server:
        yield server


@pytest.fixture
def example(ca: Pebble, upstream: Upstream) -> Iterator[StartExample]:
    """Start an example by name, with the addresses of this test's servers."""
    with ExitStack() as stack:

        def start(
            name: str, replacements: Mapping[str, str], environment: Mapping[str, str], *, first: bool
        ) -> Mitmdump:
            text = replaced((_EXAMPLES / name).read_text(), replacements)
            proxy = Example(text, upstream.url, ca, environment, ca.http_port if first else None)
            stack.callback(proxy.close)
            return proxy.start()

        yield start


def test_redis_cluster(example: StartExample, ca: Pebble, tmp_path: Path) -> None:
    """Two nodes on one Redis with TLS and a user with few rights; stored records are encrypted."""
    need("redis-server", "redis-cli")
    password = secrets.token_hex()
    environment = {"ACME_REDIS_PASSWORD": password, "ACME_STORAGE_KEY": Fernet.generate_key().decode()}
    with Redis(f"user acme on >{password} {_RULES}", tls=True) as redis:
        assert redis.ca
        replacements = {
            "redis.internal:6379": f"localhost:{redis.port}",
            "/etc/mitmproxy-acme/redis-ca.pem": str(redis.ca.bundle),
        }
        one = example("redis-cluster.yaml", replacements, environment, first=True)
        other = example("redis-cluster.yaml", replacements, environment, first=False)

        served = handshake(other.https_port, "www.example.com", ca.root())

        assert handshake(one.https_port, "www.example.com", ca.root()).leaf == served.leaf
        assert ca.seen().certificates == 1
        url = f"rediss://acme:{password}@localhost:{redis.port}/0?ssl_ca_certs={redis.ca.bundle}"
        store = open_storage(url, default_folder=tmp_path)
        for key in store.keys(""):
            assert b"PRIVATE KEY" not in (store.get(key) or b"")
        store.close()
    for node in (one, other):
        assert not [secret for secret in environment.values() if secret in node.log.read_text()]


def test_several_sites(example: StartExample, ca: Pebble, upstream: Upstream, tmp_path: Path) -> None:
    """Three sites, one over HTTPS and one on IPv6, and names without an entry at the mode's own upstream."""
    own = ThrowawayCA(tmp_path / "upstream")
    with Upstream() as www, Upstream(tls=own.server_context()) as api, Upstream(host="::1") as shop:
        replacements = {
            "http://127.0.0.1:8001": www.url,
            "https://api.internal:8443": f"https://localhost:{api.port}",
            "http://[::1]:8003": shop.url,
            "file:/var/lib/mitmproxy-acme": f"file:{tmp_path / 'store'}\nssl_verify_upstream_trusted_ca: {own.bundle}",
        }
        proxy = example("several-sites.yaml", replacements, {}, first=True)
        names = ("www.example.com", "api.example.com", "a.shop.example.com", "example.com")
        sites = (www, api, shop, upstream)
        for name in names:
            eventually(functools.partial(is_trusted, proxy.https_port, name, ca.root()), timeout=15)
            assert get(proxy.https_port, name, ca.root(), f"/{name}").startswith("HTTP/1.1 200 ")
        assert [site.requests[-1] for site in sites] == [f"GET {name} /{name}" for name in names]
        assert [len(site.requests) for site in sites[:3]] == [1, 1, 1]


def test_control_and_data(example: StartExample, ca: Pebble) -> None:
    """The data node's names, on demand and managed, come from the control node; it has no CA and no account."""
    need("postgres", "initdb")
    password = secrets.token_hex()
    keys = {name: Fernet.generate_key().decode() for name in ("ACME_STORAGE_KEY", "ACME_ACCOUNT_STORAGE_KEY")}
    environment = {"ACME_PG_PASSWORD": password} | keys
    with Postgresql() as server:
        _make_database(server.port, password)
        replacements = {"db.internal:5432": f"127.0.0.1:{server.port}"}
        data = example("data.yaml", replacements, environment, first=True)
        refused = time.monotonic()
        assert not is_trusted(data.https_port, "www.example.com", ca.root())  # managed, and not ordered yet
        assert time.monotonic() - refused < 3
        assert data.log.read_text().count("no control node is up, so nothing is ordered") == 1

        control = example("control.yaml", replacements, environment, first=False)

        eventually(lambda: is_trusted(data.https_port, "a.example.com", ca.root()), timeout=15)
        eventually(lambda: is_trusted(data.https_port, "www.example.com", ca.root()), timeout=15)
        assert not is_trusted(data.https_port, "a.b.example.com", ca.root())  # not allowed
        assert control.log.read_text().count(": certificate by ") == ca.seen().certificates == 2
        assert ": certificate by " not in data.log.read_text()

        control.kill()
        assert is_trusted(data.https_port, "a.example.com", ca.root())
        control.start()
        assert handshake(data.https_port, "c.example.com", ca.root()).names == ["c.example.com"]
    for node in (data, control):
        assert not [secret for secret in environment.values() if secret in node.log.read_text()]


def _make_database(port: int, password: str) -> None:
    login = make_conninfo(host="127.0.0.1", port=port, user="postgres", password=PASSWORD, dbname="postgres")
    with psycopg.connect(login, autocommit=True) as connection:
        connection.execute(f"create role acme login password '{password}'")
        connection.execute("create database acme owner acme")


def test_vault_approle(example: StartExample, ca: Pebble) -> None:
    """A node that logs in with the AppRole and the policy of the example's comment, over TLS."""
    with started(Bao(tls=True)) as vault:
        environment = _make_approle(vault, (_EXAMPLES / "vault-approle.yaml").read_text())
        replacements = {
            "vault.internal:8200": f"localhost:{vault.port}",
            "/etc/mitmproxy-acme/vault-ca.pem": str(vault.ca.bundle),
        }
        node = example("vault-approle.yaml", replacements, environment, first=True)

        served = handshake(node.https_port, "www.example.com", ca.root())

        node.restart()
        assert handshake(node.https_port, "www.example.com", ca.root()).leaf == served.leaf
        assert ca.seen().certificates == 1
    assert environment["ACME_VAULT_SECRET_ID"] not in node.log.read_text()


def _make_approle(vault: Bao, text: str) -> dict[str, str]:
    """Do what the example's comment says, and return the environment of the proxy."""
    policy = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#   path"))
    vault.request("PUT", "sys/policies/acl/acme", {"policy": policy})
    vault.request("POST", "secret/config", {"max_versions": 1})
    vault.request("POST", "sys/auth/approle", {"type": "approle"})
    vault.request("POST", "auth/approle/role/acme", {"token_policies": "acme", "token_ttl": "1h"})
    role_id = vault.request("GET", "auth/approle/role/acme/role-id")["data"]["role_id"]
    secret_id = vault.request("POST", "auth/approle/role/acme/secret-id")["data"]["secret_id"]
    return {"ACME_VAULT_ROLE_ID": role_id, "ACME_VAULT_SECRET_ID": secret_id}
