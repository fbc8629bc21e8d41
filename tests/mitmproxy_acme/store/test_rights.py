"""A data node with no more rights than ``examples/rights`` grants it: it works, and no account is open to it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from psycopg.conninfo import make_conninfo

from acme_storage import Storage, StorageUnavailable, open_storage
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.store.event_log import EventKind
from mitmproxy_acme.store.keys import account_key
from tests.mitmproxy_acme.fakes import DIRECTORY, Clock, FakeIssuer, make_certificate, manager_on
from tests.servers.bao import Bao
from tests.servers.base import started
from tests.servers.binaries import need
from tests.servers.consul import Consul
from tests.servers.postgresql import PASSWORD, Postgresql
from tests.servers.redis import Redis

RIGHTS = Path(__file__).resolve().parents[3] / "examples" / "rights"
KEY, ACCOUNT_KEY = (Fernet.generate_key().decode() for _ in range(2))
NAME = ServerName("a.example.test")


@contextmanager
def redis() -> Iterator[tuple[str, Callable[[], str]]]:
    """The URL of a control node, and what gives that of a data node once the control node has begun."""
    need("redis-server")
    text = (RIGHTS / "redis.acl").read_text().replace("DATA-PASSWORD", "two").replace("PASSWORD", "one")
    users = [line for line in text.splitlines() if line.startswith("user")]
    with started(Redis(*users)) as server:
        place = f"127.0.0.1:{server.port}"
        yield f"redis://acme:one@{place}", lambda: f"redis://acme-data:two@{place}"


@contextmanager
def vault() -> Iterator[tuple[str, Callable[[], str]]]:
    need("bao")
    with started(Bao()) as server:
        tokens = []
        for role in ("control", "data"):
            policy = (RIGHTS / f"vault-{role}.hcl").read_text()
            server.request("PUT", f"sys/policies/acl/{role}", {"policy": policy})
            tokens.append(server.request("POST", "auth/token/create", {"policies": [role]})["auth"]["client_token"])
        control, data = (f"vault://127.0.0.1:{server.port}/secret/acme?token={token}" for token in tokens)
        yield control, lambda: data


@contextmanager
def consul() -> Iterator[tuple[str, Callable[[], str]]]:
    need("consul")
    with started(Consul(acl=True)) as server:
        control = server.make_token('key_prefix "acme/" { policy = "write" }')
        data = server.make_token((RIGHTS / "consul-data.hcl").read_text())
        place = f"consul://127.0.0.1:{server.port}/acme?token="
        yield place + control, lambda: place + data


@contextmanager
def postgresql() -> Iterator[tuple[str, Callable[[], str]]]:
    need("postgres", "initdb")
    with started(Postgresql()) as server:
        place = {"host": "127.0.0.1", "port": str(server.port)}
        owner = make_conninfo(user="postgres", password=PASSWORD, dbname="postgres", **place)
        with psycopg.connect(owner, autocommit=True) as connection:
            for user in ("acme", "acme_data"):
                connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'x'")
            connection.execute("CREATE DATABASE acme OWNER acme")

        def grant() -> str:
            own = make_conninfo(user="acme", password="x", dbname="acme", **place)
            with psycopg.connect(own, autocommit=True) as connection:
                connection.execute((RIGHTS / "postgresql-data.sql").read_bytes())
            return f"postgresql://acme_data:x@127.0.0.1:{server.port}/acme"

        yield f"postgresql://acme:x@127.0.0.1:{server.port}/acme", grant


STORES: dict[str, Any] = {"redis": redis, "vault": vault, "consul": consul, "postgresql": postgresql}


@pytest.fixture(params=STORES)
def storages(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Storage, Storage]]:
    """The storage as a control node reaches it, and as a data node does."""
    with STORES[request.param]() as (control_url, data_url):
        control = open_storage(control_url, default_folder=tmp_path)
        control.put("probes/first", b"")
        data = open_storage(data_url(), default_folder=tmp_path)
        yield control, data
        for storage in (control, data):
            storage.close()


async def test_data_node_works_and_opens_no_account(storages: tuple[Storage, Storage]) -> None:
    """It serves what it asks for, answers challenges and shows its status; accounts and stolen keys are not its."""
    at_control, at_data = storages
    clock = Clock(time.time())
    issuer = FakeIssuer(clock)
    options: dict[str, Any] = {"acme_storage": "file:", "acme_storage_key": KEY, "acme_storage_sealed_only": True}
    control = manager_on(
        at_control, clock, issuer, acme_role="control", acme_account_storage_key=ACCOUNT_KEY, **options
    )
    data = manager_on(at_data, clock, FakeIssuer(clock), acme_role="data", **options)
    account = Account(DIRECTORY, "thumbprint", "https://ca.test/1", "{}")
    control.store.save_account(account)
    stolen = make_certificate(["stolen.example.test"], now=clock())
    control.store.save_compromised(stolen)
    proofs = Proof("http-01", "token", "token.x"), Proof("dns-01", "_acme-challenge.a.example.test", "x")
    for proof in proofs:
        control.store.put_proof(proof)

    at, of = control.make_cluster_sync(), data.make_cluster_sync()
    await at.sync()
    waiting = asyncio.ensure_future(data.certificate_for(NAME, on_demand=True))
    while not waiting.done():
        await at.sync()
        await of.sync()
        await asyncio.sleep(0.01)
    found = await waiting

    assert found is not None
    assert len(issuer.orders) == 1
    assert data.store.proofs({("http-01", "token")}) == {("http-01", "token"): "token.x"}
    assert data.store.txt_records() == {("_acme-challenge.a.example.test", "x")}
    at_data.put(f"probes/{data.node.id}", b"", ttl=60)
    assert at_data.get(f"probes/{data.node.id}") == b""
    await data.make_renewer()._round()
    assert await data.threads.storage(data.store.ids, limit=10) == [NAME]
    assert {node.role for node in data.nodes.list_up()} == {"control", "data"}
    await control.recorder.wait_idle()
    (obtained,) = data.event_log.read(clock(), {}).values()
    assert obtained is not None
    assert (obtained.kind, obtained.host) == (EventKind.OBTAINED, NAME)
    data.event_log.write(obtained)
    assert _read(at_data, account_key(DIRECTORY)) is None
    assert _read(at_data, f"compromised/{stolen.id}") is None
    _try_to_forge(at_data, account_key(DIRECTORY))
    _try_to_forge(at_data, f"compromised/{NAME}")
    assert control.store.account(DIRECTORY) == account
    assert control.store.compromised(NAME) is None
    for feed, manager in ((of, data), (at, control)):
        await feed.close()
        await manager.wait_idle()
        manager.threads.close()


def _read(storage: Storage, key: str) -> bytes | None:
    try:
        return storage.get(key)
    except StorageUnavailable:
        return None


def _try_to_forge(storage: Storage, key: str) -> None:
    with suppress(StorageUnavailable):
        storage.put(key, b"forged")
        raise AssertionError(f"it may write {key}")
